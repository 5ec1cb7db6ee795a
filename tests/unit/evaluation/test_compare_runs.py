"""Two runs: compared where they were measured alike, refused with a list where they were not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from outcome_samples import CONFIG, outcomes, run_folder
from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.evaluation.compare_runs import compare_runs
from trimtab.evaluation.pairing import paired
from trimtab.evaluation.verdict import judge
from trimtab.store import RunDirectory, read_table, write_table
from trimtab.traces import Problem, Split

A, B = "1110000000", "1111111100"


def change_problem(path: Path, at: int, **fields: object) -> None:
    with RunDirectory.open(path) as directory:
        problems = read_table(directory.problems, Problem)
        write_table(directory.problems, [replace(p, **fields) if i == at else p for i, p in enumerate(problems)])


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Run b has other neurons and another model, and twice as many find problems."""
    a = run_folder(tmp_path / "a", [*outcomes("unsteered", A), *outcomes("gated", A)])
    b = run_folder(
        tmp_path / "b",
        [*outcomes("gated", B)[::-1], *outcomes("always", B)],
        model={"source": "two"},
        tune={"k": [50]},
        task={"source": "local:b.jsonl", "train": 20},
        evaluation={"random_sets": 9},
    )
    return a, b


def test_the_second_run_is_judged_against_the_first(runs: tuple[Path, Path]) -> None:
    result = compare_runs(*runs, "gated")
    assert result.verdict == judge(outcomes("gated", A), outcomes("gated", B))
    assert result.verdict.comparison == paired(outcomes("gated", A), outcomes("gated", B))
    assert (result.verdict.comparison.fixed, result.verdict.comparison.broken) == (5, 0)
    assert (result.models, result.condition, result.unscored) == (("one", "two"), "gated", (0, 0))
    assert [table.by for table in result.breakdowns] == ["domain"]


def test_the_json_is_plain_and_complete(runs: tuple[Path, Path]) -> None:
    data = json.loads(json.dumps(compare_runs(*runs, "gated").to_json(), allow_nan=False))
    assert data["verdict"] == "no evidence"
    assert data["comparison"]["p"] == 2 / 2**5
    assert data["comparison"]["test"] == "McNemar"
    assert data["bounds"] is None
    assert [row["group"] for row in data["breakdowns"][0]["rows"]] == ["even", "odd"]
    assert data["runs"] == [str(run) for run in runs]


def test_unscored_problems_are_bounded(tmp_path: Path) -> None:
    a, b = (run_folder(tmp_path / name, outcomes("gated", p)) for name, p in (("a", A), ("b", "111111110u")))
    result = compare_runs(a, b, "gated")
    assert (result.verdict.word, result.unscored) == ("no verdict", (0, 1))
    assert result.to_json()["bounds"] == pytest.approx(
        {"base_low": 0.3, "base_high": 0.3, "condition_low": 0.8, "condition_high": 0.9, "gain_low": 0.5, "gain_high": 0.6}
    )


@pytest.mark.parametrize(
    ("sections", "listed"),
    [
        ({"prompt": {"thinking": "off"}}, "  prompt.thinking: 'on' -> 'off'\n"),
        ({"sampling": {"temperature": 1.0}}, "  sampling.temperature: 0.7 -> 1.0\n"),
        ({"evaluation": {"seeds": [0, 1]}}, r"  evaluation.seeds: [0] -> [0, 1]" + "\n"),
        ({"evaluation": {"alpha": 0.01}}, "  evaluation.alpha: 0.05 -> 0.01\n"),
        ({"grading": {"timeout": 5}}, "  grading.timeout: (not set) -> 5\n"),
    ],
)
def test_another_measurement_is_refused_by_name(tmp_path: Path, sections: dict, listed: str) -> None:
    a, b = run_folder(tmp_path / "a", outcomes("gated", A)), run_folder(tmp_path / "b", outcomes("gated", B), **sections)
    with pytest.raises(ConfigError) as refused:
        compare_runs(a, b, "gated")
    assert listed in str(refused.value)
    assert str(refused.value).count("\n") == 2, "nothing else is listed"


def test_every_difference_is_listed_at_once(runs: tuple[Path, Path]) -> None:
    a, b = runs
    change_problem(b, 0, question="another one", answer="8")
    change_problem(b, 1, choices=("x", "y"))
    with pytest.raises(ConfigError) as refused:
        compare_runs(a, b, "gated")
    lines = str(refused.value).splitlines()
    # run b wrote its problems in the order of its outcomes, the last first
    assert lines[1:-1] == [
        "  problems: 1 have another question: p9",
        "  problems: 1 have another answer: p9",
        "  problems: 1 have another choices: p8",
    ]
    assert "would prove nothing" in lines[0]


def test_other_problems_and_chains_are_listed(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", outcomes("gated", "1010"))
    b = run_folder(tmp_path / "b", outcomes("gated", "1" * 9, "0" * 9, start=1))
    with pytest.raises(ConfigError) as refused:
        compare_runs(a, b, "gated")
    message = str(refused.value)
    assert f"problems: 1 stand only in {a}: p0\n" in message
    assert f"problems: 6 stand only in {b}: p4, p5, p6, p7, p8 and 1 more\n" in message
    assert "chains (seed, sample): 1 a problem, [(0, 0)] -> 2 a problem, [(0, 0), (0, 1)]\n" in message


def test_an_condition_that_a_run_lacks(runs: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="b has no condition 'unsteered'; it has gated, always"):
        compare_runs(*runs, "unsteered")


def test_what_is_no_finished_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="none"):
        compare_runs(runs[0], tmp_path / "none", "gated")
    with RunDirectory.create(tmp_path / "begun", CONFIG):
        pass
    with pytest.raises(StoreError, match=r"run `trimtab evaluate .*begun` first"):
        compare_runs(runs[0], tmp_path / "begun", "gated")
    (runs[1] / "problems.parquet").unlink()
    with pytest.raises(StoreError, match=r"problems\.parquet"):
        compare_runs(*runs, "gated")


def test_outcomes_of_unknown_problems(runs: tuple[Path, Path]) -> None:
    with RunDirectory.open(runs[1]) as directory:
        write_table(directory.problems, [Problem("p0", "q", "7", Split.TEST)])
    with pytest.raises(StoreError, match=r"outcomes of 9 problems that problems\.parquet lacks"):
        compare_runs(*runs, "gated")


def test_a_run_without_a_level(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", outcomes("gated", A), evaluation={"alpha": "x"})
    with pytest.raises(ConfigError, match=r"run\.toml needs evaluation\.alpha"):
        compare_runs(a, a, "gated")
