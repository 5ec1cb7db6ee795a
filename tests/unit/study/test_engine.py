"""The engine of a study: what is kept of it, what it does not go with, and that every verb that generates asks it."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pytest

from trimtab.errors import ConfigError, EngineError, ModelError
from trimtab.sampling import TRANSFORMERS, Request, SamplingSettings, TransformersGenerator, VllmEngine, VllmOptions, vllm_engine
from trimtab.store import Parts
from trimtab.store.cache import key_facts
from trimtab.study import Settings, Study, parse_settings, with_engine
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
    monkeypatch.setattr("trimtab.study.base.VllmEngine", FakeEngine)


def test_the_engine_is_a_setting_that_is_kept() -> None:
    assert Settings().stored()["engine"] == "transformers"
    given = parse_settings({"engine": "vllm", "vllm": {"enforce_eager": True}}, "x")
    assert given.stored()["engine"] == "vllm"
    assert parse_settings(given.stored(), "x") == given


def test_the_command_line_names_an_engine_and_its_keys() -> None:
    config = parse_settings({"vllm": {"gpu_memory": 0.5}}, "x")
    chosen = with_engine(config, "vllm,enforce_eager=true,max_length=512")
    assert (chosen.engine, chosen.vllm) == ("vllm", VllmOptions(gpu_memory=0.5, enforce_eager=True, max_length=512))
    assert with_engine(config, None) is config
    for choice, named in (("sglang", "engine"), ("vllm,speed=2", "speed"), ("vllm,gpu_memory=2", "gpu_memory")):
        with pytest.raises(ConfigError, match=named):
            with_engine(config, choice)


def test_what_does_not_go_with_vllm() -> None:
    section = {"evaluation": {"baselines": ["sft-lora"]}}
    with pytest.raises(ConfigError, match="sft-lora is a fine-tune in memory"):
        parse_settings({"engine": "vllm", **section}, "x")
    parse_settings(section, "x")


def test_an_engine_sent_to_another_process_is_started_anew_in_the_same_version(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "check_version", lambda: "0.32.0")
    sent = pickle.loads(pickle.dumps([VllmEngine(VllmOptions(enforce_eager=True), True)] * 2))
    assert sent[0] is sent[1]
    assert sent[0].options.enforce_eager
    monkeypatch.undo()
    there = {"0.33.0": r"0\.33\.0.*planned with.*0\.32\.0", "0.31.0": "was not tested", None: "vLLM is not installed"}
    for version, message in there.items():
        monkeypatch.setattr("trimtab.vllm_plugin.config.installed", lambda version=version: version)
        with pytest.raises(EngineError, match=message):
            sent[0].generate(study.model, [Request("a", (1, 2))], SamplingSettings())


@pytest.mark.skipif(installed() is not None, reason="vLLM is installed")
def test_without_vllm_nothing_is_begun(small: Callable[..., Study], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vLLM is not installed"):
        small(engine="vllm").sample()
    assert not list((tmp_path / "run").glob("sample/*/part-*"))


def test_every_verb_that_generates_asks_the_engine(
    small: Callable[..., Study], fake: None, batches: list[int], tmp_path: Path
) -> None:
    """An engine's results have keys of their own, on one cache with those of another."""
    by_transformers = small()
    before = by_transformers.evaluate()
    batches.clear()
    with small(engine="vllm") as study:
        assert isinstance(study.generator, FakeEngine)
        evaluation = study.evaluate()
        assert batches
        made = [*(tmp_path / "run").glob("sample/*/plan.json"), *(tmp_path / "run").glob("answers/*/plan.json")]
        named = [plan.parent for plan in made if Parts(plan.parent).plan.settings.get("engine") == FACTS["engine"]]
        assert len(named) == len(made) // 2 >= 4
        assert all(key_facts(folder)["engine"]["engine"] == FACTS["engine"] for folder in named)  # type: ignore[index]
        batches.clear()
        study.evaluate()
    assert batches == []
    assert {name: [o.response for o in rows] for name, rows in evaluation.outcomes.items()} == {
        name: [o.response for o in rows] for name, rows in before.outcomes.items()
    }
    assert by_transformers.generator is TRANSFORMERS
