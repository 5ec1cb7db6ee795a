"""How many contrast problems does the search need? Overlap and gain of the sets that fewer problems find."""

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Row, compare_rows, comparison_table, describe
from trimtab.experiments.redrawn import Redrawn, middle, shared
from trimtab.experiments.section import Section
from trimtab.neurons import Neurons
from trimtab.ranking import Choice
from trimtab.results import Column, Curve, CurvePoint, Curves, Table, bounded
from trimtab.steering import Steering
from trimtab.traces import Split

ADARAS_PROBLEMS = 15
"""As many as each of AdaRAS's released contrasts has."""
WHOLE = "the whole contrast"


def sizes(redrawn: Redrawn, base: list[Outcome]) -> Section:
    """Draw fewer problems, search in them, and compare with the whole contrast: the neurons, and their gain on the test split."""
    bench, name = redrawn.bench, redrawn.bench.criterion
    settings, k, n = bench.settings.stability, redrawn.size(name), redrawn.n_problems
    rng = np.random.default_rng([bench.settings.seed, 3])
    rows, conditions = [], {}
    for size in sorted({*settings.sizes, n // 2}):
        if not 2 <= size < n:
            continue
        separate = [size, size] if 2 * size <= n else [size]
        draws = [redrawn.some_problems(rng, *separate) for _ in range(settings.draws)]
        found = [[ranking[name] for ranking in redrawn.rankings(draw, [name])] for draw in draws]
        whole = middle([shared(sets[0], redrawn.whole[name], k) / k for sets in found])
        apart = (None,) * 3 if len(separate) == 1 else middle([shared(one, other, k) / k for one, other in found])
        rows.append((size, settings.draws, *whole, *apart))
        if size in settings.sizes:
            conditions[_label(size)] = [gated_answers(redrawn, choices[0], _label(size)) for choices in draws[: settings.runs]]
    conditions[WHOLE] = bench.answers(Split.TEST, bench.steering, "auto", label=WHOLE)
    gains = compare_rows(base, conditions)
    finding = (
        f"By number of contrast problems (AdaRAS: {ADARAS_PROBLEMS}), share of the whole contrast's set found: "
        + ", ".join(f"{row[0]} problems {row[2]:.0%} [{row[3]:.0%}, {row[4]:.0%}]" for row in rows)
    )
    gain = "Gain on the test split: " + "; ".join(f"{row.label} {describe(row)}" for row in gains)
    return Section(
        (_overlap_table(rows), _gain_table(redrawn, base, gains)), _figures(redrawn, rows, gains), (f"{finding}.", f"{gain}.")
    )


def gated_answers(redrawn: Redrawn, choice: Choice, label: str) -> list[Outcome]:
    """Test answers with the set that a choice finds in place of the whole contrast's, all else as it was chosen."""
    return redrawn.bench.answers(Split.TEST, in_place(redrawn, redrawn.neurons(choice)), "auto", label=label)


def in_place(redrawn: Redrawn, neurons: Neurons) -> Steering:
    """Other neurons under the chosen intervention, strength, scope and gate."""
    steering = redrawn.bench.steering
    return Steering.of(neurons, steering.strength, steering.scope, steering.gate, intervention=redrawn.bench.intervention)


def _label(size: int) -> str:
    return f"{size} problems"


def _overlap_table(rows: list[tuple]) -> Table:
    return Table(
        name="sizes",
        title="The same neurons from fewer problems",
        columns=(
            Column(name="problems", unit="count"),
            Column(name="draws", unit="count"),
            *bounded("shared with the whole contrast", "percent"),
            *bounded("shared by two separate draws", "percent"),
        ),
        rows=tuple(rows),
        note="In brackets the middle 95 % of the draws. The whole contrast holds every draw, so only separate draws replicate.",
    )


def _gain_table(redrawn: Redrawn, base: list[Outcome], gains: list[Row]) -> Table:
    runs = redrawn.bench.settings.stability.runs
    note = (
        f"Mean over {runs} draws of each size, behind the gate; gate, intervention, K and strength stay. "
        "The class means, and so the size of the push, are the draw's own."
    )
    return comparison_table("sizes-gain", "Gain with the neurons of fewer problems", base, gains, note, gains[-1].label)


def _figures(redrawn: Redrawn, rows: list[tuple], gains: list[Row]) -> tuple[Curves, ...]:
    overlap = [_curve("with the whole contrast", [(row[0], *row[2:5]) for row in rows])]
    apart = [(row[0], *row[5:8]) for row in rows if row[5] is not None]
    overlap += [_curve("two separate draws", apart)] if apart else []
    counts = [size for size in sorted(set(redrawn.bench.settings.stability.sizes)) if 2 <= size < redrawn.n_problems]
    dots = [row.dot() for row in gains]
    gain = [
        (x, dot.value, dot.low, dot.high) for x, dot in zip([*counts, redrawn.n_problems + redrawn.left_out], dots, strict=True)
    ]
    return (
        Curves(
            name="sizes",
            title="Share of the set that fewer contrast problems find",
            n=redrawn.n_problems,
            of="contrast problems",
            split=Split.TRAIN,
            detail="mean and the middle 95 % of random draws",
            reading="The whole contrast holds every draw, which flatters the upper curve; separate draws have nothing in common.",
            x_label="contrast problems",
            y_label="shared neurons (% of K)",
            unit="percent",
            x_unit="count",
            log_x=True,
            curves=tuple(overlap),
        ),
        Curves(
            name="sizes-gain",
            title="Gain with the neurons of fewer contrast problems",
            n=gains[0].comparisons[0].n,
            split=Split.TEST,
            detail=f"mean over {redrawn.bench.settings.stability.runs} draws, of their 95 % paired intervals too",
            reading="What the search would have been worth with fewer problems; the last point is the whole contrast.",
            x_label="contrast problems",
            y_label="gain in accuracy (percentage points)",
            unit="points",
            x_unit="count",
            log_x=True,
            curves=(_curve("behind the gate", gain),),
            reference=0.0,
        ),
    )


def _curve(label: str, points: list[tuple]) -> Curve:
    return Curve(label=label, points=tuple(CurvePoint(x=x, value=value, low=low, high=high) for x, value, low, high in points))
