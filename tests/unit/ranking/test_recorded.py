"""Class moments from disk, whole or by blocks of layers, against those of the same moments in memory."""

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ranking_samples import D_FF, EXPERTS, LAYERS, Labelled, recording
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import ALL_MOMENTS
from trimtab.ranking import class_moments, labelled, recorded_class_moments
from trimtab.ranking.contrast import TraceContributions
from trimtab.recording import Recording
from trimtab.store import Parts, Plan
from trimtab.tasks.contrast import ContrastRow

ALL = ("magnitude", "square", "difference", "auroc", "contribution")
IDS = [f"t{i}" for i in range(24)]
PARTS = [[3, 17, 8, 0, 11], [1, 2, 4, 5, 6, 7], [9], [10, *range(12, 17), *range(18, 24)]]


def _stored(data: Labelled, folder: Path, moments: tuple[str, ...] = ALL_MOMENTS) -> Recording:
    parts = Parts(folder, ".safetensors")
    folder.mkdir()
    parts.ensure_plan(Plan(tuple(tuple(IDS[i] for i in rows) for rows in PARTS), {}))
    for part, rows in enumerate(PARTS):
        taken = data.moments.take(rows)
        arrays = {name: getattr(taken, name) for name in ("count", *moments, "tokens")}
        parts.write_tensors(part, {f"all.{name}": array for name, array in arrays.items() if array is not None}, {})
    return Recording(folder)


def _rows(data: Labelled) -> list[ContrastRow]:
    return [ContrastRow(*row) for row in zip(IDS, data.problems, data.correct, strict=True)]


def _same(first: object, second: object) -> None:
    assert type(first) is type(second)
    if isinstance(first, tuple):
        for one, other in zip(first, second, strict=True):  # type: ignore[call-overload]
            _same(one, other)
    elif isinstance(first, TraceContributions):
        for field in fields(first):
            _same(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype  # type: ignore[union-attr]
        np.testing.assert_array_equal(first, second)  # type: ignore[arg-type]
    else:
        assert first == second


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("statistics", [(), ("difference",), ("auroc",), ALL])
@pytest.mark.parametrize("max_bytes", [1, 2**30])
def test_blocks_of_layers_give_the_same_numbers(
    tmp_path: Path, max_bytes: int, statistics: tuple[str, ...], mixture: bool
) -> None:
    data = recording(4, mixture=mixture)
    stored, rows = _stored(data, tmp_path / "r"), _rows(data)[2:]
    counts = Counter(row.problem_id for row in rows)
    expected = class_moments(labelled(stored.stream("all"), rows), counts, statistics)
    found = recorded_class_moments(stored, "all", rows, statistics, max_bytes)
    for field in fields(expected):
        _same(getattr(found, field.name), getattr(expected, field.name))


def _read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], slice]]:
    """What is asked of the disk from now on."""
    asked = []
    stream = Recording.stream

    def spy(self, scope, moments, layers):
        asked.append((set(moments), layers))
        return stream(self, scope, moments, layers)

    monkeypatch.setattr(Recording, "stream", spy)
    return asked


def test_only_what_the_statistics_read_comes_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = recording(4)
    stored, rows, asked = _stored(data, tmp_path / "r"), _rows(data), _read(monkeypatch)
    recorded_class_moments(stored, "all", rows, ())
    recorded_class_moments(stored, "all", rows, ("magnitude",))
    assert asked == [({"sum"}, slice(0, LAYERS)), ({"sum", "magnitude"}, slice(0, LAYERS))]


@pytest.mark.parametrize(("statistic", "state"), [("difference", 16 * 4), ("auroc", 4 * 24), ("contribution", 4 * 24)])
def test_blocks_are_as_high_as_the_bound_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statistic: str, state: int
) -> None:
    data = recording(4)  # 24 traces of 4 problems
    stored, rows, asked = _stored(data, tmp_path / "r"), _rows(data), _read(monkeypatch)
    for layers, blocks in ((2, [slice(0, 2)]), (1.9, [slice(0, 1), slice(1, 2)])):
        asked.clear()
        recorded_class_moments(stored, "all", rows, (statistic,), int(layers * D_FF * state))
        assert [read[1] for read in asked] == blocks


def test_experts_keep_a_count_beside_every_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = recording(4, mixture=True)
    stored, asked = _stored(data, tmp_path / "r"), _read(monkeypatch)
    assert stored.shape("all") == (LAYERS, D_FF, EXPERTS)
    recorded_class_moments(stored, "all", _rows(data), ("difference",), LAYERS * D_FF * 16 * 4)
    assert len(asked) == LAYERS


def test_moments_that_were_not_recorded_give_no_statistic(tmp_path: Path) -> None:
    data = recording(4)
    found = recorded_class_moments(_stored(data, tmp_path / "r", ("sum",)), "all", _rows(data), ALL, 1)
    assert found.correct_magnitude is None
    assert found.correct_norm is None
    assert found.auroc is not None


def test_not_finite_activations_name_the_layer_of_the_model(tmp_path: Path) -> None:
    data = recording(4)
    assert data.moments.sum is not None
    data.moments.sum[5, 1, 2] = np.nan
    stored = _stored(data, tmp_path / "r")
    for max_bytes in (1, 2**30):
        with pytest.raises(InputError, match="1 of 24 traces hold NaN or infinite activations, first in layer 1;"):
            recorded_class_moments(stored, "all", _rows(data), ALL, max_bytes)


def test_a_contrast_that_does_not_fit_the_recording(tmp_path: Path) -> None:
    data = recording(4)
    stored = _stored(data, tmp_path / "r")
    with pytest.raises(InputError, match="1 traces of the contrast are not in the recording, such as gone"):
        recorded_class_moments(stored, "all", [*_rows(data), ContrastRow("gone", "p0", True)])
    with pytest.raises(NotEnoughDataError, match="0 correct and 0 incorrect"):
        recorded_class_moments(stored, "all", [])
    with pytest.raises(InputError, match="holds the scopes all, not 'response'"):
        recorded_class_moments(stored, "response", _rows(data))


def test_a_recording_of_no_trace(tmp_path: Path) -> None:
    Parts(tmp_path, ".safetensors").ensure_plan(Plan((), {}))
    with pytest.raises(NotEnoughDataError, match="0 correct and 0 incorrect"):
        recorded_class_moments(Recording(tmp_path), "all", [])
