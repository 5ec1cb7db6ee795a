"""The values that the verbs of a study return: problems, traces, the chosen point of a grid, an evaluation."""

import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from trimtab.dose import Dose
from trimtab.errors import InputError
from trimtab.evaluation.control_rows import Controls
from trimtab.evaluation.outcomes import Outcome, first_responses
from trimtab.evaluation.rows import UNSTEERED, ConditionSummary, SteeredRow
from trimtab.evaluation.settings import TunePoint
from trimtab.evaluation.summary import random_gains
from trimtab.evaluation.verdict import ConditionVerdict, asked_too, matched
from trimtab.steering import Steering
from trimtab.store import AnyPath, any_path, write_text
from trimtab.study.tokens import PairTokens
from trimtab.traces import Problem, Score, ScoredTrace, Split, Trace

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


_SHOWN = 8
"""Rows of a table in a notebook."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Problems:
    """The problems of a study, train first, then validation, then test.

    Args:
        all: every problem.
        digests: of the problems of each split, which keys are made of.
        facts: where they came from and what their splits share, as JSON values.
    """

    all: tuple[Problem, ...]
    digests: Mapping[Split, str]
    facts: Mapping[str, object] = field(default_factory=dict)
    _by_split: Mapping[Split, tuple[Problem, ...]] = field(init=False)

    def __post_init__(self) -> None:
        by_split = {split: tuple(problem for problem in self.all if problem.split is split) for split in Split}
        object.__setattr__(self, "_by_split", by_split)

    @property
    def clusters(self) -> dict[str, str]:
        """By problem, the first of the near-duplicates that stand with it in one split; problems without any are left out."""
        splits: dict = self.facts.get("splits", {})  # type: ignore[assignment]  # as tasks.splits writes it
        within: dict[str, list[str]] = splits.get("near_duplicates", {}).get("within", {})
        return {problem: first for first, ids in within.items() for problem in ids}

    def split(self, split: Split | str) -> list[Problem]:
        """The problems of one split, in order."""
        return list(self._by_split[Split(split)])

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.all)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(split)):,} {split}" for split in Split)
        return f"{len(self):,} problems: {counts}"

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a problem."""
        import pandas

        return pandas.DataFrame([asdict(problem) for problem in self.all])

    def _repr_html_(self) -> str:
        return _with_table(repr(self), self.to_pandas().head(_SHOWN), ("id", "split", "question", "answer"))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Traces:
    """Sampled or imported traces with their grades.

    Args:
        traces, grades: in one order.
        problems: by id.
        key: ``VERB/KEY`` of the traces in the cache.
        grades_key: of their grades.
    """

    traces: tuple[Trace, ...]
    grades: tuple[ScoredTrace, ...]
    problems: Mapping[str, Problem]
    key: str
    grades_key: str

    def __len__(self) -> int:
        return len(self.traces)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.traces)

    @property
    def accuracy(self) -> float:
        """The share of correct traces; 0 without any."""
        return self._count(Score.CORRECT) / len(self.grades) if self.grades else 0.0

    @property
    def truncated(self) -> int:
        """How many were cut at the token limit."""
        return sum(trace.truncated for trace in self.traces)

    @property
    def mixed(self) -> int:
        """Problems with both a correct and an incorrect trace: all that a contrast can use."""
        sides: dict[str, set[Score]] = {}
        for grade in self.grades:
            sides.setdefault(grade.problem_id, set()).add(grade.score)
        return sum({Score.CORRECT, Score.INCORRECT} <= found for found in sides.values())

    def show(self, trace_id: str, beside: str | None = None) -> str:
        """One trace to read, or two of them, one after the other: question, response, gold answer and grade.

        Raises:
            InputError: no such trace.
        """
        return "\n\n".join(self._shown(name) for name in (trace_id, beside) if name is not None)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a trace: ids, score, answer, reason, tokens and text."""
        import pandas

        rows = [
            {
                "id": trace.id,
                "problem_id": trace.problem_id,
                "score": str(grade.score),
                "answer": grade.answer,
                "reason": grade.reason,
                "quality": grade.quality,
                "tokens": len(trace.response_ids),
                "truncated": trace.truncated,
                "text": trace.text,
            }
            for trace, grade in zip(self.traces, self.grades, strict=True)
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        extra = "".join(
            f", {n:,} {what}" for n, what in ((self.truncated, "truncated"), (self._count(Score.UNSCORED), "unscored")) if n
        )
        return (
            f"{len(self):,} traces of {len({t.problem_id for t in self.traces}):,} problems, {self.accuracy:.0%} correct{extra}; "
            f"{self.mixed:,} problems have both correct and incorrect traces"
        )

    def _repr_html_(self) -> str:
        return _with_table(repr(self), self.to_pandas().head(_SHOWN), ("id", "score", "answer", "tokens", "text"))

    def _count(self, score: Score) -> int:
        return sum(grade.score is score for grade in self.grades)

    def _shown(self, trace_id: str) -> str:
        for trace, grade in zip(self.traces, self.grades, strict=True):
            if trace.id == trace_id:
                problem = self.problems[trace.problem_id]
                return _chain(f"{trace.id}: {grade.score}, {grade.reason}", problem, trace.text)
        raise InputError(f"no trace {trace_id!r}; ids look like {self.traces[0].id if self.traces else 'PROBLEM/0'!r}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tuning:
    """A grid on the validation split and the steering of its best point.

    Args:
        points: every point of the grid.
        best: the point with the highest gated accuracy; on a tie the fewest neurons, then the weakest strength.
        steering: that point's, behind the gate.
        key: ``VERB/KEY`` in the cache.
        doses: by criterion, intervention and k; empty for a model whose doses cannot be measured, such as a mixture of experts.
    """

    points: tuple[TunePoint, ...]
    best: TunePoint
    steering: Steering
    key: str
    doses: Mapping[tuple[str, str, int], Dose] = field(default_factory=dict)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a point of the grid: accuracies unsteered, always and gated, as fractions, and the largest dose of a layer."""
        import pandas

        return pandas.DataFrame([{**asdict(point), "dose": self.dose(point)} for point in self.points])

    def dose(self, point: TunePoint) -> float | None:
        """The largest dose over the layers of a point of the grid; None where it was not measured."""
        dose = self.doses.get((point.criterion, point.intervention, point.k))
        return None if dose is None else dose.at(point.strength)

    def __repr__(self) -> str:
        p = self.best
        return (
            f"best of {len(self.points)} points: {p.criterion}, {p.intervention}, K = {p.k}, strength {p.strength:g}; "
            f"{p.unsteered:.1%} unsteered to {p.gated:.1%} gated on {p.n} validation problems"
        )

    def _repr_html_(self) -> str:
        return _with_table(repr(self), self.to_pandas())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evaluation:
    """Every condition on the same problems, and the verdict.

    Args:
        outcomes: of every condition, by its name.
        rows: a summary of each condition against the unsteered model.
        condition: the one that the verdict is about.
        verdict: word, sentence, and what they stand on.
        controls: what a sceptic asks of it.
        problems: that were answered, by id.
        split: theirs.
        openings: how often these test problems have been opened with this model, this evaluation included.
        steering: what was evaluated.
        key: ``VERB/KEY`` in the cache.
        tokens: probabilities and contributions of the tokens of the unsteered and the judged responses; None where the responses'
            tokens were not kept.
        steered: tokens steered a response, of the conditions behind a running gate; none where none was asked for.
        page: makes the HTML of :meth:`view`; None for an evaluation that no study made.
    """

    outcomes: Mapping[str, Sequence[Outcome]]
    rows: Mapping[str, ConditionSummary]
    condition: str
    verdict: ConditionVerdict
    controls: Controls
    problems: Mapping[str, Problem]
    split: Split
    openings: int
    steering: Steering
    key: str
    tokens: PairTokens | None = None
    steered: tuple[SteeredRow, ...] = ()
    page: Callable[[], str] | None = None

    def view(self) -> "ViewPage":
        """Every pair of responses to look through, in the notebook or by ``.save(path)`` as one HTML file.

        Raises:
            InputError: no study made this evaluation.
        """
        if self.page is None:
            raise InputError("only an evaluation that a study made can be viewed: study.evaluate(...).view()")
        return ViewPage(self.page())

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a condition: accuracy and gain with intervals (fractions), p, flips, tokens, truncated and unscored."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.rows.values()])

    def flips(self, condition: str | None = None) -> "pandas.DataFrame":
        """The problems whose score differs between the unsteered model and a condition, with both responses.

        Raises:
            InputError: no such condition.
        """
        import pandas

        name = condition or self.condition
        if name not in self.outcomes:
            raise InputError(f"no condition {name!r}; this evaluation has {', '.join(self.outcomes)}")
        judged = self.outcomes[name]
        pairs = matched(first_responses(asked_too(self.outcomes[UNSTEERED], judged)), first_responses(judged))
        rows = [
            {
                "problem_id": base.problem_id,
                "flip": "fixed" if steered.correct else "broken",
                "question": self.problems[base.problem_id].question,
                "gold": self.problems[base.problem_id].answer,
                "unsteered": base.response,
                "steered": steered.response,
                "p_fail": steered.p_fail,
            }
            for base, steered in pairs
            if base.correct != steered.correct
        ]
        columns = ["problem_id", "flip", "question", "gold", "unsteered", "steered", "p_fail"]
        return pandas.DataFrame(rows, columns=columns)

    def show(self, problem_id: str, condition: str | None = None) -> str:
        """The unsteered response to a problem and a condition's, one after the other.

        Raises:
            InputError: no such problem or condition, or one that was not asked this problem.
        """
        name = condition or self.condition
        if name not in self.outcomes or problem_id not in {outcome.problem_id for outcome in self.outcomes[name]}:
            raise InputError(f"no problem {problem_id!r} or no condition {name!r}; see to_pandas() and flips()")
        shown = []
        for each in (UNSTEERED, name):
            outcome = next(o for o in self.outcomes[each] if o.problem_id == problem_id)
            title = f"{problem_id}, {each}: {outcome.score}, {outcome.reason}"
            shown.append(_chain(title, self.problems[problem_id], outcome.response))
        return "\n\n".join(shown)

    def plot(self) -> "plotly.graph_objects.Figure":
        """Accuracy and paired gain of every condition with their 95 % intervals. Needs the extra ``report``."""
        from trimtab.report.frames import evaluation_figure

        return evaluation_figure(tuple(self.rows.values()), random_gains(self.outcomes), self.split, self.condition)

    def __repr__(self) -> str:
        times = "once" if self.openings == 1 else f"{self.openings} times"
        opened = f"\nThese {self.split} problems have been opened {times} with this model." if self.split is Split.TEST else ""
        return f"{self.verdict.sentence}{opened}"

    def _repr_html_(self) -> str:
        columns = ("condition", "n", "accuracy", "gain", "gain_low", "gain_high", "p", "fixed", "broken")
        return _with_table(repr(self), self.to_pandas(), columns)


