"""Simple tables, evalplus and runs; whatever is garbled is one line that names the file."""

import csv
import json
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison_samples import simple_rows, write_rows
from outcome_samples import outcomes, run_folder
from trimtab.comparison.readers import read_results
from trimtab.comparison.results import ScoredResponse
from trimtab.errors import InputError

ROWS = [
    {"id": "a", "correct": True, "task": "sums", "response": "4", "prompt": "2 + 2?", "sample": 0},
    {"id": "a", "correct": False, "task": "sums", "response": "5", "prompt": "2 + 2?", "sample": 1},
    {"id": "b", "correct": None, "task": "words", "response": None, "prompt": None, "sample": None},
]


def scores(path: Path, **options: str) -> dict[str, dict[str, list[bool | None]]]:
    """Of each task and document the scores of its samples."""
    return {
        name: {document: [one.correct for one in samples.values()] for document, samples in task.responses.items()}
        for name, task in read_results(path, **options).tasks.items()  # type: ignore[arg-type]
    }


def simple_file(path: Path, ending: str, rows: list[dict[str, object]]) -> Path:
    file = path / f"results.{ending}"
    if ending == "jsonl":
        return write_rows(file, rows)
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_one_table_in_three_formats(tmp_path, ending) -> None:
    file = simple_file(tmp_path, ending, ROWS)
    assert scores(file) == {"sums": {"a": [True, False]}, "words": {"b": [None]}}
    first = read_results(file).tasks["sums"].responses["a"]["0"]
    assert (first.response, first.prompt, first.sample) == ("4", "2 + 2?", "0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("False", False), ("1", True), ("0.0", False), ("1.0", True), ("", None), ("TRUE", True)],
)
def test_words_for_right_and_wrong_in_a_csv(tmp_path, text, expected) -> None:
    (tmp_path / "a.csv").write_text(f"id,correct\nx,{text}\n")
    assert scores(tmp_path / "a.csv") == {"": {"x": [expected]}}


def test_a_column_of_numbers_with_a_hole_keeps_its_ids(tmp_path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"id": 3.0, "correct": 1.0}, {"id": "x", "correct": 0}])
    assert scores(tmp_path / "a.jsonl") == {"": {"3": [True], "x": [False]}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1}], "row 1: no correct"),
        ([{"correct": 1}], "row 1: no id"),
        ([{"id": 1, "correct": 0.5}], "row 1: correct is 0.5; give true, false, 1, 0"),
        ([{"id": 1, "correct": "yes"}], "row 1: correct is 'yes'"),
        ([{"id": None, "correct": 1}], "row 1: id is None"),
        ([{"id": True, "correct": 1}], "row 1: id is True"),
        ([{"id": [1], "correct": 1}], r"row 1: id is \[1\]"),
        ([{"id": 1, "correct": 1}] * 2, "1 document twice: 1; several responses to one document need a sample number"),
        (
            [{"id": 1, "correct": 1, "sample": 0}, {"id": 1, "correct": 1, "sample": 1}, {"id": 2, "correct": 1, "sample": 0}],
            "every document needs the same samples; most have 2, but 1 document has others: 2",
        ),
    ],
)
def test_simple_rows_that_are_refused(tmp_path, rows, message) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        read_results(write_rows(tmp_path / "bad.jsonl", rows))
    assert str(tmp_path / "bad.jsonl") in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\xff\xfe\x00", "is no text in UTF-8"),
        ("a.jsonl", b'{"id": 1, "correct": 1}\n{"id"', "line 2: no JSON"),
        ("a.jsonl", b"[1]\n", "line 1: a JSON list, not an object"),
        ("a.jsonl", b"[" * 100_000, "line 1: JSON that cannot be read"),
        ("a.jsonl", b'{"id": ' + b"9" * 5000 + b"}", "line 1: JSON that cannot be read"),
        ("a.json", b"3", "holds a JSON int, not an object"),
        ("a.json", b"{}", "JSON of no known tool"),
        ("a.json", b'{"eval": {"P/0": 3}}', "P/0: no samples of evalplus"),
        ("a.json", b'{"eval": {"P/0": [{}]}}', "P/0: sample 0 has no base_status"),
        ("a.json", b'{"eval": {}}', "has no metric|several metrics|holds no"),
        ("a.json", b'{"results": {}, "configs": {}}', "averages alone"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"id,correct\n", "is empty"),
        ("a.csv", b"id,id\n1,2\n", "names a column twice"),
        ("a.csv", b"id,correct\n1\n", "row 2: 1 cells, but the header has 2"),
        ("a.csv", b'id,correct\n"1\n', "is no CSV"),
        ("a.csv", b"id,correct\n\x00,1\n,1\n", "id is None|is no CSV"),
        ("a.parquet", b"PAR1", "is no Parquet file|cannot be read"),
        ("a.parquet", b"", "is no Parquet file|cannot be read"),
        ("a.txt", b"x", "no reader for .txt"),
        ("a", b"x", "no reader for a file without an ending"),
    ],
)
def test_garbled_files(tmp_path, name, content, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_results(tmp_path / name)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WORDS = "id correct task sample doc_id resps filter metrics acc doc arguments eval results configs base_status model"
keys = st.sampled_from(tuple(WORDS.split()))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.dictionaries(keys, json_values, max_size=8), min_size=1, max_size=4))
def test_any_json_is_read_or_refused(tmp_path_factory, rows) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(json.dumps(rows[0]))
    for file in (write_rows(folder / "a.jsonl", rows), folder / "a.json"):
        # another exception fails the test
        with suppress(InputError):
            assert all(isinstance(one, ScoredResponse) for task in read_results(file).tasks.values() for one in _each(task))


