"""The models and traces that are measured, built from nothing."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from trimtab.model import LanguageModel, open_model
from trimtab.store import make_plan
from trimtab.testbed.random_model import byte_tokenizer, random_qwen3
from trimtab.traces import Trace


def save_random_model(folder: Path, layers: int, width: int, d_ff: int, *, endless: bool = False) -> Path:
    """A Qwen3 with random weights and a byte-level tokenizer.

    ``endless`` names an end token that the model cannot draw, so that every response runs to the limit and two runs do equal
    work.
    """
    tokenizer = byte_tokenizer()
    model = random_qwen3(tokenizer, layers, width, d_ff)
    if endless:
        tokenizer.add_special_tokens({"eos_token": "<never>"})
        model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def open_random_model(folder: Path, layers: int, width: int, d_ff: int, *, endless: bool = False) -> LanguageModel:
    """Saved into the folder and opened."""
    return open_model(save_random_model(folder, layers, width, d_ff, endless=endless))


def random_traces(model: LanguageModel, lengths: Sequence[int]) -> list[Trace]:
    """Traces of random tokens, a third of each its prompt."""
    generator = torch.Generator().manual_seed(0)
    traces = []
    for number, length in enumerate(lengths):
        ids = torch.randint(3, model.identity.vocab_size, (length + 1,), generator=generator).tolist()
        traces.append(Trace(f"t{number}/0", f"t{number}", 0, tuple(ids[: length // 3]), tuple(ids[length // 3 :]), "", "stop"))
    return traces


def spread(n: int, shortest: int, longest: int) -> list[int]:
    """``n`` lengths, spread evenly."""
    return [shortest + (longest - shortest) * i // max(1, n - 1) for i in range(n)]


def save_job(path: Path, traces: Sequence[Trace], batch_tokens: int, loop_tokens: int = 0) -> Path:
    """What a worker is told: token ids, the batches that ``record`` plans for them, and how much of a loop to run."""
    ids = [trace.id for trace in traces]
    plan = make_plan(ids, [len(t.prompt_ids) + len(t.response_ids) - 1 for t in traces], batch_tokens, {})
    number = {name: i for i, name in enumerate(ids)}
    job = {
        "traces": [{"prompt": trace.prompt_ids, "response": trace.response_ids} for trace in traces],
        "batches": [[number[name] for name in part] for part in plan.parts],
        "batch_tokens": batch_tokens,
        "loop_tokens": loop_tokens,
    }
    path.write_text(json.dumps(job))
    return path
