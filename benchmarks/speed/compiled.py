"""``torch.compile`` and steering: a compiled steered forward beside a compiled unsteered one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.speed.decoding import spread_steering
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import in_turn, timed
from benchmarks.speed.workload import save_random_model
from trimtab.model import attach, open_model

LAYERS, K = 2, 50
"""Compiling takes seconds a layer, and the ratio is of the stack."""
TOLERANCE = 1e-4


@torch.inference_mode()
def measure(sizes: Sizes, workshop: Path) -> dict[str, object]:
    """One forward that scores a batch, from two copies of a model: entering ``attach`` drops what was compiled before.

    Raises:
        ClickException: the compiled steered model gives other logits than the steered one that is not compiled.
    """
    folder = save_random_model(workshop / "compiled", LAYERS, sizes.width, sizes.d_ff)
    model, other = open_model(folder), open_model(folder)
    rows, tokens = sizes.compiled
    ids = torch.randint(3, model.identity.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def scored(forward: Callable[..., Any]) -> Tensor:
        return forward(input_ids=ids, use_cache=False).logits

    with attach(
        model.hf_model,
        spread_steering(model, K),
        layout=model.layout,
        identity=model.identity,
        prompt_lengths=[tokens // 2] * rows,
    ):
        expected = scored(model.hf_model)
        steered, plain = (torch.compile(one.hf_model, dynamic=False) for one in (model, other))
        difference = float((scored(steered) - expected).abs().max())
        effect = float((scored(plain) - expected).abs().max())
        if not difference < min(TOLERANCE, effect / 2):
            raise click.ClickException(f"compiled steering is off by {difference:.3g}, where it changes logits by {effect:.3g}")
        pairs = in_turn(lambda: timed(lambda: scored(steered)), lambda: timed(lambda: scored(plain)), sizes.pairs)
        eager = in_turn(lambda: timed(lambda: scored(model.hf_model)), lambda: timed(lambda: scored(steered)), sizes.pairs)
    return {
        "what": f"seconds of a compiled steered forward over those of a compiled unsteered one, {LAYERS} layers, K {K}",
        **pairs.to_json(),
        "largest_difference_to_eager": float(f"{difference:.2g}"),
        "largest_effect": float(f"{effect:.2g}"),
        "eager_over_compiled": eager.to_json()["ratio"],
    }
