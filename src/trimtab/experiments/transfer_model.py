"""``transfer-model``: carry the neurons to another model, by index to a fine-tune and by correlation to any."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.carried import Carried, carry
from trimtab.experiments.choosing import best_strength
from trimtab.experiments.comparisons import Row, compare_rows, comparison_table, describe, gain_dots
from trimtab.experiments.transfer_model_tables import match_dots, match_table, match_words
from trimtab.experiments.workbench import Workbench
from trimtab.model import open_model
from trimtab.ranking import random_like
from trimtab.results import Figure, Result, Table
from trimtab.stats.auroc import auroc, delong_interval
from trimtab.steering import Steering
from trimtab.traces import Split

BY_INDEX, GATED = "by index", "by index, carried gate"
MATCHED, OWN, RANDOM = "matched by correlation", "its own, found on the same responses", "random neurons"


class _Model(NamedTuple):
    """What carrying to one model came to."""

    carried: Carried
    table: Table
    figure: Figure
    finding: str


def transfer_model(bench: Workbench) -> Result:
    """Carry the found neurons to every other model of the settings; strengths are chosen on the validation split with that model.

    The gate is carried to a fine-tune only, whose neurons are where the gate reads them; elsewhere every problem is steered.
    """
    models = [_model(bench, name) for name in bench.settings.other_models]
    carried = {name: model.carried for name, model in zip(bench.settings.other_models, models, strict=True)}
    none = "No other model was named, so nothing was carried: set experiment.other_models, or give --to MODEL."
    return Result(
        name="transfer-model",
        title="Transfer to other models",
        question=f"Do the neurons of {bench.model.identity.name} help another model?",
        findings=tuple(model.finding for model in models) or (none,),
        split=Split.TEST,
        tables=(*((match_table(carried),) if models else ()), *(model.table for model in models)),
        figures=(*((match_dots(carried),) if models else ()), *(model.figure for model in models)),
    )


def _model(bench: Workbench, name: str) -> _Model:
    other = open_model(name, dtype=str(bench.model.hf_model.dtype).removeprefix("torch."), device=str(bench.model.device))
    there = bench.on(other, bench.folder / f"model-{other.identity.fingerprint}")
    carried = carry(bench, other)
    base = there.answers(Split.TEST, None, label=f"{name}, unsteered")
    steerings = _steerings(there, carried)
    conditions = {label: there.answers(Split.TEST, steering, label=f"{name}, {label}") for label, steering in steerings.items()}
    gate = ""
    if carried.by_index is not None and carried.by_index.gate.reads:
        conditions[GATED] = there.answers(Split.TEST, steerings[BY_INDEX], "auto", label=f"{name}, {GATED}")
        gate = _gate_words(base, conditions[GATED])
    primary = steerings[BY_INDEX if BY_INDEX in steerings else MATCHED]
    seeds = range(bench.settings.seed, bench.settings.seed + bench.settings.random_sets)
    random = [there.answers(Split.TEST, random_like(primary, seed), label=f"{name}, {RANDOM}") for seed in seeds]
    rows = compare_rows(base, {**conditions, RANDOM: random})
    slug, title = _slug(name), f"Neurons of {bench.model.identity.name} on {name}"
    strengths = ", ".join(f"{label} {steering.strength:g}" for label, steering in steerings.items())
    note = (
        f"Always steered, but for the carried gate. Strengths, chosen on the validation split with {name}: {strengths}. "
        "p is corrected by Holm."
    )
    return _Model(
        carried,
        comparison_table(slug, title, base, rows, note),
        gain_dots(slug, title, rows, Split.TEST, "Random sets have the size, the layers and the strength of the carried one."),
        f"{name}: {match_words(carried)} {_gains(rows)}{gate}",
    )


def _steerings(there: Workbench, carried: Carried) -> dict[str, Steering]:
    """Each set at the strength that is best for it on the other model's validation split; partners that are the same neurons
    once."""
    sets: dict[str, Steering] = {}
    if carried.by_index is not None:
        sets[BY_INDEX] = carried.by_index
    if carried.by_index is None or carried.match.at_same_index != len(carried.matched):
        sets[MATCHED] = there.always(carried.matched)
    if carried.own is not None:
        sets[OWN] = there.always(carried.own)
    return {label: best_strength(there, steering, label=f"{label}, strength") for label, steering in sets.items()}


def _gains(rows: Sequence[Row]) -> str:
    return "Gains: " + "; ".join(f"{row.label} {describe(row)}" for row in rows) + "."


def _gate_words(base: Sequence[Outcome], gated: Sequence[Outcome]) -> str:
    """How well the carried gate predicts the failures of the other model."""
    failed = [not outcome.correct for outcome in base]
    p_fail = [outcome.p_fail or 0.0 for outcome in gated]
    if min(sum(failed), len(failed) - sum(failed)) < 2:
        return ""
    low, high = delong_interval(failed, p_fail, 0.95)
    return f" The carried gate predicts its failures with AUROC {auroc(failed, p_fail):.3f} [{low:.3f}, {high:.3f}]."


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
