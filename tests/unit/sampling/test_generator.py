"""Any generator can answer: a fake one in the verbs, its facts in their plans, and the transformers one as the loop itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from steering_samples import CoinGrader, logistic, neuron_set
from tiny_testbed import settings, some_problems, tree_bytes
from trimtab.errors import ConfigError
from trimtab.evaluation.runner import Condition, evaluate_condition
from trimtab.model import LanguageModel
from trimtab.moments import Moments, TokenScope
from trimtab.recording import RecordingSettings, StreamedParts, choose_traces
from trimtab.sampling import (
    TRANSFORMERS,
    Generation,
    RecordedGenerations,
    Request,
    SamplingSettings,
    generate_batch,
    plan_requests,
    sample_traces,
)
from trimtab.steering import Steering
from trimtab.traces import Split

SAMPLED = settings(n=2, temperature=1.0)
PROBLEMS = some_problems(5, Split.VALIDATION)
WORD = 30


class Fake:
    """Answers each request with one word as many times as its prompt has tokens, and says that the gate saw 0.25 or 0.75."""

    def __init__(self, version: str = "1") -> None:
        self.facts = {"engine": {"name": "fake", "version": version}}
        self.asked: list[tuple[int, Steering | None, str]] = []

    def generate(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        steering=None,
        gate="auto",
        prefills=None,
        drafts=None,
    ) -> list[Generation]:
        self.asked.append((len(requests), steering, gate))
        reads = steering is not None and gate == "auto"
        return [
            Generation(r.id, (WORD,) * len(r.prompt_ids), "stop", (0.25, 0.75)[i % 2] if reads else None)
            for i, r in enumerate(requests)
        ]

    def generate_recorded(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        scopes: Sequence[TokenScope],
        moments: Sequence[str],
    ) -> RecordedGenerations:
        n = np.array([len(r.prompt_ids) for r in requests])
        sums = np.ones((len(n), model.n_layers, model.d_ff), np.float32) * n[:, None, None]
        found = {scope: Moments(n - 1, **dict.fromkeys(moments, sums)) for scope in scopes}
        return RecordedGenerations(self.generate(model, requests, settings), found)


def test_what_a_generator_answers_becomes_traces(model: LanguageModel, tmp_path: Path) -> None:
    fake = Fake()
    traces = sample_traces(model, PROBLEMS, SAMPLED, tmp_path, generator=fake)
    assert [t.response_ids for t in traces] == [(WORD,) * len(t.prompt_ids) for t in traces]
    assert sum(n for n, _, _ in fake.asked) == 10
    assert len(fake.asked) > 1
    assert all(steering is None for _, steering, _ in fake.asked)


def test_its_moments_become_a_recording(model: LanguageModel, tmp_path: Path) -> None:
    wanted = RecordingSettings(scopes=("response", "all"), moments=("sum",))
    moments = StreamedParts(model, wanted, tmp_path / "moments")
    traces = sample_traces(model, PROBLEMS, SAMPLED, tmp_path / "traces", moments=moments, generator=Fake())
    recording = choose_traces(tmp_path / "moments", traces)
    found = {i: (count, total) for ids, m in recording.stream("all") for i, count, total in zip(ids, m.count, m.sum, strict=True)}
    for trace in traces:
        count, total = found[trace.id]
        assert count == len(trace.prompt_ids) - 1
        np.testing.assert_array_equal(total, np.full((model.n_layers, model.d_ff), len(trace.prompt_ids), np.float32))


def test_an_condition_hands_on_its_steering_and_keeps_what_the_gate_saw(model: LanguageModel, tmp_path: Path) -> None:
    steering = Steering.of(neuron_set(model.identity), 1.0, gate=logistic(0.5))
    fake = Fake()
    outcomes = evaluate_condition(
        model, Condition("gated", steering, "auto"), PROBLEMS, settings(), CoinGrader(), tmp_path, generator=fake
    )
    assert {(o.p_fail, o.fired) for o in outcomes} == {(0.25, False), (0.75, True)}
    assert {(s, gate) for _, s, gate in fake.asked} == {(steering, "auto")}


@pytest.mark.parametrize("other", [TRANSFORMERS, Fake("2")])
def test_parts_of_two_engines_are_never_mixed(model: LanguageModel, tmp_path: Path, other) -> None:
    sample_traces(model, PROBLEMS, SAMPLED, tmp_path / "traces", generator=Fake())
    with pytest.raises(ConfigError, match="another plan: engine"):
        sample_traces(model, PROBLEMS, SAMPLED, tmp_path / "traces", generator=other)
    condition = Condition("a", None)
    evaluate_condition(model, condition, PROBLEMS, settings(), CoinGrader(), tmp_path / "condition", generator=Fake())
    with pytest.raises(ConfigError, match="another plan: engine"):
        evaluate_condition(model, condition, PROBLEMS, settings(), CoinGrader(), tmp_path / "condition", generator=other)


def test_the_transformers_generator_is_the_loop_and_leaves_plans_alone(model: LanguageModel, tmp_path: Path) -> None:
    requests, plan = plan_requests(model, PROBLEMS, SAMPLED)
    assert plan.digest == plan_requests(model, PROBLEMS, SAMPLED, facts=TRANSFORMERS.facts)[1].digest
    batch = list(requests.values())
    steering = Steering.of(neuron_set(model.identity), 1.0, gate=logistic(0.5))
    assert TRANSFORMERS.generate(model, batch, SAMPLED, steering, "on") == generate_batch(model, batch, SAMPLED, steering, "on")
    assert TRANSFORMERS.generate_recorded(model, batch, SAMPLED, ("all",), ("sum",)).generations == generate_batch(
        model, batch, SAMPLED
    )
    sample_traces(model, PROBLEMS, SAMPLED, tmp_path / "said", generator=TRANSFORMERS)
    sample_traces(model, PROBLEMS, SAMPLED, tmp_path / "unsaid")
    assert tree_bytes(tmp_path / "said") == tree_bytes(tmp_path / "unsaid")
