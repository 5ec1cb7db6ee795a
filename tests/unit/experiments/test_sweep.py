"""The sweep: every setting beside the chosen point, on the validation split alone."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from search_samples import changed
from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments import EXPERIMENTS, ExperimentSettings, Search
from trimtab.experiments.settings import SweepSettings
from trimtab.experiments.sweep import (
    Axis,
    Measured,
    Series,
    Setting,
    ValidationAnswers,
    axes,
    axis_words,
    is_chosen,
    layer_subsets,
    sweep,
)
from trimtab.findings import Findings
from trimtab.gate import ALWAYS
from trimtab.stats.paired import compare
from trimtab.traces import Problem, Split

SETTINGS = ExperimentSettings(
    sweep=SweepSettings(problems=12, k=(2,), strengths=(0.5,), thresholds=(1.0,), factors=(1.5,), layer_bands=2)
)


@pytest.fixture(scope="module")
def swept(search: Search) -> tuple[Search, Findings]:
    """A search that has no test split, and what the sweep made of it."""
    problems = {split: search.problems[split] for split in EXPERIMENTS["sweep"].reads}
    closed = changed(search, settings=SETTINGS, problems=problems)
    return closed, sweep(closed)


def _share(outcomes: list[Outcome]) -> float:
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)


def test_the_test_split_is_kept_from_it(swept: tuple[Search, Findings]) -> None:
    search, found = swept
    assert EXPERIMENTS["sweep"].reads == {Split.TRAIN, Split.VALIDATION}
    with pytest.raises(InputError, match="must not read the test split; it may read"):
        search.answers(Split.TEST, None)
    assert found.split == "validation"


def test_every_axis_holds_the_chosen_point_where_it_can(swept: tuple[Search, Findings]) -> None:
    search, found = swept
    chosen = {
        "k": f"K = {search.k}",
        "strength": f"strength {search.steering.strength:g}",
        "scope": "generated",
        "layers": "all layers",
    }
    for name, label in chosen.items():
        marked = [row for row in found[name].rows if row["chosen"]]
        assert {row["label"] for row in marked} == {label}
        assert all(row["against"] is None for row in marked)
    assert not any(row["chosen"] for row in found["scale"].rows)
    assert all(row["n"] == 12 for frame in found.frames for row in frame.rows)
    assert all(row["p"] is None for frame in found.frames for row in frame.rows)


def test_gains_are_those_of_the_answers(swept: tuple[Search, Findings]) -> None:
    search, found = swept
    problems = search.split(Split.VALIDATION)[:12]
    base = _share(search.answers(Split.VALIDATION, None, problems=problems))
    chosen = _share(search.answers(Split.VALIDATION, search.steering, "auto", problems))
    steering = search.always(search.neurons(search.criterion, 2)).with_gate(search.steering.gate)
    gated, always = (_share(search.answers(Split.VALIDATION, steering, gate, problems)) for gate in ("auto", "on"))
    row, other = (row for row in found["k"].rows if row["label"] == "K = 2")
    assert (row["series"], other["series"]) == ("gated", "always")
    assert (row["neurons"], row["x"]) == (2, 2)
    assert row["accuracy"] == pytest.approx(gated)
    assert row["value"] == pytest.approx(gated - base)
    assert other["value"] == pytest.approx(always - base)
    assert row["against"] == pytest.approx(gated - chosen)


def test_answers_put_together_are_those_behind_the_gate(swept: tuple[Search, Findings]) -> None:
    search, _ = swept
    problems = search.split(Split.VALIDATION)[:12]
    answers = ValidationAnswers(search, problems)
    run = search.answers(Split.VALIDATION, search.steering, "auto", problems)
    assert [o.response for o in answers.under(search.steering, gated=True)] == [o.response for o in run]
    assert answers.fires == [o.fired for o in run]
    assert len(set(answers.fires)) == 2, "a gate that always or never fires proves nothing"


def test_a_proportional_gate_is_run(swept: tuple[Search, Findings]) -> None:
    search, _ = swept
    problems: list[Problem] = list(search.split(Split.VALIDATION)[:4])
    steering = search.steering.with_gate(replace(search.steering.gate, mode="proportional"))
    answers = ValidationAnswers(changed(search, steering=steering), problems)
    expected = search.answers(Split.VALIDATION, steering, "auto", problems)
    assert [o.response for o in answers.under(steering.with_gate(ALWAYS), gated=True)] == [o.response for o in expected]


def test_without_a_gate_there_is_one_view(swept: tuple[Search, Findings]) -> None:
    search = changed(swept[0], steering=swept[0].steering.with_gate(ALWAYS))
    made = {axis.name: axis for axis in axes(search)}
    assert [series.label for series in made["k"].series] == ["always"]
    assert [series.label for series in made["scope"].series] == ["always"]
    assert [setting.label for setting in made["scope"].series[0].settings] == ["generated", "last-and-generated", "all"]
    assert [is_chosen(setting, search.steering) for setting in made["scope"].series[0].settings] == [True, False, False]


def test_layers_select_within_themselves(swept: tuple[Search, Findings]) -> None:
    search, _ = swept
    layers = next(axis for axis in axes(search) if axis.name == "layers")
    order = search.neurons(search.criterion, search.steering.model.n_neurons)
    first = next(setting.steering for setting in layers.series[0].settings if setting.label.endswith("0 to 1 alone"))
    expected = [(n, i) for n, i in zip(order.layer.tolist(), order.index.tolist(), strict=True) if n <= 1][: search.k]
    assert list(zip(first.layer.tolist(), first.index.tolist(), strict=True)) == expected


def test_without_magnitudes_there_is_no_ratio(swept: tuple[Search, Findings]) -> None:
    moments = replace(swept[0].class_moments, correct_magnitude=None, incorrect_magnitude=None)
    search = changed(swept[0], class_moments=moments)
    made = {axis.name: axis for axis in axes(search)}
    assert "threshold" not in made
    assert [series.label for series in made["scale"].series] == ["found neurons, gated", "found neurons, always"]


def test_optimism_is_said(swept: tuple[Search, Findings]) -> None:
    search, found = swept
    assert found.sentences[0].startswith(
        "All figures are of 12 problems of the validation split, and the test split was not read."
    )
    assert "chosen on these problems, so its gain is optimistic" in found.sentences[0]
    some = changed(search, tune=search.tune.model_copy(update={"problems": 5}))
    assert "the first 5" in sweep(some).sentences[0]
    assert "on the other 7" in sweep(some).sentences[0]


@pytest.mark.parametrize(("n_layers", "bands"), [(1, 8), (2, 8), (3, 8), (10, 3), (28, 8)])
def test_layer_subsets(n_layers: int, bands: int) -> None:
    subsets = layer_subsets(n_layers, bands)
    groups = min(n_layers, bands)
    assert len(subsets) == {1: 0, 2: 2}.get(groups, 2 * groups + 2)
    alone = [layers for label, layers in subsets if label.endswith("alone")]
    assert [layer for layers in alone for layer in layers] == (list(range(n_layers)) if alone else [])
    for label, layers in subsets:
        if label.startswith("without"):
            left_out = next(group for name, group in subsets if name == label.removeprefix("without ") + " alone")
            assert sorted([*layers, *left_out]) == list(range(n_layers))
    if len(subsets) > 2:
        assert np.concatenate([layers for label, layers in subsets if label.endswith("half")]).tolist() == list(range(n_layers))


def _measured(label: str, x: float, base: list[bool], condition: list[bool], chosen: list[bool] | None) -> Measured:
    setting = Setting(label, x, SimpleNamespace())  # type: ignore[arg-type]
    against = None if chosen is None else compare(np.array(chosen), np.array(condition))
    return Measured(setting, compare(np.array(base), np.array(condition)), against)


def test_findings_say_what_came_out() -> None:
    base, good, bad = [False] * 20 + [True] * 20, [True] * 40, [False] * 40
    chosen = _measured("K = 5", 5, base, good, None)
    others = [
        _measured("K = 1", 1, base, base, good),
        _measured("K = 9", 9, base, good, good),
        _measured("K = 99", 99, base, bad, good),
    ]
    series = Series("gated", tuple(m.setting for m in [chosen, *others]), gated=True)
    axis = Axis("k", "number of neurons K", "curves", (series,), chosen=5, published=1)
    words = axis_words(axis, [(series, [others[0], chosen, *others[1:]])])
    assert words.startswith("Number of neurons K: gated, best K = 5 (chosen) +50.0 points [")
    assert "worst K = 99 -50.0 points [" in words
    assert "published K = 1 +0.0 points [" in words
    assert words.endswith("no evidence of a difference from the chosen point at 1 of 3 others (K = 9).")
    flat = axis_words(axis, [(series, others[:1])])
    assert flat == "Number of neurons K: gated, no evidence of an effect at any of 1 settings."
