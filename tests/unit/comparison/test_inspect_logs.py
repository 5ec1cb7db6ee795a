"""Logs that the real Inspect writes, and what is refused of them."""

import sys
from pathlib import Path

import pytest

from comparison_samples import inspect_log
from trimtab.comparison import compare
from trimtab.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("inspect"))


@pytest.fixture(scope="module")
def logs(home: Path) -> tuple[Path, Path]:
    """``.eval`` of two epochs, and JSON of them."""
    first = inspect_log(home / "a", [True, False, False, False], epochs=2)
    return first, inspect_log(home / "b", [True, True, True, False], epochs=2, kind="json", partial=True)


def test_epochs_are_samples_and_both_formats_are_read(logs) -> None:
    (against,) = compare(*logs, metric="match").against
    c = against.overall
    assert c is not None
    assert (c.n, c.base_k, c.k, c.pairs, c.fixed, c.broken, c.test) == (4, 2, 2, 8, 4, 0, "permutation")
    assert (against.input.format, against.input.model, against.tasks[0].task) == ("Inspect", "mockllm/model", "tiny")
    flip = against.flips[0]
    assert (flip.document, flip.sample, flip.base.response, flip.other.response) == ("1", "1", "no", "yes")
    assert (flip.base.prompt, flip.base.target) == ("user: question 1", "yes")
    assert against.differences == ()


def test_a_folder_of_logs_is_read(logs) -> None:
    assert compare(logs[0].parent, logs[0]).against[0].overall == compare(logs[0], logs[0]).against[0].overall


def test_scorers_are_chosen_and_have_to_be_right_or_wrong(logs) -> None:
    with pytest.raises(InputError, match=r"several metrics: match, length; choose one with --metric NAME"):
        compare(*logs[::-1])
    with pytest.raises(InputError, match=r"\.json, sample 0: length is 3; a paired verdict needs C or I"):
        compare(logs[1], logs[1], metric="length")


def test_damaged_logs_are_one_line(logs, tmp_path) -> None:
    whole = logs[0].read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], b"\x00" * 100):
        (tmp_path / "x.eval").write_bytes(content)
        with pytest.raises(InputError, match=r"x\.eval is no log that inspect_ai can read") as refusal:
            compare(tmp_path / "x.eval", logs[0])
        assert "\n" not in str(refusal.value)
    (tmp_path / "x.json").write_text('{"version": 2, "eval": {"task": "t", "model": "m"}}')
    with pytest.raises(InputError, match=r"x\.json is no log that inspect_ai can read"):
        compare(tmp_path / "x.json", logs[0])


def test_a_log_of_a_newer_inspect_says_so(logs, tmp_path) -> None:
    """Newer ones compress by zstd, number 93, which zipfile does not know before Python 3.14."""
    zstandard, names = 93, (b"PK\x03\x04", b"PK\x01\x02")
    content = bytearray(logs[0].read_bytes())
    for signature, offset in zip(names, (8, 10), strict=True):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] = zstandard
            place = content.find(signature, place + 4)
    (tmp_path / "new.eval").write_bytes(content)
    with pytest.raises(InputError, match=r"new\.eval is compressed in a way .* pip install -U inspect_ai"):
        compare(tmp_path / "new.eval", logs[0])


def test_without_inspect_the_error_says_what_to_install(logs, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(ConfigError, match=r"pip install 'trimtab\[inspect\]'"):
        compare(logs[0], logs[0])
