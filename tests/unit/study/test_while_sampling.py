"""A run that records while it samples, against the same run that records afterwards."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from trimtab.pipeline import STAGES, Line, RunConfig, run, run_one
from trimtab.pipeline import stages as module
from trimtab.pipeline.config import parse_config
from trimtab.pipeline.line import SAMPLED
from trimtab.pipeline.stages import is_done

from tiny_testbed import tree_bytes
from trimtab.errors import ConfigError
from trimtab.recording import INDEX
from trimtab.store import Parts, RunDirectory, read_arrow


@pytest.fixture(scope="module")
def streamed(config: RunConfig) -> RunConfig:
    data = config.model_dump(mode="json")
    return parse_config({**data, "recording": {**data["recording"], "while_sampling": True}}, "the test")


@pytest.fixture(scope="module")
def ranked(streamed: RunConfig, tmp_path_factory: pytest.TempPathFactory, coin: pytest.MonkeyPatch) -> Path:
    """The run directory up to the ranking."""
    return run(streamed, Path(tmp_path_factory.mktemp("streamed")) / "run", until="rank")


def test_the_same_traces_and_the_same_neurons(finished: Path, config: RunConfig, ranked: Path, streamed: RunConfig) -> None:
    after, during = (Line(c, RunDirectory.open(path)) for c, path in ((config, finished), (streamed, ranked)))
    for name in ("traces", "grades", "contrast.parquet"):
        own, other = (path / name for path in (ranked, finished))
        assert tree_bytes(own) == tree_bytes(other) if own.is_dir() else own.read_bytes() == other.read_bytes()
    contrasted = {row.trace_id for row in during.contrast()}
    assert set(read_arrow(ranked / "activations" / SAMPLED / INDEX)["trace_id"].to_pylist()) == contrasted
    stored = {i for ids in Parts(ranked / "activations" / SAMPLED, ".safetensors").plan.parts for i in ids}
    assert stored == {trace.id for trace in during.traces(SAMPLED)} > contrasted
    for criterion in config.ranking.criteria:
        ours, theirs = (line.neurons(criterion) for line in (during, after))
        assert {*zip(ours.layer, ours.index, strict=True)} == {*zip(theirs.layer, theirs.index, strict=True)}
        np.testing.assert_allclose(np.sort(ours.mean_difference), np.sort(theirs.mean_difference), rtol=1e-3, atol=1e-5)


def test_the_record_stage_runs_no_forward_over_the_traces(
    ranked: Path, streamed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a second pass")

    monkeypatch.setattr(module, "record_job", forbidden)
    run(streamed, tmp_path / "run", until="sample")
    line = Line(streamed, RunDirectory.open(tmp_path / "run"))
    assert is_done(line, "sample")
    assert not is_done(line, "record")
    run(streamed, tmp_path / "run", until="rank", resume=True)
    wanted = {name: content for name, content in tree_bytes(ranked).items() if name not in ("seconds.json", ".lock")}
    assert {name: content for name, content in tree_bytes(tmp_path / "run").items() if name in wanted} == wanted
    next((tmp_path / "run" / "activations" / SAMPLED).glob("part-*")).unlink()
    assert not is_done(line, "sample"), "moments are part of what the stage makes"


def test_sample_record_on_a_run_that_was_made_without(
    config: RunConfig, ranked: Path, tmp_path: Path, coin: pytest.MonkeyPatch
) -> None:
    """The recording says of itself how it was made, so the calls after the first need not be told."""
    run(config, tmp_path / "run", until="problems")
    run_one(tmp_path / "run", "sample", record=True)
    moments = tmp_path / "run" / "activations" / SAMPLED
    next(moments.glob("part-*")).unlink()
    for stage in STAGES[1:6]:
        run_one(tmp_path / "run", stage)
    assert tree_bytes(moments) == tree_bytes(ranked / "activations" / SAMPLED)
    assert tree_bytes(tmp_path / "run" / "neurons") == tree_bytes(ranked / "neurons")


def test_a_recording_made_afterwards_is_not_mixed_with_one_made_while_sampling(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    next((folder / "traces" / SAMPLED).glob("part-*")).unlink()
    with pytest.raises(ConfigError, match="holds the parts of another plan"):
        run_one(folder, "sample", record=True)


def test_imported_traces_are_not_sampled(streamed: RunConfig) -> None:
    data = {**streamed.model_dump(mode="json"), "traces": {"path": "some.jsonl"}}
    with pytest.raises(ConfigError, match=r"while_sampling needs traces that are sampled; leave it out, or traces\.path"):
        parse_config(data, "the test")
