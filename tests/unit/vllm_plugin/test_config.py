from pathlib import Path

import pytest

from trimtab.errors import ConfigError, ModelError
from trimtab.vllm_plugin import config as module
from trimtab.vllm_plugin.config import (
    ENVIRONMENT,
    EXTENSION,
    KEY,
    PluginConfig,
    RecordConfig,
    config_of,
    engine_arguments,
    parse_config,
    requested_config,
)
from trimtab.vllm_plugin.plugin import set_arguments
from trimtab.vllm_plugin.worker import LAYOUT


def test_an_engine_that_did_not_ask_has_no_configuration() -> None:
    assert config_of({}) is None
    assert config_of(None) is None
    assert config_of({"other": {}}) is None
    assert config_of({KEY: {}, LAYOUT: "x"}) == PluginConfig()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_steering": 3}, "max_steering: Extra inputs.*accepted fields: version, steerings"),
        ({"max_steerings": 0}, "max_steerings: "),
        ({"default": "a"}, "default 'a' is none of the steerings: none given"),
        ({"steerings": {"none": "p"}}, "no steering can be called 'none'"),
        ({"steerings": {"a": "p", "b": "q"}, "max_steerings": 1}, "2 steerings do not fit max_steerings 1; raise it"),
        ({"version": "0"}, "version '0' is of another plugin"),
        ({"record": {"moments": []}}, "record.moments: "),
        ([], "trimtab: "),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(given)


def saved(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_configuration_comes_from_the_entry_or_else_from_the_environment(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.toml", "max_steerings = 3")
    inline = '{"max_steerings": 4}'
    assert requested_config({}, {}) is None
    assert requested_config({"other": 1}, {ENVIRONMENT: ""}) is None
    assert requested_config({KEY: {"max_steerings": 2}}, {ENVIRONMENT: inline}) == PluginConfig(max_steerings=2)
    assert requested_config({KEY: file}, {}) == PluginConfig(max_steerings=3)
    assert requested_config({}, {ENVIRONMENT: file}) == PluginConfig(max_steerings=3)
    assert requested_config({}, {ENVIRONMENT: inline}) == PluginConfig(max_steerings=4)


def test_false_switches_the_plugin_off_whatever_the_environment_says() -> None:
    assert requested_config({KEY: False}, {ENVIRONMENT: "{}"}) is None
    assert config_of({KEY: False}) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'load_from = "more"\n[steerings]\na = "s/a"\nb = "owner/name"'),
        ("a.json", '{"load_from": "more", "steerings": {"a": "s/a", "b": "owner/name"}}'),
    ],
)
def test_paths_of_a_file_are_relative_to_it(name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("s/a", "more", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = requested_config({KEY: saved(tmp_path, name, text)}, {})
    assert found is not None
    assert found.steerings == {"a": str(tmp_path / "s" / "a"), "b": "owner/name"}
    assert found.load_from == str(tmp_path / "more")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.toml", r"missing\.toml \(of TRIMTAB_VLLM\) is no file; accepted: the path of a TOML or JSON file"),
        ("{", "TRIMTAB_VLLM cannot be read: "),
        ('{"slot": 1}', "TRIMTAB_VLLM cannot be used: slot: Extra inputs"),
        ('{"load_from": "missing"}', "load_from .*missing is no folder"),
        ("broken.toml", r"broken\.toml \(of TRIMTAB_VLLM\) cannot be read: "),
        ("unknown.json", r"unknown\.json \(of TRIMTAB_VLLM\) cannot be used: slot: Extra inputs"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, "broken.toml", "a = ")
    saved(tmp_path, "unknown.json", '{"slot": 1}')
    with pytest.raises(ConfigError, match=message):
        requested_config({}, {ENVIRONMENT: given})


class Arguments:
    """vLLM's, as far as the plugin sets them."""

    def __init__(self, worker_extension_cls: str = "") -> None:
        self.worker_extension_cls = worker_extension_cls
        self.additional_config: dict[str, object] = {"theirs": 1}
        self.async_scheduling: bool | None = None


@pytest.mark.parametrize("record", [None, RecordConfig()])
def test_engine_arguments_are_set_beside_those_given(record: RecordConfig | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: "0.32.0")
    given, config = Arguments(), PluginConfig(record=record)
    for _ in range(2):  # vLLM may ask twice
        set_arguments(given, config)
        assert (given.worker_extension_cls, given.additional_config["theirs"]) == (EXTENSION, 1)
        assert config_of(given.additional_config) == config
        assert given.async_scheduling is (None if record is None else False)


def test_another_worker_extension_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: "0.32.0")
    with pytest.raises(ConfigError, match=r"worker_extension_cls 'a\.B': the trimtab plugin needs"):
        set_arguments(Arguments("a.B"), PluginConfig())


def test_the_arguments_carry_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: "0.32.0")
    config = PluginConfig(steerings={"a": "owner/name"}, max_steerings=2)
    arguments = engine_arguments(config)
    assert config_of(arguments["additional_config"]) == config
    assert "async_scheduling" not in arguments
    assert engine_arguments(PluginConfig(record=RecordConfig()))["async_scheduling"] is False


@pytest.mark.parametrize("found", ["0.31.2", "0.34.0", "1.0", "dev"])
def test_other_versions_are_refused_with_the_tested_ones(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: found)
    with pytest.raises(ModelError, match=r"vLLM .* was not tested .* tested: 0.32.x, 0.33.x. Install vllm==0.32.0"):
        module.check_version()


@pytest.mark.parametrize("found", ["0.32.0", "0.33.1+cu129"])
def test_tested_versions_are_accepted(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: found)
    assert module.check_version() == found


def test_no_vllm_is_an_error_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: None)
    with pytest.raises(ModelError, match=r"vLLM is not installed; run: pip install vllm==0\.32\.0"):
        module.check_version()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"max_dose": 0.0}, "max_dose: Input should be greater than 0"),
        ({"max_dose": float("inf")}, "max_dose: Input should be a finite number"),
        ({"over_dose": "clamp"}, "over_dose 'clamp' has no effect without max_dose"),
        ({"max_dose": 0.5, "over_dose": "ask"}, "over_dose: Input should be 'warn', 'clamp' or 'reject'"),
    ],
)
def test_a_limit_of_doses_is_a_number_with_something_to_do(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(given)
