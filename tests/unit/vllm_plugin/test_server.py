"""What is decided before vLLM starts: names, plugins, and what cannot be served."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trimtab.cli.main import trimtab
from trimtab.errors import ConfigError, InputError, ModelError
from trimtab.vllm_plugin import server
from trimtab.vllm_plugin.server import add_plugin, check_single, named_paths, with_plugin

SINGLE: dict[str, object] = {
    "api_server_count": None,
    "data_parallel_size": 1,
    "data_parallel_rank": None,
    "data_parallel_external_lb": False,
    "data_parallel_hybrid_lb": False,
    "data_parallel_multi_port_external_lb": False,
    "headless": False,
    "grpc": False,
}


def test_names_are_given_or_those_of_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["maths=runs/a/steering", "runs/b/careful/", "odd=a=b", "owner/hub-name"]
    assert named_paths(given) == {
        "maths": "runs/a/steering",
        "careful": "runs/b/careful/",
        "odd": "a=b",
        "hub-name": "owner/hub-name",
    }


@pytest.mark.parametrize("given", ["none=a", "=a", "a b=c", "maths=", "-x=a"])
def test_a_name_that_no_request_could_write_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="accepted: \\[NAME=\\]PATH"):
        named_paths([given])


def test_two_steerings_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two steerings are named 'steering': runs/a/steering and runs/b/steering"):
        named_paths(["runs/a/steering", "runs/b/steering"])


def test_plugins_that_were_named_stay_the_only_ones_beside_ours() -> None:
    assert with_plugin("") == "trimtab"
    assert with_plugin("mine") == "mine,trimtab"
    assert with_plugin("trimtab,mine") == "trimtab,mine"


def test_one_server_and_one_engine_are_served() -> None:
    check_single(Namespace(**SINGLE), {})
    check_single(Namespace(**SINGLE | {"api_server_count": 1}), {"VLLM_USE_RUST_FRONTEND": "0"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_server_count", 2),
        ("data_parallel_size", 2),
        ("data_parallel_rank", 0),
        ("data_parallel_external_lb", True),
        ("data_parallel_hybrid_lb", True),
        ("headless", True),
        ("grpc", True),
    ],
)
def test_several_servers_or_engines_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}.*one API server and one engine"):
        check_single(Namespace(**SINGLE | {name: value}), {})


def test_the_front_end_without_python_is_refused() -> None:
    with pytest.raises(ConfigError, match="VLLM_USE_RUST_FRONTEND"):
        check_single(Namespace(**SINGLE), {"VLLM_USE_RUST_FRONTEND": "1"})


def test_arguments_of_the_plugin_stand_beside_those_given() -> None:
    arguments = Namespace(additional_config={"theirs": 1}, worker_extension_cls="")
    add_plugin(arguments, {"additional_config": {"trimtab": {}}, "worker_extension_cls": "ours"})
    assert arguments == Namespace(additional_config={"theirs": 1, "trimtab": {}}, worker_extension_cls="ours")


@pytest.mark.parametrize(("name", "given"), [("additional_config", {"trimtab": {}}), ("worker_extension_cls", "theirs")])
def test_an_argument_that_the_plugin_needs_is_not_replaced(name: str, given: object) -> None:
    arguments = Namespace(**{"additional_config": {}, "worker_extension_cls": ""} | {name: given})
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}.*trimtab serve sets this itself"):
        add_plugin(arguments, {"additional_config": {"trimtab": {}}, "worker_extension_cls": "ours"})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(trimtab, ["serve", *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(server, "serve", lambda *arguments: calls.append(arguments))
    return calls


def test_options_of_vllm_are_handed_on_in_order(started: list[tuple[object, ...]], tmp_path: Path) -> None:
    ours = ["--steering", "a=x", "--default", "a", "--max-steerings", "3", "--load-from", str(tmp_path)]
    result = run("org/model", "--port", "8001", "-dph", *ours, "--no-enable-prefix-caching", "--", "--api-key", "k", "--help")
    assert result.exit_code == 0, result.output
    model, config, options = started[0]
    assert (model, config.load_from) == ("org/model", str(tmp_path))  # type: ignore[attr-defined]
    assert options == ("--port", "8001", "-dph", "--no-enable-prefix-caching", "--api-key", "k", "--help")
    assert (config.steerings, config.default, config.max_steerings) == ({"a": "x"}, "a", 3)  # type: ignore[attr-defined]


def test_a_bundled_model_is_served_from_its_folder(started: list[tuple[object, ...]]) -> None:
    assert run("testbed:reasoner").exit_code == 0
    assert Path(str(started[0][0]), "config.json").is_file()


def test_the_model_comes_first() -> None:
    result = run("--port", "8001", "org/model")
    assert result.exit_code == 2
    assert "MODEL comes first" in result.output


def test_a_default_that_is_not_loaded_is_refused() -> None:
    error = run("org/model", "--steering", "a=x", "--default", "b").exception
    assert isinstance(error, ConfigError)
    assert "default 'b' is none of the steerings: a" in str(error)


def test_a_missing_vllm_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.vllm_plugin.config.installed", lambda: None)
    error = run("org/model").exception
    assert isinstance(error, ModelError)
    assert "pip install vllm==0.32.0" in str(error)


def test_an_untested_vllm_is_refused_with_those_that_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.vllm_plugin.config.installed", lambda: "0.34.1")
    error = run("org/model").exception
    assert isinstance(error, ModelError)
    assert "tested: 0.32.x, 0.33.x" in str(error)


def test_help_imports_neither_vllm_nor_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from trimtab.cli.main import trimtab;"
        "assert '--load-from' in CliRunner().invoke(trimtab, ['serve', '--help']).output;"
        "assert not {'vllm', 'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
