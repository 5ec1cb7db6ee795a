import pytest

from trimtab.errors import ConfigError, ModelError
from trimtab.vllm_plugin import config as module
from trimtab.vllm_plugin.config import KEY, PluginConfig, RecordConfig, config_of, engine_arguments, parse_config
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
