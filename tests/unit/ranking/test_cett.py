"""The criterion cett against scikit-learn fitted on all neurons, one fit a C."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ranking_samples import contrast
from trimtab.errors import InputError
from trimtab.moments import Moments
from trimtab.neurons import ModelIdentity
from trimtab.ranking import CRITERIA, Choice, TraceMeans, class_moments, rank
from trimtab.ranking import cett as module
from trimtab.ranking.cett import STEP, cett
from trimtab.ranking.contrast import TraceContributions
from trimtab.tasks.contrast import ContrastRow

LAYERS, D_FF, TRACES = 2, 60, 40


def sample(seed: int = 0, informative: int = 8) -> tuple[TraceContributions, np.ndarray]:
    """Small positive contributions, some of which differ between the classes; and column norms."""
    rng = np.random.default_rng(seed)
    correct = np.arange(TRACES) % 2 == 0
    value = rng.gamma(2.0, 0.01, (LAYERS, TRACES, D_FF))
    for i in range(informative):
        value[i % LAYERS, ~correct if i % 3 else correct, 7 * i] *= 1.5 + 0.2 * i
    return TraceContributions(value.astype(np.float32), correct, np.ones(TRACES, np.int64)), rng.random((LAYERS, D_FF)) + 0.5


def moments_of(traces: TraceContributions, columns: np.ndarray):
    plain = contrast(np.ones((LAYERS, D_FF)), np.zeros((LAYERS, D_FF)))
    return replace(plain, contributions=traces, column_norm=columns)


def naive_rows(traces: TraceContributions, columns: np.ndarray) -> np.ndarray:
    return np.array(
        [
            [float(traces.value[layer, trace, j]) * columns[layer, j] for layer in range(LAYERS) for j in range(D_FF)]
            for trace in range(TRACES)
        ]
    )


def fitted(rows: np.ndarray, incorrect: np.ndarray, c: float, weights: np.ndarray | None = None) -> np.ndarray:
    model = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=c, max_iter=1000, random_state=0)
    return model.fit(rows, incorrect, sample_weight=weights).coef_[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sign", ["incorrect", "correct", "both"])
def test_takes_up_what_fits_on_all_neurons_take_up(seed: int, sign: str) -> None:
    traces, columns = sample(seed)
    ranking = cett(moments_of(traces, columns), sign=sign)
    rows, incorrect = naive_rows(traces, columns), ~traces.correct
    start = 1 / max(abs(sum((0.5 - wrong) * x for wrong, x in zip(incorrect, column, strict=True))) for column in rows.T)
    taken: dict[int, tuple[float, float]] = {}
    for step, c in enumerate(ranking.facts["c"]):
        assert c == pytest.approx(start * STEP ** (step + 1), rel=1e-5)
        for j, weight in enumerate(fitted(rows, incorrect, c)):
            wanted = {"incorrect": weight > 0, "correct": weight < 0, "both": weight != 0}[sign]
            if wanted and j not in taken:
                taken[j] = (start / c, abs(weight))
    expected = sorted(taken, key=lambda j: (-taken[j][0], -taken[j][1]))
    # liblinear stops at a tolerance, so a weight at the very edge of 0 may fall to either side: none of the first third may
    first = len(expected) // 3
    assert ranking.order[:first].tolist() == expected[:first]
    assert len(set(ranking.order.tolist()) ^ set(expected)) <= 0.05 * len(expected)
    np.testing.assert_allclose(ranking.score[:first], [taken[j][0] for j in expected[:first]], rtol=1e-5)


def test_the_published_selection_is_a_beginning_of_the_order() -> None:
    traces, columns = sample(3)
    ranking = cett(moments_of(traces, columns))
    c = ranking.facts["c"][6]
    published = np.flatnonzero(fitted(naive_rows(traces, columns), ~traces.correct, c) > 0)
    best = ranking.order[: len(published)]
    assert len(published) >= 3
    # some leave again when stronger ones come, which is all that may differ
    assert len(set(published.tolist()) & set(best.tolist())) >= 0.8 * len(published)


def test_positive_weights_are_neurons_that_write_more_in_incorrect_traces() -> None:
    traces, columns = sample(0, informative=0)
    value = traces.value.copy()
    value[1, ~traces.correct, 5] += 0.2
    value[0, traces.correct, 9] += 0.2
    strong = moments_of(replace(traces, value=value), columns)
    assert cett(strong).order[0] == D_FF + 5
    assert 9 not in cett(strong).order[:5]
    assert cett(strong, sign="correct").order[0] == 9
    assert set(cett(strong, sign="both").order[:2].tolist()) == {D_FF + 5, 9}


def test_a_trace_that_counts_twice_is_two_traces() -> None:
    traces, columns = sample(4)
    times = np.ones(TRACES, np.int64)
    times[:6] = [2, 3, 0, 0, 2, 2]
    rows = np.repeat(np.arange(TRACES), times)
    copied = TraceContributions(traces.value[:, rows], traces.correct[rows], np.ones(len(rows), np.int64))
    weighted, repeated = (cett(moments_of(given, columns)) for given in (replace(traces, times=times), copied))
    np.testing.assert_allclose(weighted.facts["c"], repeated.facts["c"], rtol=1e-9)
    assert weighted.order[:8].tolist() == repeated.order[:8].tolist()


def test_no_difference_and_no_column_select_nothing() -> None:
    traces, columns = sample(0)
    same = replace(traces, value=np.ones_like(traces.value))
    assert len(cett(moments_of(same, columns)).order) == 0
    assert len(cett(moments_of(traces, np.zeros_like(columns))).order) == 0


def test_the_path_ends_once_enough_were_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = moments_of(*sample(0))
    whole = cett(moments)
    monkeypatch.setattr(module, "LONGEST_PATH", 5)
    short = cett(moments)
    assert 5 <= len(short.order) < len(whole.order)
    assert short.order.tolist() == whole.order[: len(short.order)].tolist()
    assert len(whole.facts["c"]) == 19  # 2 ** 9.5 is 724, and half an octave more exceeds 1,000


def test_a_fit_that_does_not_converge_ends_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    traces, columns = sample(0)
    whole, fits = cett(moments_of(traces, columns)), []
    plain = LogisticRegression.fit

    def fit(self, *args, **kwargs):
        fits.append(self.C)
        if fits[-1] / whole.facts["c"][4] > 1.01:
            warnings.warn("liblinear failed to converge", ConvergenceWarning, stacklevel=2)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    assert cett(moments_of(traces, columns)).facts["c"] == whole.facts["c"][:5]


def recorded(traces: TraceContributions) -> tuple[Moments, list[ContrastRow]]:
    count = np.full(TRACES, 4)
    contribution = np.ascontiguousarray(traces.value.transpose(1, 0, 2)) * 4
    sums = np.random.default_rng(1).normal(size=contribution.shape).astype(np.float32)
    rows = [ContrastRow(f"t{i}", f"p{i // 4}", bool(correct)) for i, correct in enumerate(traces.correct)]
    return Moments(count, sum=sums, contribution=contribution), rows


def test_streamed_and_resampled_contributions_are_those_of_the_traces() -> None:
    traces, _ = sample(5)
    moments, rows = recorded(traces)
    problems, correct = [row.problem_id for row in rows], [row.correct for row in rows]
    parts = [
        (moments.take(chunk), [problems[i] for i in chunk], [correct[i] for i in chunk]) for chunk in (range(25), range(25, 40))
    ]
    streamed = class_moments(parts, statistics=("contribution",)).contributions
    means = TraceMeans.load([([row.trace_id for row in rows], moments)], rows, ("contribution",))
    drawn = next(means.resampled([Choice(copies=np.arange(10) % 3)], ("contribution",))).contributions
    assert streamed is not None
    assert drawn is not None
    np.testing.assert_array_equal(streamed.value, traces.value)
    assert streamed.correct.tolist() == traces.correct.tolist()
    np.testing.assert_array_equal(drawn.value, traces.value)
    assert drawn.times.tolist() == [i // 4 % 3 for i in range(TRACES)]
    assert class_moments(parts).contributions is None
    assert next(means.resampled([Choice()], ())).contributions is None


def test_ranks_like_every_criterion() -> None:
    traces, columns = sample(0)
    model = ModelIdentity("tiny", None, "qwen3", "f", n_layers=LAYERS, d_model=4, d_ff=D_FF, vocab_size=9)
    neurons = rank(moments_of(traces, columns), "cett", 5, model)
    assert neurons.criterion == "cett"
    assert (np.diff(neurons.score) <= 0).all()
    assert neurons.facts["sign"] == "incorrect"


def test_what_is_missing_is_named() -> None:
    traces, columns = sample(0)
    plain = contrast(np.ones((LAYERS, D_FF)), np.zeros((LAYERS, D_FF)))
    with pytest.raises(InputError, match="criterion 'cett' reads 'contribution', which these class moments lack; record with"):
        CRITERIA["cett"](replace(plain, column_norm=columns))
    with pytest.raises(InputError, match="criterion 'cett' reads 'column_norm'"):
        CRITERIA["cett"](replace(plain, contributions=traces))
    with pytest.raises(InputError, match="got the sign 'positive'; accepted: incorrect, correct, both"):
        cett(moments_of(traces, columns), sign="positive")  # type: ignore[arg-type]
