"""From outcomes made by hand to the rows of a verdict."""

import numpy as np
import pytest

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.summary import arm_metrics, flips, paired, random_gains, smallest_gain, summarise, summarise_random
from trimtab.traces import Verdict

BASE = "1110000000"


def _outcomes(arm: str, pattern: str, fired: str = "", steps: str = "", start: int = 0) -> list[Outcome]:
    """1 correct, 0 incorrect, u unscored, t truncated."""
    return [
        Outcome(
            arm=arm,
            problem_id=f"p{start + i}",
            domain="even" if i % 2 == 0 else "odd",
            difficulty=2,
            verdict={"1": Verdict.CORRECT, "u": Verdict.UNSCORED}.get(mark, Verdict.INCORRECT),
            reason="",
            answer="",
            response="",
            tokens=10 + i,
            truncated=mark == "t",
            steps_right=None if not steps else steps[i] == "1",
            p_fail=0.5 if fired else None,
            fired=None if not fired else fired[i] == "1",
        )
        for i, mark in enumerate(pattern)
    ]


def _arms(**patterns: str) -> dict[str, list[Outcome]]:
    return {name.replace("_", "-"): _outcomes(name, pattern) for name, pattern in patterns.items()}


def test_a_row_by_hand() -> None:
    outcomes = _arms(unsteered=BASE, always="0111111u0t")
    outcomes["gated"] = _outcomes("gated", "1111000000", fired="0001100000", steps="1100000000")
    rows = summarise(outcomes)
    always = rows["always"]
    assert (always.n, always.fixed, always.broken) == (10, 4, 1)
    assert (always.accuracy, always.gain) == pytest.approx((0.6, 0.3))
    assert always.p == pytest.approx(2 * (1 + 5) / 2**5)
    assert (always.unscored, always.truncated) == (1, 1)
    assert always.tokens_per_answer == pytest.approx(14.5)
    assert (always.firing_rate, always.steps_right) == (None, None)
    assert always.gain_low < 0.3 < always.gain_high
    assert always.low < 0.6 < always.high
    gated = rows["gated"]
    assert (gated.firing_rate, gated.steps_right) == (0.2, 0.2)
    bare = rows["unsteered"]
    assert (bare.p, bare.gain, bare.fixed, bare.broken) == (1.0, 0.0, 0, 0)
    assert set(arm_metrics(rows)) == {"accuracy, unsteered", "accuracy, always", "gain, always", "accuracy, gated", "gain, gated"}
    assert arm_metrics(rows)["gain, always"]["value"] == pytest.approx(0.3)


def test_random_sets_are_folded_by_kind() -> None:
    outcomes = _arms(
        unsteered=BASE,
        always="1111111111",
        random_0="1111111000",
        random_1="0000000000",
        random_2="1110000000",
        random_norm_0="1111111111",
        random_norm_1="1110000000",
    )
    rows = summarise(outcomes)
    assert list(rows) == ["unsteered", "always", "random", "random-norm"]
    random = rows["random"]
    assert random.arm == "random"
    assert random.accuracy == pytest.approx((0.7 + 0.0 + 0.3) / 3)
    assert random.gain == pytest.approx((0.4 - 0.3 + 0.0) / 3)
    assert (random.fixed, random.broken) == (round(4 / 3), round(3 / 3))
    assert random.p == pytest.approx(min(1.0, 3 * 0.5**4))
    assert rows["random-norm"].p == pytest.approx(2 * 0.5**7)
    assert random_gains(outcomes) == {"random": pytest.approx([0.4, -0.3, 0.0]), "random-norm": pytest.approx([0.7, 0.0])}


def test_a_random_set_that_hurts_is_no_gain() -> None:
    base = _outcomes("unsteered", "1111111111")
    row = summarise_random("random", base, {"random-0": _outcomes("random-0", "0000000000")})
    assert row.p == 1.0
    assert row.gain == -1.0


def test_flips() -> None:
    base, arm = _outcomes("unsteered", "1100"), _outcomes("always", "1010")
    groups = {"p0": "x", "p1": "x", "p2": "a", "p3": "x"}
    table = flips(base, arm, groups)
    assert list(table) == ["a", "x"]
    assert table == {"a": {"fixed": 1}, "x": {"still right": 1, "broken": 1, "still wrong": 1}}


def test_misaligned_arms_raise() -> None:
    base = _outcomes("unsteered", "1100")
    with pytest.raises(ValueError, match="same problems in the same order"):
        paired(base, _outcomes("always", "1100", start=1))
    with pytest.raises(ValueError, match="same problems in the same order"):
        paired(base, _outcomes("always", "1100")[::-1])
    with pytest.raises(ValueError, match="same problems in the same order"):
        summarise({"unsteered": base, "always": _outcomes("always", "110")})
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        flips(base, _outcomes("always", "110"), {f"p{i}": "g" for i in range(4)})


def test_smallest_gain_grows_with_fewer_problems() -> None:
    many = smallest_gain(_outcomes("unsteered", BASE * 40), _outcomes("always", "1111110000" * 40))
    few = smallest_gain(_outcomes("unsteered", BASE * 4), _outcomes("always", "1111110000" * 4))
    assert 0 < many < few <= 1
    assert np.isfinite(many)
