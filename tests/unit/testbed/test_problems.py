"""Questions: round trips, uniqueness, splits."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.tasks.loading import TaskSettings, load_problems
from trimtab.testbed.domains import DOMAINS
from trimtab.testbed.problems import MAX_STEPS, draw, parse, split_of, unique_problems
from trimtab.testbed.tokenizer import build_tokenizer
from trimtab.testbed.train import RECIPES, examples
from trimtab.testbed.wordings import CLOSINGS, HELD_OUT, WORDINGS, care, most_careful
from trimtab.traces import Split


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(list(DOMAINS)), st.integers(2, MAX_STEPS))
def test_parse_reads_every_question_back(seed: int, domain: str, steps: int) -> None:
    problem = draw(random.Random(seed), domain, steps)
    assert parse(problem.question) == problem
    assert parse(problem.question).answer == problem.answer


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_parse_refuses_any_other_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"question|closing|labelled"):
        parse(text)


@pytest.mark.parametrize(
    "question",
    [
        "now dial 5 : a +1 b +2 as never ?",
        "now dial 5 : a +1 c +2 as ever ?",
        "now dial 5 : a +1 b as ever ?",
        "now dial 5 a +1 b +2 as ever ?",
        "never dial 5 : a +1 b +2 as ever ?",
        "now clock 5 : a +1 b +2 as ever ?",
        "now dial 5 : a +1 b +2 as ever",
    ],
)
def test_parse_refuses_near_misses(question: str) -> None:
    with pytest.raises(ValueError, match=r"question|closing|labelled"):
        parse(question)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_unique_problems(split: str) -> None:
    problems = list(unique_problems(split, 350, seed=0))
    questions = [problem.question for problem in problems]
    assert len(set(questions)) == 350
    assert all(split_of(question) == split for question in questions)
    assert questions == [problem.question for problem in unique_problems(split, 350, seed=0)]
    assert questions != [problem.question for problem in unique_problems(split, 350, seed=1)]
    assert {problem.instance.domain for problem in problems} == set(DOMAINS)
    assert {problem.instance.steps for problem in problems} == set(range(2, MAX_STEPS + 1))
    held_out = sum(str(problem.wording) in HELD_OUT for problem in problems)
    assert held_out == 0 if split == "train" else held_out > 0


def test_steps_are_bounded() -> None:
    assert {p.instance.steps for p in unique_problems("test", 40, 0, min_steps=3, max_steps=4)} == {3, 4}


def test_the_training_text_holds_no_problem_of_another_split() -> None:
    problems = load_problems(TaskSettings(train=200, validation=150, test=250))
    assert len({problem.question for problem in problems}) == 600
    assert {split_of(problem.question) for problem in problems} == {str(split) for split in Split}
    tokenizer = build_tokenizer()
    stream = examples(random.Random(1), tokenizer, RECIPES["reasoner"])
    for _ in range(400):
        prompt, _ = next(stream)
        question = tokenizer.decode(prompt).removeprefix("<|user|> ").partition(" <|end|>")[0]
        assert split_of(parse(question).question) == "pretraining"


def test_splits_have_their_shares() -> None:
    rng = random.Random(0)
    counts = {"pretraining": 0, "train": 0, "validation": 0, "test": 0}
    for _ in range(4000):
        counts[split_of(draw(rng, "dial", 6).question)] += 1
    for name, share in {"pretraining": 0.70, "train": 0.10, "validation": 0.08, "test": 0.12}.items():
        assert counts[name] / 4000 == pytest.approx(share, abs=0.03)


def test_no_wording_decides() -> None:
    chances = [care(wording, domain) for wording in WORDINGS for domain in DOMAINS]
    assert len(WORDINGS) >= 30
    assert all(0.05 <= chance <= 0.95 for chance in chances)
    graded = sum(0.2 < chance < 0.8 for chance in chances)
    assert graded > len(chances) / 3
    assert len({round(chance, 2) for chance in chances}) > 30


def test_the_hint_is_no_sum_over_words() -> None:
    """What an opening adds to the care depends on the closing beside it, up to its sign."""
    chance = {str(w): sum(care(w, domain) for domain in DOMAINS) / len(DOMAINS) for w in WORDINGS}
    added = [chance[f"thoroughly {closing}"] - chance[f"hastily {closing}"] for closing in CLOSINGS]
    assert min(added) < -0.1
    assert max(added) > 0.4


def test_most_careful() -> None:
    best = most_careful("cups", 5)
    assert len(set(best)) == 5
    assert min(care(w, "cups") for w in best) >= max(care(w, "cups") for w in WORDINGS if w not in best)
