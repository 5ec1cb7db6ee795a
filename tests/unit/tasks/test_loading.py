"""Benchmarks from a file of this machine: ids, splits, repeated questions, leaks, digests, domains."""

import json
from pathlib import Path

import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.loading import REPEATED, REPEATED_OTHERWISE
from trimtab.tasks.problems import load_problems, load_task, task_prompt
from trimtab.tasks.prompts import CHAT
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import Split


def _gsm8k(folder: Path, *rows: tuple[str, str] | tuple[str, str, str]) -> TaskSettings:
    path = folder / "rows.jsonl"
    named = [dict(zip(("question", "answer", "split"), row, strict=False)) for row in rows]
    path.write_text("".join(json.dumps({**row, "answer": f"so\n#### {row['answer']}"}) + "\n" for row in named))
    return TaskSettings(source="gsm8k", data=str(path))


def test_a_row_may_name_one_of_our_splits(tmp_path: Path) -> None:
    settings = _gsm8k(tmp_path, ("a?", "1", "test"), ("b?", "2", "train"))
    assert [(p.question, p.split) for p in load_problems(settings)] == [("b?", Split.TRAIN), ("a?", Split.TEST)]
    with pytest.raises(InputError, match="row 1: unknown split 'train'"):
        load_problems(_gsm8k(tmp_path, ("a?", "1", "train")))


def test_a_repeated_question_counts_once(tmp_path: Path) -> None:
    task = load_task(_gsm8k(tmp_path, ("a?", "1"), ("a?", "1"), ("a?", "2"), ("b?", "2")))
    assert sorted((p.question, p.answer) for p in task.problems) == [("a?", "1"), ("b?", "2")]
    assert task.provenance.left_out == {REPEATED: 1, REPEATED_OTHERWISE: 1}


def test_a_question_of_two_splits_is_kept_and_can_be_dropped_from_test(tmp_path: Path) -> None:
    rows = [("Tom has 3 apples?", "1", "train"), ("Tom has 3 apples?", "1", "test"), ("Tom has 4 apples?", "1", "test")]
    settings = _gsm8k(tmp_path, *rows, ("Something else entirely?", "2", "test"))
    assert len(load_problems(settings)) == 4
    dropped = load_task(settings.model_copy(update={"drop_leaks": True}))
    assert [p.question for p in dropped.problems] == ["Tom has 3 apples?", "Something else entirely?"]
    assert sum(dropped.provenance.left_out.values()) == 2
    with pytest.raises(NotEnoughDataError, match="gave no problem"):
        load_problems(settings.model_copy(update={"train": 0, "tune": 0, "test": 0}))


def test_one_id_for_two_questions(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"qid": "x", "question": f"{word}?", "answer": True} for word in ("one", "two")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"rows\.jsonl, row 2: id 'x' was already used for another question; give each"):
        load_problems(TaskSettings(source="strategy-qa", data=str(path)))


def test_the_digest_pins_the_data_whatever_is_taken_of_it(tmp_path: Path) -> None:
    settings = _gsm8k(tmp_path, *((f"question {i}?", str(i)) for i in range(40)))
    digest = load_task(settings).provenance.digest
    pinned = settings.model_copy(update={"digest": digest, "train": 3, "tune": 1, "test": 1, "seed": 5})
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
