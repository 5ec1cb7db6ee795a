"""Ranking with every criterion, from one recording."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from study_samples import with_sections
from trimtab.model import down_weights
from trimtab.ranking import CRITERIA, class_moments, labelled
from trimtab.study import Settings, Study, find

NAMES = ["adaras", "mean-difference", "sign-flip", "top-activation", "wanda", "auroc", "paired-t", "random"]


def test_every_criterion_ranks_one_recording(
    study: Study, settings: Settings, batches: list[int], finished: Path, tmp_path: Path
) -> None:
    """A study on the finished run's cache: the traces are read, a new recording holds what the criteria read."""
    sections = {"recording": {"moments": ("sum", "magnitude", "square")}, "ranking": {"criteria": NAMES, "k": 5}}
    wide = Study(settings=with_sections(settings, **sections), path=shutil.copytree(finished, tmp_path / "run"))
    sets = find.rankings(wide, NAMES, 5)
    assert batches == []
    assert set(NAMES) < set(CRITERIA)
    for name, neurons in sets.items():
        assert (len(neurons), neurons.criterion, neurons.facts["scope"]) == (5, name, "response")

    before = study.rank("adaras").top(5)
    np.testing.assert_array_equal(sets["adaras"].index, before.index)
    np.testing.assert_array_equal(sets["adaras"].correct_mean, before.correct_mean)

    rows = wide.contrast()
    assert max(Counter(row.problem_id for row in rows).values()) > 1
    moments = class_moments(labelled(wide.recording().stream("response"), rows))
    assert moments.correct_norm is not None
    weights = down_weights(wide.model, range(wide.model.n_layers))
    wanda = sets["wanda"]
    columns = [np.linalg.norm(weights[layer][:, index]) for layer, index in zip(wanda.layer, wanda.index, strict=True)]
    np.testing.assert_allclose(wanda.score, moments.correct_norm[wanda.layer, wanda.index] * columns, rtol=1e-6)


def test_cett_ranks_from_a_recording_of_its_own_and_moves_no_key(small: Callable[..., Study]) -> None:
    with small() as study:
        study.rank("adaras", k=3)
        before = dict(study.keys)
        assert "contribution" not in study.settings.recording.moments
    with small() as study:
        found = study.rank("cett", k=3)
        assert (len(found), found.criterion) == (3, "cett")
        assert (found.score > 0).all()
        moments = study.moments(study.contrast(), ("contribution",))
        assert moments.contributions is not None
        assert moments.contributions.correct.sum() * 2 == len(study.contrast())
        assert study.keys["record"] != before["record"]
    with small() as study:
        study.rank("adaras", k=3)
        assert study.keys == before


def test_a_criterion_that_was_not_in_the_settings_is_recorded_for(small: Callable[..., Study]) -> None:
    with small() as study:
        before = study.settings.recording.moments
        assert "square" not in before
        assert study.rank("wanda", k=3).criterion == "wanda"
        assert set(study.settings.recording.moments) == {*before, "square"}
        assert len(study.rank("wanda", k=4)) == 4