@dataclass(frozen=True, slots=True, repr=False)
class ViewPage:
    """The view of an evaluation: an HTML page that loads nothing from anywhere."""

    html: str

    def save(self, path: "str | os.PathLike[str] | AnyPath") -> "AnyPath":
        """Write the page. Raises StoreError where it cannot be written."""
        target = any_path(path)
        write_text(target, self.html)
        return target

    def __repr__(self) -> str:
        return f"view of an evaluation, {len(self.html) / 1e6:.1f} MB of HTML; save it: .save('view.html')"

    def _repr_html_(self) -> str:
        # a frame of its own, so that the notebook's scripts and the page's know nothing of each other
        source = html.escape(self.html, quote=True)
        return (
            f'<iframe title="trimtab view" sandbox="allow-scripts allow-modals" srcdoc="{source}" '
            'style="width:100%;height:52rem;border:1px solid #dfe3e6;border-radius:8px"></iframe>'
        )


def _chain(title: str, problem: Problem, text: str) -> str:
    return f"{title}\nquestion: {problem.question}\n{text}\ngold: {problem.answer}"


def _with_table(text: str, table: "pandas.DataFrame", columns: Sequence[str] = ()) -> str:
    lines = "<br>".join(html.escape(line) for line in text.splitlines())
    return f"<p>{lines}</p>{table.to_html(index=False, escape=True, max_rows=40, columns=list(columns) or None)}"
