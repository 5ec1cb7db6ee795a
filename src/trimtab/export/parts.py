"""The parts of a steering, which target carries which, and what is refused or dropped on the way."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from trimtab.directions import layers_in_words
from trimtab.errors import InputError
from trimtab.gate import ALWAYS
from trimtab.steering import Steering

Part = Literal["gain", "shift", "direction", "layer-0", "scope", "gate"]
TargetName = Literal["lora", "ia3", "merged", "gguf", "adaras-csv", "json", "lm-eval"]
PARTS: tuple[Part, ...] = get_args(Part)
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)
EngineName = Literal["own", "vllm"]
"""Who opens an export to verify it: the loader that the target is made for, or vLLM."""
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)

CARRIES: Mapping[TargetName, frozenset[Part]] = MappingProxyType(
    {
        "lora": frozenset({"gain", "layer-0"}),
        "ia3": frozenset({"gain", "layer-0"}),
        "merged": frozenset({"gain", "shift", "layer-0"}),
        "gguf": frozenset({"shift", "direction"}),
        "adaras-csv": frozenset({"shift", "layer-0", "scope"}),
        "json": frozenset({"gain", "shift", "layer-0", "scope"}),
        "lm-eval": frozenset({"shift", "layer-0"}),
    }
)
"""What the format of a target can say. A model or a steering can narrow it: a bias that the architecture lacks, a gain that is no
intervention's.
"""


def parts_of(steering: Steering) -> dict[Part, str]:
    """The parts that a steering has beside a plain change at every position, each in words.

    ``layer-0`` is what it does in the first layer, which one format cannot address.
    """
    gain, shift = steering.gain != 0, steering.shift != 0
    first = (steering.layer == 0) & (gain | shift)
    along = steering.direction_layer
    found: dict[Part, str] = {}
    if gain.any():
        found["gain"] = f"the gains of {int(gain.sum())} neurons"
    if shift.any():
        found["shift"] = f"the shifts of {int(shift.sum())} neurons"
    if steering.has_directions:
        found["direction"] = f"the direction after {layers_in_words(along)}"
    if first.any() or (along == 0).any():
        found["layer-0"] = " and ".join(
            [f"the {int(first.sum())} neurons of layer 0"] * bool(first.any())
            + ["the direction after layer 0"] * bool((along == 0).any())
        )
    if steering.scope != "all":
        found["scope"] = f"the scope {steering.scope}"
    if steering.gate.kind != "always":
        found["gate"] = f"the gate ({steering.gate.label})"
    return found


def targets_with(part: Part) -> str:
    """The targets that carry a part, in words."""
    able = [name for name, carried in CARRIES.items() if part in carried]
    return ", ".join(able) or "none; Steering.attach steers with it in transformers"


def expressible(steering: Steering, target: TargetName, drop: Collection[Part] = ()) -> Steering:
    """The steering without the dropped parts; the target carries all that is left.

    Args:
        drop: parts to leave out. Without the scope it acts at every position, without the gate on every prompt, without
            ``layer-0`` on the other layers alone.

    Raises:
        InputError: a part that the target cannot carry and that is not dropped, a part to drop that the steering lacks, or
            nothing left.

    Example:
        >>> from trimtab.neurons import ModelIdentity
        >>> model = ModelIdentity("m", None, "qwen3", "f", n_layers=2, d_model=4, d_ff=8, vocab_size=9)
        >>> one = np.ones(1, np.float32)
        >>> steering = Steering(np.array([1]), np.array([3]), -one, one, 0.5, "generated", ALWAYS, model)
        >>> expressible(steering, "lora", drop=["shift", "scope"]).scope
        'all'
        >>> expressible(steering, "lora", drop=["scope"])
        Traceback (most recent call last):
        trimtab.errors.InputError: ...
    """
    found = parts_of(steering)
    if steering.gate.kind == "never" or steering.strength == 0:
        raise InputError(
            "this steering never steers (gate never, or strength 0), so an export of it would change nothing", code="never-steers"
        )
    if absent := {*drop} - {*found}:
        raise InputError(f"this steering has no {', '.join(sorted(absent))} to drop; it has {', '.join(found)}")
    carried = CARRIES[target].union(drop)
    refused: list[Part] = [part for part in PARTS if part in found.keys() - carried]
    if refused:
        lines = [f"  {found[part]}; targets that can: {targets_with(part)}" for part in refused]
        fix = " ".join(f"--drop {part}" for part in refused)
        raise InputError(
            f"{target} cannot express\n" + "\n".join(lines) + f"\nFix: choose another target, or leave it out with {fix} "
            "(trimtab verify then measures what that costs)",
            code="export-cannot-express",
        )
    return _without(steering, drop)


def _without(steering: Steering, drop: Collection[Part]) -> Steering:
    gain = np.zeros_like(steering.gain) if "gain" in drop else steering.gain
    shift = np.zeros_like(steering.shift) if "shift" in drop else steering.shift
    kept = np.ones(len(steering.layer), bool)
    if {"gain", "shift", "layer-0"} & {*drop}:
        kept = ((gain != 0) | (shift != 0)) & ~((steering.layer == 0) & ("layer-0" in drop))
    along = np.full(len(steering.direction_layer), "direction" not in drop)
    along &= ~((steering.direction_layer == 0) & ("layer-0" in drop))
    if not (kept.any() or along.any()):
        raise InputError(f"without {', '.join(drop)} nothing of this steering is left to export; choose another target")
    return replace(
        steering,
        layer=steering.layer[kept],
        index=steering.index[kept],
        gain=gain[kept],
        shift=shift[kept],
        direction_layer=steering.direction_layer[along],
        direction=steering.direction[along],
        scope="all" if "scope" in drop else steering.scope,
        gate=ALWAYS if "gate" in drop else steering.gate,
    )
