"""The bundled weights: small enough, really reasoning, really failing."""

import random
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trimtab.model import LanguageModel, open_model
from trimtab.sampling import SamplingSettings, generate_batch, plan_requests
from trimtab.tasks import ExactGrader, load_problems
from trimtab.tasks.loading import TaskSettings
from trimtab.testbed import models
from trimtab.testbed.chains import check_steps
from trimtab.testbed.domains import DOMAINS
from trimtab.testbed.models import names, resolve
from trimtab.testbed.problems import MAX_STEPS, TestbedProblem, draw, split_of
from trimtab.testbed.tokenizer import vocabulary
from trimtab.testbed.wordings import most_careful
from trimtab.traces import Problem, Split

BUNDLED = ("control", "reasoner", "second", "third", "tuned")
LARGEST, ALL = 8e6, 12e6
N = 200
GREEDY = SamplingSettings(n=1, temperature=0.0, max_new_tokens=110, batch_tokens=70_000)


@cache
def _open(name: str) -> LanguageModel:
    return open_model(resolve(f"testbed:{name}"))


def _chains(name: str, problems: list[Problem]) -> list[str]:
    """Greedy chains in the order of the problems."""
    model = _open(name)
    requests, plan = plan_requests(model, problems, GREEDY)
    chains: dict[str, str] = {}
    for part in plan.parts:
        for generation in generate_batch(model, [requests[i] for i in part], GREEDY):
            chains[generation.id] = model.tokenizer.decode(generation.response_ids, skip_special_tokens=True)
    return [chains[f"{problem.id}/0"] for problem in problems]


@cache
def _accuracy(name: str) -> float:
    problems = load_problems(TaskSettings(train=0, validation=0, test=N))
    graded = ExactGrader().judge([*zip(problems, _chains(name, problems), strict=True)])
    return sum(judgement.score == "correct" for judgement in graded) / N


def _has_rare_item(problem: TestbedProblem) -> bool:
    instance, domain = problem.instance, DOMAINS[problem.instance.domain]
    state = instance.start
    for position in range(instance.steps):
        if domain.is_rare(instance, state, position):
            return True
        state = domain.right(instance, state, position)
    return False


def _careful_problems() -> list[TestbedProblem]:
    """Problems of the test split in the five wordings that ask for the most care, without the items that everybody misreads."""
    rng, found = random.Random(7), []
    while len(found) < N:
        domain = list(DOMAINS)[len(found) % len(DOMAINS)]
        problem = draw(rng, domain, rng.randint(2, MAX_STEPS), rng.choice(most_careful(domain, 5)))
        if split_of(problem.question) == "test" and not _has_rare_item(problem):
            found.append(problem)
    return found


def test_all_are_bundled() -> None:
    assert set(BUNDLED) <= set(names())


def test_sizes() -> None:
    folder = Path(str(files(models)))
    sizes = {name: sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file()) for name in BUNDLED}
    assert all(0 < size <= LARGEST for size in sizes.values()), sizes
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts) <= ALL


@pytest.mark.parametrize("name", BUNDLED)
def test_format(name: str) -> None:
    folder = Path(resolve(f"testbed:{name}"))
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert {tensors.get_tensor(key).dtype for key in tensors.keys()} == {torch.bfloat16}  # noqa: SIM118
    model = _open(name)
    assert model.hf_model.dtype == torch.float32
    assert model.hf_model.config.model_type == "qwen3"
    assert model.hf_model.config.head_dim in (32, 64, 128)
    assert model.tokenizer.convert_ids_to_tokens(list(range(len(model.tokenizer)))) == vocabulary()
    assert (folder / "recipe.json").exists()


def test_the_reasoner_fails_often_enough_and_not_too_often() -> None:
    assert 0.45 <= _accuracy("reasoner") <= 0.75


def test_the_second_model_too() -> None:
    assert 0.40 <= _accuracy("second") <= 0.80


def _step_accuracy() -> float:
    """Each step is judged given the state that the step before stated; a missing step counts as wrong."""
    problems = _careful_problems()
    chains = _chains("reasoner", [Problem(f"c{i}", p.question, p.answer, Split.TEST) for i, p in enumerate(problems)])
    right = sum(check_steps(problem, chain).right for problem, chain in zip(problems, chains, strict=True))
    return right / sum(problem.instance.steps for problem in problems)


def test_the_reasoner_really_reasons() -> None:
    assert _step_accuracy() >= 0.97


def test_the_control_fails_by_length() -> None:
    """It learned from careful text of up to eight steps."""
    problems = load_problems(TaskSettings(train=0, validation=0, test=2 * N))
    judged = ExactGrader().judge([*zip(problems, _chains("control", problems), strict=True)])
    right = {p.id: judgement.score == "correct" for p, judgement in zip(problems, judged, strict=True)}
    short, long = ([right[p.id] for p in problems if (p.difficulty <= 8) == side] for side in (True, False))
    assert sum(short) / len(short) > sum(long) / len(long) + 0.1
