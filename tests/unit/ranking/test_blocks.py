"""Blocks of layers that somebody else runs."""

import pickle
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ranking_samples import D_FF, LAYERS, recording
from trimtab.moments import MOMENTS
from trimtab.ranking import recorded_class_moments
from trimtab.recording import Recording
from trimtab.store import Parts, Plan
from trimtab.tasks.contrast import ContrastRow


@pytest.mark.parametrize("at_once", [1, 2, LAYERS, 100])
def test_blocks_that_travel_give_the_same_bits(tmp_path: Path, at_once: int) -> None:
    data = recording(4)
    ids = [f"t{i}" for i in range(len(data.problems))]
    parts = Parts(tmp_path, ".safetensors")
    parts.ensure_plan(Plan((tuple(ids),), {}))
    arrays = {f"all.{name}": getattr(data.moments, name) for name in ("count", *MOMENTS)}
    parts.write_tensors(0, arrays, {})
    rows = [ContrastRow(i, p, c) for i, p, c in zip(ids, data.problems, data.correct, strict=True)]
    seen: list[tuple[int, int]] = []

    def travel(function: Callable[[tuple[int, int]], object], blocks: Iterable[tuple[int, int]]) -> list[object]:
        seen.extend(blocks)
        return [pickle.loads(pickle.dumps(function))(block) for block in seen]

    found = recorded_class_moments(Recording(tmp_path), "all", rows, at_once=at_once, run_blocks=travel)  # type: ignore[arg-type]
    expected = recorded_class_moments(Recording(tmp_path), "all", rows)
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(ours, theirs)
    assert len(seen) == min(LAYERS, at_once)
    assert [layer for block in seen for layer in range(*block)] == list(range(LAYERS))
    assert found.correct_mean.shape == (LAYERS, D_FF)
