"""The shares of a batch that are padding and repeated questions, on real traces whose file is given."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.sizes import Sizes
from trimtab.model import LanguageModel
from trimtab.recording import RecordingSettings
from trimtab.sampling import import_traces
from trimtab.store import make_plan
from trimtab.traces import Trace

PIECES = re.compile(r"\d|\w+|[^\w\s]")
"""Digits, words and signs: about as many as a vocabulary of 150,000 makes tokens of mathematical English. A random model's own
tokenizer makes a token of every byte, four times as many, and longer traces waste less."""


def measure(model: LanguageModel, file: Path, sizes: Sizes) -> dict[str, dict[str, object]]:
    """Of the batches that ``record`` plans for the traces of a file.

    Args:
        model: its tokenizer turns the text into tokens: bytes, for a random model.
        file: JSON lines or Parquet as ``trimtab run`` accepts them.
        sizes: the budget of a batch, doubled up to that of the default setting.
    """
    _, traces = import_traces(file, model)
    by_tokens = [(len(trace.prompt_ids), len(trace.response_ids) - 1) for trace in traces]
    by_pieces = [(_pieces(str(model.tokenizer.decode(list(trace.prompt_ids)))), _pieces(trace.text)) for trace in traces]
    return {"bytes": _waste(traces, by_tokens, sizes), "words, digits and signs": _waste(traces, by_pieces, sizes)}


def _waste(traces: Sequence[Trace], lengths: Sequence[tuple[int, int]], sizes: Sizes) -> dict[str, object]:
    """Lengths are of prompt and response."""
    length = {trace.id: prompt + response for trace, (prompt, response) in zip(traces, lengths, strict=True)}
    total = sum(length.values())
    padding = {}
    for budget in (sizes.batch_tokens, RecordingSettings().batch_tokens, 4 * RecordingSettings().batch_tokens):
        parts = make_plan(list(length), list(length.values()), budget, {}).parts
        positions = sum(len(part) * max(length[i] for i in part) for part in parts)
        padding[f"padding_{budget}"] = round(1 - total / positions, 4)
    siblings: dict[str, list[int]] = defaultdict(list)
    for trace in traces:
        siblings[trace.problem_id].append(length[trace.id])
    repeated = sum(p * (1 - 1 / len(siblings[t.problem_id])) for t, (p, _) in zip(traces, lengths, strict=True))
    return {
        "what": "padding of all positions, by batch_tokens and in a batch a problem; tokens that repeat a question",
        "traces": len(traces),
        "tokens": total,
        **padding,
        "padding_of_problems": round(1 - total / sum(len(own) * max(own) for own in siblings.values()), 4),
        "repeated_prefix": round(repeated / total, 4),
    }


def _pieces(text: str) -> int:
    return len(PIECES.findall(text))
