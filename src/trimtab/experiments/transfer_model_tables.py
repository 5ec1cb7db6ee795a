"""How well neurons of one model were found again in another, as a table, a figure and a sentence."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trimtab.experiments.carried import Carried
from trimtab.experiments.matching import SAME_NEURON
from trimtab.results import Column, Dot, Dots, Table
from trimtab.traces import Split

ALIKE = 0.5
"""Above this correlation on held-out texts a partner counts as doing the same."""


def match_table(carried: Mapping[str, Carried]) -> Table:
    """One row a model."""
    columns = (
        Column(name="model"),
        Column(name="neurons", unit="count"),
        Column(name="observations"),
        Column(name="matched on", unit="count"),
        Column(name="held out", unit="count"),
        Column(name="correlation", unit="number"),
        Column(name=f"above {ALIKE:g}", unit="percent"),
        Column(name="shuffled texts", unit="number"),
        Column(name="random partners", unit="number"),
        Column(name="same index", unit="number"),
        Column(name="partners at the same index", unit="count"),
        Column(name="same direction", unit="percent"),
    )
    rows = []
    for name, one in carried.items():
        match = one.match
        above = float((match.correlation > ALIKE).mean())
        medians = (median(match.shuffled), median(match.chance), None if match.same_index is None else median(match.same_index))
        observed = "texts" if one.pooled else "tokens"
        counts = (len(match.correlation), observed, match.n_chosen_on, match.n_held_out)
        rows.append((name, *counts, median(match.correlation), above, *medians, match.at_same_index, one.same_direction))
    note = (
        "Medians over neurons of correlations on held-out problems; the shuffled one is of the best partner on the texts that "
        "chose it. Same direction: partners whose difference between correct and incorrect responses has the predicted sign."
    )
    return Table(name="match", title="The neurons found again", columns=columns, rows=tuple(rows), note=note)


def match_dots(carried: Mapping[str, Carried]) -> Dots:
    """Median and quartiles of the correlations, beside what chance reaches."""
    dots = []
    for name, one in carried.items():
        kinds = {
            "same index": one.match.same_index,
            "matched": one.match.correlation,
            "shuffled texts": one.match.shuffled,
            "random partners": one.match.chance,
        }
        dots += [_dot(f"{name}, {kind}", name, values) for kind, values in kinds.items() if values is not None]
    first = next(iter(carried.values()))
    return Dots(
        name="match",
        title="How well neurons are found again in another model",
        n=len(first.match.correlation),
        of="neurons",
        split=Split.TRAIN,
        detail="median and quartiles over neurons, on held-out problems",
        reading=(
            "Near 1 the partner does the same. Shuffled texts (the best partner, on the texts that chose it) and random partners "
            "are what chance reaches."
        ),
        x_label="correlation of activations",
        unit="number",
        dots=tuple(dots),
        reference=0.0,
    )


def match_words(carried: Carried) -> str:
    """One or two sentences about the match."""
    match = carried.match
    words = (
        f"the partners correlate {median(match.correlation):.2f} in the median on held-out chains (random ones "
        f"{median(match.chance):.2f}, the best of shuffled texts {median(match.shuffled):.2f}), and {carried.same_direction:.0%} "
        "differ between correct and incorrect responses in the direction that this predicts."
    )
    if match.same_index is None:
        return f"{words} Its sizes differ, so nothing is carried by index."
    verdict = f"below {SAME_NEURON:g} it is no fine-tune, so nothing is carried by index."
    if match.is_fine_tune:
        verdict = "it is a fine-tune, to which the set is carried by index too."
    return (
        f"{words} The neurons at the same index correlate {median(match.same_index):.2f}, and {match.at_same_index} of "
        f"{len(match.correlation)} partners are these: {verdict}"
    )


def median(values: NDArray[np.float64]) -> float:
    """The median."""
    return float(np.median(values))


def _dot(label: str, group: str, values: NDArray[np.float64]) -> Dot:
    low, high = np.quantile(values, [0.25, 0.75]).tolist()
    return Dot(label=label, group=group, value=median(values), low=low, high=high)
