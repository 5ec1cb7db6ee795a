import logging
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.store.plan import PLAN, Parts, make_plan
from trimtab.store.tables import read_table
from trimtab.store.tensors import load_tensors
from trimtab.traces import Score, ScoredTrace


def naive_parts(items: dict[str, int], budget: int) -> list[list[str]]:
    """Longest first, ties by name; a new batch whenever one more row, padded to the batch's longest, would not fit."""
    parts: list[list[str]] = []
    for name in sorted(items, key=lambda name: (-items[name], name)):
        if parts and max(items[other] for other in [*parts[-1], name]) * (len(parts[-1]) + 1) <= budget:
            parts[-1].append(name)
        else:
            parts.append([name])
    return parts


ITEMS = st.dictionaries(st.text("abcé/0", max_size=4), st.integers(1, 60), max_size=12)


@given(items=ITEMS, budget=st.integers(1, 150), seed=st.integers(0, 5))
def test_a_plan_equals_the_naive_one_in_any_order_of_ids(items: dict[str, int], budget: int, seed: int) -> None:
    logging.disable(logging.WARNING)
    plan = make_plan(list(items), list(items.values()), budget, {"a": 1})
    assert [list(part) for part in plan.parts] == naive_parts(items, budget)
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    assert make_plan(shuffled, [items[name] for name in shuffled], budget, {"a": 1}).digest == plan.digest
    logging.disable(logging.NOTSET)


def test_an_item_above_the_budget_runs_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert make_plan(["a", "b", "c"], [50, 3, 3], 10, {}).parts == (("a",), ("b", "c"))
    assert "1 items are longer than the budget of 10 tokens" in caplog.text


def test_the_digest_covers_all_that_decides_the_parts() -> None:
    plans = [
        make_plan(["a", "b"], [2, 3], 10, {"seed": 1}),
        make_plan(["a", "c"], [2, 3], 10, {"seed": 1}),
        make_plan(["a", "b"], [2, 4], 10, {"seed": 1}),
        make_plan(["a", "b"], [2, 3], 11, {"seed": 1}),
        make_plan(["a", "b"], [2, 3], 10, {"seed": 2}),
        make_plan(["a", "b"], [2, 3], 10, {"seed": 1.0}),
    ]
    assert len({plan.digest for plan in plans}) == len(plans)
    assert make_plan(["a", "b"], [2, 3], 10, {"seed": 1}).digest == plans[0].digest


