"""The engine of a run: what is kept of it, what it does not go with, and that every stage that generates asks it."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest
from trimtab.pipeline import Line, RunConfig, run, run_one, with_engine
from trimtab.pipeline.config import parse_config
from trimtab.pipeline.experimenting import workbench

from trimtab.errors import ConfigError, EngineError, ModelError
from trimtab.sampling import TRANSFORMERS, Request, SamplingSettings, TransformersGenerator, VllmEngine, VllmOptions, vllm_engine
from trimtab.store import Parts, RunDirectory
from trimtab.vllm_plugin.config import installed

FACTS = {"engine": {"name": "vllm", "version": "0"}}


class FakeEngine(TransformersGenerator):
    """The transformers loop under vLLM's name."""

    def __init__(self, options: VllmOptions, trust_remote_code: bool) -> None:
        self.options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None: ...

    @property
    def facts(self) -> Mapping[str, object]:
        return FACTS


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.pipeline.line.VllmEngine", FakeEngine)


def test_a_run_of_transformers_keeps_nothing_of_engines() -> None:
    assert not {"engine", "vllm"} & RunConfig().stored().keys()
    given = parse_config({"engine": "vllm", "vllm": {"enforce_eager": True}}, "x")
    assert given.stored()["engine"] == "vllm"
    assert parse_config(given.stored(), "x") == given
    assert "engine" not in parse_config({"vllm": {"gpu_memory": 0.5}}, "x").stored()


def test_the_command_line_names_an_engine_and_its_keys() -> None:
    config = parse_config({"vllm": {"gpu_memory": 0.5}}, "x")
    chosen = with_engine(config, "vllm,enforce_eager=true,max_length=512")
    assert (chosen.engine, chosen.vllm) == ("vllm", VllmOptions(gpu_memory=0.5, enforce_eager=True, max_length=512))
    assert with_engine(config, None) is config
    for choice, named in (("sglang", "engine"), ("vllm,speed=2", "speed"), ("vllm,gpu_memory=2", "gpu_memory")):
        with pytest.raises(ConfigError, match=named):
            with_engine(config, choice)


def test_what_does_not_go_with_vllm() -> None:
    section = {"evaluation": {"baselines": ["sft-lora"]}}
    with pytest.raises(ConfigError, match="sft-lora is a fine-tune in memory"):
        parse_config({"engine": "vllm", **section}, "x")
    parse_config(section, "x")


def test_an_engine_sent_to_another_process_is_started_anew_in_the_same_version(
    config: RunConfig, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "check_version", lambda: "0.32.0")
    sent = pickle.loads(pickle.dumps([VllmEngine(VllmOptions(enforce_eager=True), True)] * 2))
    assert sent[0] is sent[1]
    assert sent[0].options.enforce_eager
    monkeypatch.undo()
    there = {"0.33.0": r"0\.33\.0.*planned with.*0\.32\.0", "0.31.0": "was not tested", None: "vLLM is not installed"}
    with Line(config, RunDirectory.open(finished)) as line:
        for version, message in there.items():
            monkeypatch.setattr("trimtab.vllm_plugin.config.installed", lambda version=version: version)
            with pytest.raises(EngineError, match=message):
                sent[0].generate(line.model, [Request("a", (1, 2))], SamplingSettings())


@pytest.mark.skipif(installed() is not None, reason="vLLM is installed")
def test_without_vllm_nothing_is_begun(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vLLM is not installed"):
        run(with_engine(config, "vllm"), tmp_path / "run", until="sample")
    assert not list((tmp_path / "run").glob("traces/*/part-*"))


def test_every_stage_that_generates_asks_the_engine(
    config: RunConfig, finished: Path, coin: object, fake: None, tmp_path: Path
) -> None:
    path = run(with_engine(config, "vllm"), tmp_path / "run", until="evaluate")
    plans = [*path.glob("traces/*/plan.json"), *path.glob("tune/*/plan.json"), *path.glob("outcomes/*/plan.json")]
    assert len(plans) > 20
    for plan in plans:
        assert Parts(plan.parent).plan.settings["engine"] == FACTS["engine"]
        assert "engine" not in Parts(finished / plan.parent.relative_to(path)).plan.settings
    assert (path / "outcomes.parquet").read_bytes() == (finished / "outcomes.parquet").read_bytes()
    with RunDirectory.open(path) as directory, Line(parse_config(dict(directory.config), "x"), directory) as line:
        bench = workbench(line)
        assert isinstance(bench.generator, FakeEngine)
        assert bench.known


def test_one_stage_by_another_engine_is_not_mixed_with_the_rest(
    config: RunConfig, coin: object, fake: None, tmp_path: Path
) -> None:
    path = run(config, tmp_path / "run", until="tune")
    run_one(path, "evaluate", engine="vllm")
    with RunDirectory.open(path) as directory:
        stored = parse_config(dict(directory.config), "x")
        with Line(stored, directory) as line:
            assert line.generator is TRANSFORMERS
            assert not workbench(line).known, "experiments by transformers must not read answers of vLLM"
        with Line(with_engine(stored, "vllm"), directory) as line:
            assert workbench(line).known
