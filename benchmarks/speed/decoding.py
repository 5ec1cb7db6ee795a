"""(b) Steered decode over unsteered: the same loop, with and without a steering, step by step."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import rounded
from benchmarks.speed.workload import random_traces
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel
from trimtab.sampling import Request, SamplingSettings, generate_batch
from trimtab.steering import Steering

PROMPT_TOKENS = 16


def measure(model: LanguageModel, sizes: Sizes) -> dict[str, dict[str, object]]:
    """Ratios by batch and K, on a model whose responses never end.

    Each decode step of a steered run is divided by the same step of the unsteered run beside it, and the ratio is the median over
    all steps of all repetitions: a pause of the machine spoils the steps it falls on and no others.
    """
    settings = SamplingSettings(n=1, temperature=1.0, max_new_tokens=sizes.steps + 1)
    found = {}
    for batch in sizes.batches:
        requests = [Request(t.id, t.prompt_ids, i) for i, t in enumerate(random_traces(model, [3 * PROMPT_TOKENS] * batch))]
        steerings = {k: spread_steering(model, k) for k in sizes.ks}
        generate_batch(model, requests, settings)
        ratios: dict[int, list[NDArray[np.float64]]] = {k: [] for k in sizes.ks}
        bare = []
        for _ in range(sizes.pairs):
            unsteered = step_seconds(model, lambda requests=requests: generate_batch(model, requests, settings))
            bare.append(np.median(unsteered[:, 0]))
            for k, steering in steerings.items():
                steered = step_seconds(
                    model, lambda requests=requests, steering=steering: generate_batch(model, requests, settings, steering)
                )
                ratios[k].append(steered / unsteered)
        for k, by_repetition in ratios.items():
            steps = np.concatenate(by_repetition)
            found[f"batch {batch}, K {k}"] = {
                "what": "seconds a steered decode step over those of an unsteered one",
                "ratio": rounded(float(np.median(steps[:, 0]))),
                "processor_ratio": rounded(float(np.median(steps[:, 1]))),
                "ratio_by_repetition": [rounded(float(np.median(step[:, 0]))) for step in by_repetition],
                "unsteered_step_ms": rounded(1e3 * float(np.median(bare))),
            }
    return found


def spread_steering(model: LanguageModel, k: int) -> Steering:
    """K neurons drawn from all layers, shifted by next to nothing: what is measured is the cost."""
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.choice(model.n_layers * model.d_ff, k, replace=False))
    shift = (1e-4 * generator.standard_normal(k)).astype(np.float32)
    return Steering(
        chosen // model.d_ff,
        chosen % model.d_ff,
        np.zeros(k, np.float32),
        shift,
        1.0,
        "generated",
        ALWAYS,
        model.identity,
    )


def step_seconds(model: LanguageModel, generate: Callable[[], object]) -> NDArray[np.float64]:
    """Wall-clock and processor seconds of each decode step ``[step, clock]``, from one forward's start to the next one's."""
    starts: list[tuple[float, float]] = []
    handle = model.hf_model.register_forward_pre_hook(lambda *_: starts.append((time.perf_counter(), time.process_time())))
    try:
        generate()
    finally:
        handle.remove()
    return np.diff(np.array(starts)[1:], axis=0)  # without the prefill
