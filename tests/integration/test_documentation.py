"""Every Python block and every command of the README and of docs/ runs, or is marked with the reason why it does not.

Marks: ``long`` (run by the slow tests), ``download`` (needs the hub or an index) and ``vllm`` (needs an engine). A command is
marked in its comment, a Python block by an HTML comment above it. What does not run is parsed: options, make targets and
extras that do not exist, and Python that does not compile, fail here all the same.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from comparison_samples import harness_folder
from trimtab.cli.main import trimtab

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]
MARKS = ("download", "long", "vllm")
ELSEWHERE = ("vllm ", "trimtab serve", "curl ", "TRIMTAB_VLLM=", "ray ", "tests/vllm/")
"""Commands of other programs, which tests/vllm and tests/cluster run in their own way."""
OTHER_ENGINE = ("--engine vllm", "--executor ray", "--executor processes", "s3://")
RUN_BY_OTHERS = ("docs/deploy.md",)
"""Its commands need artifacts of several kinds; tests/integration/test_deploy_page.py runs each."""
BLOCK = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A command, or a block of Python."""

    page: str
    text: str
    mark: str
    at: int


def snippets(language: str) -> Iterator[Snippet]:
    """Every block of Python, or every command of every shell block, in the order of the pages."""
    for page in PAGES:
        for block in BLOCK.finditer((ROOT / page).read_text()):
            if block["language"] != language:
                continue
            if language == "python":
                yield Snippet(page, block["text"], block["mark"] or "", block.start())
                continue
            for line in _commands(block["text"]):
                command, _, comment = line.partition("  #")
                words = re.findall(r"\w+", comment)
                yield Snippet(page, command.strip(), next((mark for mark in MARKS if mark in words), ""), block.start())


def _commands(block: str) -> Iterator[str]:
    """Commands of a shell block; one may go on over lines, by a backslash or an open quote."""
    line = ""
    for part in block.splitlines():
        line = f"{line}\n{part}" if line else part
        if line.endswith("\\"):
            line = line.removesuffix("\\")
        elif line.partition("  #")[0].count("'") % 2 == 0:
            if not line.startswith("#"):
                yield line.replace("\n", " ")
            line = ""
    assert not line, f"a command that never ends: {line}"


COMMANDS, PYTHON = list(snippets("sh")), list(snippets("python"))


def _runs(snippet: Snippet) -> bool:
    return not snippet.mark and snippet.page not in RUN_BY_OTHERS and not any(part in snippet.text for part in OTHER_ENGINE)


@pytest.fixture(scope="module")
def workplace(reader: Path) -> Iterator[Path]:
    """The reader's clone, with the run of examples/own_data.toml in place of the demo's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(reader)
        patch.setenv("TRIMTAB_CACHE", str(reader / "runs" / "notebook"))
        _call("trimtab run examples/own_data.toml --out runs/own --quiet")
        (reader / "runs" / "demo").symlink_to("own")
        _write_inputs(reader)
        yield reader


def _write_inputs(folder: Path) -> None:
    """Files that pages take for granted: result files to compare, and a list of neurons of others."""
    right = np.arange(220) < 80
    harness_folder(folder / "results" / "base", right.tolist())
    harness_folder(folder / "results" / "steered", (np.arange(220) < 98).tolist())
    rows = [f"{neuron},{1 / (1 + neuron):.4f}" for neuron in range(0, 2000, 40)]
    (folder / "found.csv").write_text("\n".join(["overall_neuron_index,weight", *rows]) + "\n")


def _call(command: str) -> str:
    done = CliRunner().invoke(trimtab, shlex.split(command)[1:], catch_exceptions=False)
    assert done.exit_code == 0, f"{command}\n{done.output}"
    return done.output


@pytest.mark.parametrize("page", sorted({snippet.page for snippet in PYTHON}))
def test_python_blocks(page: str, workplace: Path) -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    for snippet in PYTHON:
        if snippet.page == page:
            code = compile(snippet.text, page, "exec")
            if _runs(snippet):
                exec(code, namespace)


@pytest.mark.parametrize("page", sorted({snippet.page for snippet in COMMANDS if _runs(snippet)}))
def test_commands(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for snippet in COMMANDS:
        if snippet.page == page and _runs(snippet) and not snippet.text.startswith(ELSEWHERE):
            _run_once(snippet.text)


@cache
def _run_once(command: str) -> None:
    """Run a command in the reader's folder; several pages name the same ones."""
    if command.startswith("trimtab"):
        _call(command)
    elif not command.startswith(("make ", "pip ", "python3 -m venv", "source ")):
        subprocess.run(command, shell=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({snippet.page for snippet in [*PYTHON, *COMMANDS] if snippet.mark == "long"}))
def test_what_is_long(page: str, workplace: Path) -> None:
    """In the order of the page: its long commands, and all of its Python."""
    wanted = [snippet for snippet in COMMANDS if snippet.mark == "long"]
    wanted += [snippet for snippet in PYTHON if snippet.mark == "long" or _runs(snippet)]
    namespace: dict[str, object] = {"__name__": "page"}
    for snippet in sorted((each for each in wanted if each.page == page), key=lambda each: each.at):
        if snippet in PYTHON:
            exec(compile(snippet.text, page, "exec"), namespace)
        else:
            _run_once(snippet.text)


@pytest.mark.parametrize("snippet", COMMANDS, ids=lambda snippet: snippet.text[:60])
def test_every_command_is_one_that_exists(snippet: Snippet, monkeypatch: pytest.MonkeyPatch) -> None:
    text = snippet.text
    if text.startswith("trimtab "):
        _parse(text, monkeypatch)
    elif text.startswith("make "):
        assert re.search(rf"^[\w -]*\b{text.split()[1]}\b[\w -]*:", (ROOT / "Makefile").read_text(), re.M)
    elif "pip install" in text:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\[([\w-]+)\]", text)) <= set(extras)
    elif not text.startswith(ELSEWHERE):
        assert text.startswith(("echo ", "python", "source ")), (
            f"{snippet.page} has a command of a kind that no test knows: {text}"
        )


def _parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command's options and their values, without running it."""
    words = shlex.split(command)[1:]
    if words[0] == "--version" or words[0] == "serve":  # what serve does not know is vLLM's
        return
    context = click.Context(trimtab, info_name="trimtab")
    found = trimtab.get_command(context, words.pop(0))
    while isinstance(found, click.Group) and words:
        context = click.Context(found, parent=context, info_name=found.name)
        found = found.get_command(context, words.pop(0))
    assert found is not None, command
    # a file that is made by an earlier command need not be there
    for parameter in found.params:
        if hasattr(parameter.type, "exists"):
            monkeypatch.setattr(parameter.type, "exists", False)
    found.make_context(found.name, words, parent=context)
