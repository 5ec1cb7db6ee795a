"""Running gates: each token of each response is steered and read as the transformers hooks do, whatever runs beside it."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from live_engines import Figures, answer, preemptions, prompts, sampling, tokens
from running_gates import RUNNING, by_hooks
from trimtab.gate import RunningGate
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.vllm_plugin.offline import courses, gate_outputs, status, warnings_to

LEVEL, MARGIN = 1e-4, 2e-3
"""What rounding may change: p(fail), and the log probability of a token over that of another."""


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """What a random request asks for; more than half of them have a running gate."""
    kind = rng.choice(["none", "mild", "mild-gated", *RUNNING], p=[0.1, 0.1, 0.1, *[0.7 / len(RUNNING)] * len(RUNNING)])
    if kind == "none":
        return {}
    asked: dict[str, Any] = {"steering": str(kind), "strength": float(rng.choice([1.0, 1.0, -0.6]))}
    return asked if kind == "mild" else asked | {"gate": str(rng.choice(["auto", "auto", "auto", "auto", "on", "off"]))}


class Compared:
    """How many requests and tokens were compared, and how they differ."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.p = 0.0

    def add(self, own: list[int], read: Any, expected: Any, gate: RunningGate | None) -> None:
        """Compare a response up to the first near tie: of two tokens, or of p(fail) and a threshold."""
        until = len(own)
        best = expected.logprobs.max(1)
        chosen = expected.logprobs[np.arange(len(own)), own]
        parted = np.flatnonzero(best - chosen > 0)
        if len(parted):
            until = int(parted[0])
            self.counts["near ties"] += 1
            assert best[until] - chosen[until] < MARGIN
        self.counts["requests"] += 1
        self.counts["tokens"] += until
        if gate is None:
            assert read is None
            return
        p, g = read[: len(own) - 1].T
        assert len(p) == len(own) - 1
        close = np.flatnonzero(np.min([np.abs(expected.p - level) for level in gate.levels], axis=0) < LEVEL)
        settled = slice(0, min(until, int(close[0]) + 1 if len(close) else until))
        self.counts["near a threshold"] += len(close) > 0
        np.testing.assert_allclose(p[settled], expected.p[settled], atol=LEVEL)
        np.testing.assert_allclose(g[settled], expected.g[settled], atol=2 * LEVEL)
        self.p = max(self.p, *np.abs(p[settled] - expected.p[settled]), 0.0)
        self.counts["changes"] += int((np.diff(g > 0) != 0).sum())
        self.counts["steered"] += int((g > 0).sum())


