"""Record over a bare forward, as ratios in one run: ``python benchmarks/record_speed.py``.

The bare forward is the decoder stack without lm_head and cache, in inference mode, over the batches that ``record`` plans. The
clock of record stops when the last part is on disk. Both run in turn, A B A B, and the ratio is the median over pairs.
"""

import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from trimtab.model import OpenModel, open_model
from trimtab.recording import RecordingSettings, record_batch, record_traces
from trimtab.store import Parts
from trimtab.testbed.random_model import byte_tokenizer, random_qwen3
from trimtab.traces import Trace

MOMENTS = {"means": ("sum",), "means and magnitudes": ("sum", "magnitude")}


def make_traces(opened: OpenModel, n: int, shortest: int, longest: int) -> list[Trace]:
    """Traces of random tokens with lengths spread evenly."""
    generator = torch.Generator().manual_seed(0)
    traces = []
    for i in range(n):
        length = shortest + (longest - shortest) * i // max(1, n - 1)
        ids = torch.randint(3, opened.identity.vocab_size, (length,), generator=generator).tolist()
        traces.append(Trace(f"t{i}/0", f"t{i}", 0, tuple(ids[: length // 3]), tuple(ids[length // 3 :]), "", "stop"))
    return traces


@torch.inference_mode()
def bare_forward(opened: OpenModel, traces: Sequence[Trace], folder: Path) -> None:
    """The same batches through the decoder stack, nothing recorded."""
    by_id = {trace.id: trace for trace in traces}
    for ids in Parts(folder, ".safetensors").plan.parts:
        rows = [(*by_id[i].prompt_ids, *by_id[i].response_ids[:-1]) for i in ids]
        batch = torch.full((len(rows), max(map(len, rows))), opened.tokenizer.pad_token_id)
        for row, tokens in enumerate(rows):
            batch[row, : len(tokens)] = torch.tensor(tokens)
        opened.layout.base(input_ids=batch.to(opened.device), use_cache=False)


def timed_pair(opened: OpenModel, traces: Sequence[Trace], settings: RecordingSettings) -> tuple[float, float]:
    """Seconds of (record, bare forward) over the same plan."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        record_traces(opened, traces, settings, Path(folder))
        middle = time.perf_counter()
        bare_forward(opened, traces, Path(folder))
        return middle - start, time.perf_counter() - middle


def speed(opened: OpenModel, traces: Sequence[Trace], moments: tuple[str, ...], pairs: int) -> dict[str, float]:
    """Tokens per second of both and the median ratio."""
    settings = RecordingSettings(scopes=("response",), moments=moments, batch_tokens=8_192)
    timed_pair(opened, traces, settings)
    seconds = [timed_pair(opened, traces, settings) for _ in range(pairs)]
    tokens = sum(len(t.prompt_ids) + len(t.response_ids) - 1 for t in traces)
    ratios = sorted(bare / record for record, bare in seconds)
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(ratios[0], 4),
        "ratio_max": round(ratios[-1], 4),
        "record_tokens_per_s": round(tokens / statistics.median(s[0] for s in seconds)),
        "bare_tokens_per_s": round(tokens / statistics.median(s[1] for s in seconds)),
    }


def stored_bytes(opened: OpenModel, length: int) -> int:
    """Bytes of moments kept for one trace of a length: the same for every length."""
    moments = record_batch(opened, make_traces(opened, 1, length, length), ("response",), ("sum", "magnitude"))["response"]
    return sum(array.nbytes for array in (moments.sum, moments.magnitude) if array is not None)


@click.command()
@click.option("--pairs", default=5, show_default=True)
def main(pairs: int) -> None:
    """Print one JSON object: machine, versions, ratios, and what is kept per trace length."""
    models = {"bundled": open_model("testbed:reasoner")}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = byte_tokenizer()
        random_qwen3(tokenizer, 12, 768, 2048).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        models["12 x 768 x 2048"] = open_model(folder)
    shapes = {"bundled": (400, 40, 110), "12 x 768 x 2048": (6, 300, 900)}
    table = {
        f"{name}, {label}": speed(opened, make_traces(opened, *shapes[name]), moments, pairs)
        for name, opened in models.items()
        for label, moments in MOMENTS.items()
    }
    kept = {length: stored_bytes(models["bundled"], length) for length in (64, 256, 1024, 4096)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    machine = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    click.echo(
        json.dumps(
            {**machine, "record over bare forward": table, "bytes kept per trace by length": kept, "peak_mb": peak}, indent=2
        )
    )


if __name__ == "__main__":
    main()