def _each(task) -> list[ScoredResponse]:
    return [one for samples in task.responses.values() for one in samples.values()]


def evalplus_file(path: Path, old: bool) -> Path:
    status = {"HumanEval/0": [("pass", "pass"), ("pass", "fail")], "HumanEval/1": [("fail", "pass"), ("timeout", "timeout")]}
    evaluation: dict[str, object] = {}
    for problem, samples in status.items():
        if old:
            base, plus = ([[one[side], []] for one in samples] for side in (0, 1))
            evaluation[problem] = {"nfiles": 2, "base": base, "plus": plus}
        else:
            names = ("base_status", "plus_status")
            evaluation[problem] = [{"task_id": problem, "solution": "x", **dict(zip(names, one, strict=True))} for one in samples]
    (path / "eval_results.json").write_text(json.dumps({"date": "2024-01-01", "hash": "abc", "eval": evaluation}))
    return path / "eval_results.json"


@pytest.mark.parametrize("old", [False, True])
def test_evalplus(tmp_path, old) -> None:
    file = evalplus_file(tmp_path, old)
    base = {"HumanEval/0": [True, True], "HumanEval/1": [False, False]}
    # what fails the benchmark's own tests is not solved, whatever the added ones say
    plus = {"HumanEval/0": [True, False], "HumanEval/1": [False, False]}
    assert scores(file, metric="base") == {"": base}
    assert scores(tmp_path, metric="plus") == {"": plus}
    assert read_results(file, metric="plus").tasks[""].settings["version"] == "abc"
    with pytest.raises(InputError, match="several metrics: base, plus; choose one with --metric NAME"):
        read_results(file)


def test_a_run_is_a_task_each_domain(tmp_path) -> None:
    run = run_folder(tmp_path / "run", [*outcomes("gated", "1u0", "110"), *outcomes("always", "000", "000")])
    results = read_results(run)
    assert (results.format, results.model) == ("trimtab, gated", "one")
    assert scores(run) == {"even": {"p0": [True, True], "p2": [False, False]}, "odd": {"p1": [None, True]}}
    assert scores(run / "outcomes.parquet", condition="always")["odd"] == {"p1": [False, False]}
    one = results.tasks["even"].responses["p0"]["0.1"]
    assert (one.prompt, one.target) == ("question p0", "7")
    assert one.document_hash
    settings = results.tasks["even"].settings
    assert settings["sampling.max_new_tokens"] == "100"
    assert (
        not {"model.source", "task.source", "tune.k", "evaluation.random_sets", "evaluation.control_problems"} & settings.keys()
    )


def test_folders_and_places_that_hold_nothing(tmp_path) -> None:
    with pytest.raises(InputError, match="is a folder without results"):
        read_results(tmp_path)
    with pytest.raises(InputError, match="none does not exist; give samples_"):
        read_results(tmp_path / "none")


def test_a_url_is_a_place_like_any_other(tmp_path) -> None:
    file = write_rows(tmp_path / "a.jsonl", simple_rows("10"))
    assert read_results(file.as_uri()).tasks == read_results(str(file)).tasks
