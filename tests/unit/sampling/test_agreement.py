"""The gap at the first token that differs, against a generation that says its logits."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from steering_samples import neuron_set
from tiny_testbed import settings
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.sampling import Generation, Request, generate_batch
from trimtab.sampling.agreement import Parting, partings
from trimtab.steering import Steering

REQUESTS = [Request("a", (5, 9, 12)), Request("b", (7, 8)), Request("c", (40, 41, 42, 43))]


@pytest.mark.parametrize("gate", ["on", "off"])
def test_the_gap_is_that_of_the_steered_logits(model: LanguageModel, gate) -> None:
    steering = Steering.of(neuron_set(model.identity), 1.0)
    answers = generate_batch(model, REQUESTS, settings(max_new_tokens=6), steering, gate)
    other = list(answers)
    ids = list(answers[1].response_ids)
    ids[-1] += 1
    other[1] = replace(answers[1], response_ids=tuple(ids))
    found = partings(model, REQUESTS, answers, other, steering, gate)
    assert [(p.id, p.step) for p in found] == [("b", len(ids) - 1)]
    expected = _gap_by_steps(model, REQUESTS[1], ids[:-1], steering if gate == "on" else None)
    assert found[0].gap == pytest.approx(expected, abs=1e-5)


def _gap_by_steps(model: LanguageModel, request: Request, response: list[int], steering: Steering | None) -> float:
    """Token by token with a cache, as a generation reads."""
    with steering.attach(model.hf_model) if steering else nullcontext(), torch.inference_mode():
        out = model.hf_model(input_ids=torch.tensor([request.prompt_ids]), use_cache=True)
        for token in response:
            out = model.hf_model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
    best = out.logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def test_an_answer_that_goes_on_parts_where_the_other_ends(model: LanguageModel) -> None:
    ours, theirs = [Generation("a", (3, 4), "length")], [Generation("a", (3, 4, 5), "length")]
    assert partings(model, REQUESTS[:1], ours, theirs)[0].step == 2
    assert partings(model, REQUESTS[:1], ours, ours) == []


def test_near_ties_and_answers_to_other_requests(model: LanguageModel) -> None:
    assert Parting("a", 0, 9e-4).near_tie
    assert not Parting("a", 0, 2e-3).near_tie
    with pytest.raises(InputError, match="keep their order"):
        partings(model, REQUESTS[:1], [Generation("b", (1,), "length")], [Generation("a", (1,), "length")])
