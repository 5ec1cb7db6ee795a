"""The stage ``rank`` with every criterion, from one recording."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from trimtab.pipeline import Line, RunConfig
from trimtab.pipeline.config import parse_config
from trimtab.pipeline.stages import rank_neurons, record

from trimtab.model.weights import down_weights
from trimtab.ranking import CRITERIA, class_moments, labelled
from trimtab.store import RunDirectory, load_neurons

NAMES = ["adaras", "mean-difference", "sign-flip", "top-activation", "wanda", "auroc", "paired-t", "random"]


def test_every_criterion_ranks_one_recording(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "activations")
    data = config.model_dump(mode="json")
    data["recording"]["moments"] = ["sum", "magnitude", "square"]
    data["ranking"] |= {"criteria": NAMES, "k": 5}
    line = Line(parse_config(data, "the test"), RunDirectory.open(tmp_path / "run"))
    record(line)
    rank_neurons(line)
    sets = {name: load_neurons(line.directory.ranking(name)) for name in NAMES}
    assert set(NAMES) < set(CRITERIA)
    for name, neurons in sets.items():
        assert (len(neurons), neurons.criterion, neurons.facts["scope"]) == (5, name, "response")

    before = load_neurons(finished / "neurons" / "adaras").top(5)
    np.testing.assert_array_equal(sets["adaras"].index, before.index)
    np.testing.assert_array_equal(sets["adaras"].correct_mean, before.correct_mean)

    rows = line.contrast()
    assert max(Counter(row.problem_id for row in rows).values()) > 1
    moments = class_moments(labelled(line.recording("sampled").stream("response"), rows))
    assert moments.correct_norm is not None
    weights = down_weights(line.model, range(line.model.n_layers))
    wanda = sets["wanda"]
    columns = [np.linalg.norm(weights[layer][:, index]) for layer, index in zip(wanda.layer, wanda.index, strict=True)]
    np.testing.assert_allclose(wanda.score, moments.correct_norm[wanda.layer, wanda.index] * columns, rtol=1e-6)
