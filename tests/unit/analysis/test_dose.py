"""The dose of a steering: against a loop over tokens and neurons on every family, and by hand."""

import numpy as np
import pytest
import torch

from analysis_samples import model, trace
from tiny_models import FAMILIES, MIXTURES
from trimtab.analysis.dose import measure_doses
from trimtab.directions import Directions
from trimtab.dose import FACT, Dose
from trimtab.errors import InputError, ModelError, NotEnoughDataError
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel, down_weights
from trimtab.steering import Steering
from trimtab.traces import Trace

TRACES = [trace("a", 4, 6), trace("b", 3, 2), trace("c", 5, 9), trace("d", 3, 1)]
"""The last has no forwarded response token."""


def steering_of(opened: LanguageModel, layer: list[int], gain: float, strength: float = 1.0) -> Steering:
    n = len(layer)
    index = np.arange(n) * 7 % opened.d_ff
    shift = np.linspace(2.0, -1.5, n).astype(np.float32)
    return Steering(np.array(layer), index, np.full(n, gain, np.float32), shift, strength, "generated", ALWAYS, opened.identity)


def naive(opened: LanguageModel, steering: Steering, traces: list[Trace]) -> dict[int, float]:
    """One forward a trace, one position after the other, from what enters and leaves the down projection."""
    edit, written = dict.fromkeys(range(opened.n_layers), 0.0), dict.fromkeys(range(opened.n_layers), 0.0)
    for one in traces:
        seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        hooks = [
            module.register_forward_hook(
                lambda _, inputs, output, layer=layer, seen=seen: seen.update({layer: (inputs[0], output)})
            )  # type: ignore[union-attr]
            for layer, module in enumerate(opened.layout.modules)
        ]
        ids = torch.tensor([[*one.prompt_ids, *one.response_ids[:-1]]])
        with torch.inference_mode():
            opened.hf_model(input_ids=ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        for layer in set(steering.layer.tolist()):
            columns = torch.from_numpy(down_weights(opened, [layer])[layer])
            rows = [i for i in range(len(steering)) if steering.layer[i] == layer]
            before, after = (part.reshape(ids.shape[1], -1) for part in seen[layer])
            for position in range(len(one.prompt_ids), ids.shape[1]):
                change = torch.zeros(columns.shape[0])
                for i in rows:
                    neuron = int(steering.index[i])
                    change += (steering.gain[i] * before[position, neuron] + steering.shift[i]) * columns[:, neuron]
                edit[layer] += float(change.square().sum())
                written[layer] += float(after[position].square().sum())
    return {layer: (edit[layer] / written[layer]) ** 0.5 for layer in sorted(set(steering.layer.tolist()))}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in MIXTURES])
def test_the_dose_is_that_of_a_loop(family: str) -> None:
    opened = model(family)
    steerings = [steering_of(opened, [2, 0, 2], 0.0, strength=5.0), steering_of(opened, [1, 2], -0.5)]
    doses = measure_doses(opened, steerings, TRACES, batch_tokens=20)
    for dose, steering in zip(doses, steerings, strict=True):
        expected = naive(opened, steering, TRACES[:3])
        assert dose.layer == tuple(expected)
        assert dose.tokens == 5 + 1 + 8
        np.testing.assert_allclose(dose.unit, list(expected.values()), rtol=1e-4)


def test_without_gains_it_is_the_norm_of_the_written_shift_over_that_of_the_output() -> None:
    opened = model("qwen3")
    steering = steering_of(opened, [1, 1], 0.0)
    (dose,) = measure_doses(opened, [steering], TRACES)
    written = down_weights(opened, [1])[1][:, steering.index] @ steering.shift
    outputs: list[torch.Tensor] = []
    module = opened.layout.modules[1]
    assert module is not None
    with module.register_forward_hook(lambda _, inputs, output: outputs.append(output[0])):
        for one in TRACES[:3]:
            with torch.inference_mode():
                opened.hf_model(input_ids=torch.tensor([[*one.prompt_ids, *one.response_ids[:-1]]]), use_cache=False)
    rows = torch.cat([each[len(one.prompt_ids) :] for each, one in zip(outputs, TRACES, strict=False)])
    size = float(rows.square().sum(-1).mean().sqrt())
    assert dose.largest == pytest.approx(float(np.linalg.norm(written)) / size, rel=1e-4)


def test_what_has_no_dose_is_refused() -> None:
    with pytest.raises(ModelError, match="mixture of experts"):
        measure_doses(model("mixtral"), [], TRACES)
    opened = model("qwen3")
    along = Directions(np.array([0]), np.ones((1, opened.layout.d_model), np.float32), "mean-difference", opened.identity)
    with pytest.raises(ModelError, match="a direction in the residual stream has another measure"):
        measure_doses(opened, [along.steering(0.5)], TRACES)
    with pytest.raises(NotEnoughDataError, match="two response tokens"):
        measure_doses(opened, [steering_of(opened, [0], 0.0)], TRACES[3:])


def test_the_dose_is_linear_in_the_strength_and_survives_an_artifact() -> None:
    dose = Dose((0, 3), (0.125, 0.25), 800)
    assert (dose.at(-2.0), dose.at(0.0), dose.most(0.5)) == (0.5, 0.0, 2.0)
    assert Dose.of({FACT: dose.facts()}) == dose
    assert Dose.of({}) is None
    assert Dose((0,), (0.0,), 1).most(0.5) == float("inf")


@pytest.mark.parametrize("unit", [(), (0.1, 0.2), (-0.1,), (float("nan"),), (float("inf"),)])
def test_what_is_no_dose_is_refused(unit: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="a dose needs one finite number"):
        Dose((0,), unit, 1)


@pytest.mark.parametrize(
    "fact", [3, {}, {"layer": [0], "unit": ["much"], "tokens": 1}, {"layer": [0], "unit": [-1.0], "tokens": 1}]
)
def test_a_damaged_fact_is_named(fact: object) -> None:
    with pytest.raises(InputError, match="dose"):
        Dose.of({FACT: fact})