@pytest.mark.parametrize(
    ("ids", "sizes", "budget", "settings", "message"),
    [
        (["a"], [1, 2], 9, {}, "1 ids and 2 sizes"),
        (["a", "b", "a"], [1, 1, 1], 9, {}, "appear twice, first 'a'"),
        (["a"], [0], 9, {}, "at least 1 token.*smallest size 0"),
        (["a"], [1], 0, {}, "budget 0"),
        (["a"], [1], 9, {"x": {"y": object()}}, r"settings\.x\.y is of type object"),
    ],
)
def test_plans_that_make_no_sense(ids: list[str], sizes: list[int], budget: int, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(ids, sizes, budget, settings)


def test_parts_of_a_plan(tmp_path: Path) -> None:
    plan = make_plan(["a", "b", "c"], [5, 5, 5], 5, {"scopes": ("all",)})
    parts = Parts(tmp_path / "traces")
    assert not parts.complete
    parts.ensure_plan(plan)
    assert parts.missing() == [0, 1, 2]
    rows = [ScoredTrace("t", "p", Score.CORRECT, "")]
    parts.write_table(1, rows)
    assert parts.missing() == [0, 2]
    assert not parts.complete
    assert read_table(parts.path(1), ScoredTrace) == rows
    parts.write_table(0, rows)
    parts.write_table(2, [], ScoredTrace)
    reopened = Parts(tmp_path / "traces")
    assert reopened.complete
    assert reopened.plan.parts == plan.parts
    assert reopened.plan.digest == plan.digest
    reopened.ensure_plan(plan)
    assert {path.name for path in parts.folder.iterdir()} == {PLAN, *(f"part-0000{i}.parquet" for i in range(3))}


def test_parts_of_arrays(tmp_path: Path) -> None:
    parts = Parts(tmp_path, ".safetensors")
    parts.ensure_plan(make_plan(["a"], [1], 1, {}))
    parts.write_tensors(0, {"x": np.arange(3)}, {"k": "v"})
    assert parts.complete
    assert load_tensors(tmp_path / "part-00000.safetensors")[1] == {"k": "v"}
    with pytest.raises(InputError, match=r"opened for \.safetensors parts; open it with Parts\(folder, '\.parquet'\)"):
        parts.write_table(0, [ScoredTrace("t", "p", Score.CORRECT, "")])
    with pytest.raises(InputError, match="part 1 is not in the plan"):
        parts.write_tensors(1, {"x": np.arange(3)}, {})


def test_another_plan_is_refused_and_what_differs_is_listed(tmp_path: Path) -> None:
    Parts(tmp_path).ensure_plan(make_plan(["a", "b"], [2, 3], 10, {"seed": 1, "old": "x", "same": [1, 2]}))
    before = (tmp_path / PLAN).read_bytes()
    with pytest.raises(ConfigError) as caught:
        Parts(tmp_path).ensure_plan(make_plan(["a", "c"], [2, 3], 10, {"seed": 2, "new": True, "same": (1, 2)}))
    message = str(caught.value)
    for part in (
        "seed 1 -> 2",
        "old x -> (not set)",
        "new (not set) -> True",
        "1 work items are gone and 1 are new",
        "give another folder",
    ):
        assert part in message
    assert "same" not in message
    assert (tmp_path / PLAN).read_bytes() == before


def test_an_edited_truncated_missing_or_orphaned_plan(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with pytest.raises(StoreError, match=r"plan\.json is missing"):
        parts.missing()
    plan = make_plan(["a", "b"], [2, 3], 10, {})
    parts.ensure_plan(plan)
    text = (tmp_path / PLAN).read_text()
    (tmp_path / PLAN).write_text(text.replace('"a"', '"z"'))
    with pytest.raises(StoreError, match="was edited"):
        Parts(tmp_path).ensure_plan(plan)
    (tmp_path / PLAN).write_text(text.replace('"digest"', '"digset"'))
    with pytest.raises(StoreError, match="digest: Field required; unknown key 'digset'"):
        Parts(tmp_path).ensure_plan(plan)
    (tmp_path / PLAN).write_text(text[:20])
    with pytest.raises(StoreError, match="truncated"):
        Parts(tmp_path).ensure_plan(plan)
    (tmp_path / PLAN).unlink()
    (tmp_path / "part-00000.parquet").write_text("")
    with pytest.raises(StoreError, match=r"1 parts but no plan\.json"):
        Parts(tmp_path).ensure_plan(plan)


WRITER = """
import sys, time
from pathlib import Path
from trimtab.store.plan import Parts, make_plan
from trimtab.traces import ScoredTrace, Score

folder, die_in, how = sys.argv[1].split(":")
rename = Path.replace

def stop(self, target):
    # the temporary file is whole, or half when so asked, and not renamed yet
    if Path(target).name == f"part-{int(die_in):05d}.parquet":
        if how == "half":
            self.write_bytes(self.read_bytes()[:50])
        print("ready", flush=True)
        time.sleep(60)
    return rename(self, target)

Path.replace = stop
ids = [f"{i:03d}" for i in range(8)]
plan = make_plan(ids, [5] * 8, 10, {"seed": 0})
parts = Parts(Path(folder))
parts.ensure_plan(plan)
for part in parts.missing():
    parts.write_table(part, [ScoredTrace(name, name, Score.CORRECT, "equal " * 20) for name in plan.parts[part]])
print("ready", flush=True)
"""


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_kill_leaves_whole_parts_only_and_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path, start) -> None:
    start(WRITER, f"{tmp_path / 'uninterrupted'}:-1:").wait()
    killed = tmp_path / "killed"
    for die_in, how in ((0, "half"), (2, "whole"), (3, "half")):
        process = start(WRITER, f"{killed}:{die_in}:{how}")
        process.kill()
        process.wait()
        assert Parts(killed).missing() == list(range(die_in, 4))
        for part in range(die_in):
            assert len(read_table(Parts(killed).path(part), ScoredTrace)) == 2
        assert sum(name.endswith("trimtab-partial") for name in content(killed)) == 1
    start(WRITER, f"{killed}:-1:").wait()
    assert Parts(killed).complete
    assert content(killed) == content(tmp_path / "uninterrupted")


def test_kill_before_the_plan_is_stored_leaves_a_folder_that_starts_anew(tmp_path: Path, start) -> None:
    program = WRITER.replace('f"part-{int(die_in):05d}.parquet"', '"plan.json"')
    process = start(program, f"{tmp_path / 'a'}:0:half")
    process.kill()
    process.wait()
    parts = Parts(tmp_path / "a")
    assert not parts.complete
    parts.ensure_plan(make_plan(["x"], [1], 1, {}))
    assert set(content(tmp_path / "a")) == {PLAN}
