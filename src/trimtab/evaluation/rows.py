"""The rows and the words of a verdict's tables, as values that load no statistics: the report reads and writes them."""

from dataclasses import dataclass
from typing import Literal

from trimtab.stats.values import PairedComparison, TestName, VerdictWord

BreakdownBy = Literal["domain", "difficulty"]

UNSTEERED, ALWAYS, GATED, NEGATIVE, ADARAS = "unsteered", "always", "gated", "negative", "adaras"
RUNNING, BOTH_GATES, RUNNING_RANDOM = "running", "both-gates", "running-random"
AGAIN, FIRST_TOKEN = "unsteered-again", "first-token"
RANDOM, RANDOM_NORM = "random", "random-norm"
PROMPT_ONLY, SFT_LORA, DIRECTION, TRAINED = "prompt-only", "sft-lora", "direction", "trained"
SAMPLED, MAJORITY, MAJORITY_EQUAL_COST = "sampled", "majority", "majority-equal-cost"

CLAIMS = (
    ALWAYS,
    GATED,
    RUNNING,
    BOTH_GATES,
    ADARAS,
    DIRECTION,
    PROMPT_ONLY,
    TRAINED,
    SFT_LORA,
    SAMPLED,
    MAJORITY,
    MAJORITY_EQUAL_COST,
)
"""Conditions that somebody might say help, in the order of a table; conditions of other names come after these and are claims
too."""
CONTROLS = (AGAIN, FIRST_TOKEN, RUNNING_RANDOM, NEGATIVE, RANDOM, RANDOM_NORM)
"""Last in a table. What they show is no claim, so they take no part in its correction for many tests."""

SOME_PROBLEMS = (AGAIN, FIRST_TOKEN)
"""Controls that may be asked some of the problems only; each stands beside the unsteered model on these."""


def is_claim(condition: str) -> bool:
    """Whether a condition is neither the unsteered model nor a control."""
    return condition != UNSTEERED and condition not in CONTROLS


def place(condition: str) -> tuple[int, int]:
    """The key that sorts conditions into the order of a table."""
    if condition in CONTROLS:
        return 2, CONTROLS.index(condition)
    return (0, 0) if condition == UNSTEERED else (1, CLAIMS.index(condition) if condition in CLAIMS else len(CLAIMS))


@dataclass(frozen=True, slots=True)
class ConditionSummary:
    """One row: accuracy and paired gain over unsteered with their intervals, p, and the counts.

    Args:
        condition: its name.
        n, k: problems, and responses per problem.
        accuracy, low, high: share correct, with several responses avg@k; see
            :class:`trimtab.stats.values.PairedComparison` for this and the next three lines.
        gain, gain_low, gain_high: over unsteered.
        p, test: two-sided, and which test gave it; of random sets the smallest one-sided p after Holm over the sets.
        fixed, broken, pairs: pairs of responses, and how many there are; 0 where the condition has no seed and sample of the
        base. p_holm: ``p`` after Holm over all conditions of the table that are claims; None for the unsteered model and the
        controls. minimum_detectable_gain: what these n problems find in 80 % of cases; None where they could find no gain of any
        size, and
            for the unsteered model.
        pass_at_k: share of problems with one correct response or more among k; None with one response.
        unscored, truncated: responses.
        disagreements: responses on which the math grader's two checks disagree.
        tokens_per_answer: mean over responses; of a majority vote all the tokens that it cost.
        firing_rate: of the gate; None where the condition reads none.
        steps_right: share of responses with right steps; None where nobody checks steps.
    """

    condition: str
    n: int
    k: int
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    test: TestName
    p_holm: float | None
    minimum_detectable_gain: float | None
    fixed: int
    broken: int
    pairs: int
    pass_at_k: float | None
    unscored: int
    truncated: int
    disagreements: int
    tokens_per_answer: float
    firing_rate: float | None
    steps_right: float | None


@dataclass(frozen=True, slots=True)
class SteeredRow:
    """How much of its responses a condition behind a running gate steers.

    Args:
        condition: its name.
        responses: how many.
        opened: share of them that are steered at a token at least.
        steered: tokens steered, mean over all responses.
        first: number of the first steered token, median over those that are steered; None without one.
    """

    condition: str
    responses: int
    opened: float
    steered: float
    first: float | None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The verdict on the problems of one group.

    Args:
        group: a domain, or a difficulty as a number.
        word: by ``p_holm``, since of many groups one is soon below 0.05 by chance.
        comparison: of this group's problems alone.
        p_holm: its p after Holm over the groups of the table.
        minimum_detectable_gain: of this group's n; None where no gain of any size could be shown.
        base_unscored, unscored: responses of the base and of the condition.
    """

    group: str
    word: VerdictWord
    comparison: PairedComparison
    p_holm: float
    minimum_detectable_gain: float | None
    base_unscored: int
    unscored: int


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval; the ends are None where there is nothing to estimate them from."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Average:
    """Accuracies and gain over all groups: ``micro`` weighs every problem alike, ``macro`` every group.

    Intervals of ``macro`` are bootstrapped within the groups. They are None where a group has a single problem, or where within
    no group one problem differs from another.
    """

    name: Literal["micro", "macro"]
    groups: int
    base: Mean
    condition: Mean
    gain: Mean


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One table. Only domains have averages: a mean over difficulties means nothing."""

    by: BreakdownBy
    rows: tuple[GroupRow, ...]
    averages: tuple[Average, ...]


@dataclass(frozen=True, slots=True)
class TunePoint:
    """One point of the grid. ``gated`` is the accuracy with the gate, composed: steered where it fires, unsteered elsewhere."""

    criterion: str
    intervention: str
    k: int
    strength: float
    n: int
    unsteered: float
    always: float
    gated: float


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """The policy that steers where p(fail) is ``threshold`` or more, on n problems.

    Args:
        steered: share of the problems that are steered.
        accuracy: share of correct answers: the steered answer where it steers, the unsteered one elsewhere.
        gain, low, high: ``accuracy`` over that of the unsteered model, with Newcombe's paired 95 % interval of this one point.
    """

    threshold: float
    steered: float
    accuracy: float
    gain: float
    low: float
    high: float
