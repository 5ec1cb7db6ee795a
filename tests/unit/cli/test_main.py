"""The command line: what is data, what is not, and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

import trimtab as package
from tiny_testbed import save_tiny_testbed
from trimtab.cli import main as module
from trimtab.cli.main import COMMANDS, GROUPS, trimtab
from trimtab.cli.output import Output
from trimtab.errors import InputError
from trimtab.experiments.settings import EXPERIMENT_NAMES
from trimtab.store import to_toml
from trimtab.study.settings import STAGES
from trimtab.traces import Problem

QUESTION = "now dial 5 : a +6 b -2 c +1 as ever ?"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Call the entry point in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["trimtab", *map(str, arguments)])
    code: object = 0
    try:
        module.main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert isinstance(code, int | None)
    return int(code or 0), out, err


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda *arguments: _run(monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")


@pytest.fixture
def toml(tmp_path: Path, model: Path) -> Path:
    """A small run on imported traces, right and wrong ones for three problems."""
    rows = [
        {
            "id": problem,
            "_id": number,
            "is_good": str(number % 2 == 0),
            "question": f"now dial {problem} : a +6 b -2 as ever ?",
            "thinking": f"so a {problem} +6 gives {number} .",
            "answer_content": str(number),
            "gold_answer": "1",
            "answer": str(number),
        }
        for problem in range(3)
        for number in range(4)
    ]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "my.toml"
    traces = {"path": str(tmp_path / "traces.jsonl"), "verdict_column": "is_good"}
    path.write_text(to_toml({"model": {"source": str(model)}, "traces": traces, "ranking": {"k": 5}}))
    return path


def _child(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    code = """
import resource, sys
sys.argv = ["trimtab", "--help"]
from trimtab.cli.main import main
main()
used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
heavy = {"torch", "transformers", "numpy", "sklearn", "scipy", "pyarrow", "plotly", "pydantic"} & set(sys.modules)
print(used, *sorted(heavy), file=sys.stderr)
"""
    result = _child(code)
    assert result.returncode == 0
    seconds, *heavy = result.stderr.split()
    assert heavy == []
    assert float(seconds) < 0.5
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_importing_the_package_loads_nothing_heavy() -> None:
    result = _child("import sys, trimtab; dir(trimtab); print({'torch', 'transformers', 'numpy'} & set(sys.modules))")
    assert result.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert package.Problem is Problem
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli, name: str) -> None:
    code, out, err = cli(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: trimtab {name}")


def test_help_shows_the_groups_on_one_screen(cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith("Usage")][-len(GROUPS) :] == [
        *GROUPS
    ]
    assert out.count("\n") <= 32


@pytest.mark.parametrize(
    ("command", "names"), [("stage", STAGES), ("experiment", EXPERIMENT_NAMES)], ids=["stages", "experiments"]
)
def test_every_stage_and_experiment_can_be_asked_for(cli, command: str, names: Sequence[str]) -> None:
    _, out, _ = cli(command, "--help")
    for name in names:
        assert name in out
    code, _, err = cli(command, "nothing", ".")
    assert code == 2
    assert f"'{names[-1]}'" in err


def test_version(cli) -> None:
    assert cli("--version") == (0, f"trimtab, version {package.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run"],
        ["run", "x.toml"],
        ["cache", "none"],
        ["run", "x.toml", "--out", "y", "--until", "never"],
        ["demo", "--unknown"],
        ["generate", "m", "p", "--steering", "s", "--max-new-tokens", "0"],
    ],
)
def test_usage_errors(cli, arguments: Sequence[str]) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: trimtab" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.toml", "--out", "r"], "error[settings/unreadable]: cannot read none.toml"),
        (["show", "./none"], "error[files/no-artifact]: "),
        (["doctor", "./none"], "error[model/no-folder]: model folder none does not exist"),
        (["doctor", "testbed:none"], "error[input/no-bundled-model]: no bundled model 'none'"),
        (["stage", "grade", "."], "error[settings/unreadable]: cannot read run.toml"),
        (["experiment", "causal", "."], "error[settings/unreadable]: cannot read run.toml"),
        (["evaluate", "--model", "testbed:none", "--task", "testbed", "--steering", "./none"], "error[files/no-artifact]: "),
    ],
)
def test_failures_are_one_message_without_a_traceback(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith(message)
    assert "Traceback" not in err


def test_an_unknown_key_is_named(cli, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[sampling]\ntemprature = 1.0\n")
    code, out, err = cli("run", tmp_path / "run.toml", "--out", tmp_path / "r")
    assert (code, out) == (1, "")
    assert "sampling.temprature" in err
    assert not (tmp_path / "r").exists()


def test_ctrl_c_exits_with_130(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("show")
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trimtab, "get_command", lambda context, name: stopped)
    code, out, err = cli("show")
    assert (code, out) == (130, "")
    assert "stopped; what was finished is kept, and the same command goes on from there" in err


def test_ctrl_c_in_a_real_process() -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
import click
from trimtab.cli import main as module
@click.command("show")
def waits():
    print("ready", flush=True)
    time.sleep(60)
module.trimtab.get_command = lambda context, name: waits
sys.argv = ["trimtab", "show"]
module.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "stopped" in err
    assert "Traceback" not in err


def test_other_exceptions_keep_their_traceback(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is not the user's to fix."""

    @click.command("show")
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trimtab, "get_command", lambda context, name: broken)
    with pytest.raises(ZeroDivisionError):
        cli("show")


