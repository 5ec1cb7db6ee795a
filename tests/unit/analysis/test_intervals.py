"""Means over traces against naive loops that draw the same problems."""

import numpy as np
import pytest

from trimtab.analysis.intervals import mean_estimates, ratio_estimates
from trimtab.errors import InputError, NotEnoughDataError

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(12, 2))
TOKENS = RNG.integers(1, 9, 12).astype(np.float64)
PROBLEMS = [f"p{i // 3}" for i in range(12)]


def test_the_interval_is_that_of_a_loop_over_the_same_draws() -> None:
    estimates = ratio_estimates(VALUES, TOKENS, PROBLEMS, resamples=200, seed=5)
    counts = np.random.default_rng(5).multinomial(4, [0.25] * 4, 200)
    for column, estimate in enumerate(estimates):
        draws = []
        for row in counts:
            above = below = 0.0
            for problem, times in enumerate(row):
                for i in range(12):
                    if PROBLEMS[i] == f"p{problem}":
                        above += times * VALUES[i, column]
                        below += times * TOKENS[i]
            draws.append(above / below)
        assert estimate.value == pytest.approx(VALUES[:, column].sum() / TOKENS.sum())
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_more_chains_of_the_same_problems_claim_no_more() -> None:
    once = mean_estimates(VALUES, PROBLEMS)
    thrice = mean_estimates(np.tile(VALUES, (3, 1)), PROBLEMS * 3)
    for one, other in zip(once, thrice, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high))


def test_blocks_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mean_estimates(VALUES, PROBLEMS, seed=2)
    monkeypatch.setattr("trimtab.analysis.intervals.BLOCK", 60)
    assert mean_estimates(VALUES, PROBLEMS, seed=2) == whole


@pytest.mark.parametrize(
    ("values", "tokens", "problems", "error", "message"),
    [
        (VALUES, TOKENS[:3], PROBLEMS, InputError, "one denominator and one problem a trace"),
        (VALUES, TOKENS, PROBLEMS[:3], InputError, "one denominator and one problem a trace"),
        (VALUES * np.nan, TOKENS, PROBLEMS, InputError, "finite values and denominators above 0"),
        (VALUES, TOKENS * 0, PROBLEMS, InputError, "finite values and denominators above 0"),
        (VALUES, TOKENS, ["p"] * 12, NotEnoughDataError, "needs two or more, got 1"),
    ],
)
def test_refusals(values: np.ndarray, tokens: np.ndarray, problems: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ratio_estimates(values, tokens, problems)
