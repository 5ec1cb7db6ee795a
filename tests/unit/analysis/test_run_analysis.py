"""Everything at once, on a tiny model."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from analysis_samples import model, steering, traces
from tiny_models import D_FF, N_LAYERS
from trimtab.analysis import Analysis, AnalysisSettings, PromptLabels, analyse, drift, layer_histogram
from trimtab.errors import InputError
from trimtab.ranking import class_moments
from trimtab.recording import record_batch

SETTINGS = AnalysisSettings(traces=7, neurons=3, top=2, context=2, probe_features=4)


def everything(with_optional: bool = True, **changes: object) -> Analysis:
    opened = model("qwen3")
    contrast = traces(10)
    moments = record_batch(opened, contrast, ("response",), ("sum", "magnitude"))["response"]
    parts = [(moments, [t.problem_id for t in contrast], [i % 2 == 0 for i in range(10)])]
    rng = np.random.default_rng(0)
    labels = PromptLabels(rng.normal(size=(40, N_LAYERS, D_FF)).astype(np.float32), rng.random(40) < 0.5)
    edit = steering(opened)
    optional = {"steered": contrast, "train": labels, "validation": labels, "sets": {"a": edit, "b": steering(opened, k=4)}}
    return analyse(
        opened,
        edit,
        class_moments(parts),
        parts,
        contrast,
        traces(6),
        split="validation",
        **({"settings": SETTINGS} | (optional if with_optional else {}) | changes),  # type: ignore[arg-type]
    )


def test_every_piece_is_there_and_is_plain_json() -> None:
    analysis = everything()
    assert all(getattr(analysis, field.name) is not None for field in fields(analysis))
    data = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert data.keys() == {field.name for field in fields(analysis)}
    assert data["overlaps"][0]["shared"] == 4
    assert data["drift"]["layers"][0]["cosine"].keys() == {"value", "low", "high"}
    assert data["vocabulary"]["neurons"][0]["promoted"][0].keys() == {"id", "token", "logit", "z"}
    assert len(data["top_tokens"]["neurons"][0]["highest"]) == 2


def test_what_was_not_given_is_none() -> None:
    analysis = everything(with_optional=False)
    assert (analysis.magnitudes, analysis.probes, analysis.overlaps) == (None, None, ())
    assert analysis.to_json()["probes"] is None


def test_pieces_are_those_of_their_own_functions() -> None:
    opened, analysis = model("qwen3"), everything()
    assert analysis.layers == layer_histogram(steering(opened))
    assert analysis.drift == drift(opened, traces(6), steering(opened))
    assert [n.index for n in analysis.vocabulary.neurons] == steering(opened).index[:3].tolist()


def test_no_more_traces_than_asked_for() -> None:
    analysis = everything()
    assert analysis.top_tokens.n_traces == 7
    assert analysis.magnitudes is not None
    assert (analysis.magnitudes.n_steered, analysis.magnitudes.n_unsteered, analysis.drift.n_traces) == (7, 6, 6)
    assert everything() == analysis
    assert everything(settings=replace(SETTINGS, seed=1)).top_tokens != analysis.top_tokens


def test_progress_reaches_its_end() -> None:
    steps: list[int] = []

    def counting(label: str, total: int, done: int = 0):
        steps.append(-total)
        return _Counting(steps)

    everything(progress=counting)
    assert sum(steps) == 0


class _Counting:
    def __init__(self, steps: list[int]) -> None:
        self._steps = steps

    def __enter__(self):
        return lambda items, tokens: self._steps.append(items)

    def __exit__(self, *_: object) -> None:
        pass


def test_a_recording_without_magnitudes_is_refused() -> None:
    opened = model("qwen3")
    contrast = traces(10)
    moments = record_batch(opened, contrast, ("response",), ("sum",))["response"]
    parts = [(moments, [t.problem_id for t in contrast], [i % 2 == 0 for i in range(10)])]
    with pytest.raises(InputError, match="record again with 'magnitude'"):
        analyse(opened, steering(opened), class_moments(parts), parts, contrast, traces(6), split="validation", settings=SETTINGS)
