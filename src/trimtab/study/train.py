"""Trained gains and shifts for the neurons of a steering: one training a learning rate, the best on the validation split kept."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimtab.errors import NotEnoughDataError
from trimtab.evaluation.finetune_training import TrainedSettings
from trimtab.evaluation.rows import TRAINED
from trimtab.evaluation.runner import Condition
from trimtab.evaluation.trained import Trained, load_trained, save_trained, train_values, trained_steering
from trimtab.gate import ALWAYS
from trimtab.model import check_identity
from trimtab.steering import Steering
from trimtab.store import AnyPath, digest_of
from trimtab.study.answers import Asked, answers, correct_traces
from trimtab.traces import Problem, Split

if TYPE_CHECKING:
    from trimtab.study.study import Study


def train(study: "Study", steering: Steering, settings: TrainedSettings) -> Steering:
    """The steering with trained values at the learning rate that is best on the validation split, steered always.

    Ties go to the smallest rate. One rate is trained and not tried. The validation problems are those of the grid of ``tune``.

    Raises:
        MismatchError: a steering made for other weights.
        NotEnoughDataError: no correct trace, or no validation problem to choose a rate on.
    """
    check_identity(steering.model, study.model.identity)
    rates = sorted(set(settings.learning_rates))
    found = [trained_steering(steering, _values(study, steering, settings, rate), learning_rate=rate) for rate in rates]
    if len(found) == 1:
        return found[0]
    problems = study.problems().split(Split.VALIDATION)[: study.settings.tune.problems]
    if not problems:
        raise NotEnoughDataError(
            "a learning rate is chosen on problems of the validation split, and there are none; ask for some with validation=N, "
            "or give one rate"
        )
    accuracies = _accuracies(study, found, problems)
    best = max(range(len(found)), key=lambda i: (accuracies[i], -i))
    tried = [{"learning_rate": rate, "accuracy": accuracy} for rate, accuracy in zip(rates, accuracies, strict=True)]
    chosen = found[best]
    said: dict[str, object] = {**chosen.facts["trained"], "tried": tried, "validation": len(problems)}  # type: ignore[dict-item]
    return replace(chosen, facts={**chosen.facts, "trained": said})


def _accuracies(study: "Study", candidates: Sequence[Steering], problems: Sequence[Problem]) -> list[float]:
    greedy = study.settings.sampling.greedy()
    asked = [Asked(Condition(TRAINED, each.with_gate(ALWAYS)), problems, greedy) for each in candidates]
    return [sum(o.correct for o in rows) / len(rows) for rows in answers(study, asked, what=TRAINED)]


def _values(study: "Study", steering: Steering, settings: TrainedSettings, rate: float) -> Trained:
    """One training, from the cache where it was made before."""
    traces = correct_traces(study)
    at = settings.at(rate)
    facts = {
        "traces": [study.keys["sample"], study.keys["contrast"]],
        "neurons": digest_of([steering.layer.tolist(), steering.index.tolist()]),
        "scope": steering.scope,
        "gains": settings.gains,
        "settings": at.model_dump(mode="json"),
    }
    entry = study.entry(TRAINED, {**facts, **study.forward_facts()})

    def work(folder: AnyPath) -> None:
        values = train_values(study.model, steering, traces, at, gains=settings.gains, progress=study.progress)
        save_trained(values, folder)

    study.note_keys({entry.name: entry})
    return study.remember(entry, lambda: study.cache.compute(entry, work, load_trained))
