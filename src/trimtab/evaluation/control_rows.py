"""The results of the controls beside a verdict, as values that load no statistics: the report reads and writes them."""

from dataclasses import dataclass
from typing import Literal

from trimtab.stats.values import Estimate, PairedComparison

BeginningPart = Literal["all", "most", "some", "none"]


@dataclass(frozen=True, slots=True)
class AnsweredGain:
    """The gain among the pairs of responses in which both conditions gave an answer.

    Args:
        problems, pairs: that it is over.
        base_accuracy, accuracy: of these responses.
        gain, low, high, p: paired, as :class:`trimtab.stats.values.PairedComparison`; of several responses a problem the mean
            over pairs, drawn and tested by problem.
        points: what these pairs contribute to the gain over all pairs, as a fraction of all; the rest of the gain comes from
            pairs in which only one gave an answer.
    """

    problems: int
    pairs: int
    base_accuracy: float
    accuracy: float
    gain: float
    low: float
    high: float
    p: float
    points: float


@dataclass(frozen=True, slots=True)
class ExtractionRow:
    """How the grader came to the answers of one condition, in responses; of random sets the mean over the sets.

    Args:
        condition: its name.
        responses: how many; each is of one of the following kinds.
        stated: an answer that the response states.
        guessed: the last number, where none was stated.
        missing: no answer found.
        truncated: cut at the token limit, so incorrect.
        unscored: the grader itself failed.
        answered: that the response held an answer, beside the unsteered model's, where an answer is what counts as correct;
            None for the unsteered model and for random sets.
        both: the gain where both gave one; None where no pair of responses did, and for the same conditions.
    """

    condition: str
    responses: int
    stated: int
    guessed: int
    missing: int
    truncated: int
    unscored: int
    answered: PairedComparison | None
    both: AnsweredGain | None


@dataclass(frozen=True, slots=True)
class Extraction:
    """Whether a gain is one of answers or of their form.

    Args:
        rows: of every condition, in the order of the table.
        mostly_format: of the judged condition; see :func:`trimtab.evaluation.controls.mostly_format`.
        sentence: what it came to.
    """

    rows: tuple[ExtractionRow, ...]
    mostly_format: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Noise:
    """The unsteered model against itself in other batches (A/A).

    Args:
        comparison: of its second answers with its first.
        texts, responses: how many responses have another text, and how many there are.
        floor: no gain of this size or less is called one: the end of the paired interval that is farther from 0.
        sentence: what it came to.
    """

    comparison: PairedComparison
    texts: int
    responses: int
    floor: float
    sentence: str


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The bare model behind the beginning that steering chose.

    Args:
        tokens: forced, those that steering cannot decide included.
        alone: the beginning alone, beside the unsteered model.
        whole: the judged condition on the same problems.
        beyond: the judged condition, beside the beginning alone.
        part: how much of the gain the beginning alone gives; ``none`` where it, or the judged condition, is not shown to gain.
        sentence: what it came to.
    """

    tokens: int
    alone: PairedComparison
    whole: PairedComparison
    beyond: PairedComparison
    part: BeginningPart
    sentence: str


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Accuracy of the unsteered model where only the ``coverage`` of problems with the lowest p(fail) is answered."""

    coverage: float
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class GateAlone:
    """What the gate is worth without steering, on each problem's first response.

    Args:
        n, n_failed: problems, and those that the unsteered model fails.
        at_threshold: where the problems on which it fires are not answered; None where it fires on all of them.
        aurc: area under the risk-coverage curve; lower is better.
        random, best: of a random order, and of an order with every failure last.
        correlation: Spearman's, of p(fail) with the effect of always steering (always minus unsteered, -1 to 1); None where one
            of them is the same on every problem.
        among_failed: the same over the problems that the unsteered model fails.
        curve: from few problems to all, at most a hundred points.
        sentence: what it came to.
    """

    n: int
    n_failed: int
    at_threshold: CoveragePoint | None
    aurc: Estimate
    random: float
    best: float
    correlation: Estimate | None
    among_failed: Estimate | None
    curve: tuple[CoveragePoint, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Whether the class of the contrast's traces comes back when they are continued from a beginning.

    As many correct as incorrect traces of each problem are continued, so how hard a problem is drops out of ``difference``.

    Args:
        traces, problems: that were continued, both classes together.
        share: of each trace's tokens that were kept.
        times: continuations a trace.
        correct: of correct traces, the share of continuations that are correct; None with fewer than two problems, as the next.
        incorrect: of incorrect traces, the share of continuations that are incorrect.
        difference: how much more often a continuation is correct after the beginning of a correct trace than after that of an
            incorrect one of the same problem; 0 where beginnings decide nothing.
        keep: the share of its continuations that had to be of a trace's class for it to stay in the contrast; 0 kept all.
        left_out: traces that were continued and left out.
        sentence: what it came to.
    """

    traces: int
    problems: int
    share: float
    times: int
    correct: Estimate | None
    incorrect: Estimate | None
    difference: Estimate | None
    keep: float
    left_out: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Controls:
    """The controls beside a verdict; None where one was not run, or has nothing to compare."""

    extraction: Extraction
    noise: Noise | None = None
    first_token: FirstToken | None = None
    gate: GateAlone | None = None
    recurrence: Recurrence | None = None

    @property
    def sentences(self) -> dict[str, str]:
        """The result of each by its name, in reading order."""
        every = {
            "form of the answers": self.extraction,
            "noise (A/A)": self.noise,
            "beginning alone": self.first_token,
            "gate alone": self.gate,
            "recurrence": self.recurrence,
        }
        return {name: one.sentence for name, one in every.items() if one is not None}
