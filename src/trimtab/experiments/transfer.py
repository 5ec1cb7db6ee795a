"""``transfer``: do neurons and gate of some problems help on others? From domain to domain, from hard to easy and back."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trimtab.analysis.sets import set_overlaps
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments.comparisons import gain_dots, gain_words
from trimtab.experiments.crossing import (
    ALPHA,
    Crossing,
    Excess,
    cross_together,
    crossing_matrix,
    crossing_table,
    describe_excess,
    excess,
)
from trimtab.experiments.grouping import EASY, HARD, Grouping, by_difficulty, by_domain
from trimtab.experiments.sources import Source, find_source, gated_answers
from trimtab.experiments.transfer_tables import (
    EVERYTHING,
    FOUND,
    TESTED,
    crossing_dots,
    overlap_found,
    overlap_matrix,
    overlap_table,
    sources_table,
)
from trimtab.experiments.workbench import Workbench
from trimtab.results import Figure, Result, Table
from trimtab.traces import Split

ALWAYS, GATED = "always", "gated"
_HOW = {ALWAYS: "always steered", GATED: "behind the gate of the domain that gave them"}


class _Section(NamedTuple):
    """Tables, figures and findings of one grouping."""

    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    findings: tuple[str, ...] = ()


class _Tried(NamedTuple):
    """The sources of a grouping and what they came to on the test split.

    Args:
        conditions: by ``always`` and ``gated``, the answers by source, with those of the run's own steering last.
        crossings: by the same.
    """

    sources: tuple[Source, ...]
    conditions: Mapping[str, Mapping[str, list[Outcome]]]
    crossings: Mapping[str, Crossing]


def transfer(bench: Workbench) -> Result:
    """Find on one group of the find problems, choose the strength on its tune problems, test on every group of the test problems.

    One evaluation of the whole test split per source serves a whole row of the matrix.
    """
    base = bench.answers(Split.TEST, None, label="unsteered")
    sections = [_domains(bench, base), _difficulty(bench, base)]
    return Result(
        name="transfer",
        title="Transfer between domains and difficulties",
        question="Do neurons and gate that some problems gave help on other problems?",
        findings=tuple(finding for section in sections for finding in section.findings),
        split=Split.TEST,
        tables=tuple(table for section in sections for table in section.tables),
        figures=tuple(figure for section in sections for figure in section.figures),
    )


def _domains(bench: Workbench, base: Sequence[Outcome]) -> _Section:
    grouping = by_domain(bench)
    tried = _try(bench, base, grouping)
    if tried is None:
        return _Section(findings=("There are no two domains large enough to find neurons on, so none can transfer.",))
    overlaps = set_overlaps({source.name: source.neurons for source in tried.sources})
    matrices = [
        crossing_matrix(
            f"domains-{how}",
            f"Gain of the neurons of one domain on another, {_HOW[how]}",
            crossing,
            FOUND,
            TESTED,
            "gain in points over the unsteered model",
            "A row is a set of neurons, a column the problems that it was tried on; the diagonal is a set's own domain.",
        )
        for how, crossing in tried.crossings.items()
    ]
    left_out = f"Too small, or beyond the number of domains asked for: {', '.join(grouping.left_out)}."
    return _Section(
        tables=(
            sources_table("domains-found", "What each domain gives", bench, grouping, tried.sources),
            _gains_table("domains-gains", "From domain to domain", tried),
            overlap_table("domains-overlap", overlaps),
        ),
        figures=(*matrices, overlap_matrix("domains-overlap", overlaps, grouping)),
        findings=(
            *_gains_found(base, grouping, tried),
            overlap_found(overlaps),
            *([left_out] if grouping.left_out else []),
        ),
    )


def _difficulty(bench: Workbench, base: Sequence[Outcome]) -> _Section:
    grouping = by_difficulty(bench)
    tried = _try(bench, base, grouping)
    if tried is None:
        return _Section(findings=("The contrast has no hard and easy problems, or too few, so neither can transfer.",))
    reading = "Published (arXiv 2601.19847): neurons of hard tasks carry over to others."
    dots = gain_dots("difficulty", "From easy and hard problems to both", crossing_dots(tried.crossings), Split.TEST, reading)
    crossing = tried.crossings[ALWAYS]
    sizes = ", ".join(f"{cell.comparisons[0].n} {name}" for name, cell in zip(crossing.columns, crossing.cells[0], strict=True))
    return _Section(
        tables=(
            sources_table("difficulty-found", "What the easier and the harder half give", bench, grouping, tried.sources),
            _gains_table("difficulty-gains", "From hard to easy problems and back", tried),
        ),
        figures=(dots.model_copy(update={"n": crossing.n, "detail": f"{sizes}; {dots.detail}"}),),
        findings=(
            *_difficulty_found(grouping, tried),
            overlap_found(set_overlaps({source.name: source.neurons for source in tried.sources})),
        ),
    )


def _try(bench: Workbench, base: Sequence[Outcome], grouping: Grouping) -> _Tried | None:
    """Find and test every source; None for fewer than two."""
    found = [find_source(bench, grouping, name) for name in grouping.names]
    sources = tuple(source for source in found if source is not None)
    if len(sources) < 2:
        return None
    always = {s.name: bench.answers(Split.TEST, s.steering, label=f"{s.name}, always") for s in sources}
    conditions = {ALWAYS: always | {EVERYTHING: bench.answers(Split.TEST, bench.steering, label="always")}}
    if bench.steering.gate.reads:
        gated = {s.name: gated_answers(bench, s.steering, base, always[s.name]) for s in sources}
        conditions[GATED] = gated | {EVERYTHING: bench.answers(Split.TEST, bench.steering, "auto", label="gated")}
    return _Tried(
        sources, conditions, dict(zip(conditions, cross_together(base, list(conditions.values()), grouping), strict=True))
    )


def _gains_table(name: str, title: str, tried: _Tried) -> Table:
    gated = (
        "Behind a gate, neurons and gate come from the same problems. " if GATED in tried.conditions else "The run has no gate. "
    )
    note = f"The last rows are the run's own steering. {gated}p is corrected by Holm over all gains of the table."
    return crossing_table(name, title, tried.crossings, FOUND, TESTED, note)


def _gains_found(base: Sequence[Outcome], grouping: Grouping, tried: _Tried) -> list[str]:
    findings = []
    for how, crossing in tried.crossings.items():
        away = [cell for row, column, cell in crossing if row not in (column, EVERYTHING)]
        gains = [100 * cell.gain for cell in away]
        sure = [cell.gain > 0 for cell in away if cell.p_holm is not None and cell.p_holm < ALPHA]
        found = excess(base, tried.conditions[how], grouping)
        findings.append(
            f"{how.capitalize()}, neurons of one domain on another: gains from {min(gains):+.1f} to {max(gains):+.1f} points; of "
            f"{len(away)} pairs {sum(sure)} gain and {len(sure) - sum(sure)} lose (p < {ALPHA} after Holm). "
            f"On average {describe_excess(found)}: {_verdict(found)}."
        )
    return findings


def _verdict(found: Excess) -> str:
    if not found.differs:
        by_names = " (names given at random reach as much)" if not found.low <= 0 <= found.high else ""
        return f"no evidence that a domain's own neurons are better for it than those of others{by_names}"
    more = "more" if found.value > 0 else "less"
    return f"a domain's own neurons, at the strength chosen on it, help it {more} than those of others"


def _difficulty_found(grouping: Grouping, tried: _Tried) -> list[str]:
    findings = []
    for how, crossing in tried.crossings.items():
        parts = [f"{row} to {column} {gain_words(c.comparisons[0])}" for row, column, c in crossing if row != EVERYTHING]
        findings.append(f"{how.capitalize()}: {'; '.join(parts)}.")
    conditions = tried.conditions[ALWAYS]
    for name in grouping.names:
        easy, hard = ([o for o in conditions[source] if grouping.of[o.problem_id] == name] for source in (EASY, HARD))
        findings.append(f"On {name} problems, neurons of hard instead of easy ones, always: {gain_words(paired(easy, hard))}.")
    return findings
