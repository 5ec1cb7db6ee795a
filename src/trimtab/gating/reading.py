"""p(fail) of prompts that were not recorded: one forward over them, nothing on disk."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.gate import AnyGate, AttentionGate, PromptScope, RandomOpening, RunningGate
from trimtab.model import LanguageModel
from trimtab.recording import batch_features, prompt_traces
from trimtab.store import make_plan

Prompts = Mapping[str, tuple[int, ...]]
"""Token ids by problem id."""


def predict(model: LanguageModel, gate: AnyGate, prompts: Prompts, *, batch_tokens: int = 16_384) -> dict[str, float]:
    """The gate's p(fail) by problem id, as it would read these prompts before answering them.

    Args:
        batch_tokens: bounds rows x longest prompt of one forward.

    Raises:
        InputError: a prompt that cannot be forwarded, a neuron that the model has not, or a gate that reads responses.
    """
    if isinstance(gate, RunningGate | RandomOpening):
        raise InputError(f"a gate {gate.label} says nothing of a prompt; give one that reads prompts, of study.fit_gate()")
    if not gate.reads:
        return dict.fromkeys(prompts, 1.0 if gate.kind == "always" else 0.0)
    tokens = read_prompts(model, prompts, gate.layer, gate.index, gate.scope, batch_tokens=batch_tokens)
    if isinstance(gate, AttentionGate):
        probability = gate.probability(tokens)
    else:
        probability = gate.probability(np.stack([rows.mean(axis=0) for rows in tokens]))
    return dict(zip(prompts, probability.tolist(), strict=True))


def read_prompts(
    model: LanguageModel,
    prompts: Prompts,
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
    scope: PromptScope,
    *,
    batch_tokens: int = 16_384,
) -> list[NDArray[np.float32]]:
    """Activations of some neurons at the tokens of each prompt, float32 ``[token, feature]``, in the order of ``prompts``."""
    traces = {trace.id: trace for trace in prompt_traces(dict(prompts))}
    plan = make_plan(list(traces), [len(trace.prompt_ids) for trace in traces.values()], batch_tokens, {})
    found: dict[str, NDArray[np.float32]] = {}
    for part in plan.parts:
        rows = batch_features(model, [traces[name] for name in part], layer, index, scope)
        found.update(zip(part, rows, strict=True))
    return [found[name] for name in prompts]
