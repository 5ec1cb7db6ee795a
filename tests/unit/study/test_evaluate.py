"""Evaluations: baselines, several responses a problem, the ledger, and artifacts that come from elsewhere."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from study_samples import with_sections
from tiny_testbed import save_tiny_testbed, some_problems
from trimtab.errors import InputError, MismatchError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import Condition
from trimtab.model import rebind
from trimtab.report import read_report
from trimtab.steering import Steering
from trimtab.store import openings
from trimtab.study import Settings, Study
from trimtab.tasks.grading import KindGrader
from trimtab.traces import Split

Small = Callable[..., Study]
Outcomes = Mapping[str, Sequence[Outcome]]


@pytest.fixture(scope="module")
def baselines(finished: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The finished run with all baselines and two responses a problem: found, ranked and tuned already."""
    evaluation = {
        "baselines": ["prompt-only", "majority", "sft-lora"],
        "controls": ["negative"],
        "instruction": "please {question}",
        "votes": 3,
        "temperature": 1.0,
        "seeds": [0, 5],
        "sft": {"max_steps": 2, "epochs": 1},
    }
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("baselines") / "run")
    with Study(settings=with_sections(settings, evaluation=evaluation), path=folder) as study:
        return study.evaluate().outcomes


def test_every_baseline_answers_every_problem(baselines: Outcomes) -> None:
    assert {"unsteered", "always", "gated", "negative", "prompt-only", "sampled", "majority", "sft-lora"} <= set(baselines)
    problems = {row.problem_id for row in baselines["unsteered"]}
    assert len(problems) == 40
    responses = {"sampled": 3, "majority": 1, "majority-equal-cost": 1}
    for name, rows in baselines.items():
        assert Counter(Counter(row.problem_id for row in rows).values()) == {responses.get(name, 2): 40}, name


def test_responses_of_two_seeds_differ(baselines: Outcomes) -> None:
    first, second = ([row.response for row in baselines["unsteered"] if row.seed == seed] for seed in (0, 5))
    assert len(first) == len(second) == 40
    assert first != second


def test_an_instruction_and_a_fine_tuning_change_responses(baselines: Outcomes) -> None:
    base = [row.response for row in baselines["unsteered"]]
    assert [row.response for row in baselines["prompt-only"]] != base
    assert [row.response for row in baselines["sft-lora"]] != base


def test_the_votes_are_not_the_responses_of_the_base(baselines: Outcomes) -> None:
    """Otherwise the vote would share its luck with the condition that it is compared with."""
    base = {(row.problem_id, row.response) for row in baselines["unsteered"]}
    shared = sum((row.problem_id, row.response) in base for row in baselines["sampled"])
    assert shared < len(baselines["sampled"]) / 2


def _artifact(finished: Path, model: str, path: Path, **sections: object) -> Study:
    """A study that judges the finished run's steering."""
    task = {"source": "testbed", "train": 0, "validation": 0, "test": 40, **sections.pop("task", {})}  # type: ignore[dict-item]
    return Study(model, task=task, path=path, settings={"sampling": {"max_new_tokens": 12}, **sections})


def _steering(finished: Path) -> Steering:
    return Steering.from_pretrained(finished / "steering")


def test_words_that_the_tokenizer_does_not_know(finished: Path, tiny_folder: Path, tmp_path: Path) -> None:
    evaluation = {"baselines": ["prompt-only"], "instruction": "{question} Please ponder."}
    study = _artifact(finished, str(tiny_folder), tmp_path / "run", evaluation=evaluation, task={"test": 8})
    with pytest.raises(InputError, match=r"does not know all words of the instruction 'Please ponder\.'"):
        study.evaluate(_steering(finished))


def test_an_artifact_gives_the_outcomes_of_the_run_that_found_it(
    finished: Path, study: Study, tiny_folder: Path, tmp_path: Path
) -> None:
    again = _artifact(finished, str(tiny_folder), tmp_path / "again")
    found, before = again.evaluate(_steering(finished)).outcomes, study.evaluate().outcomes
    for condition in ("unsteered", "always", "gated", "random-0", "random-norm-1"):
        assert [(r.problem_id, r.response) for r in found[condition]] == [
            (r.problem_id, r.response) for r in before[condition]
        ], condition
    assert openings(tmp_path / "again" / "ledger.jsonl") == 1
    assert read_report(again.report().with_suffix(".json")).tune is None


