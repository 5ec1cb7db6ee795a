"""Traces made elsewhere, AdaRAS's schema among them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiny_models import tiny
from trimtab.errors import InputError, MismatchError, NotEnoughDataError
from trimtab.model import LanguageModel
from trimtab.sampling import import_traces, read_labels
from trimtab.tasks import Prompt, render_prompt
from trimtab.testbed.random_model import byte_tokenizer
from trimtab.traces import Split

QUESTION = "now dial 5 : a +6 b -2 as ever ?"
OTHER = "now dial 6 : a +6 b -2 as ever ?"


def _adaras(number: int, good: str, question: str = QUESTION, problem: int = 27, **fields: object) -> dict[str, object]:
    """A row in AdaRAS's schema: ``answer`` is what the response came to, ``gold_answer`` what is right."""
    return {
        "id": problem,
        "_id": number,
        "is_good": good,
        "question": question,
        "thinking": "so a 5 +6 gives 1 .",
        "answer_content": "9",
        "gold_answer": "9",
        "answer": "9" if good == "True" else "4",
        **fields,
    }


def _jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = (_adaras(1, "True"), _adaras(3, "False", answer_content="4"), _adaras(2, "True", OTHER, 100))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_adaras_schema(model: LanguageModel, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"traces{suffix}"
    if suffix == ".jsonl":
        _jsonl(path, *ROWS)
    else:
        pq.write_table(pa.Table.from_pylist(list(ROWS)), path)
    problems, traces = import_traces(path, model)
    assert [(p.id, p.question, p.answer, p.split) for p in problems] == [
        ("27", QUESTION, "9", Split.TRAIN),
        ("100", OTHER, "9", Split.TRAIN),
    ]
    assert [trace.id for trace in traces] == ["27/0", "27/1", "100/0"]
    assert [trace.text for trace in traces] == [f"so a 5 +6 gives 1 .</think>{a}" for a in ("9", "4", "9")]
    assert all(
        t.prompt_ids == render_prompt(model.tokenizer, q) for t, q in zip(traces, (QUESTION, QUESTION, OTHER), strict=True)
    )
    assert all(t.response_ids == tuple(model.tokenizer.encode(t.text, add_special_tokens=False)) for t in traces)
    assert {trace.finish for trace in traces} == {"stop"}
    assert read_labels(path, "is_good") == {"27/0": True, "27/1": False, "100/0": True}


def test_adaras_plain_rendering(model: LanguageModel, tmp_path: Path) -> None:
    _, traces = import_traces(_jsonl(tmp_path / "t.jsonl", *ROWS), model, prompt=Prompt(style="adaras-plain"))
    assert traces[0].prompt_ids == tuple(model.tokenizer.encode(f"Question: {QUESTION}\nThinking process:"))


def test_long_responses_are_cut(model: LanguageModel, tmp_path: Path) -> None:
    rows = (_adaras(1, "True"), _adaras(2, "False", thinking="so a", answer_content=""))
    _, traces = import_traces(_jsonl(tmp_path / "t.jsonl", *rows), model, max_tokens=4)
    assert [(len(t.response_ids), t.finish) for t in traces] == [(4, "length"), (2, "stop")]
    whole = import_traces(tmp_path / "t.jsonl", model)[1][0]
    assert traces[0].response_ids == whole.response_ids[:4]


@pytest.mark.parametrize("name", ["response", "completion", "text"])
def test_other_names_of_the_response(model: LanguageModel, tmp_path: Path, name: str) -> None:
    path = _jsonl(tmp_path / "t.jsonl", {"question": QUESTION, "answer": "9", name: "so a </think> 9"})
    problems, traces = import_traces(path, model)
    assert (problems[0].id, traces[0].id, traces[0].text) == ("1", "1/0", "so a </think> 9")


def test_token_ids_of_this_tokenizer(model: LanguageModel, tmp_path: Path) -> None:
    row = {"id": "p", "question": QUESTION, "answer": "9", "prompt_ids": [2, 9, 4], "response_ids": [40, 41]}
    path = _jsonl(tmp_path / "t.jsonl", {**row, "tokenizer": model.tokenizer_fingerprint})
    trace = import_traces(path, model)[1][0]
    assert (trace.prompt_ids, trace.response_ids) == ((2, 9, 4), (40, 41))
    assert trace.text == model.tokenizer.decode([40, 41])


@pytest.mark.parametrize("tokenizer", [{}, {"tokenizer": "another"}])
def test_token_ids_of_another_tokenizer(model: LanguageModel, tmp_path: Path, tokenizer: dict[str, str]) -> None:
    row = {"question": QUESTION, "answer": "9", "prompt_ids": [1], "response_ids": [2], **tokenizer}
    with pytest.raises(MismatchError, match=r"row 1 brings token ids of tokenizer .*Give the text instead"):
        import_traces(_jsonl(tmp_path / "t.jsonl", row), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "row 1 has none of the fields question, problem, prompt"),
        ({"thinking": None}, "row 1 has none of the fields response, completion, text"),
        ({"thinking": "", "answer_content": ""}, "row 1 has an empty response"),
        ({"gold_answer": None, "answer": None}, "row 1 has none of the fields gold_answer, answer"),
    ],
)
def test_rows_that_cannot_be_used(model: LanguageModel, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_traces(_jsonl(tmp_path / "t.jsonl", _adaras(1, "True", **changes)), model)


@pytest.mark.parametrize("ids", ["1 2", [1, "2"], None])
def test_ids_that_are_none(model: LanguageModel, tmp_path: Path, ids: object) -> None:
    row = {"question": QUESTION, "answer": "9", "prompt_ids": ids, "response_ids": [2], "tokenizer": model.tokenizer_fingerprint}
    with pytest.raises(InputError, match="prompt_ids must be a list of token ids"):
        import_traces(_jsonl(tmp_path / "t.jsonl", row), model)


def test_an_empty_file(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDataError, match="holds no row"):
        import_traces(_jsonl(tmp_path / "t.jsonl"), model)


def test_a_missing_label_column(tmp_path: Path) -> None:
    row = dict(_adaras(2, "True"))
    del row["is_good"]
    with pytest.raises(InputError, match=r"1 of 2 rows of .* have no column 'is_good'; the first has id, _id"):
        read_labels(_jsonl(tmp_path / "t.jsonl", _adaras(1, "True"), row), "is_good")
    with pytest.raises(InputError, match="27/0: 'maybe' is no binary label; accepted: true"):
        read_labels(_jsonl(tmp_path / "t.jsonl", _adaras(1, "maybe")), "is_good")


_TURN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>"
SWITCH = _TURN + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
OPENS = _TURN + "<think>\n{% endif %}"
ROW = {"question": "1+1?", "gold_answer": "2"}
THOUGHT = {**ROW, "thinking": "one\nand one", "answer_content": "2"}
WRITTEN = {**ROW, "response": "<think>\none\nand one\n</think>\n\n2"}


@pytest.mark.parametrize("row", [THOUGHT, WRITTEN], ids=["thinking apart", "whole response"])
@pytest.mark.parametrize("template", [SWITCH, OPENS], ids=["with the switch", "opens the thinking"])
def test_thinking_is_what_the_model_would_have_written(tmp_path: Path, template: str, row: dict[str, str]) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    model = LanguageModel.of(tiny("qwen3", vocab_size=len(tokenizer)), tokenizer)
    trace = import_traces(_jsonl(tmp_path / "t.jsonl", row), model)[1][0]
    everything = tokenizer.decode([*trace.prompt_ids, *trace.response_ids])
    assert everything.endswith("1+1?\n<|assistant|><think>\none\nand one\n</think>\n\n2")
    assert tokenizer.decode(list(trace.prompt_ids)).endswith("<think>\n") == (template == OPENS)


def test_thinking_behind_a_prompt_that_ends_it_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = SWITCH
    model = LanguageModel.of(tiny("qwen3", vocab_size=len(tokenizer)), tokenizer)
    off = Prompt(thinking="off")
    answer = import_traces(_jsonl(tmp_path / "t.jsonl", {**THOUGHT, "thinking": ""}), model, prompt=off)[1][0]
    assert answer.text == "2"
    with pytest.raises(InputError, match=r'row 1 has thinking, but the prompt ends it .* prompt\.thinking = "default"'):
        import_traces(_jsonl(tmp_path / "t.jsonl", THOUGHT), model, prompt=off)
