"""Options that several commands share."""

import click
import pytest
from click.testing import CliRunner

from trimtab.cli.cache import cache_command
from trimtab.cli.evaluate import evaluate_command
from trimtab.cli.options import sandbox_option
from trimtab.cli.run import run_command, stage_command
from trimtab.cli.show import show
from trimtab.tasks.sandbox import Sandbox, SandboxError


@pytest.mark.parametrize("command", [run_command, stage_command, evaluate_command])
def test_what_grades_can_be_told_to_do_without_a_sandbox(command: click.Command) -> None:
    assert "--unsafe-sandbox" in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize("command", [show, cache_command])
def test_what_does_not_grade_cannot(command: click.Command) -> None:
    assert "--unsafe-sandbox" not in [option for parameter in command.params for option in parameter.opts]


def test_the_option_allows_limits_and_its_absence_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_UNSAFE_SANDBOX", "0")
    monkeypatch.setattr("trimtab.tasks.sandbox.sandbox._tested", lambda backend: (None, ("seccomp",)))

    @click.command
    @sandbox_option
    def command() -> None:
        click.echo(Sandbox(packages=(), backend="limits").backend)

    with pytest.raises(SandboxError):
        CliRunner().invoke(command, catch_exceptions=False)
    assert CliRunner().invoke(command, ["--unsafe-sandbox"], catch_exceptions=False).output == "limits\n"
