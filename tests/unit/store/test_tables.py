from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError, StoreError
from trimtab.store.tables import read_arrow, read_table, table_of, write_arrow, write_table
from trimtab.traces import Problem, Score, ScoredTrace, Split, Trace

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = TEXT.filter(bool)
IDS = st.lists(st.integers(0, 2**31), max_size=5).map(tuple)
PROBLEMS = st.builds(Problem, NAME, NAME, TEXT, st.sampled_from(Split), TEXT, st.integers(0, 99))
TRACES = st.builds(Trace, NAME, NAME, st.integers(0, 9), IDS, IDS, TEXT, st.sampled_from(["stop", "length"]))
GRADES = st.builds(ScoredTrace, NAME, NAME, st.sampled_from(Score), TEXT, TEXT, st.sampled_from([None, True, False]))


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    score: Score
    weights: tuple[float, ...]
    tags: tuple[Score, ...]
    p_fail: float | None = None


@given(rows=st.lists(PROBLEMS, max_size=5) | st.lists(TRACES, max_size=5) | st.lists(GRADES, max_size=5))
def test_rows_come_back_exactly_and_with_the_same_bytes(rows: list, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    row = type(rows[0]) if rows else Trace
    write_table(path, rows, row)
    first = path.read_bytes()
    back = read_table(path, row)
    assert back == rows
    assert [[type(getattr(r, name)) for name in table_of(row).schema.names] for r in back] == [
        [type(getattr(r, name)) for name in table_of(row).schema.names] for r in rows
    ]
    write_table(path, back, row)
    assert path.read_bytes() == first


def test_any_dataclass_of_plain_fields(tmp_path: Path) -> None:
    rows = [Outcome("a", Score.CORRECT, (0.1, -0.0), (Score.UNSCORED,), 1 / 3), Outcome("b", Score.INCORRECT, (), ())]
    write_table(tmp_path / "a.parquet", rows)
    back = read_table(tmp_path / "a.parquet", Outcome)
    assert back == rows
    assert isinstance(back[0].tags[0], Score)


def test_chunks_do_not_change_the_bytes(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", "y", "z"], "b": [1, 2, 3]})
    write_arrow(tmp_path / "whole", table)
    write_arrow(tmp_path / "chunks", pa.concat_tables([table.slice(0, 1), table.slice(1)]))
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "chunks").read_bytes()
    assert read_arrow(tmp_path / "chunks").equals(table)


def test_folder_names_are_not_read_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "k=50" / "a.parquet"
    write_arrow(path, pa.table({"a": [1]}))
    assert read_arrow(path).column_names == ["a"]


def test_an_empty_table_needs_its_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass the class"):
        write_table(tmp_path / "a.parquet", [])
    write_table(tmp_path / "a.parquet", [], Trace)
    assert read_table(tmp_path / "a.parquet", Trace) == []


def test_rows_of_two_classes_are_refused(tmp_path: Path) -> None:
    rows = [ScoredTrace("t", "p", Score.CORRECT, ""), Outcome("a", Score.CORRECT, (), ())]
    with pytest.raises(InputError, match="table of ScoredTrace was given a Outcome"):
        write_table(tmp_path / "a.parquet", rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Trace("t", "p", "x", (), (), "", "stop"), r"Trace\.sample cannot be stored as int64"),  # type: ignore[arg-type]
        (Trace("t", "p", 0.5, (), (), "", "stop"), r"Trace\.sample.*not a whole number"),  # type: ignore[arg-type]
        (Trace("t", "p", 2**70, (), (), "", "stop"), r"Trace\.sample"),
        (Trace("t", "p", 0, (1.5,), (), "", "stop"), r"Trace\.prompt_ids"),  # type: ignore[arg-type]
        (Trace("t", "p", 0, (), (), None, "stop"), r"Trace\.text is None in 1 rows"),  # type: ignore[arg-type]
        (Trace("t", "p", 0, (), (), "\ud800", "stop"), r"Trace\.text cannot be stored"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path: Path, row: Trace, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_table(tmp_path / "a.parquet", [row])
    assert list(tmp_path.iterdir()) == []


def test_classes_that_no_table_holds() -> None:
    @dataclass
    class Nested:
        inner: dict

    with pytest.raises(InputError, match=r"Nested\.inner is annotated .*dict"):
        table_of(Nested)
    with pytest.raises(InputError, match="int is not a dataclass"):
        table_of(int)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, [ScoredTrace("t", "p", Score.CORRECT, "equal")])
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"a\.parquet is truncated or not a Parquet file.*delete it and run the command"):
            read_table(path, ScoredTrace)


def test_missing_foreign_and_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(StoreError, match="is missing"):
        read_table(path, ScoredTrace)
    path.write_text("question,answer\n")
    with pytest.raises(StoreError, match="not a Parquet file"):
        read_table(path, ScoredTrace)
    with pytest.raises(StoreError, match="cannot be read"):
        read_table(tmp_path, ScoredTrace)
    write_table(path, [ScoredTrace("t", "p", Score.CORRECT, "")])
    with pytest.raises(StoreError, match=r"does not hold rows of Trace.*id: string"):
        read_table(path, Trace)


def test_a_value_that_the_class_refuses_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_arrow(path, table_of(Problem).to_arrow([Problem("a", "b", "c", Split.TRAIN)]).set_column(3, "split", [["dev"]]))
    with pytest.raises(StoreError, match="does not hold rows"):
        read_table(path, Problem)
    schema = table_of(Problem).schema
    write_arrow(
        path,
        pa.Table.from_arrays(
            [pa.array([value], f.type) for value, f in zip(["a", "b", "c", "dev", "", 0, "exact", [], ""], schema, strict=True)],
            schema=schema,
        ),
    )
    with pytest.raises(StoreError, match=r"a\.parquet.*'dev' is not a valid Split"):
        read_table(path, Problem)


def test_a_flipped_bit_of_the_data_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "grades.parquet"
    # ids without a pattern, so that pages are large beside the footer
    rows = [ScoredTrace(np.random.default_rng(i).bytes(12).hex(), "p", Score.CORRECT, "") for i in range(500)]
    write_table(path, rows)
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    refused = 0
    for position in np.random.default_rng(0).integers(8 * 4, 8 * (len(whole) - footer), 60).tolist():
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert read_table(path, ScoredTrace) == rows  # a bit that says nothing, in the header of a page
        except StoreError:
            refused += 1
    assert refused > 50
