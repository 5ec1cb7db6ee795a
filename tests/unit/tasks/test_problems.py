"""Problems from files, their splits and what is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.problems import TaskSettings, check_disjoint, load_problems, problems_of
from trimtab.traces import Problem, Split


def _rows(n: int, **fields: object) -> list[dict[str, object]]:
    return [{"id": f"q{i}", "question": f"what is {i}?", "answer": str(i), **fields} for i in range(n)]


def _write(folder: Path, rows: list[dict[str, object]], suffix: str = ".jsonl") -> str:
    path = folder / f"problems{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"local:{path}"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_local_files(tmp_path: Path, suffix: str) -> None:
    rows = _rows(400, domain="sums", difficulty=3)
    problems = load_problems(TaskSettings(source=_write(tmp_path, rows, suffix), train=1000, tune=1000, test=1000))
    assert {p.id for p in problems} == {str(row["id"]) for row in rows}
    assert [p.split for p in problems] == sorted((p.split for p in problems), key=list(Split).index)
    shares = {split: sum(p.split is split for p in problems) / 400 for split in Split}
    assert shares == pytest.approx({Split.TRAIN: 0.5, Split.VALIDATION: 0.2, Split.TEST: 0.3}, abs=0.08)
    assert {(p.domain, p.difficulty) for p in problems} == {("sums", 3)}


def test_the_split_depends_on_the_question_alone(tmp_path: Path) -> None:
    rows = _rows(60)
    first = {p.question: p.split for p in problems_of(rows, "f")}
    renamed = [{**row, "id": f"other{i}", "answer": "0"} for i, row in enumerate(rows[::-1])]
    assert {p.question: p.split for p in problems_of(renamed, "f")} == first


def test_a_named_split_wins(tmp_path: Path) -> None:
    rows = [{**row, "split": split} for row, split in zip(_rows(3), ("test", "train", "tune"), strict=True)]
    problems = load_problems(TaskSettings(source=_write(tmp_path, rows)))
    assert [(p.id, p.split) for p in problems] == [("q1", Split.TRAIN), ("q2", Split.VALIDATION), ("q0", Split.TEST)]
    with pytest.raises(InputError, match="unknown split 'train'; accepted: find, tune, test"):
        problems_of([{**rows[0], "split": "train"}], "f")


def test_counts_bound_each_split(tmp_path: Path) -> None:
    source = _write(tmp_path, _rows(100))
    counts = dict.fromkeys(Split, 0)
    for problem in load_problems(TaskSettings(source=source, train=7, validation=0, test=4)):
        counts[problem.split] += 1
    assert counts == {Split.TRAIN: 7, Split.VALIDATION: 0, Split.TEST: 4}
    with pytest.raises(NotEnoughDataError, match="gave no problem for the asked splits"):
        load_problems(TaskSettings(source=source, train=0, validation=0, test=0))


def test_a_question_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = _rows(2)
    rows[1]["question"] = rows[0]["question"]
    source = _write(tmp_path, [{**rows[0], "split": "train"}, {**rows[1], "split": "test"}])
    with pytest.raises(
        InputError, match="'q0' and 'q1' have the same question and stand in the splits find and test; remove one"
    ):
        load_problems(TaskSettings(source=source))
    with pytest.raises(InputError, match="stand in the split find; remove one"):
        load_problems(TaskSettings(source=_write(tmp_path, [{**row, "split": "train"} for row in rows])))


@pytest.mark.parametrize(("field", "value"), [("question", "why?"), ("answer", "7"), ("split", "test")])
def test_one_id_for_two_problems_is_refused(field: str, value: str) -> None:
    row = {"id": "q", "question": "what?", "answer": "1", "split": "train"}
    assert len(problems_of([row, row], "f")) == 1
    with pytest.raises(
        InputError, match=f"f, row 2: id 'q' was already used with another {field} .* give each problem its own id"
    ):
        problems_of([row, {**row, field: value}], "f")


def test_gold_answer_stands_before_answer() -> None:
    """In a trace file ``answer`` is the extracted one; in a problem file without ``gold_answer`` it is gold."""
    rows = [{"id": "a", "question": "x", "answer": "7", "gold_answer": "8"}, {"id": "b", "question": "y", "answer": "7"}]
    assert [p.answer for p in problems_of(rows, "f")] == ["8", "7"]
    assert [p.answer for p in problems_of([{"question": "x", "answer": "7", "gold_answer": None}], "f")] == ["7"]


@pytest.mark.parametrize("name", ["question", "problem", "prompt"])
def test_names_of_the_question(name: str) -> None:
    assert problems_of([{name: "x?", "answer": 5}], "f")[0] == Problem(
        "1", "x?", "5", problems_of([{name: "x?", "answer": 5}], "f")[0].split
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x"}, "f, row 1 has none of the fields gold_answer, answer; it has question"),
        ({"answer": "1"}, "f, row 1 has none of the fields question, problem, prompt; it has answer"),
        ({"question": "x", "answer": "1", "difficulty": "Level 5"}, "f, row 1: difficulty 'Level 5' is no whole number"),
        ({"question": "", "answer": "1"}, "a problem needs an id and a question"),
    ],
)
def test_rows_that_are_no_problem(row: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        problems_of([row], "f")


def test_absent_values_of_a_parquet_column(tmp_path: Path) -> None:
    rows = [{"id": None, "question": f"x{i}", "answer": "1", "domain": None, "difficulty": None} for i in range(2)]
    rows[0]["difficulty"], rows[0]["domain"] = 3, "d"
    source = _write(tmp_path, rows, ".parquet")
    problems = {p.id: (p.domain, p.difficulty) for p in load_problems(TaskSettings(source=source))}
    assert problems == {"1": ("d", 3), "2": ("", 0)}


def test_no_row_and_no_such_task(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDataError, match="holds no row"):
        load_problems(TaskSettings(source=_write(tmp_path, [])))
    with pytest.raises(InputError, match=r"unknown task 'gsm9k'; accepted: testbed, local:PATH .*, or a benchmark: aime24"):
        load_problems(TaskSettings(source="gsm9k"))


def test_the_testbed_task() -> None:
    problems = load_problems(TaskSettings(train=20, validation=10, test=30))
    assert [sum(p.split is split for p in problems) for split in Split] == [20, 10, 30]
    assert len({p.id for p in problems}) == 60
    check_disjoint(problems)
    assert problems == load_problems(TaskSettings(train=20, validation=10, test=30))
    assert problems[:20] != load_problems(TaskSettings(train=20, validation=10, test=30, seed=1))[:20]
