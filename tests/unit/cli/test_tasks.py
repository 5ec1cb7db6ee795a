"""``trimtab tasks``: the list, real prompts, and the look for leaks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny_testbed import save_tiny_testbed
from trimtab.cli import main as module
from trimtab.tasks.benchmarks import BENCHMARKS

Run = Callable[..., tuple[int, str, str]]
DATA = Path(__file__).parents[2] / "data" / "benchmarks"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call ``trimtab tasks`` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trimtab", "tasks", *map(str, arguments)])
        code: object = 0
        try:
            module.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert isinstance(code, int | None)
        return int(code or 0), out, err

    return run


def test_the_list_names_every_benchmark(tasks: Run) -> None:
    code, out, err = tasks()
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["name", *BENCHMARKS]
    for benchmark in BENCHMARKS.values():
        assert all(hub_id in out for hub_id in benchmark.hub_ids)
    listed = json.loads(tasks("--json")[1])
    assert [one["name"] for one in listed] == list(BENCHMARKS)
    assert next(one for one in listed if one["name"] == "math")["domains"][0] == "Algebra"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_show_prints_prompts_and_gold_answers(tasks: Run, name: str) -> None:
    arguments = ("show", name, "--data", DATA / f"{name}.jsonl", "--json", "--n", 1)
    shown = [json.loads(out) for split in ("train", "tune", "test") if (out := tasks(*arguments, "--split", split)[1])]
    assert shown
    for one in shown:
        problem = one["problems"][0]
        before, after = BENCHMARKS[name].prompt.template.split("{question}")
        assert problem["prompt"].startswith(before)
        assert problem["prompt"].endswith(after)
        assert problem["answer"]


def test_show_as_text(tasks: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"qid": "x", "question": "Is it so?", "answer": True, "split": "train"}))
    code, out, _ = tasks("show", "strategy-qa", "--data", path)
    assert code == 0
    assert out.splitlines() == [
        "--- x (yes-no)",
        "Is it so?",
        'Think step by step, then end with "The answer is yes" or "The answer is no".',
        "--- gold: yes",
    ]
    assert tasks("show", "strategy-qa", "--data", path, "--split", "test")[::2] == (
        1,
        "error[data/no-problem]: task 'strategy-qa' gave no problem for the asked splits\n",
    )


def test_show_renders_with_the_models_template(tasks: Run, tmp_path: Path) -> None:
    model = save_tiny_testbed(tmp_path / "model")
    bare = json.loads(tasks("show", "testbed", "--n", 1, "--json")[1])["problems"][0]
    shown = json.loads(tasks("show", "testbed", "--n", 1, "--json", "--model", model)[1])["problems"][0]
    assert bare["prompt"] in shown["prompt"]
    assert "<|user|>" in shown["prompt"]
    code, _, err = tasks("show", "testbed", "--model", tmp_path / "none")
    assert code == 1
    assert err.startswith("error[model/no-folder]")


def test_check_finds_leaks(tasks: Run, tmp_path: Path) -> None:
    rows = [
        {"question": "Tom has 3 apples and buys 2. How many?", "answer": "so\n#### 5", "split": "train"},
        {"question": "Tom has 3 apples, and buys 2! How many?", "answer": "so\n#### 5", "split": "test"},
        {"question": "A question that stands alone in the test split?", "answer": "so\n#### 1", "split": "test"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = tasks("check", "gsm8k", "--data", path)
    assert (code, err) == (0, "")
    assert f"{path}: 3 rows" in out
    assert "problems: train 1, validation 0, test 2" in out
    assert "test problems that stand in train or validation: 1 same, 0 numbers, 0 near, of 2" in out
    assert "1.00 same    test row-00002: Tom has 3 apples" in out
    facts = json.loads(tasks("check", "gsm8k", "--data", path, "--json")[1])
    assert facts["near_duplicates"]["test"] == {"same": 1, "numbers": 0, "near": 0}
    assert facts["source"]["digest"] in out


def test_check_counts_what_was_left_out(tasks: Run) -> None:
    _, out, _ = tasks("check", "commonsense-qa", "--data", DATA / "commonsense-qa.jsonl")
    assert "left out: 1, because the row has an empty answerKey" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "gsm9k"), "unknown task 'gsm9k'; accepted: testbed, local:PATH"),
        (("check", "local:none.jsonl"), "no file at none.jsonl"),
        (("check", "gsm8k", "--answer", "math"), "'gsm8k' declares its own"),
        (("check", "testbed", "--data", "x"), "data and revision belong to a benchmark"),
    ],
)
def test_errors_are_one_line(tasks: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = tasks(*arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(("error[input", "error[settings"))
    assert message in err


def test_offline_without_a_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trimtab.cli.main", "tasks", "show", "gsm8k"]
    environment = {**ENVIRONMENT, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "openai/gsm8k" in done.stderr
    assert "local:PATH" in done.stderr
