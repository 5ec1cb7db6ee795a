"""What a hostile reviewer hands in: a message that names the file, no traceback, no endless wait, and nothing outside is read."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab import Study
from trimtab.cli.output import Output
from trimtab.comparison import compare, inspect_logs
from trimtab.comparison.text import render_flips
from trimtab.display import printable
from trimtab.errors import InputError, ModelError, TrimtabError
from trimtab.export.checkpoint import _stored, _tensors_of
from trimtab.export.verify import questions_of
from trimtab.model import open_model
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.steering import Steering
from trimtab.store import load_steering, save_steering
from trimtab.store.export_files import check_files
from trimtab.store.import_directions import read_directions
from trimtab.store.import_h_neurons import read_hprobes
from trimtab.store.import_lists import read_neurons
from trimtab.study.gather import file_digest
from trimtab.study.settings import load_settings
from trimtab.tasks import prompts
from trimtab.tasks.answer_file import _tests
from trimtab.tasks.files import read_rows
from trimtab.tasks.loading import problems_of
from trimtab.tasks.prompts import render_prompt
from trimtab.testbed.models import resolve
from trimtab.vllm_plugin.config import requested_config

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)
DEEP = "[" * 5000


def steering() -> Steering:
    value = np.ones(2, np.float32)
    return Steering.of(Neurons(np.array([0, 1]), np.array([1, 2]), np.ones(2), value, 0 * value, "adaras", MODEL, {}), 0.3)


def refused(call: Callable[[], object], match: str, kind: type[TrimtabError] = TrimtabError) -> None:
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- result files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"id": 1, "correct": true, "correct": false}', "the key 'correct' stands twice"),
        ('{"id": 1, "correct": true, "response": "\\ud800"}', "surrogates not allowed"),
        ('{"id": "\\udc00", "correct": true}', "surrogates not allowed"),
        ('{"id": NaN, "correct": true}', "id is nan, which names nothing"),
        ('{"id": 1e999, "correct": true}', "id is inf, which names nothing"),
        ('{"id": 1, "correct": NaN}', "correct is nan"),
        (f'{{"id": {"1" * 5000}, "correct": true}}', "cannot be read"),
        (f'{{"id": 1, "correct": {DEEP}', "nested too deeply"),
    ],
)
def test_lines_of_results(tmp_path: Path, line: str, match: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    refused(lambda: compare(tmp_path / "a.jsonl", tmp_path / "a.jsonl"), match, InputError)


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "\\ud83d\\ude00", "correct": true}\n')
    assert compare(tmp_path / "a.jsonl", tmp_path / "a.jsonl").against[0].word == "no evidence"


def test_controls_and_marks_of_direction_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, correct in (("a", "true"), ("b", "false")):
        row = f'{{"id": "\\u202eabc\\u001b[2J", "correct": {correct}, "response": "\\u0007\\u2066", "task": "\\u001b]0;x"}}\n'
        (tmp_path / f"{name}.jsonl").write_text(row)
    result = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    Output().data(None, f"{result}{render_flips(result)}")
    said = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\u2066", "\x07"} & set(said)
    assert "\\u202eabc\\x1b[2J" in said
    assert printable("a\ud800b") == "a\\ud800b"


def _parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


BEYOND = {
    "timestamp": pa.array([2**62], pa.int64()).cast(pa.timestamp("us"), safe=False),
    "duration": pa.array([2**62], pa.int64()).cast(pa.duration("ms"), safe=False),
    "date": pa.array([2**31 - 1], pa.int32()).cast(pa.date32(), safe=False),
}


@pytest.mark.parametrize("name", BEYOND)
def test_dates_that_python_lacks(tmp_path: Path, name: str) -> None:
    file = _parquet(tmp_path / "a.parquet", id=["a"], correct=[True], when=BEYOND[name])
    refused(lambda: compare(file, file), r"a\.parquet is no Parquet file", InputError)
    refused(lambda: list(read_rows(file)), r"a\.parquet cannot be read as Parquet", InputError)


@pytest.mark.parametrize(
    "columns", [{"id": [True], "correct": ["a"]}, {"id": ["a"], "correct": [[True]]}, {"id": [[1]], "correct": [True]}]
)
def test_swapped_and_nested_columns_of_results(tmp_path: Path, columns: dict[str, object]) -> None:
    file = _parquet(tmp_path / "a.parquet", **columns)
    refused(lambda: compare(file, file), "row 1: (id|correct) is", InputError)


@pytest.mark.parametrize(("question", "kind"), [(b"\xff", "bytes"), (["a"], "list"), ({"a": 1}, "dict")])
def test_questions_that_are_no_text(tmp_path: Path, question: object, kind: str) -> None:
    file = _parquet(tmp_path / "a.parquet", question=[question], answer=["1"])
    refused(lambda: problems_of(read_rows(file), "a"), f"question is a {kind} and no text", InputError)


@pytest.mark.parametrize("content", [b"\0" * 30_000_000])
def test_a_log_that_unpacks_to_far_more_is_refused(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("inspect_ai")
    monkeypatch.setattr(inspect_logs, "MOST_UNPACKED", 2**20)
    with zipfile.ZipFile(tmp_path / "a.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", content)
    refused(lambda: compare(tmp_path / "a.eval", tmp_path / "a.eval"), "would unpack to 30,000,000", InputError)


# --- places ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop"


def test_links_in_a_circle(loop: Path) -> None:
    for call in (load_steering, lambda place: save_steering(steering(), place), lambda place: compare(place, place)):
        for place in (loop, loop / "inside"):
            refused(lambda call=call, place=place: call(place), "is no path", InputError)
    refused(lambda: load_settings(loop), "cannot read|no path")
    refused(lambda: list(read_rows(loop.with_suffix(".jsonl"))), "no file at")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "x" * 5000])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    for call in (load_steering, lambda place: save_steering(steering(), place), lambda place: compare(place, place)):
        refused(lambda call=call: call(str(tmp_path / name)), "is no path", InputError)


def test_problems_of_nobodys_home_are_not_found() -> None:
    with pytest.raises(TrimtabError, match="nobody-of-this-name"):
        Study("testbed:reasoner", task="local:~nobody-of-this-name/x.jsonl").problems()


@pytest.mark.parametrize("name", ["x" * 300, "./" + "x" * 5000, "~nobody-of-this-name/model"])
def test_names_that_no_model_can_have(name: str) -> None:
    refused(lambda: open_model(name), "is no model", ModelError)


def test_a_name_that_no_file_of_problems_can_have() -> None:
    refused(lambda: list(read_rows(Path("x" * 5000 + ".jsonl"))), "is no path", InputError)


READERS: dict[str, Callable[[Path], object]] = {
    "a.json": lambda path: read_neurons(path, MODEL),
    "a.csv": lambda path: read_neurons(path, MODEL),
    "a.gguf": lambda path: read_directions(path, MODEL),
    "a.svec": lambda path: read_directions(path, MODEL),
    "a.jsonl": lambda path: list(read_rows(path)),
    "b.jsonl": file_digest,
    "a.txt": questions_of,
    "b.json": lambda path: compare(path, path),
    "c.jsonl": lambda path: compare(path, path),
    "a.toml": load_settings,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    refused(lambda: READERS[name](tmp_path / name), f"{name}.*(pipe|.jsonl or .parquet file)|no file at")


def test_a_device_is_not_read_for_ever() -> None:
    for call in (questions_of, file_digest):
        refused(lambda call=call: call(Path("/dev/zero")), "/dev/zero.*a pipe, a socket or a device")


def test_an_export_names_only_files_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "export").mkdir()
    for name in ("../secret", "/etc/passwd", "../../../../etc/passwd", "a/../../secret", ".", "", "a\0b", "x" * 300, "a//b"):
        refused(lambda name=name: check_files(tmp_path / "export", {name: "0" * 64}), "which is no file of that folder")


@pytest.mark.parametrize(
    "index",
    [
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 5}}',
        b'{"weight_map": {"a": "../../../etc/passwd"}}',
        b'{"weight_map": {"a": "/etc/passwd"}}',
        b'{"weight_map": {"a": ".."}}',
        b'{"weight_map": {"a": ""}}',
        b'{"weight_map": {"a": "x"}, "weight_map": {"a": "y"}}',
        DEEP.encode(),
    ],
)
def test_an_index_of_a_checkpoint(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    refused(lambda: _stored(tmp_path, "model"), r"model\.safetensors\.index\.json.*download the checkpoint again", ModelError)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"\xff",
        b'{"a": []}',
        b'{"a": {"dtype": "F32", "shape": 5, "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["x", 0]}}',
        DEEP.encode(),
    ],
)
def test_a_header_of_safetensors(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(lambda: _tensors_of(tmp_path / "a.safetensors"), r"a\.safetensors is truncated or not a safetensors file", ModelError)


# --- settings and lists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"\xff\xfe"),
        ("a.json", DEEP.encode()),
        ("a.toml", b"x = " + DEEP.encode()),
        ("a.json", b'{"max_dose": NaN}'),
        ("a.json", b'{"steerings": {}, "steerings": {"a": "b"}}'),
    ],
)
def test_settings_of_the_plugin(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(lambda: requested_config({"trimtab": str(tmp_path / name)}, {}), f"{name}.*cannot be read")


def test_a_probe_that_says_a_thing_twice(tmp_path: Path) -> None:
    text = '{"config": {"h_neurons": [[0, 0]], "intermediate_dim": 16, "layers": [0], "layers": [1, 2]}}'
    (tmp_path / "a.json").write_text(text)
    refused(lambda: read_hprobes(tmp_path / "a.json", MODEL), "the key 'layers' stands twice", InputError)


def test_deep_tests_of_code() -> None:
    refused(lambda: _tests({"tests": DEEP}), "tests is a text that is no JSON", InputError)


# --- chat templates --------------------------------------------------------------------------------------------------------

FOR_EVER = {
    "a range": "{% for i in range(10**9) %}{{ i }}{% endfor %}",
    "loops of loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a macro": "{% macro f(n) %}{% for i in range(99999) %}{{ f(n) if n else 1 }}{% endfor %}{% endmacro %}{{ f(0) }}{{ f(1) }}",
    "itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an attribute": "{{ messages.__class__.__mro__[1].__subclasses__()[0] }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "a name": "{{ no_such_thing.of_mine }}",
    "a division": "{{ 1 // 0 }}",
    "a change": "{{ messages.append(1) }}",
}


@pytest.fixture(scope="module")
def tokenizer() -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve("testbed:reasoner"))


@pytest.mark.parametrize("name", FOR_EVER)
def test_templates_that_run_for_ever_or_reach_out(tokenizer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prompts, "MOST_STEPS", 20_000)
    monkeypatch.setattr(tokenizer, "chat_template", FOR_EVER[name] + "{{ messages[0].content }}")
    refused(lambda: render_prompt(tokenizer, "3 + 4"), "this model's chat template refuses the prompt", InputError)
    assert list(tmp_path.iterdir()) == []


def test_a_template_of_many_lines_is_rendered(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    own = render_prompt(tokenizer, "3 + 4")
    loop = "{% for i in range(99999) %}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", loop + tokenizer.chat_template)
    assert render_prompt(tokenizer, "3 + 4") == own
