"""Problems that ``reasoning-gym`` generates and verifies: ``task.source = "gym:NAME"``."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pydantic import JsonValue

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.text import after_hashes, boxes, conclusion, statements
from trimtab.tasks.repositories import Origin
from trimtab.tasks.settings import GYM, TaskSettings
from trimtab.tasks.splits import split_by_hash
from trimtab.traces import AnswerKind, Problem, Score, Split

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

EXECUTES = frozenset(
    {
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Families whose verifier evaluates the response as Python, itself or through sympy."""
UNSTABLE = frozenset({"isomorphic_strings", "polynomial_multiplication", "ransom_note"})
"""Families that iterate over sets of texts, so that another process generates other problems from the same seed."""
WITHOUT_GOLD = frozenset({"boxnet", "composite", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"})
"""Families that name no gold answer, which the controls of a grader need."""

REPEATED = "the same question was generated earlier"
_DRAWS = 20
"""Problems that are generated at most, as a multiple of those asked for: small families repeat themselves."""
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)


def gym_version() -> str:
    """The installed version of ``reasoning-gym``.

    Raises:
        InputError: it is not installed.
    """
    try:
        return version("reasoning-gym")
    except PackageNotFoundError as error:
        raise InputError(
            "a gym: task needs the package reasoning-gym; install it: pip install 'trimtab[gym]'", code="no-gym"
        ) from error


def accepted_families() -> list[str]:
    """Families whose problems are the same in every process, have gold answers, and are verified without running the response."""
    gym_version()
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - EXECUTES - UNSTABLE - WITHOUT_GOLD)


def gym_problems(settings: TaskSettings) -> tuple[list[Problem], Origin, Counter[str]]:
    """Generate problems until every split has as many as it was asked for, or the family repeats itself.

    Each question goes to a split by its hash, as those of every other source. ``tests`` of a problem holds what its verifier
    needs to generate it again. Each seed draws its own problems: reasoning-gym's own consecutive seeds share all but one.

    Raises:
        InputError: reasoning-gym is not installed, an unknown or refused family, an unknown parameter or a bad value.
        NotEnoughDataError: no split was asked for.
    """
    wanted = {split: settings.count(split) for split in Split if settings.count(split)}
    if not wanted:
        raise NotEnoughDataError(f"task {settings.source!r} gave no problem for the asked splits", code="no-problem")
    family, installed = settings.source.removeprefix(GYM), gym_version()
    most = _DRAWS * sum(wanted.values())
    recipe: dict[str, JsonValue] = {"family": family, "parameters": settings.parameters, "seed": _seed(settings), "size": most}
    dataset = _dataset(json.dumps(recipe, sort_keys=True))
    problems: dict[str, Problem] = {}
    missing, left_out = Counter(wanted), Counter[str]()
    for index in range(most):
        if not missing:
            break
        problem = _problem(dataset[index], index, tuple(wanted), {**recipe, "version": installed, "index": index})
        if problems.setdefault(problem.question, problem) is not problem:
            left_out[REPEATED] += 1
            continue
        missing -= Counter([problem.split])
    where = f"reasoning-gym {installed}, {family} {json.dumps(settings.parameters, sort_keys=True)}"
    return list(problems.values()), Origin(where, rows=len(problems) + left_out[REPEATED]), left_out


def _problem(entry: Mapping[str, object], index: int, among: tuple[Split, ...], recipe: Mapping[str, JsonValue]) -> Problem:
    question, answer = str(entry["question"]), entry["answer"]
    if not isinstance(answer, str):
        raise InputError(f"reasoning-gym names no gold answer for problem {index} of {recipe['family']}; choose another family")
    split = split_by_hash(question, among)
    return Problem(f"gym-{index:06d}", question, answer, split, kind=AnswerKind.GYM, tests=json.dumps(recipe, sort_keys=True))


