"""(a) Record over a bare forward, in tokens a second: the same batches, nothing recorded."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import Spent, in_turn, timed
from benchmarks.speed.workload import random_traces, spread
from trimtab.model import LanguageModel
from trimtab.recording import RecordingSettings, record_traces
from trimtab.store import Parts
from trimtab.traces import Trace

MOMENTS = {"means": ("sum",), "means and magnitudes": ("sum", "magnitude")}


def measure(twelve: LanguageModel, bundled: LanguageModel, sizes: Sizes) -> dict[str, dict[str, object]]:
    """Ratios by model and moments.

    The bare forward is the decoder stack without lm_head and cache, in inference mode, over the batches that ``record`` plans;
    the clock of ``record`` stops when the last part is on disk.
    """
    traces = {
        "12x768": (twelve, random_traces(twelve, spread(sizes.traces, sizes.shortest, sizes.longest))),
        "testbed": (bundled, random_traces(bundled, spread(sizes.testbed_traces, 40, 110))),
    }
    return {
        f"{name}, {label}": _speed(model, of_model, moments, sizes)
        for name, (model, of_model) in traces.items()
        for label, moments in MOMENTS.items()
    }


def _speed(model: LanguageModel, traces: Sequence[Trace], moments: tuple[str, ...], sizes: Sizes) -> dict[str, object]:
    settings = RecordingSettings(scopes=("response",), moments=moments, batch_tokens=sizes.batch_tokens)
    with tempfile.TemporaryDirectory() as planned:
        record_traces(model, traces, settings, Path(planned))

        def record() -> Spent:
            with tempfile.TemporaryDirectory() as folder:
                return timed(lambda: record_traces(model, traces, settings, Path(folder)))

        pairs = in_turn(lambda: timed(lambda: bare_forward(model, traces, Path(planned))), record, sizes.pairs)
    tokens = sum(len(t.prompt_ids) + len(t.response_ids) - 1 for t in traces)
    return {
        "what": "tokens a second of record over those of a bare forward",
        "tokens": tokens,
        "record_tokens_per_s": round(tokens / min(spent.wall for spent in pairs.b)),
        **pairs.to_json(),
    }


@torch.inference_mode()
def bare_forward(model: LanguageModel, traces: Sequence[Trace], planned: Path) -> None:
    """The batches of a recording's plan through the decoder stack."""
    by_id = {trace.id: trace for trace in traces}
    for ids in Parts(planned, ".safetensors").plan.parts:
        rows = [(*by_id[i].prompt_ids, *by_id[i].response_ids[:-1]) for i in ids]
        batch = torch.full((len(rows), max(map(len, rows))), cast("int", model.tokenizer.pad_token_id))
        for row, tokens in enumerate(rows):
            batch[row, : len(tokens)] = torch.tensor(tokens)
        model.layout.base(input_ids=batch.to(model.device), use_cache=False)