def test_an_error_of_a_command(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("show")
    def refused() -> None:
        raise InputError("what happened; the fix")

    monkeypatch.setattr(trimtab, "get_command", lambda context, name: refused)
    assert cli("show") == (1, "", "error[input]: what happened; the fix\n")


def test_imported_traces_end_to_end(cli, toml: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("run", toml, "--out", out, "--until", "rank")
    code, stdout, stderr = cli(*arguments, "--json")
    assert code == 0, stderr
    assert set(json.loads(stdout)) == {"adaras", "mean-difference"}
    assert re.findall(r"^([a-z]+) +[0-9.]+ s   ", stderr, flags=re.M) == list(STAGES[:6])
    results = {path: path.stat().st_mtime_ns for path in out.glob("*/*/key.json")}
    assert results
    code, stdout, stderr = cli(*arguments)
    assert code == 0
    assert "5 neurons" in stdout
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*/key.json")} == results, "the same command is a read"
    code, stdout, stderr = cli(*arguments, "--quiet")
    assert code == 0
    assert not re.sub(r"\rLoading weights:[^\r\n]*\n?", "", stderr), (
        "but for the bar of transformers, which a new process turns off"
    )
    code, stdout, _ = cli("stage", "contrast", out, "--json")
    assert code == 0
    assert json.loads(stdout)["correct"] == 6


def test_a_changed_setting_computes_only_what_depends_on_it(cli, toml: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli("run", toml, "--out", out, "--until", "rank", "--quiet")[0] == 0
    before = {path.parent for path in out.glob("*/*/key.json")}
    toml.write_text(toml.read_text().replace("k = 5", "k = 3"))
    code, stdout, _ = cli("run", toml, "--out", out, "--until", "rank", "--quiet")
    assert code == 0
    assert "3 neurons" in stdout
    new = {path.parent for path in out.glob("*/*/key.json")} - before
    assert {path.parent.name for path in new} == {"rank"}
    assert len(new) == 2


@pytest.mark.parametrize("until", ["gate", "report"])
def test_imported_traces_have_no_gate(cli, toml: Path, tmp_path: Path, until: str) -> None:
    code, _, err = cli("run", toml, "--out", tmp_path / "run", "--until", until)
    assert code == 1
    assert "ends with `rank`" in err
    assert not (tmp_path / "run").exists()


def test_a_stage_computes_what_it_needs_and_refuses_what_the_run_has_not(cli, toml: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, stdout, _ = cli("run", toml, "--out", out, "--until", "problems", "--json")
    assert code == 0
    assert json.loads(stdout) == {"train problems": 3, "validation problems": 0, "test problems": 0}
    code, stdout, _ = cli("stage", "rank", out)
    assert code == 0
    assert "5 neurons" in stdout
    code, stdout, err = cli("stage", "gate", out)
    assert (code, stdout) == (1, "")
    assert "ends with `rank`" in err


def test_a_folder_of_something_else_is_not_touched(cli, toml: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    code, stdout, err = cli("run", toml, "--out", tmp_path / "mine", "--until", "rank")
    assert (code, stdout) == (1, "")
    assert "is no run directory (it holds thesis.txt)" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_cache_is_listed_and_pruned_of_what_no_study_refers_to(cli, toml: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli("run", toml, "--out", out, "--until", "rank", "--quiet")[0] == 0
    code, stdout, _ = cli("cache", out, "--json")
    listed = {row["name"]: row for row in json.loads(stdout)["results"]}
    assert code == 0
    assert {name.split("/")[0] for name in listed} == {"problems", "import", "grade", "contrast", "record", "rank"}
    assert all(row["bytes"] > 0 and row["whole"] and row["studies"] for row in listed.values())
    assert json.loads(cli("cache", out, "--prune", "--json")[1])["results"] == []
    for study in (out / "studies").iterdir():
        study.unlink()
    code, stdout, _ = cli("cache", out, "--prune")
    assert f"to delete with --yes, {len(listed)} results" in stdout
    assert len(list(out.glob("*/*/key.json"))) == len(listed), "listing deletes nothing"
    assert cli("cache", out, "--prune", "--yes")[0] == 0
    assert not list(out.glob("*/*/key.json"))
    code, _, err = cli("cache", out, "--yes")
    assert code == 2
    assert "give both" in err


def test_dry_run_writes_nothing(cli, toml: Path, tmp_path: Path) -> None:
    code, stdout, _ = cli("run", toml, "--out", tmp_path / "run", "--until", "rank", "--dry-run", "--json")
    assert code == 0
    assert json.loads(stdout)["disk_bytes"] > 0
    code, stdout, _ = cli("run", toml, "--out", tmp_path / "run", "--until", "rank", "--dry-run")
    assert "memory" in stdout
    assert not (tmp_path / "run").exists()


def test_doctor(cli, model: Path) -> None:
    code, stdout, _ = cli("doctor", model, "--json")
    assert code == 0
    assert json.loads(stdout)
    code, stdout, _ = cli("doctor", model)
    assert code == 0
    assert "layer" in stdout.lower()


def test_generate_and_show(cli, model: Path, tmp_path: Path) -> None:
    from steering_samples import logistic, neuron_set
    from trimtab.model import open_model
    from trimtab.steering import Steering

    identity = open_model(model).identity
    gated = Steering.of(neuron_set(identity), 30.0, gate=logistic(), facts={"criterion": "mean-difference"})
    gated.save_pretrained(tmp_path / "gated")
    base = ("generate", model, QUESTION, "--steering", tmp_path / "gated", "--max-new-tokens", 8)
    code, stdout, _ = cli(*base, "--side-by-side", "--json", "--gate", "on")
    assert code == 0
    forced = json.loads(stdout)
    assert (forced["p_fail"], forced["threshold"]) == (None, 0.5)
    assert forced["steered"] != forced["unsteered"]
    code, stdout, _ = cli(*base, "--json")
    seen = json.loads(stdout)
    assert 0.0 <= seen["p_fail"] <= 1.0
    assert "unsteered" not in seen
    assert seen["steered"] == (forced["steered"] if seen["p_fail"] >= 0.5 else forced["unsteered"])
    code, stdout, _ = cli(*base, "--side-by-side")
    assert f"p(fail) {seen['p_fail']:.3f}, threshold 0.500" in stdout
    assert "unsteered:" in stdout
    code, stdout, _ = cli(*base, "--side-by-side", "--json", "--gate", "on", "--strength", "0")
    assert json.loads(stdout)["steered"] == json.loads(stdout)["unsteered"]
    code, stdout, _ = cli(*base, "--gate", "off")
    assert "gate forced off" in stdout

    code, stdout, err = cli("show", tmp_path / "gated", "--json")
    assert (code, err) == (0, "")
    assert json.loads(stdout)["neurons"] == 6
    code, stdout, _ = cli("show", tmp_path / "gated")
    assert "first 6 neurons" in stdout


def test_output_keeps_data_and_notes_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        output = Output(as_json=True, quiet=quiet)
        output.note("a note")
        output.stage("sample", 1.5, {"traces": 8, "tokens": 64})
        output.data({"a": 1}, "one")
        out, err = capsys.readouterr()
        assert out == '{"a": 1}\n'
        assert err == ("" if quiet else "a note\nsample          1.5 s   traces: 8, tokens: 64\n")
    Output().data({"a": 1}, "one")
    assert capsys.readouterr().out == "one\n"
    with pytest.raises(ValueError, match="not JSON compliant"):
        Output(as_json=True).data({"a": float("nan")}, "")
