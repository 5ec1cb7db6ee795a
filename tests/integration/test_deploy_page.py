"""Every command of docs/deploy.md that needs no vLLM runs on the bundled model; tests/vllm runs the others."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy_page import MODEL, arguments, blocks, fitting, save_steerings, shell_commands, table_commands
from trimtab.cli.main import trimtab
from trimtab.export.parts import TARGET_NAMES
from trimtab.model import open_model
from trimtab.testbed.models import resolve


@pytest.fixture(scope="module")
def steerings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_steerings(open_model(MODEL), Path(tmp_path_factory.mktemp("steerings")))


def call(command: str, steering: Path) -> str:
    """Run a command of the page; its output."""
    done = CliRunner().invoke(trimtab, arguments(command, steering)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    assert set(table_commands()) == set(TARGET_NAMES)
    here, vllm = shell_commands()[:2], shell_commands()[2:]
    assert [command.split()[:2] for command in here] == [["trimtab", "export"], ["trimtab", "verify"]]
    assert [command.split()[:2] for command in vllm] == [["vllm", "serve"]] * 2 + [["trimtab", "verify"]] * 2
    assert all("--engine vllm" in command for command in vllm[2:])


def test_the_commands_that_the_page_begins_with(
    steerings: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("held_out.txt").write_text("add 3 and 4\nturn left twice\n")
    export, verify = shell_commands()[:2]
    assert "dropped: the gate" in call(export, steerings["whole"])
    assert "ok: peft" in call(f"{verify} --max-new-tokens 24", steerings["whole"])


def test_every_target_of_the_table_and_the_code_that_opens_them(
    steerings: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for target, command in table_commands().items():
        if target == "lm-eval":
            pytest.importorskip("lm_eval")
        call(command, fitting(steerings, target))
        folder = Path(command.split("-o ")[1].split()[0])
        assert (folder / "export.json").exists()
    code = blocks("python")[0]
    assert "PeftModel" in code
    exec(code.replace("Qwen/Qwen3-1.7B", str(resolve(MODEL))), {})
