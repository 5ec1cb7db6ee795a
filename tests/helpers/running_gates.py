"""Running gates of the bundled reasoner that change their minds within a few tokens, and what the hooks make of a response."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.gate import Gate, RunningGate
from trimtab.model import LanguageModel
from trimtab.model.attach import attach
from trimtab.steering import Steering

FEATURES = 12
RUNNING: dict[str, dict[str, object]] = {
    "mean-open": {"memory": 0},
    "last-open": {"memory": 1, "release": 0.35},
    "mean-close": {"memory": 0, "action": "close", "after": 2},
    "slow-close": {"memory": 3, "action": "close", "release": 0.6},
    "slow-scale": {"memory": 4, "action": "scale", "release": 0.3},
    "last-and": {"memory": 1, "release": 0.45, "join": "and"},
    "last-or": {"memory": 1, "action": "scale", "after": 3, "join": "or"},
}
"""Statistic and action by name; the last two are joined with a gate of the question."""


def running_gates(model: LanguageModel, prompts: Sequence[list[int]], question: Gate) -> dict[str, RunningGate]:
    """Gates on neurons of all layers, each with weights by a fixed draw, so scaled that p(fail) swings around 0.5."""
    made = {}
    for seed, (name, settings) in enumerate(RUNNING.items()):
        rng = np.random.default_rng(seed)
        flat = rng.choice(model.identity.n_neurons, FEATURES, replace=False)
        layer, index = flat // model.d_ff, flat % model.d_ff
        scores = _activations(model, prompts, layer, index) @ (weight := rng.normal(size=FEATURES))
        scale = 2.0 / scores.std()
        gate = RunningGate(layer, index, (weight * scale).astype(np.float32), float(-scores.mean() * scale), threshold=0.5)
        joined = {"question": question} if "join" in settings else {}
        made[name] = replace(gate, **settings, **joined)
    return made


def _activations(
    model: LanguageModel, prompts: Sequence[list[int]], layer: NDArray[np.int64], index: NDArray[np.int64]
) -> NDArray[np.float64]:
    seen: dict[int, list[torch.Tensor]] = {each: [] for each in set(layer.tolist())}
    handles = [
        model.layout.down[each].register_forward_pre_hook(lambda _, inputs, each=each: seen[each].append(inputs[0][0]))
        for each in seen
    ]
    with torch.no_grad():
        for prompt in prompts:
            model.hf_model(torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    columns = [torch.cat(seen[at])[:, i] for at, i in zip(layer.tolist(), index.tolist(), strict=True)]
    return torch.stack(columns, 1).double().numpy()


class ByHooks(NamedTuple):
    """A response under the transformers hooks: log probabilities ``[token, vocab]``, p(fail) and g ``[token - 1]``."""

    logprobs: NDArray[np.float64]
    p: NDArray[np.float32] | None
    g: NDArray[np.float32] | None


def by_hooks(
    model: LanguageModel,
    steering: Steering | None,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    strength: float | None = None,
    gate: str = "auto",
) -> list[ByHooks]:
    """Score responses in one batch."""
    rows = [prompt + response[:-1] for prompt, response in zip(prompts, responses, strict=True)]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])

    def scored() -> NDArray[np.float64]:
        return model.hf_model(ids, attention_mask=mask).logits.log_softmax(-1).double().numpy()

    courses = None
    with torch.no_grad():
        if steering is None:
            table = scored()
        else:
            lengths = [len(prompt) for prompt in prompts]
            known = {"layout": model.layout, "identity": model.identity, "prompt_lengths": lengths, "gate": gate}
            with attach(model.hf_model, steering, strength=strength, **known) as attached:
                table = scored()
                courses = attached.courses if attached.runs else None
    found = []
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        own = table[i, len(prompt) - 1 : len(prompt) - 1 + len(response)]
        course = None if courses is None else courses[i]
        found.append(ByHooks(own, *((None, None) if course is None else (course.probability.numpy(), course.value.numpy()))))
    return found