def compare(
    compared: Compared,
    model: LanguageModel,
    steerings: dict[str, str],
    asked: list[list[int]],
    requests: list[dict[str, Any]],
    answers: list[list[int]],
    read: list[Any],
) -> None:
    """Compare answers with those of the hooks, a batch for each kind of request."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, request in enumerate(requests):
        groups[tuple(request.get(key) for key in ("steering", "strength", "gate"))].append(i)
    for (name, strength, gate), rows in groups.items():
        steering = None if name is None else Steering.from_pretrained(steerings[name])
        own = None if steering is None or not isinstance(steering.gate, RunningGate) else steering.gate
        options = {} if name is None else {"strength": strength, "gate": gate or "auto"}
        expected = by_hooks(model, steering, [asked[i] for i in rows], [answers[i] for i in rows], **options)
        for i, each in zip(rows, expected, strict=True):
            # the hooks keep a course where the gate decides; elsewhere the engine reads all the same
            compared.add(answers[i], read[i] if each.p is not None else None, each, own if each.p is not None else None)


def run(
    llm: Any, model: LanguageModel, steerings: dict[str, str], number: int, most: int, seed: int, batch: int = 12
) -> Compared:
    """Random mixes of requests, each with its own length, until there are as many as asked for."""
    rng, questions = np.random.default_rng(seed), prompts(model)
    asked: list[list[int]] = []
    requests: list[dict[str, Any]] = []
    answers: list[list[int]] = []
    read: list[Any] = []
    while len(asked) < number:
        chosen = [questions[i] for i in rng.integers(0, len(questions), rng.integers(1, batch + 1))]
        own = [drawn(rng) for _ in chosen]
        outputs = answer(llm, chosen, [sampling(int(rng.integers(2, most)), **each) for each in own])
        asked += chosen
        requests += own
        answers += [tokens(output) for output in outputs]
        read += courses(llm, [output.request_id for output in outputs])
    compared = Compared()
    compare(compared, model, steerings, asked, requests, answers, read)
    return compared


@pytest.mark.parametrize(("kind", "number"), [("eager", 400), ("compiled", 800)])
def test_mixed_requests_are_steered_token_by_token_as_by_the_hooks(
    request: pytest.FixtureRequest, reasoner: LanguageModel, steerings: dict[str, str], figures: Figures, kind: str, number: int
) -> None:
    found = run(request.getfixturevalue(kind), reasoner, steerings, number, most=24, seed=number)
    figures(
        f"running gates, {kind}: {found.counts['requests']} requests, {found.counts['tokens']} tokens and "
        f"{found.counts['changes']} changes of mind as by the hooks, p(fail) within {found.p:.0e}"
    )
    print(found.counts)
    assert found.counts["requests"] >= number
    assert found.counts["changes"] > number / 4
    assert found.counts["near ties"] + found.counts["near a threshold"] < number / 20


def test_preempted_responses_go_on_as_by_the_hooks(
    cramped: Any, reasoner: LanguageModel, steerings: dict[str, str], figures: Figures
) -> None:
    """More long responses than the cache holds: some are taken out, and computed again under what was decided before."""
    with preemptions(cramped) as preempted:
        found = run(cramped, reasoner, steerings, 48, most=80, seed=1)
    figures(f"the same with {len(preempted)} preemptions, {found.counts['changes']} changes")
    print(found.counts)
    assert len(preempted) > 20
    assert found.counts["changes"] > 40
    assert found.counts["near ties"] + found.counts["near a threshold"] <= 3


def test_responses_that_are_thrown_back_while_they_run_go_on_as_by_the_hooks(
    eager: Any, reasoner: LanguageModel, steerings: dict[str, str]
) -> None:
    """vLLM can throw back all running requests, and forget the tokens that are under way."""
    engine, asked = eager.llm_engine, prompts(reasoner)
    requests = [{"steering": name, "strength": 1.0} for name in list(RUNNING)[:6]]
    for i, (prompt, own) in enumerate(zip(asked, requests, strict=True)):
        engine.add_request(f"back-{i}", {"prompt_token_ids": prompt}, sampling(24, **own))
    answers: dict[int, list[int]] = {}
    steps = 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                answers[int(output.request_id[5:])] = tokens(output)
        steps += 1
        if steps % 7 == 0:
            assert engine.reset_prefix_cache(reset_running_requests=True)
    read = courses(eager, [f"back-{i}" for i in range(6)])
    compared = Compared()
    compare(compared, reasoner, steerings, asked, requests, [answers[i] for i in range(6)], read)
    assert compared.counts["tokens"] > 6 * 20


def test_a_cached_prompt_changes_nothing(eager: Any, reasoner: LanguageModel, steerings: dict[str, str]) -> None:
    long = (prompts(reasoner)[1] * 3)[:100]
    requests = [{"steering": name, "strength": 1.0} for name in ("last-open", "last-and")] * 2
    outputs = [answer(eager, [long], [sampling(20, **own)])[0] for own in requests]
    assert [output.num_cached_tokens >= 64 for output in outputs] == [False, False, True, True]
    compared = Compared()
    read = courses(eager, [output.request_id for output in outputs])
    compare(compared, reasoner, steerings, [long] * 4, requests, [tokens(output) for output in outputs], read)
    assert compared.counts["requests"] == 4


def test_a_running_gate_warns_while_it_only_watches(
    eager: Any, reasoner: LanguageModel, steerings: dict[str, str], figures: Figures
) -> None:
    asked, told = prompts(reasoner) * 4, []
    gate = Steering.from_pretrained(steerings["mean-open"]).gate
    before = status(eager)
    plain = [tokens(output) for output in answer(eager, asked, [sampling(30)] * len(asked))]
    with warnings_to(eager, lambda *each: told.append(each), seconds=0.0):
        outputs = answer(eager, asked, [sampling(30, steering="mean-open", gate="off")] * len(asked))
    assert [tokens(output) for output in outputs] == plain
    ids = [output.request_id for output in outputs]
    facts = gate_outputs(eager, ids)
    expected = {}
    for request_id, course in zip(ids, courses(eager, ids), strict=True):
        assert course is not None
        warned = np.flatnonzero(course[:, 0] >= gate.cutoff)
        if len(warned):
            expected[request_id] = (int(warned[0]) + 1, float(course[warned[0], 0]))
    assert 0 < len(expected) < len(asked)
    assert {request_id: (token, p) for request_id, token, p in told} == expected
    assert len(told) == len(expected)
    for request_id, one in zip(ids, facts, strict=True):
        assert one is not None
        assert (one["fired"], one["steered_tokens"], one["running_gate"]["opened_at"]) == (False, 0, None)
        assert one["running_gate"]["warned_at"] == expected.get(request_id, (None,))[0]
        assert one["running_gate"]["tokens"] in (29, 30)  # a step that is scheduled ahead forwards the last token too
    after = status(eager)
    assert after["warnings"] - before["warnings"] == len(expected)
    assert after["requests_steered"] == before["requests_steered"]
    figures(f"{len(expected)} warnings of {len(asked)} unsteered responses")


def test_a_request_may_say_from_which_token_on_it_is_steered(eager: Any, reasoner: LanguageModel) -> None:
    asked = prompts(reasoner)[:1] * 4
    requests: list[dict[str, Any]] = [{}, {"steering": "six"}, {"steering": "six", "first_token": 5}, {"steering": "six"}]
    plain, whole, late, _ = (tokens(output) for output in answer(eager, asked, [sampling(12, **own) for own in requests]))
    assert late[:5] == plain[:5]  # token 6 is the first after a steered one
    assert set(late[5:]) == set(whole[1:]) == {whole[1]}
