"""Problems of reasoning-gym: generated, split, verified, refused."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.checking import graders_hold
from trimtab.tasks.grading import KindGrader
from trimtab.tasks.gym import EXECUTES, REPEATED, UNSTABLE, WITHOUT_GOLD, accepted_families, gym_version, stated_answer
from trimtab.tasks.loading import Task, load_problems, load_task
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Problem, Score, Split

needs_gym = pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="needs reasoning-gym: pip install 'trimtab[gym]'")


def _settings(family: str = "chain_sum", seed: int = 0, **parameters: object) -> TaskSettings:
    source = {"source": f"gym:{family}", "train": 8, "validation": 4, "test": 6, "seed": seed, "parameters": parameters}
    return TaskSettings.model_validate(source)


def _judged(problem: Problem, *responses: str) -> list[Score]:
    with KindGrader() as grader:
        return [one.score for one in grader.judge([(problem, response) for response in responses])]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("3 + 4 = 7. <answer>\n7 </answer> so it is <answer>8</answer>", "8"),
        (r"So \boxed{12}.", "12"),
        ("work\n#### 4", "4"),
        ("<think>The answer is 3.</think>The answer is 5.", "5."),
        ("<think>so</think> Anna\n", "Anna"),
        ("", ""),
    ],
)
def test_what_the_verifier_is_given(response: str, answer: str) -> None:
    assert stated_answer(response) == answer


def test_parameters_belong_to_gym() -> None:
    with pytest.raises(ValidationError, match="parameters describe a gym: family, 'gsm8k' is none; remove them"):
        TaskSettings(source="gsm8k", parameters={"max_terms": 3})
    with pytest.raises(ValidationError, match="answer 'gym' is that of gym: sources"):
        TaskSettings(source="local:x.jsonl", answer=AnswerKind.GYM)
    with pytest.raises(ValidationError, match="data and revision belong to a benchmark"):
        TaskSettings(source="gym:chain_sum", data="x")


@pytest.mark.skipif(find_spec("reasoning_gym") is not None, reason="reasoning-gym is installed")
def test_without_reasoning_gym() -> None:
    with pytest.raises(InputError, match=r"needs the package reasoning-gym; install it: pip install 'trimtab\[gym\]'"):
        load_task(_settings())


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(_settings(max_terms=2, max_digits=1))


@needs_gym
def test_problems_fill_the_splits_and_say_where_they_come_from(task: Task) -> None:
    counts = {split: sum(problem.split is split for problem in task.problems) for split in Split}
    assert counts == {Split.TRAIN: 8, Split.VALIDATION: 4, Split.TEST: 6}
    assert len({problem.question for problem in task.problems}) == 18
    (origin,) = task.provenance.origins
    assert origin.where == f'reasoning-gym {gym_version()}, chain_sum {{"max_digits": 1, "max_terms": 2}}'
    recipe = json.loads(task.problems[0].tests)
    assert (recipe["family"], recipe["version"]) == ("chain_sum", gym_version())


@needs_gym
def test_the_same_settings_give_the_same_problems_and_another_seed_gives_others(task: Task) -> None:
    again = load_task(_settings(max_terms=2, max_digits=1))
    assert again == task
    pinned = _settings(max_terms=2, max_digits=1).model_copy(update={"digest": task.provenance.digest})
    assert load_task(pinned) == task
    first, other = ({p.question for p in load_problems(_settings(seed=seed, max_terms=6, min_terms=6))} for seed in (0, 1))
    assert not first & other, "reasoning-gym draws problem i from seed + i, so neighbouring seeds would share nearly all"


@needs_gym
def test_a_small_family_gives_fewer_problems_and_counts_repetitions() -> None:
    task = load_task(_settings("leg_counting", min_animals=1, max_animals=1, max_instances=1).model_copy(update={"train": 200}))
    assert len(task.problems) < 210
    assert task.provenance.left_out[REPEATED] > 1000


@needs_gym
def test_the_familys_verifier_grades(task: Task) -> None:
    problem, other = task.problems[0], next(p for p in task.problems if p.answer != task.problems[0].answer)
    gold, wrong = f"So the answer is {problem.answer}.", f"<answer>{other.answer}</answer>"
    partial = f"I think {problem.answer}, or not"
    assert _judged(problem, gold, wrong, partial, "") == [Score.CORRECT, *[Score.INCORRECT] * 3]
    with KindGrader() as grader:
        reason = grader.judge([(problem, partial)])[0].reason
    assert reason.startswith("the verifier gives 0.")
    assert all(not control.failed for control in graders_hold(task.problems))


@needs_gym
def test_a_verifier_that_accepts_several_answers() -> None:
    """The three people of a knights-and-knaves answer may be named in any order."""
    problem = load_problems(_settings("knights_knaves"))[0]
    said = problem.answer.replace(", and ", ", ").rstrip(".").split(", ")
    assert _judged(problem, ", ".join(reversed(said)), problem.answer) == [Score.CORRECT, Score.CORRECT]


@needs_gym
def test_a_verifier_that_fails_leaves_the_response_unscored(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from reasoning_gym.arithmetic.chain_sum import ChainSumDataset

    def broken(self: object, answer: str | None, entry: dict[str, object]) -> float:
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr(ChainSumDataset, "score_answer", broken)
    with KindGrader() as grader:
        judged = grader.judge([(task.problems[0], "7")])[0]
    assert (judged.score, judged.reason) == (Score.UNSCORED, "the verifier of chain_sum failed (ZeroDivisionError: of its own)")


@needs_gym
def test_another_version_that_generates_another_question_leaves_the_response_unscored(task: Task) -> None:
    moved = json.dumps({**json.loads(task.problems[0].tests), "index": 10_000, "version": "0.0.1"})
    problem = Problem("p", task.problems[0].question, "1", Split.TEST, kind=AnswerKind.GYM, tests=moved)
    with KindGrader() as grader:
        judged = grader.judge([(problem, "1")])[0]
    assert judged.score is Score.UNSCORED
    assert judged.reason.endswith("generates another question than 0.0.1 did")


@needs_gym
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (_settings("chain_sun"), "no family 'chain_sun'; did you mean chain_sum or"),
        (_settings("nothing_like_it_qqq"), "accepted: ab, acre"),
        (_settings("countdown"), "gym:countdown is refused: its verifier runs the model's response as Python code"),
        (_settings("ransom_note"), "refused: it generates other problems in every process"),
        (_settings("rush_hour"), "refused: its problems have no gold answer"),
        (_settings(max_term=2), "gym:chain_sum names max_term; did you mean max_terms?"),
        (_settings(seed_=2), "names seed_"),
        (_settings(size=2), "names size; accepted: allow_negation"),
        (_settings(min_terms=0), "are not accepted: min_terms must be positive"),
        (_settings(min_terms="two"), "are not accepted: "),
    ],
)
def test_what_is_refused_is_said_with_what_is_accepted(settings: TaskSettings, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_task(settings)
    assert message in str(caught.value)


@needs_gym
def test_no_split_asked_for() -> None:
    with pytest.raises(NotEnoughDataError, match="gave no problem"):
        load_task(_settings().model_copy(update={"train": 0, "validation": 0, "test": 0}))


_SURVEY = """
import inspect, json, sys
from hashlib import md5
from reasoning_gym.factory import DATASETS
said = {}
for name, (kind, configuration) in DATASETS.items():
    code = inspect.getsource(kind.score_answer)
    said[name] = {"executes": any(word in code for word in ("eval(", "sympy.parse_expr", "sp.parse_expr", "parse_expr(answer"))}
    if name != "composite":
        entries = [kind(configuration(seed=7, size=3))[i] for i in range(3)]
        questions = repr([entry["question"] for entry in entries])
        said[name] |= {"gold": isinstance(entries[0]["answer"], str), "digest": md5(questions.encode()).hexdigest()}
print(json.dumps(said))
"""


def _surveyed(hash_seed: str) -> dict[str, dict[str, object]]:
    command = [sys.executable, "-W", "ignore", "-c", _SURVEY]
    done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, check=True, text=True)
    return json.loads(done.stdout[done.stdout.index("{") :])  # some family prints while it generates


@needs_gym
@pytest.mark.slow
def test_the_refused_families_are_all_that_have_to_be() -> None:
    """Verifiers that evaluate the response, families whose questions depend on the hash seed, and those without a gold answer."""
    one, two = (_surveyed(hash_seed) for hash_seed in ("1", "2"))
    assert {name for name, said in one.items() if said["executes"]} - {"number_sorting"} == EXECUTES  # which evaluates its gold
    assert {name for name, said in one.items() if said.get("digest") != two[name].get("digest")} == UNSTABLE
    assert {name for name, said in one.items() if not said.get("gold")} == WITHOUT_GOLD
    assert len(accepted_families()) == len(one) - len(EXECUTES | UNSTABLE | WITHOUT_GOLD)
