"""Problems of files and benchmarks: ids, splits, columns, kinds of answers, and what is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.grading.code import CodeTests
from trimtab.tasks.loading import REPEATED, REPEATED_OTHERWISE, check_disjoint, load_problems, load_task, problems_of, task_prompt
from trimtab.tasks.prompts import CHAT
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Problem, Split


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
    problems = load_problems(TaskSettings(source=_write(tmp_path, rows, suffix), train=1000, validation=1000, test=1000))
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
    rows = [{**row, "split": split} for row, split in zip(_rows(3), ("test", "train", "validation"), strict=True)]
    problems = load_problems(TaskSettings(source=_write(tmp_path, rows)))
    assert [(p.id, p.split) for p in problems] == [("q1", Split.TRAIN), ("q2", Split.VALIDATION), ("q0", Split.TEST)]
    with pytest.raises(InputError, match="unknown split 'tuning'; accepted: train, validation, test"):
        problems_of([{**rows[0], "split": "tuning"}], "f")


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
        InputError, match="'q0' and 'q1' have the same question and stand in the splits train and test; remove one"
    ):
        load_problems(TaskSettings(source=source))
    with pytest.raises(InputError, match="stand in the split train; remove one"):
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
        ({"question": "", "answer": "1"}, "row 1: the question of problem '1' is empty; give it one, or remove the row"),
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


def _gsm8k(folder: Path, *rows: tuple[str, str] | tuple[str, str, str]) -> TaskSettings:
    path = folder / "rows.jsonl"
    named = [dict(zip(("question", "answer", "split"), row, strict=False)) for row in rows]
    path.write_text("".join(json.dumps({**row, "answer": f"so\n#### {row['answer']}"}) + "\n" for row in named))
    return TaskSettings(source="gsm8k", data=str(path))


def test_a_row_may_name_one_of_our_splits(tmp_path: Path) -> None:
    settings = _gsm8k(tmp_path, ("a?", "1", "test"), ("b?", "2", "train"))
    assert [(p.question, p.split) for p in load_problems(settings)] == [("b?", Split.TRAIN), ("a?", Split.TEST)]
    with pytest.raises(InputError, match="row 1: unknown split 'dev'"):
        load_problems(_gsm8k(tmp_path, ("a?", "1", "dev")))


def test_a_repeated_question_counts_once(tmp_path: Path) -> None:
    task = load_task(_gsm8k(tmp_path, ("a?", "1"), ("a?", "1"), ("a?", "2"), ("b?", "2")))
    assert sorted((p.question, p.answer) for p in task.problems) == [("a?", "1"), ("b?", "2")]
    assert task.provenance.left_out == {REPEATED: 1, REPEATED_OTHERWISE: 1}


def test_a_question_of_two_splits_is_kept_and_can_be_dropped_from_test(tmp_path: Path) -> None:
    rows = [("Tom has 3 apples?", "1", "train"), ("Tom has 3 apples?", "1", "test"), ("tom has 3 apples", "1", "test")]
    settings = _gsm8k(tmp_path, *rows, ("Something else entirely?", "2", "test"))
    assert len(load_problems(settings)) == 4
    dropped = load_task(settings.model_copy(update={"drop_leaks": True}))
    assert [p.question for p in dropped.problems] == ["Tom has 3 apples?", "Something else entirely?"]
    assert sum(dropped.provenance.left_out.values()) == 2
    with pytest.raises(NotEnoughDataError, match="gave no problem"):
        load_problems(settings.model_copy(update={"train": 0, "validation": 0, "test": 0}))


def test_one_id_for_two_questions(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"qid": "x", "question": f"{word}?", "answer": True} for word in ("one", "two")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"rows\.jsonl, row 2: id 'x' was already used for another question; give each"):
        load_problems(TaskSettings(source="strategy-qa", data=str(path)))


def test_the_digest_pins_the_data_whatever_is_taken_of_it(tmp_path: Path) -> None:
    settings = _gsm8k(tmp_path, *((f"question {i}?", str(i)) for i in range(40)))
    digest = load_task(settings).provenance.digest
    pinned = settings.model_copy(update={"digest": digest, "train": 3, "validation": 1, "test": 1, "seed": 5})
    assert load_task(pinned).provenance.digest == digest
    assert len(load_problems(pinned)) == 5
    _gsm8k(tmp_path, *((f"question {i}?", str(i + (i == 17))) for i in range(40)))
    with pytest.raises(InputError, match=rf"task\.digest asks for {digest}; the data changed"):
        load_problems(pinned)


def test_the_seed_chooses_among_more_problems_than_are_wanted(tmp_path: Path) -> None:
    settings = _gsm8k(tmp_path, *((f"question {i}?", str(i), "train") for i in range(40))).model_copy(update={"train": 8})
    first = [p.question for p in load_problems(settings)]
    assert first == [p.question for p in load_problems(settings)]
    assert first != [f"question {i}?" for i in range(8)]
    assert first != [p.question for p in load_problems(settings.model_copy(update={"seed": 1}))]


def test_domains() -> None:
    data = Path(__file__).parents[2] / "data" / "benchmarks" / "math.jsonl"
    settings = TaskSettings(source="math", data=str(data), domains=("Algebra", "Geometry"))
    assert {p.domain for p in load_problems(settings)} == {"Algebra", "Geometry"}
    with pytest.raises(InputError, match=r"task\.domains names Alchemy; math has Algebra, Counting"):
        load_problems(settings.model_copy(update={"domains": ("Alchemy",)}))


def test_wrong_fields_list_what_the_row_has(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"Frage": "x", "Antwort": "y"}\n')
    with pytest.raises(InputError, match="row 1: the row has none of the fields answer; it has Frage, Antwort"):
        load_problems(TaskSettings(source="gsm8k", data=str(path)))


def test_the_prompt_of_a_task() -> None:
    assert "boxed" in task_prompt(TaskSettings(source="gsm8k")).template
    assert task_prompt(TaskSettings()) == CHAT


def test_columns_with_other_names() -> None:
    row = {
        "prompt": "not this",
        "body": "What?",
        "key": 7,
        "nr": 3,
        "topic": "sums",
        "steps": 2,
        "part": "validation",
        "answer": "no",
    }
    fields = {"question": "body", "answer": "key", "id": "nr", "domain": "topic", "difficulty": "steps", "split": "part"}
    problem = problems_of([row], "f", fields=fields)[0]
    assert (problem.question, problem.answer, problem.id, problem.domain, problem.difficulty, problem.split) == (
        "What?",
        "7",
        "3",
        "sums",
        2,
        Split.VALIDATION,
    )


def test_a_named_column_is_never_replaced_by_a_default_one() -> None:
    with pytest.raises(InputError, match="f, row 1 has none of the fields gold_answer, answer"):
        problems_of([{"question": "x", "key": None, "answer": "1"}], "f", fields={"answer": "key"})
    with pytest.raises(InputError, match=r"f, row 2 has no column 'key' \(task\.fields\.answer\); it has question, answer"):
        problems_of([{"question": "x", "key": "1"}, {"question": "y", "answer": "1"}], "f", fields={"answer": "key"})


def test_choice() -> None:
    rows = [
        {"question": "Even?", "choices": ["3", "4"], "answer": "b"},
        {"question": "Odd?", "choices": {"label": ["A", "B"], "text": ["3", "4"]}, "answer": "A"},
        {"question": "Which?\nA. one\nB. two", "answer": "B"},
    ]
    problems = problems_of(rows, "f", kind=AnswerKind.CHOICE)
    assert [(p.question, p.answer, p.choices) for p in problems] == [
        ("Even?\nA. 3\nB. 4", "B", ("3", "4")),
        ("Odd?\nA. 3\nB. 4", "A", ("3", "4")),
        ("Which?\nA. one\nB. two", "B", ()),
    ]


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (
            "choice",
            {"question": "x", "choices": ["3", "4"], "answer": "C"},
            "f, row 1: the gold answer 'C' names no choice; .* A, B",
        ),
        ("choice", {"question": "x", "choices": ["3", "4"], "answer": 1}, "the gold answer '1' names no choice"),
        ("choice", {"question": "x", "choices": ["3"], "answer": "A"}, "needs 2 to 26 choices, got 1"),
        ("choice", {"question": "x", "choices": "3 or 4", "answer": "A"}, "choices must be a list of texts"),
        ("yes-no", {"question": "x", "answer": "maybe"}, "f, row 1: the gold answer 'maybe' is neither yes nor no"),
        (
            "code",
            {"question": "x", "answer": "def f(): ..."},
            "f, row 1: a code problem needs tests; the row has question, answer",
        ),
        ("code", {"question": "x", "answer": "def f(): ...", "tests": "{}"}, "no CodeTests .entry_point: Field required"),
        ("code", {"question": "x", "answer": "def f(): ...", "tests": ["assert g(1)"]}, r"no test calls what .* defines \(f\)"),
    ],
)
def test_answers_that_are_none_of_their_kind(kind: str, row: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        problems_of([row], "f", kind=AnswerKind(kind))


def test_code() -> None:
    tests = {"entry_point": "f", "suites": [{"name": "base", "asserts": ["assert f(1) == 2"]}]}
    forms = [tests, json.dumps(tests), ["assert f(1) == 2"]]
    rows = [{"question": f"x{i}", "answer": "def f(x):\n    return x + 1", "tests": form} for i, form in enumerate(forms)]
    problems = problems_of(rows, "f", kind=AnswerKind.CODE)
    assert {CodeTests.model_validate_json(p.tests) for p in problems} == {CodeTests.model_validate(tests)}


@pytest.mark.parametrize(("answer", "expected"), [(True, "yes"), ("No", "no"), ("false", "no"), (" YES ", "yes")])
def test_yes_no(answer: object, expected: str) -> None:
    assert problems_of([{"question": "x", "answer": answer}], "f", kind=AnswerKind.YES_NO)[0].answer == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x", "answer": ""}, "the answer of problem '1' is empty; give it one, or remove the row"),
        ({"question": "x", "answer": "7" * 1_000_000}, "the answer of problem '1' has 1,000,000 characters, at most 20,000"),
        ({"question": "  ", "answer": "7"}, "the question of problem '1' is empty"),
        ({"question": "\ud800", "answer": "7"}, "is not Unicode text"),
    ],
)
def test_rows_that_cost_nothing_yet(tmp_path: Path, row: dict[str, str], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        load_problems(TaskSettings(source=f"local:{path}"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "gsm8k", "answer": "math"}, "'gsm8k' declares its own"),
        ({"source": "gsm8k", "fields": {"question": "q"}}, "'gsm8k' declares its own"),
        ({"source": "local:x.jsonl", "fields": {"text": "q"}}, "fields names text; accepted: question, answer, id"),
        ({"source": "local:x.jsonl", "revision": "abc"}, "data and revision belong to a benchmark"),
        ({"source": "testbed", "data": "x"}, "data and revision belong to a benchmark"),
        ({"source": "gsm8k", "data": "x", "revision": "abc"}, "give one of the two"),
        ({"source": "local:x.jsonl", "answer": "essay"}, "Input should be 'exact', 'math', 'choice', 'yes-no', 'code' or 'gym'"),
    ],
)
def test_settings_that_the_source_would_not_read(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TaskSettings.model_validate(values)


def test_all_rows_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "answer": "1"},
        {"question": " ", "answer": "2"},
        {"answer": "3"},
        {"question": "d?", "answer": "4"},
    ]
    with pytest.raises(InputError, match="2 rows cannot be used:") as raised:
        problems_of(rows, "f")
    lines = str(raised.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "f, row 2",
        "f, row 3 has none of the fields question, problem, prompt; it has answer",
    ]
    with pytest.raises(InputError, match="2 rows cannot be used:"):
        load_problems(TaskSettings(source=_write(tmp_path, [{"question": f"{i}?", "answer": " "} for i in range(2)])))


def test_a_row_without_an_id_names_its_file_and_row() -> None:
    with pytest.raises(InputError, match=r"own\.jsonl, row 2: a problem needs an id and a question"):
        problems_of(
            [{"id": "a", "question": "1 + 1?", "answer": "2"}, {"id": "", "question": "2 + 2?", "answer": "4"}], "own.jsonl"
        )