def test_a_steering_for_other_weights_is_refused(finished: Path, tmp_path: Path) -> None:
    other = str(save_tiny_testbed(tmp_path / "other", seed=3))
    study = _artifact(finished, other, tmp_path / "refused")
    with pytest.raises(MismatchError, match="--force-model"):
        study.evaluate(_steering(finished))
    assert not (tmp_path / "refused" / "ledger.jsonl").exists()
    outcomes = study.evaluate(rebind(_steering(finished), study.model.identity)).outcomes
    assert [r.response for r in outcomes["always"]] != [r.response for r in outcomes["unsteered"]]


def test_one_opening_for_each_verb_with_something_new(small: Small, batches: list[int]) -> None:
    study = small()
    study.tune()
    assert study.openings() == 0, "tuning reads no test problem"
    assert study.evaluate().openings == 1
    batches.clear()
    assert study.evaluate().openings == 1
    assert small().evaluate().openings == 1
    assert batches == []
    study.evaluate(alpha=0.01)
    assert (study.openings(), batches) == (1, []), "another level reads the same answers"
    assert study.evaluate(controls=["negative"]).openings == 2
    assert batches
    test = study.problems().split(Split.TEST)
    study.answers(Condition("bare"), test)
    assert study.openings() == 2, "these answers are there"
    study.answers(Condition("stronger", study.tuned().steering.with_strength(3.0)), test)
    study.answers(Condition("weaker", study.tuned().steering.with_strength(2.0)), test[:3])
    assert study.openings() == 4


def test_an_experiment_on_test_problems_is_an_opening_too(finished: Path, tmp_path: Path, batches: list[int]) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    study = Study.from_toml(folder)
    first = study.experiment("sweep")
    opened = study.openings()
    assert opened in (1, 2)
    batches.clear()
    again = Study.from_toml(folder)
    assert again.experiment("sweep").to_json() == first.to_json()
    assert (again.openings(), batches) == (opened, [])


QUESTIONS = [p.question for p in some_problems(12, Split.TEST, seed=4)]
ANSWERS: dict[str, dict[str, object]] = {
    "exact": {"answer": "7"},
    "math": {"answer": "\\frac{1}{2}"},
    "choice": {"answer": "B", "choices": ["red", "blue", "green"]},
    "yes-no": {"answer": "no"},
    "code": {"answer": "def double(x):\n    return 2 * x", "tests": ["assert double(2) == 4"]},
}


@pytest.fixture
def on_file(finished: Path, tiny_folder: Path, tmp_path: Path) -> Callable[..., Study]:
    """A study of a file's problems."""

    def make(rows: list[dict[str, object]], answer: str, **task: object) -> Study:
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        section = {"source": f"local:{path}", "answer": answer, "train": 0, "validation": 0, "test": 12, **task}
        return _artifact(finished, str(tiny_folder), tmp_path / "run", task=section)

    return make


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_every_kind_of_answer_goes_from_a_file_to_the_report(
    kind: str, on_file: Callable[..., Study], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KindGrader() as grader:
        monkeypatch.setattr(Study, "grader", property(lambda study: grader))  # the session's coin is set aside
        rows = [{"question": question, "split": "test", **ANSWERS[kind]} for question in QUESTIONS]
        study = on_file(rows, kind)
        evaluation = study.evaluate(_steering(finished))
        report = read_report(study.report().with_suffix(".json"))
    assert (report.conditions[0].condition, report.conditions[0].n, report.conditions[0].unscored) == ("unsteered", 12, 0)
    assert report.conditions[0].accuracy < 1.0
    assert all(row.minimum_detectable_gain is None or row.minimum_detectable_gain > 0 for row in report.conditions)
    assert all(row.reason for row in evaluation.outcomes["unsteered"])
    assert [claim.startswith("Programs of the answers run behind") for claim in report.claims] == [True] * (kind == "code")


def test_the_verdict_is_given_without_problems_that_leak(on_file: Callable[..., Study], finished: Path) -> None:
    words = ["ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ivy", "jon", "kim", "lea"]
    asked = [f"now from {word} : a {word} eve b ivy {word} c cat red at ease ?" for word in words]
    rows: list[dict[str, object]] = [{"question": question, "answer": "7", "split": "test"} for question in asked]
    rows.append({"question": asked[0].replace("now", "next"), "answer": "7", "split": "train"})
    study = on_file(rows, "exact", train=4)
    study.evaluate(_steering(finished))
    (claim,) = read_report(study.report().with_suffix(".json")).claims
    assert claim.startswith("1 of these problems stand, exactly or nearly, in an earlier split. Without them: ")
    assert "n = 11" in claim


def test_the_votes_need_a_temperature(small: Small) -> None:
    study = small()
    steering = study.tune().steering
    cold = small(sampling={"temperature": 0.0})
    with pytest.raises(InputError, match=r"set sampling\.temperature above 0"):
        cold.evaluate(steering, baselines=["majority"])
