"""Features on disk give what the same features give in memory, in less of it."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.gate import AttentionGate, Gate
from trimtab.gating import RecordedRows, attention, columns, fit_logistic
from trimtab.gating.attention import fit_attention
from trimtab.gating.features import ArrayRows, FeatureRows, choose_by_folds, f_scores_of
from trimtab.recording import Recording
from trimtab.store import Parts, make_plan

N, LAYERS, D_FF = 150, 3, 20


def features(n: int = N, width: int = D_FF) -> tuple[np.ndarray, np.ndarray]:
    """Some means are large, some neurons constant, three of layer 1 carry the label."""
    rng = np.random.default_rng(0)
    failed = rng.random(n) < 0.4
    values = rng.normal(size=(n, LAYERS, width)) * np.geomspace(0.1, 10, width) + np.geomspace(1, 4000, width)
    values[:, 1, :3] += 0.2 * failed[:, None]
    values[:, 2, :4] = 0.1
    return values.astype(np.float32), failed


def names(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


def written(values: np.ndarray, folder: Path, rows_per_part: int) -> Recording:
    """A recording of these means whose parts follow the prompts' lengths, so not the order of the rows."""
    ids = names(len(values))
    lengths = np.random.default_rng(1).integers(3, 9, len(ids))
    parts = Parts(folder, ".safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    parts.ensure_plan(make_plan(ids, lengths.tolist(), rows_per_part * 8, {}))
    for part, own in enumerate(parts.plan.parts):
        rows = values[[ids.index(name) for name in own]]
        parts.write_tensors(part, {"last-prompt.count": np.ones(len(own), np.int64), "last-prompt.sum": rows}, {})
    return Recording(folder)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return written(features()[0], tmp_path, 20)


def rows_of(recording: Recording) -> RecordedRows:
    return RecordedRows(recording, "last-prompt", names(N))


def f_scores(rows: FeatureRows, failed: np.ndarray) -> np.ndarray:
    return f_scores_of(rows, failed, np.zeros(len(failed), np.int64), [(0,)], (0, LAYERS))[0]


def choose_features(rows: FeatureRows | np.ndarray, failed: np.ndarray, n: int) -> np.ndarray:
    (chosen,) = choose_by_folds(rows, failed, n, np.zeros(len(failed), np.int64), [(0,)])
    return chosen


def test_scores_of_parts_are_those_of_the_whole(recording: Recording) -> None:
    values, failed = features()
    rows = rows_of(recording)
    assert rows.shape == values.shape
    assert len(list(rows.stream())) > 4
    np.testing.assert_allclose(f_scores(rows, failed), f_scores(ArrayRows(values), failed), rtol=1e-9)
    np.testing.assert_array_equal(f_scores(rows, failed)[2, :4], 0.0)
    np.testing.assert_array_equal(choose_features(rows, failed, 9), choose_features(values, failed, 9))


def test_folds_are_scored_on_their_own_problems_alone(recording: Recording) -> None:
    values, failed = features()
    fold = np.arange(N) % 5
    kept = [(0, 1, 2), (3,), (1, 2, 3, 4)]
    chosen = choose_by_folds(rows_of(recording), failed, 7, fold, kept)
    for folds, address in zip(kept, chosen, strict=True):
        inside = np.isin(fold, folds)
        np.testing.assert_array_equal(address, choose_features(values[inside], failed[inside], 7))


def test_blocks_of_layers_give_the_same_choice_bit_by_bit(recording: Recording) -> None:
    _, failed = features()
    fold, kept, blocks = np.arange(N) % 2, [(0,), (0, 1)], []

    def run_blocks(score, layers):
        blocks.extend(layers)
        return map(score, blocks)

    whole = choose_by_folds(rows_of(recording), failed, 8, fold, kept)
    parted = choose_by_folds(rows_of(recording), failed, 8, fold, kept, at_once=2, run_blocks=run_blocks)
    assert blocks == [(0, 1), (1, 3)]
    small = choose_by_folds(rows_of(recording), failed, 8, fold, kept, max_bytes=1)
    for one, two, three in zip(whole, parted, small, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_columns_are_in_the_order_asked_for(recording: Recording) -> None:
    values, _ = features()
    layer, index = np.array([2, 0, 1]), np.array([7, 3, 3])
    few = RecordedRows(recording, "last-prompt", ["p9", "p2", "p140"])
    np.testing.assert_array_equal(columns(few, layer, index), values[[9, 2, 140]][:, layer, index])
    np.testing.assert_array_equal(columns(ArrayRows(values), layer, index), values[:, layer, index])


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_a_gate_fitted_from_disk_is_the_one_fitted_in_memory(recording: Recording, penalty) -> None:
    values, failed = features()
    gates = [fit_logistic(source, failed, n_features=6, penalty=penalty) for source in (values, rows_of(recording))]
    memory, disk = gates
    for name in ("layer", "index", "weight"):
        np.testing.assert_array_equal(getattr(memory, name), getattr(disk, name))
    assert (memory.bias, memory.facts) == (disk.bias, disk.facts)
    assert isinstance(disk, Gate)


def test_an_attention_gate_too(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "EPOCHS", 4)
    values, failed = features()

    def read(layer: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
        return [np.stack([row[layer, index], 2 * row[layer, index]]) for row in values]

    memory, disk = (fit_attention(source, failed, read, n_features=5) for source in (values, rows_of(recording)))
    assert isinstance(disk, AttentionGate)
    np.testing.assert_array_equal(memory.hidden, disk.hidden)
    assert memory.facts == disk.facts


def test_memory_does_not_follow_the_number_of_prompts(tmp_path: Path) -> None:
    few, many, width = 300, 1200, 600
    peaks = {}
    for n in (few, many):
        values, failed = features(n, width)
        rows = RecordedRows(written(values, tmp_path / str(n), 20), "last-prompt", names(n))
        del values
        tracemalloc.start()
        choose_by_folds(rows, failed, 50, np.arange(n) % 5, [range(5)])
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    of_a_prompt = LAYERS * width * 4
    assert peaks[many] < many * of_a_prompt / 2
    # names and numbers alone
    assert (peaks[many] - peaks[few]) / (many - few) < of_a_prompt / 10


def test_a_prompt_that_was_not_recorded(recording: Recording) -> None:
    with pytest.raises(InputError, match=r"1 prompts are not in .*, such as p150; record them"):
        list(RecordedRows(recording, "last-prompt", names(N + 1)).stream())


def test_a_prompt_that_is_named_twice(recording: Recording) -> None:
    with pytest.raises(InputError, match="3 rows name 2 different prompts"):
        columns(RecordedRows(recording, "last-prompt", ["p1", "p1", "p2"]), np.array([0]), np.array([0]))


def test_an_empty_recording_says_so(tmp_path: Path) -> None:
    rows = RecordedRows(written(np.empty((0, LAYERS, D_FF), np.float32), tmp_path, 20), "last-prompt", [])
    with pytest.raises(InputError, match="no layer: nothing was recorded"):
        choose_by_folds(rows, np.zeros(0, np.bool_), 3, np.zeros(0, np.int64), [(0,)])


def test_a_feature_that_is_not_finite_names_its_layer_whatever_the_block(tmp_path: Path) -> None:
    values, failed = features()
    values[77, 1, 4] = np.nan
    rows = rows_of(written(values, tmp_path, 20))
    with pytest.raises(InputError, match="features of layer 1 hold NaN"):
        choose_by_folds(rows, failed, 3, np.zeros(N, np.int64), [(0,)], at_once=3)
