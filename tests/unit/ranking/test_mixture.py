"""A real mixture of experts from its recording to every criterion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ranking_samples import FIELDS
from tiny_models import MIXTURES, N_EXPERTS, VOCABULARY, tiny, word_tokenizer
from trimtab.model import open_model
from trimtab.model.hook_points import down_weights
from trimtab.moments import ALL_MOMENTS
from trimtab.ranking import CRITERIA, TraceMeans, class_moments, column_norms, labelled, rank
from trimtab.recording import RecordingSettings, record_traces
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Trace

ALL = ("magnitude", "square", "difference", "auroc", "contribution")


@pytest.mark.parametrize("family", MIXTURES)
def test_every_criterion_selects_experts_that_were_routed_to(family: str, tmp_path: Path) -> None:
    tiny(family).save_pretrained(tmp_path / "model")
    word_tokenizer(pad_token="w0", eos_token="w1").save_pretrained(tmp_path / "model")
    model = open_model(tmp_path / "model")
    rng = np.random.default_rng(0)
    # so short that traces miss experts
    traces = [
        Trace(f"p{i // 4}-{i}", f"p{i // 4}", i, (5, 6), tuple(rng.integers(2, VOCABULARY, 3).tolist()), "", "stop")
        for i in range(16)
    ]
    rows = [ContrastRow(trace.id, trace.problem_id, i % 2 == 0) for i, trace in enumerate(traces)]
    settings = RecordingSettings(moments=ALL_MOMENTS, batch_tokens=40)
    recording = record_traces(model, traces, settings, tmp_path / "recording")

    moments = class_moments(labelled(recording.stream("response"), rows), statistics=ALL)
    counts = moments.counts
    assert counts is not None
    assert counts.correct.min() < counts.correct.max() <= moments.n_correct == 8
    assert all(len(np.unique(layer.reshape(N_EXPERTS, -1), axis=1).T) == 1 for layer in counts.correct)
    means = TraceMeans.load(recording.stream("response"), rows, ALL).class_moments(statistics=ALL)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(means, name), getattr(moments, name), rtol=1e-12, atol=1e-13, err_msg=name)

    moments = replace(moments, column_norm=column_norms(down_weights(model, range(model.n_layers))))
    for name in set(CRITERIA) - {"activation-ratio", "mathneuro"}:
        neurons = rank(moments, name, 3, model.identity)
        assert (counts.correct[neurons.layer, neurons.index] > 0).all()
        assert (counts.incorrect[neurons.layer, neurons.index] > 0).all()
