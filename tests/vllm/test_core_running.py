"""Running gates: each token of each response is steered and read as the transformers hooks do, whatever runs beside it."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from live_engines import Figures, answer, prompts, sampling, tokens
from running_gates import RUNNING, by_hooks
from trimtab.gate import RunningGate
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.vllm_plugin.offline import courses

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