def _seed(settings: TaskSettings) -> int:
    """Problem i of reasoning-gym is drawn from seed + i, so seeds must lie far apart."""
    return int.from_bytes(blake2b(f"{settings.source}\n{settings.seed}".encode(), digest_size=4).digest(), "big") >> 1


@cache
def _dataset(recipe: str) -> "ProceduralDataset":
    from reasoning_gym.factory import DATASETS

    family, parameters, seed, size = (json.loads(recipe)[name] for name in ("family", "parameters", "seed", "size"))
    _check_family(family, sorted(DATASETS))
    kind, configuration = DATASETS[family]
    known = sorted({field.name for field in fields(configuration)} - {"seed", "size"})
    if unknown := sorted(set(parameters) - set(known)):
        close = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"accepted: {', '.join(known)}"
        raise InputError(f"task.parameters of {GYM}{family} names {', '.join(unknown)}; {hint}")
    try:
        return kind(configuration(**parameters, seed=seed, size=size))
    except (AssertionError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"task.parameters of {GYM}{family} are not accepted: {error} (given {parameters})") from error


def _check_family(family: str, known: Sequence[str]) -> None:
    if family not in known:
        accepted = accepted_families()
        close = get_close_matches(family, accepted, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"accepted: {', '.join(accepted)}"
        raise InputError(f"reasoning-gym has no family {family!r}; {hint}")
    for refused, why in (
        (EXECUTES, "its verifier runs the model's response as Python code"),
        (UNSTABLE, "it generates other problems in every process, so no run could be repeated"),
        (WITHOUT_GOLD, "its problems have no gold answer of their own"),
    ):
        if family in refused:
            raise InputError(f"{GYM}{family} is refused: {why}; choose another family")


class GymGrader:
    """Correct when the family's own verifier gives the answer a 1; less, its partial credit, is incorrect.

    The verifier is given the last ``<answer>...</answer>``, else the last box, ``####`` or "the answer is ...", else the whole
    response after its thinking; without a final full stop where it refuses it with one. A response is unscored when the verifier
    itself fails, and when the installed reasoning-gym generates another question from the problem's recipe.
    """

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order.

        Raises:
            InputError: reasoning-gym is not installed.
        """
        gym_version()
        return [_judge(problem, response) for problem, response in answers]


def stated_answer(response: str) -> str:
    """What the verifier is given.

    Example:
        >>> stated_answer("3 + 4 = 7, so the answer is 7."), stated_answer("Maybe <answer>5</answer>"), stated_answer("Anna")
        ('7.', '5', 'Anna')
    """
    tail = conclusion(response)
    if tagged := _ANSWER.findall(tail):
        return tagged[-1]
    box = next(boxes(tail), None)
    if box is not None and box.content is not None:
        return box.content
    hashes = after_hashes(tail)
    if hashes is not None:
        return hashes
    stated = statements(tail)
    return stated[-1].text if stated else tail


def _judge(problem: Problem, response: str) -> Judgement:
    answer = stated_answer(response)
    recipe = json.loads(problem.tests)
    try:
        dataset = _dataset(json.dumps({name: recipe[name] for name in ("family", "parameters", "seed", "size")}, sort_keys=True))
        entry = dataset[recipe["index"]]
        if entry["question"] != problem.question:
            made, now = recipe["version"], gym_version()
            return Judgement(Score.UNSCORED, f"reasoning-gym {now} generates another question than {made} did", answer)
        credit = max(float(dataset.score_answer(text, entry)) for text in dict.fromkeys((answer, answer.removesuffix("."))))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a verifier of any family, given any text
        return Judgement(Score.UNSCORED, f"the verifier of {recipe['family']} failed ({type(error).__name__}: {error})", answer)
    if credit >= 1.0:
        return Judgement(Score.CORRECT, "accepted by the verifier", answer)
    return Judgement(Score.INCORRECT, f"the verifier gives {credit:g} of 1; the gold answer is {problem.answer}", answer)
