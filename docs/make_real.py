"""Writes the figures of a real model's runs beside the testbed's into docs/results-real.md, between its two markers.

make demo demo-real-seeds
python docs/make_real.py runs/demo/report.json runs/real-0/report.json runs/real-1/report.json runs/real-2/report.json
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trimtab.evaluation.rows import (
    ADARAS,
    AGAIN,
    ALWAYS,
    FIRST_TOKEN,
    GATED,
    NEGATIVE,
    RANDOM,
    RANDOM_NORM,
    UNSTEERED,
    ConditionSummary,
)
from trimtab.findings import Cell
from trimtab.report import read_report
from trimtab.report.data import Report
from trimtab.stats.values import Estimate

PAGE = Path(__file__).with_name("results-real.md")
BEGIN, END = "<!-- made by make_real.py: begin -->", "<!-- made by make_real.py: end -->"
NOT_RUN = "not run"


def main(testbed: Path, real: Sequence[Path]) -> None:
    """Replace what stands between the markers."""
    reports = [read_report(path) for path in real]
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    parts = [table([*reports, read_report(testbed)])]
    for number, report in enumerate(reports):
        parts += [f"### Splits {number}", verdict(report), *experiments(report)]
    body = "\n\n".join(parts)
    PAGE.write_text(f"{head}{BEGIN}\n\n{body}\n\n{END}{tail}")
    print(PAGE)


def table(reports: Sequence[Report]) -> str:
    """One row a figure, one column a run, the testbed's last."""
    rows: list[tuple[str, Callable[[Report], str]]] = [
        ("model", lambda report: report.run.model.name.rpartition("/")[2]),
        ("test problems", lambda report: str(report.verdict.n)),
        ("contrast", contrast),
        ("unsteered accuracy", lambda report: accuracy(report, UNSTEERED)),
        (
            "gate: AUROC on the test split",
            lambda report: NOT_RUN if report.gate is None else interval(report.gate.assessment.auroc),
        ),
        (
            "AUROC from the text alone",
            lambda report: NOT_RUN if report.gate is None else interval(report.gate.assessment.text_auroc),
        ),
        ("difference", lambda report: NOT_RUN if report.gate is None else interval(report.gate.assessment.difference)),
        ("chosen on validation", chosen),
        ("steered behind the gate", lambda report: gain(report, GATED)),
        ("steered always", lambda report: gain(report, ALWAYS)),
        ("AdaRAS's own criterion and constant", lambda report: gain(report, ADARAS)),
        ("negative control: the opposite strength", lambda report: gain(report, NEGATIVE)),
        ("the unsteered model again (A/A)", lambda report: gain(report, AGAIN)),
        ("the steered first token alone", lambda report: gain(report, FIRST_TOKEN)),
        ("random sets of neurons, each", lambda report: sets(report, RANDOM)),
        ("random sets of equal norm, each", lambda report: sets(report, RANDOM_NORM)),
        ("random sets that gain as much as steered always", against_random),
        ("ablated, the chosen criterion's neurons", lambda report: caused(report, "{criterion}, ablated")),
        ("ablated, random neurons of the same layers", lambda report: caused(report, "random, ablated (for {criterion})")),
        ("amplified by 1.1", lambda report: caused(report, "{criterion}, amplified by 1.1")),
        ("openings of the test split", lambda report: str(report.run.ledger_openings)),
        ("verdict", lambda report: report.verdict.word),
    ]
    names = [*(f"SmolLM2, splits {number}" for number in range(len(reports) - 1)), "the testbed's reasoner"]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cell(report) for report in reports)} |" for name, cell in rows)])


def contrast(report: Report) -> str:
    """Traces and problems that the neurons were found from."""
    counts = report.neurons.contrast
    return f"{counts['correct']} correct and {counts['incorrect']} incorrect traces of {counts['problems']} problems"


def chosen(report: Report) -> str:
    """The grid point."""
    neurons = report.neurons
    return f"{neurons.criterion}, {neurons.intervention}, K = {neurons.k} ({neurons.share:.2%}), strength {neurons.strength:g}"


def accuracy(report: Report, name: str) -> str:
    """Share correct with its interval, in per cent."""
    row = summary(report, name)
    return NOT_RUN if row is None else f"{row.accuracy:.1%} [{row.low:.1%}, {row.high:.1%}]"


def gain(report: Report, name: str) -> str:
    """Paired gain in points, its interval and p."""
    row = summary(report, name)
    if row is None:
        return NOT_RUN
    return f"{100 * row.gain:+.1f} [{100 * row.gain_low:+.1f}, {100 * row.gain_high:+.1f}], p = {row.p:.2g}"


def sets(report: Report, name: str) -> str:
    """The gain of every random set of a kind, in points."""
    gains = report.random_gains.get(name)
    return ", ".join(f"{100 * value:+.1f}" for value in gains) if gains else NOT_RUN


def against_random(report: Report) -> str:
    """How many random sets of either kind, always steered, gain as much as the chosen neurons."""
    row = summary(report, ALWAYS)
    gains = [value for values in report.random_gains.values() for value in values]
    if row is None or not gains:
        return NOT_RUN
    as_good = sum(value >= row.gain for value in gains)
    return f"{as_good} of {len(gains)} gain as much"


def summary(report: Report, name: str) -> ConditionSummary | None:
    """The row of a condition, where it was run."""
    return next((row for row in report.conditions if row.condition == name), None)


def interval(estimate: Estimate | None) -> str:
    """A value with its interval."""
    return NOT_RUN if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def caused(report: Report, label: str) -> str:
    """A row of the experiment ``causal``, gain and interval in points; ``{criterion}`` is that of the chosen neurons."""
    wanted = label.format(criterion=report.neurons.criterion)
    rows = (row for found in report.experiments for frame in found.frames if frame.name == "causal" for row in frame.rows)
    row = next((row for row in rows if row["label"] == wanted), None)
    return NOT_RUN if row is None else f"{points(row['value'])} [{points(row['low'])}, {points(row['high'])}]"


def points(share: Cell) -> str:
    """A gain in points, with its sign."""
    return NOT_RUN if share is None else f"{100 * float(share):+.1f}"


def experiments(report: Report) -> list[str]:
    """What the experiments of a run found, sentence by sentence."""
    return [f"{found.title}:\n\n" + "\n".join(f"- {sentence}" for sentence in found.sentences) for found in report.experiments]


def verdict(report: Report) -> str:
    """The sentence of the verdict, and what has to stand beside it."""
    return "\n>\n".join(f"> {sentence}" for sentence in (report.verdict.sentence, *report.claims))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
