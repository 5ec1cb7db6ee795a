"""The stage evaluate: baselines, several responses a problem, and artifacts that come from elsewhere."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from trimtab.pipeline import Line, RunConfig, run
from trimtab.pipeline.config import artifact_run, parse_config

from tiny_testbed import save_tiny_testbed, some_problems
from trimtab.errors import ConfigError, InputError, MismatchError
from trimtab.evaluation.outcomes import Outcome
from trimtab.report import read_report
from trimtab.steering import Steering
from trimtab.store import RunDirectory, openings, read_table
from trimtab.tasks.grading import KindGrader
from trimtab.traces import Split


def _outcomes(path: Path) -> dict[str, list[Outcome]]:
    conditions: dict[str, list[Outcome]] = {}
    with RunDirectory.open(path) as directory:
        for row in read_table(directory.outcomes, Outcome):
            conditions.setdefault(row.condition, []).append(row)
    return conditions


def _changed(config: RunConfig, **evaluation: object) -> RunConfig:
    return parse_config({**config.model_dump(mode="json"), "evaluation": evaluation}, "the test")


@pytest.fixture(scope="module")
def baselines(finished: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Outcome]]:
    """The finished run again with all baselines: found, ranked and tuned already, evaluated anew with two chains a problem."""
    wanted = _changed(
        config,
        baselines=["prompt-only", "majority", "sft-lora"],
        instruction="please {question}",
        votes=3,
        temperature=1.0,
        seeds=[0, 5],
        sft={"max_steps": 2, "epochs": 1},
    )
    return _outcomes(run(wanted, tmp_path_factory.mktemp("baselines") / "run"))


def test_every_baseline_answers_every_problem(baselines: dict[str, list[Outcome]]) -> None:
    assert {"unsteered", "always", "gated", "negative", "prompt-only", "sampled", "majority", "sft-lora"} <= set(baselines)
    problems = {row.problem_id for row in baselines["unsteered"]}
    assert len(problems) == 40
    chains = {"sampled": 3, "majority": 1, "majority-equal-cost": 1}
    for name, rows in baselines.items():
        assert Counter(Counter(row.problem_id for row in rows).values()) == {chains.get(name, 2): 40}, name


def test_chains_of_two_seeds_differ(baselines: dict[str, list[Outcome]]) -> None:
    first, second = ([row.response for row in baselines["unsteered"] if row.seed == seed] for seed in (0, 5))
    assert len(first) == len(second) == 40
    assert first != second


def test_an_instruction_and_a_fine_tuning_change_chains(baselines: dict[str, list[Outcome]]) -> None:
    base = [row.response for row in baselines["unsteered"]]
    assert [row.response for row in baselines["prompt-only"]] != base
    assert [row.response for row in baselines["sft-lora"]] != base


def test_the_votes_are_not_the_chains_of_the_base(baselines: dict[str, list[Outcome]]) -> None:
    """Otherwise the vote would share its luck with the condition that it is compared with."""
    base = {(row.problem_id, row.response) for row in baselines["unsteered"]}
    shared = sum((row.problem_id, row.response) in base for row in baselines["sampled"])
    assert shared < len(baselines["sampled"]) / 2


def test_words_that_the_tokenizer_does_not_know(config: RunConfig, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    with RunDirectory.open(finished) as directory:
        source = str(directory.steering)
    wanted = artifact_run(
        task={"source": "testbed", "train": 0, "tune": 0, "test": 8},
        model={"source": config.model.source},
        steering=source,
        force_model=False,
        evaluation={"baselines": ["prompt-only"], "instruction": "{question} Please ponder."},
        max_new_tokens=12,
    )
    with pytest.raises(InputError, match=r"does not know all words of the instruction 'Please ponder\.'"):
        run(wanted, tmp_path / "asked")


def _artifact(finished: Path, config: RunConfig, model: str = "", **changes: object) -> RunConfig:
    with RunDirectory.open(finished) as directory:
        source = str(directory.steering)
    return artifact_run(
        task={"source": "testbed", "train": 0, "tune": 0, "test": 40},
        model={"source": model or config.model.source},
        steering=source,
        force_model=bool(changes),
        evaluation={},
        max_new_tokens=12,
    )


def test_an_artifact_gives_the_outcomes_of_the_run_that_found_it(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    path = run(_artifact(finished, config), tmp_path / "again")
    again, before = _outcomes(path), _outcomes(finished)
    for condition in ("unsteered", "always", "gated", "random-0", "random-norm-1"):
        assert [(r.problem_id, r.response) for r in again[condition]] == [
            (r.problem_id, r.response) for r in before[condition]
        ], condition
    with RunDirectory.open(path) as directory:
        assert openings(directory.ledger) == 1
        assert directory.report.exists()


def test_a_changed_artifact_is_refused(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    wanted = _artifact(finished, config)
    folder = tmp_path / "steering"
    stronger = Steering.from_pretrained(wanted.artifact.source).with_strength(7.0)
    stronger.save_pretrained(folder)
    moved = parse_config(
        {**wanted.model_dump(mode="json"), "artifact": {**wanted.artifact.model_dump(), "source": str(folder)}}, "x"
    )
    with pytest.raises(ConfigError, match="is not the one that this run began with"):
        run(moved, tmp_path / "run")


def test_another_model_needs_force_and_remembers_it(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    other = str(save_tiny_testbed(tmp_path / "other", seed=3))
    with pytest.raises(MismatchError, match="--force-model"):
        run(_artifact(finished, config, other), tmp_path / "refused")
    outcomes = _outcomes(run(_artifact(finished, config, other, force=True), tmp_path / "forced"))
    assert [r.response for r in outcomes["always"]] != [r.response for r in outcomes["unsteered"]]


QUESTIONS = [p.question for p in some_problems(12, Split.TEST, seed=4)]
ANSWERS = {
    "exact": {"answer": "7"},
    "math": {"answer": "\\frac{1}{2}"},
    "choice": {"answer": "B", "choices": ["red", "blue", "green"]},
    "yes-no": {"answer": "no"},
    "code": {"answer": "def double(x):\n    return 2 * x", "tests": ["assert double(2) == 4"]},
}


@pytest.fixture
def local_run(finished: Path, config: RunConfig, tmp_path: Path) -> Callable[..., RunConfig]:
    """The configuration of an evaluation of the found artifact on a file."""

    def make(rows: list[dict[str, object]], answer: str, **task: object) -> RunConfig:
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with RunDirectory.open(finished) as directory:
            source = str(directory.steering)
        return artifact_run(
            task={"source": f"local:{path}", "answer": answer, "train": 0, "tune": 0, "test": 12, **task},
            model={"source": config.model.source},
            steering=source,
            force_model=False,
            evaluation={},
            max_new_tokens=12,
        )

    return make


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_every_kind_of_answer_runs_from_a_file_to_the_report(
    kind: str, local_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KindGrader() as grader:
        monkeypatch.setattr(Line, "grader", property(lambda line: grader))  # the session's coin is set aside
        rows = [{"question": question, "split": "test", **ANSWERS[kind]} for question in QUESTIONS]
        path = run(local_run(rows, kind), tmp_path / "run")
    report = read_report(path / "report.json")
    assert (report.conditions[0].condition, report.conditions[0].n, report.conditions[0].unscored) == ("unsteered", 12, 0)
    assert report.conditions[0].accuracy < 1.0
    assert all(row.minimum_detectable_gain is None or row.minimum_detectable_gain > 0 for row in report.conditions)
    reasons = {row.reason for row in _outcomes(path)["unsteered"]}
    assert all(reasons)
    assert [claim.startswith("Programs of the answers run behind") for claim in report.claims] == [True] * (kind == "code")


def test_the_verdict_is_given_without_problems_that_leak(local_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    words = ["ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ivy", "jon", "kim", "lea"]
    asked = [f"now from {word} : a {word} eve b ivy {word} c cat red at ease ?" for word in words]
    rows = [{"question": question, "answer": "7", "split": "test"} for question in asked]
    rows.append({"question": asked[0].replace("now", "next"), "answer": "7", "split": "train"})
    path = run(local_run(rows, "exact", train=4), tmp_path / "run")
    (claim,) = read_report(path / "report.json").claims
    assert claim.startswith("1 of these problems stand, exactly or nearly, in an earlier split. Without them: ")
    assert "n = 11" in claim
