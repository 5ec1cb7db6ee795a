"""A study that records while it samples, against the same study that records afterwards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study_samples import results, with_sections
from trimtab.errors import ConfigError
from trimtab.recording import INDEX
from trimtab.store import Parts, read_arrow
from trimtab.study import Settings, Study, find, parse_settings

STREAMED: dict[str, object] = {"while_sampling": True}
Small = Callable[..., Study]


def test_the_same_traces_and_the_same_neurons(small: Small, tmp_path: Path) -> None:
    after, during = small(tmp_path / "after"), small(tmp_path / "during", recording=STREAMED)
    assert during.traces().traces == after.traces().traces
    assert during.traces().grades == after.traces().grades
    assert during.contrast() == after.contrast()
    contrasted = {row.trace_id for row in during.contrast()}
    folder = during.recording().folder
    assert set(read_arrow(folder / INDEX)["trace_id"].to_pylist()) >= contrasted
    stored = {i for ids in Parts(folder, ".safetensors").plan.parts for i in ids}
    assert stored == {trace.id for trace in during.traces()} > contrasted
    for criterion in during.settings.ranking.criteria:
        ours, theirs = (find.rankings(study, [criterion], 10)[criterion] for study in (during, after))
        assert {*zip(ours.layer, ours.index, strict=True)} == {*zip(theirs.layer, theirs.index, strict=True)}
        np.testing.assert_allclose(np.sort(ours.mean_difference), np.sort(theirs.mean_difference), rtol=1e-3, atol=1e-5)


def test_ranking_runs_no_forward_over_the_traces(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a second pass")

    monkeypatch.setattr(find, "record_job", forbidden)
    assert len(small(recording=STREAMED).rank()) == 10
    with pytest.raises(AssertionError, match="a second pass"):
        small().rank()


def test_moments_of_a_killed_call_are_gone_on_with(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the traces without its moments, or the other way round, is made again."""
    settings: dict[str, dict[str, object]] = {"recording": STREAMED, "sampling": {"batch_tokens": 400}}
    whole, cut = small(tmp_path / "whole", **settings), small(tmp_path / "cut", **settings)
    whole.rank()
    cut.sample()
    traces = cut.cache.root / cut.keys["sample"]
    moments = next((cut.cache.root / "record").iterdir())
    (traces / "key.json").unlink()
    sorted(traces.glob("part-*"))[1].unlink()
    sorted(moments.glob("part-*"))[2].unlink()
    small(tmp_path / "cut", **settings).rank()
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_both_ways_to_record_have_results_of_their_own(small: Small, tmp_path: Path) -> None:
    afterwards = small()
    afterwards.rank()
    kept = results(tmp_path / "run")
    during = small(recording=STREAMED)
    during.rank()
    assert during.keys["record"] != afterwards.keys["record"]
    assert results(tmp_path / "run").items() >= kept.items()


def test_imported_traces_are_not_sampled(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"while_sampling needs traces that are sampled; leave it out, or traces\.path"):
        with_sections(settings, recording=STREAMED, traces={"path": "some.jsonl"})
    assert parse_settings({"recording": STREAMED}, "the test").recording.while_sampling
