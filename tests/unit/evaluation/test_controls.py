"""The controls of a verdict: numbers worked out by hand, and loops over problems."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from outcome_samples import outcomes
from trimtab.errors import InputError
from trimtab.evaluation.controls import (
    GUESSED,
    answered_gain,
    extraction,
    first_token,
    gate_alone,
    judged_with_controls,
    mostly_format,
    noise,
    reading,
)
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.summary import summarise
from trimtab.evaluation.verdict import judge
from trimtab.stats.paired import compare
from trimtab.stats.significance import mcnemar_exact, sign_flip_p
from trimtab.tasks.grading.math import GUESSED as GRADERS_GUESSED
from trimtab.traces import Score


def answered(condition: str, *responses: str, seed: int = 0) -> list[Outcome]:
    """As :func:`outcome_samples.outcomes`; 1 right, 0 wrong, g right by guess, n no answer, t truncated, u unscored."""
    kinds = {"1": ("", "7"), "0": ("", "8"), "g": (f"equals the gold answer; {GUESSED}", "7"), "u": ("failed", "7")}
    rows = outcomes(condition, *(pattern.replace("g", "1") for pattern in responses), seed=seed)
    patterns = [pattern[i] for i in range(len(responses[0])) for pattern in responses]
    return [
        replace(row, reason=reason, answer=answer, response=f"{pattern} {row.problem_id}")
        for row, pattern in zip(rows, patterns, strict=True)
        for reason, answer in [kinds.get(pattern, ("no answer found", ""))]
    ]


def test_a_response_is_read_in_one_of_five_ways() -> None:
    assert GUESSED in GRADERS_GUESSED
    read = list(map(reading, answered("always", "10gntu")))
    assert read == ["stated", "stated", "guessed", "missing", "truncated", "unscored"]
    silent = replace(answered("always", "1")[0], answer="")
    assert reading(silent) == "stated", "a grader that tells no answer found one where it is correct"


def test_rows_of_the_extraction_by_hand() -> None:
    conditions = {
        "unsteered": answered("unsteered", "110nnntu00"),
        "always": answered("always", "1110g1nu0t"),
        "random-0": answered("random-0", "nnnnnnnnnn"),
        "random-1": answered("random-1", "1111111111"),
    }
    found = extraction(conditions, "always")
    assert [row.condition for row in found.rows] == ["unsteered", "always", "random"]
    base, always, random = found.rows
    counts = ("responses", "stated", "guessed", "missing", "truncated", "unscored")
    assert [getattr(base, name) for name in counts] == [10, 5, 0, 3, 1, 1]
    assert [getattr(always, name) for name in counts] == [10, 6, 1, 1, 1, 1]
    assert [getattr(random, name) for name in counts] == [10, 5, 0, 5, 0, 0]
    assert (base.answered, random.answered) == (None, None)
    # an answer: gained by problems 3 to 5, lost by 9; an unscored one held an answer twice
    assert always.answered is not None
    assert (always.answered.fixed, always.answered.broken, always.answered.p) == (3, 1, mcnemar_exact(3, 1))
    # both gave one: problems 0, 1, 2 and 8, of which the third is fixed
    assert always.both is not None
    expected = compare(np.array([True, True, False, False]), np.array([True, True, True, False]))
    assert (always.both.problems, always.both.gain, always.both.p) == (4, 0.25, expected.p)
    assert (always.both.low, always.both.high) == (expected.gain_low, expected.gain_high)
    assert always.both.points == pytest.approx(1 / 10)
    assert "4 of 10 unsteered responses and 2 of 10 under the condition held no answer" in found.sentence


@pytest.mark.parametrize(
    ("base", "condition", "form"),
    [
        # 12 found and right, 20 answered by both the same
        ("n" * 12 + "1" * 10 + "0" * 10, "1" * 12 + "1" * 10 + "0" * 10, True),
        # the same, and nobody answered twice
        ("n" * 12, "1" * 12, True),
        # 12 fixed among those that both answered, as many missing as before
        ("0" * 12 + "n" * 5 + "1" * 10, "1" * 12 + "n" * 5 + "1" * 10, False),
        # a loss of form
        ("1" * 12 + "0" * 20, "n" * 12 + "0" * 20, True),
        # no gain that is one
        ("n" * 2 + "1" * 20, "1" * 2 + "1" * 20, False),
        # more than half of form, but answers got better, too
        ("n" * 12 + "0" * 8, "1" * 12 + "1" * 8, False),
    ],
)
def test_the_rule_of_form(base: str, condition: str, form: bool) -> None:
    conditions = {"unsteered": answered("unsteered", base), "always": answered("always", condition)}
    found = extraction(conditions, "always")
    assert found.mostly_format is form
    verdict, _ = judged_with_controls(conditions, "always")
    assert ("mostly one of form" in verdict.sentence) is form
    assert verdict.word == judge(*conditions.values()).word, "the control adds a sentence and moves no word"


def test_half_of_form_is_not_mostly() -> None:
    whole = judge(answered("unsteered", "nnnnnnnn00000000"), answered("always", "1" * 16)).comparison
    both = answered_gain(answered("unsteered", "nnnnnnnn00000000"), answered("always", "1" * 16))
    assert both is not None
    assert (whole.gain, both.points) == (1.0, 0.5)
    assert not mostly_format(whole, replace(both, low=-0.1, high=0.5))
    assert mostly_format(whole, replace(both, low=-0.1, high=0.5, points=0.49))
    assert not mostly_format(whole, replace(both, low=0.1, high=0.5, points=0.1))


def _looped(base: Sequence[Outcome], condition: Sequence[Outcome]) -> tuple[float, list[int], int]:
    """The mean difference over pairs that both answered, the sum of each problem, and the number of pairs."""
    sums: dict[str, int] = {}
    differences = []
    for one in base:
        for other in condition:
            if (
                (one.problem_id, one.seed, one.sample) == (other.problem_id, other.seed, other.sample)
                and one.answer
                and other.answer
            ):
                difference = int(other.correct) - int(one.correct)
                differences.append(difference)
                sums[one.problem_id] = sums.get(one.problem_id, 0) + difference
    return float(np.mean(differences)), list(sums.values()), len(differences)


def test_several_responses_are_paired_and_drawn_by_problem() -> None:
    base, condition = answered("unsteered", "100n10nn", "n010101t"), answered("always", "1n11110n", "10110n1n")
    found = answered_gain(base, condition)
    gain, sums, pairs = _looped(base, condition)
    assert found is not None
    assert (found.gain, found.pairs, found.problems) == (pytest.approx(gain), pairs, len(sums))
    assert found.p == sign_flip_p(sums)
    assert found.low < gain < found.high
    assert found.points == pytest.approx(sum(sums) / 16)
    assert answered_gain(answered("unsteered", "nn", "nn"), answered("always", "11", "11")) is None
    assert answered_gain(answered("unsteered", "11"), answered("sampled", "11", "01", seed=3)) is None, "no pair of responses"


def test_the_noise_of_an_engine_by_hand() -> None:
    base = answered("unsteered", "1" * 50 + "0" * 50)
    again = answered("unsteered-again", "0" + "1" * 51 + "0" * 48)
    found = noise(base, again)
    comparison = judge(base, again).comparison
    assert found.comparison == comparison
    assert (comparison.fixed, comparison.broken) == (2, 1)
    assert (found.texts, found.responses) == (3, 100)
    assert found.floor == pytest.approx(max(-comparison.gain_low, comparison.gain_high))
    assert "3 of 100 responses another text and 3 another score (2 fixed, 1 broken" in found.sentence
    some = noise(base, again[40:60])
    assert (some.responses, some.comparison.n, some.comparison.fixed) == (20, 20, 2)
    with pytest.raises(InputError, match="compared on the same problems"):
        noise(base[:10], again)


def test_no_gain_within_the_noise_is_called_one() -> None:
    base, condition = "0" * 20 + "1" * 80, "1" * 10 + "0" * 10 + "1" * 80
    loud = "1" * 18 + "0" * 2 + "1" * 80
    conditions = {"unsteered": answered("unsteered", base), "always": answered("always", condition)}
    assert judged_with_controls(conditions, "always")[0].word == "helps"
    quiet = conditions | {"unsteered-again": answered("unsteered-again", base)}
    assert judged_with_controls(quiet, "always")[0].word == "helps"
    noisy = conditions | {"unsteered-again": answered("unsteered-again", loud)}
    verdict, controls = judged_with_controls(noisy, "always")
    assert verdict.word == "no evidence"
    assert verdict.sentence.startswith("No evidence: accuracy went from 80.0 % to 90.0 %")
    assert controls.noise is not None
    assert f"The gain lies within the noise. {controls.noise.sentence}" in verdict.sentence
    assert verdict.comparison.p < 0.05


@pytest.mark.parametrize(
    ("alone", "judged", "part", "says"),
    [
        ("1" * 12 + "0" * 8, "1" * 13 + "0" * 7, "all", "may only choose a beginning"),
        ("1" * 10 + "0" * 10, "1" * 18 + "0" * 2, "most", "Most of the gain is the choice of a beginning"),
        ("1" * 6 + "0" * 14, "1" * 18 + "0" * 2, "some", "Less than half of the gain is the choice of a beginning"),
        ("0" * 20, "1" * 12 + "0" * 8, "none", "more than the choice of a beginning"),
        ("0" * 17 + "111", "1" * 6 + "0" * 14, "none", "No gain of the beginning alone is shown"),
        ("0" * 20, "0" * 19 + "1", "none", "no gain to explain"),
        ("1" * 12 + "0" * 8, "0" * 20, "none", "The beginning alone gains, the whole steering does not"),
    ],
)
def test_what_the_beginning_alone_is_worth(alone: str, judged: str, part: str, says: str) -> None:
    conditions = {
        "unsteered": answered("unsteered", "0" * 20),
        "gated": answered("gated", judged),
        "first-token": answered("first-token", alone),
    }
    verdict, controls = judged_with_controls(conditions, "gated", first_tokens=2)
    found = controls.first_token
    assert found is not None
    assert (found.tokens, found.part) == (2, part)
    assert says in found.sentence
    assert "first 2 tokens" in found.sentence
    assert (found.sentence in verdict.sentence) is (part in ("all", "most"))
    assert found.beyond == compare(*(np.array([one == "1" for one in side]) for side in (alone, judged)))
    some = first_token(conditions["unsteered"], conditions["gated"], conditions["first-token"][:5], 1)
    assert (some.alone.n, some.whole.n, some.beyond.n) == (5, 5, 5)


def test_controls_on_some_problems_stand_beside_these() -> None:
    conditions = {
        "unsteered": answered("unsteered", "1100110011"),
        "always": answered("always", "1110111011"),
        "first-token": answered("first-token", "1010111011")[2:6],
    }
    rows = summarise(conditions)
    assert list(rows) == ["unsteered", "always", "first-token"]
    assert (rows["first-token"].n, rows["first-token"].fixed, rows["first-token"].broken) == (4, 1, 0)
    assert rows["first-token"].p_holm is None
    with pytest.raises(InputError, match="compared on the same problems"):
        summarise(conditions | {"negative": conditions["first-token"]})


def test_the_gate_alone_against_loops() -> None:
    rng = np.random.default_rng(1)
    p_fail = np.round(rng.random(200), 3)
    failed = rng.random(200) < p_fail
    fixed = failed & (rng.random(200) < 0.5)
    broken = ~failed & (rng.random(200) < 0.1)
    unsteered = answered("unsteered", "".join("0" if one else "1" for one in failed))
    always = answered("always", "".join("1" if one else "0" for one in (~failed & ~broken) | fixed))
    gated = [replace(row, condition="gated", p_fail=float(p)) for row, p in zip(always, p_fail, strict=True)]
    found = gate_alone({"unsteered": unsteered, "always": always, "gated": gated}, 0.6)
    assert found is not None
    let = [i for i in range(200) if p_fail[i] < 0.6]
    assert found.at_threshold is not None
    assert found.at_threshold.n == len(let)
    assert found.at_threshold.accuracy == pytest.approx(np.mean([not failed[i] for i in let]))
    effect = [int(fixed[i]) - int(broken[i]) for i in range(200)]
    assert found.correlation is not None
    assert found.among_failed is not None
    assert found.correlation.value == pytest.approx(stats.spearmanr(p_fail, effect).statistic)
    among = [i for i in range(200) if failed[i]]
    expected = stats.spearmanr(p_fail[among], [effect[i] for i in among]).statistic
    assert found.among_failed.value == pytest.approx(expected)
    assert found.best < found.aurc.value < found.random == pytest.approx(failed.mean())
    assert (found.curve[-1].coverage, found.curve[-1].n) == (1.0, 200)
    assert found.curve[-1].accuracy == pytest.approx(1 - failed.mean())
    assert len(found.curve) == 100
    assert_allclose([point.coverage for point in found.curve], [point.n / 200 for point in found.curve])
    assert "of which it would have to say which steering fixes" in found.sentence


def test_a_gate_with_nothing_to_say() -> None:
    same = {name: answered(name, "0101") for name in ("unsteered", "always")}
    gated = [replace(row, p_fail=0.9) for row in same["always"]]
    found = gate_alone(same | {"gated": gated}, 0.5)
    assert found is not None
    assert (found.at_threshold, found.correlation) == (None, None)
    assert "It fires on every problem" in found.sentence
    assert "no correlation" in found.sentence
    assert gate_alone(same | {"gated": same["always"]}, 0.5) is None, "nothing was read"


def test_an_unscored_response_held_an_answer() -> None:
    rows = extraction({"unsteered": answered("unsteered", "uu"), "always": answered("always", "nu")}, "always").rows
    assert rows[1].answered is not None
    assert (rows[1].answered.fixed, rows[1].answered.broken, rows[1].both) == (0, 1, None)
    assert Score.UNSCORED in {row.score for row in answered("always", "u")}
