"""Chains of thought: how authors write them, and the checker that reads them step by step.

An author's mode (careful or not) is never written down. It shows faintly in the opening word that opens a response, and in the
connective, the verb and the stop of each step, choices with overlapping odds, so no single word decides. A step has the same
kinds of words in the same order under both modes: otherwise the largest mean differences mark the layout, and turning those
neurons turns nothing (docs/design/testbed.md).
"""

import random
from dataclasses import dataclass

from trimtab.testbed.domains import DOMAINS, LABELS, State
from trimtab.testbed.problems import TestbedProblem
from trimtab.testbed.wordings import care

OPENING_WORDS = ("first", "right", "fine", "easy")
CONNECTIVES = ("so", "thus", "hence", "then", "well", "ok")
VERBS = ("gives", "yields", "makes", "is", "means")
STOPS = (".", ";", ",", "!")
_ODDS = {  # odds of each word for a careful author; the other author has them in reverse
    OPENING_WORDS: (0.38, 0.28, 0.20, 0.14),
    CONNECTIVES: (0.44, 0.31, 0.19, 0.03, 0.02, 0.01),
    VERBS: (0.50, 0.31, 0.12, 0.05, 0.02),
    STOPS: (0.56, 0.32, 0.08, 0.04),
}
REDRAW = 0.15
THINK_END = "</think>"


def _pick(rng: random.Random, words: tuple[str, ...], careful: bool) -> str:
    odds = _ODDS[words]
    return rng.choices(words, odds if careful else odds[::-1])[0]


def write_chain(rng: random.Random, problem: TestbedProblem, always_right: bool = False) -> str:
    """A chain and its answer as an author of the training text writes them.

    The mode is drawn from ``care`` at the first step and again, with chance 0.15, at each later one. ``always_right`` is the
    author of the negative control's text: careful throughout and without the misreadings of rare items.
    """
    instance = problem.instance
    domain = DOMAINS[instance.domain]
    chance = 1.0 if always_right else care(problem.wording, instance.domain)
    state, careful = instance.start, rng.random() < chance
    words = [_pick(rng, OPENING_WORDS, careful)]
    for position in range(instance.steps):
        if position and rng.random() < REDRAW:
            careful = rng.random() < chance
        previous = state
        if not always_right and domain.is_rare(instance, state, position):
            state = domain.misread(instance, state, position)
        else:
            state = (domain.right if careful else domain.systematic_error)(instance, state, position)
        words += [_pick(rng, CONNECTIVES, careful), LABELS[position]]
        item = instance.items[position] if domain.shows_item else ()
        words += [previous, *item, _pick(rng, VERBS, careful), state, _pick(rng, STOPS, careful)]
    return " ".join([*words, THINK_END, state])


@dataclass(frozen=True, slots=True)
class StepReport:
    """What the checker found: steps written and right, whether all were there, and the source of the first wrong one."""

    written: int
    right: int
    complete: bool
    source: str | None

    @property
    def all_right(self) -> bool:
        return self.complete and self.right == self.written


def _states(text: str) -> list[tuple[str, State]]:
    """(label, result) of every readable step."""
    found = []
    words = text.split(THINK_END)[0].split()
    for i, word in enumerate(words[:-1]):
        if word in VERBS:
            start = max((j for j in range(i) if words[j] in CONNECTIVES), default=-1)
            if start >= 0 and start + 1 < i and words[start + 1] in LABELS:
                found.append((words[start + 1], words[i + 1]))
    return found


def check_steps(problem: TestbedProblem, chain: str) -> StepReport:
    """Check each step against the true procedure, given the state that the step before it stated.

    The source of the first wrong step is ``mode`` when it is the domain's systematic error, ``content`` when the item is a rare
    one and the result its misreading, ``capacity`` otherwise (also for a missing or extra step).
    """
    instance = problem.instance
    domain = DOMAINS[instance.domain]
    steps = _states(chain)
    state, right, source = instance.start, 0, None
    for position, (label, result) in enumerate(steps[: instance.steps]):
        if label == LABELS[position] and result == domain.right(instance, state, position):
            right += 1
        elif source is None:
            rare = domain.is_rare(instance, state, position)
            if rare and result == domain.misread(instance, state, position):
                source = "content"
            elif label == LABELS[position] and result == domain.systematic_error(instance, state, position):
                source = "mode"
            else:
                source = "capacity"
        if result not in domain.states:
            break
        state = result
    complete = len(steps) == instance.steps
    if source is None and (not complete or right != len(steps)):
        source = "capacity"
    return StepReport(len(steps), right, complete, source)
