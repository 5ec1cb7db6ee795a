"""A view made by hand, of any number of problems, with hostile text where it is asked for."""

import numpy as np

from trimtab.analysis.token_record import TokenRows
from trimtab.evaluation.controls import GUESSED
from trimtab.evaluation.outcomes import Outcome
from trimtab.report.view_page import Histogram, ResponseTokens, View, ViewHit, ViewNeuron
from trimtab.traces import Problem, Score, Split

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\u202e\u200b<!-- & \x00 \U0001f600 'quote\" ]]>"
WORDS = ("so", " a", " 5", " +3", " gives", " 8", " .", " 9", " then", "")
"""Texts of the tokens 0 to 9; the last one ends a response."""
END = 9
CONDITIONS = ("unsteered", "gated", "random-0", "random-1")
KINDS = ((False, True), (True, False), (True, True), (False, False))
"""Unsteered and gated scores of the problems, in turn: fixed, broken, both right, both wrong."""


def make_view(
    n: int = 12,
    *,
    hostile: str = "",
    tokens: bool = True,
    longest: int = 8,
    response: str = "",
    running: bool = False,
    directions: int = 0,
) -> View:
    """Problems p0, p1, ... whose kinds take turns; the first of every four has the gate fire.

    ``running`` gives every token a running p(fail); of six places ``directions`` are directions of the residual stream.
    """
    problems = {f"p{i}": Problem(f"p{i}", f"question {i} {hostile}", f"8{hostile}", Split.TEST, "sums") for i in range(n)}
    rng = np.random.default_rng(0)
    ids = {
        (name, problem): _ids(rng, longest, same=name != "unsteered" and i % 4 == 2)
        for i, problem in enumerate(problems)
        for name in CONDITIONS
    }
    outcomes = {
        name: [_outcome(name, problem, i, _text(ids[name, problem]) + hostile + response) for i, problem in enumerate(problems)]
        for name in CONDITIONS
    }
    recorded = {}
    for name in CONDITIONS[:2] if tokens else ():
        for outcome in outcomes[name]:
            own = ids[name, outcome.problem_id]
            pieces = [WORDS[i] for i in own]
            pieces[-1] += hostile + response
            rows = token_rows(own, acted=name == "gated", running=running)
            recorded[name, outcome.problem_id, 0, 0] = ResponseTokens(own, tuple(pieces), rows, 2.0 if name == "gated" else 0.0)
    return View(
        model=f"a model{hostile}",
        task="sums",
        split="test",
        word="helps",
        sentence=f"Helps: accuracy went up, n = {n}. Nothing more is known.{hostile}",
        condition="gated",
        outcomes=outcomes,
        problems=problems,
        strength=2.0,
        threshold=0.5,
        tokens=recorded,
        token_text=dict(enumerate(f"{word}{hostile}" for word in WORDS)) if tokens else {},
        neurons=tuple(_neuron(i, hostile) if i < 6 - directions else _direction(i) for i in range(6)) if tokens else (),
        contributions=tokens,
        doses=tokens and not directions,
        running_threshold=0.25 if running else None,
    )


def token_rows(ids: tuple[int, ...], *, acted: bool, running: bool = False) -> TokenRows:
    """Numbers that say where they come from.

    Token t has probability 1 / (t + 2) and, with a running gate, p(fail) t / 10; neuron j adds (j + 1) / 10.
    """
    n = len(ids)
    logprob = -np.log(np.arange(n, dtype=np.float32) + 2)
    alternative = np.stack([[i, *[j for j in range(5) if j != i][:4]] for i in ids]).astype(np.int32)
    on = np.arange(n) > 0 if acted else np.zeros(n, np.bool_)
    contribution = np.where(on[:, None], np.array([-0.3, 0.2, 0.1], np.float32), 0).astype(np.float32)
    return TokenRows(
        logprob=logprob.astype(np.float32),
        alternative=alternative,
        alternative_logprob=(logprob[:, None] - np.arange(5)).astype(np.float32),
        acted=on,
        total=contribution.sum(1),
        neuron=np.tile(np.array([2, 1, 0], np.int32), (n, 1)),
        contribution=contribution,
        dose=np.where(on, 0.5, 0.0).astype(np.float32),
        p_fail=np.minimum(np.arange(n, dtype=np.float32) / 10, 1) if running else None,
    )


def _ids(rng: np.random.Generator, longest: int, same: bool) -> tuple[int, ...]:
    body = (0, 1, 2, 3) if same else (0, 1, 2, *rng.integers(3, END, max(1, longest - 4)).tolist())
    return (*body, END)


def _text(ids: tuple[int, ...]) -> str:
    return "".join(WORDS[i] for i in ids)


def _outcome(name: str, problem: str, i: int, text: str) -> Outcome:
    base, gated = KINDS[i % 4]
    correct = {"unsteered": base, "gated": gated}.get(name, base)
    reason = "equals the gold answer" if correct else "differs from the gold answer 8; string check disagrees"
    return Outcome(
        condition=name,
        problem_id=problem,
        domain="sums",
        difficulty=1,
        score=Score.CORRECT if correct else Score.INCORRECT,
        reason=f"{reason}; {GUESSED}" if i % 10 == 4 else reason,
        answer="8",
        response=text,
        tokens=8,
        truncated=i % 10 == 3,
        steps_right=not (correct and i % 5 == 0),
        p_fail=0.9 - i % 4 / 5 if name == "gated" else None,
        fired=i % 4 == 0 if name == "gated" else None,
    )


def _direction(i: int) -> ViewNeuron:
    return ViewNeuron(f"direction after layer {i}", i, None, 0.0, 0.0, promoted=((" 8", 2.5),), norm=3.25)


def _neuron(i: int, hostile: str) -> ViewNeuron:
    bins = (1, 5, 9, 2)
    hit = ViewHit("p0", "so a", f" 5{hostile}", " +3", 3.5 - i)
    return ViewNeuron(
        f"layer 1 index {i}",
        1,
        i,
        0.0,
        1.5,
        0.4,
        -0.2,
        {"adaras": i + 1, "mean-difference": None},
        512,
        Histogram(-1.0, 1.0, bins, bins[::-1]),
        ((f" 8{hostile}", 2.5), (" 9", 1.0)),
        ((" .", -2.0),),
        (hit,),
    )
