"""Share of forwarded positions that are padding, on real traces whose file is given."""

from pathlib import Path

from benchmarks.speed.sizes import Sizes
from trimtab.model import OpenModel
from trimtab.recording import RecordingSettings
from trimtab.sampling import import_traces
from trimtab.store import make_plan


def measure(opened: OpenModel, file: Path, sizes: Sizes) -> dict[str, object]:
    """Of the batches that ``record`` plans for the traces of a file, tokenised for the model.

    Args:
        opened: its tokenizer turns the text into tokens: bytes, for a random model, so lengths are those of the text.
        file: JSON lines or Parquet as ``trimtab run`` accepts them.
        sizes: the budget of a batch, doubled up to that of the default setting.
    """
    _, traces = import_traces(file, opened)
    lengths = {trace.id: len(trace.prompt_ids) + len(trace.response_ids) - 1 for trace in traces}
    tokens = sum(lengths.values())
    waste = {}
    for budget in (sizes.batch_tokens, RecordingSettings().batch_tokens, 4 * RecordingSettings().batch_tokens):
        parts = make_plan(list(lengths), list(lengths.values()), budget, {}).parts
        forwarded = sum(len(part) * max(lengths[i] for i in part) for part in parts)
        waste[str(budget)] = round(1 - tokens / forwarded, 4)
    return {"what": f"padding of all forwarded positions, {len(traces)} traces, by batch_tokens", "tokens": tokens, **waste}
