"""Damage to files, and what reading them comes to: refused, read as it was, or, which must not be, read as something else."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from trimtab.errors import TrimtabError

Read = Callable[[], object]


class Fuzzed(NamedTuple):
    """A file, what reads it, and whether anything but what was written must be refused.

    A file that a user writes by hand is read as it stands, so there only the kind of error is looked at. Of a file that lines are
    appended to, whole lines may be gone from the end: it is what it was before they were written (SECURITY.md says so).
    """

    path: Path
    read: Read
    sealed: bool = True
    appended: bool = False


class Silent(NamedTuple):
    """A damaged file that was read as something else, or raised another error than ours, or a message of several lines."""

    file: str
    damage: str
    what: str


Damage = Callable[[bytes, Random], bytes]


def flip(content: bytes, random: Random) -> bytes:
    """One bit."""
    at, changed = random.randrange(len(content)), bytearray(content)
    changed[at] ^= 1 << random.randrange(8)
    return bytes(changed)


def byte(content: bytes, random: Random) -> bytes:
    """One byte, to any other."""
    at, changed = random.randrange(len(content)), bytearray(content)
    changed[at] = (changed[at] + random.randrange(1, 256)) % 256
    return bytes(changed)


def cut(content: bytes, random: Random) -> bytes:
    """The end is missing."""
    return content[: random.randrange(len(content))]


def hole(content: bytes, random: Random) -> bytes:
    """A piece is missing."""
    start = random.randrange(len(content))
    return content[:start] + content[start + random.randrange(1, 64) :]


def insert(content: bytes, random: Random) -> bytes:
    """Bytes too many."""
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(random.randrange(1, 16)) + content[at:]


def zeros(content: bytes, random: Random) -> bytes:
    """A sector of zeros."""
    start, n = random.randrange(len(content)), random.randrange(1, 512)
    return content[:start] + b"\0" * min(n, len(content) - start) + content[start + n :]


def twice(content: bytes, random: Random) -> bytes:
    """A piece stands twice."""
    start = random.randrange(len(content))
    piece = content[start : start + random.randrange(1, 64)]
    return content[:start] + piece + content[start:]


def noise(content: bytes, random: Random) -> bytes:
    """Something else altogether."""
    return random.randbytes(random.choice([0, 1, 7, 8, 64, len(content)]))


DAMAGES: tuple[Damage, ...] = (flip, flip, flip, byte, cut, hole, insert, zeros, twice, noise)
ODD_TEXTS = (
    b"1e999",
    b"-1e999",
    b"NaN",
    b"-1",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b'"\\u001b[2J"',
    b"1" + b"0" * 30,
    b"1" * 5000,
    b"[" * 100_000,
    b'{"a":' * 5000,
    b'{"a": 1, "a": 2}',
)


def odd_value(content: bytes, random: Random) -> bytes:
    """A value of a JSON text is another, and odd."""
    starts = [i + 2 for i in range(len(content) - 2) if content[i : i + 2] in (b": ", b"= ", b", ")]
    if not starts:
        return flip(content, random)
    start = random.choice(starts)
    stop = next((i for i in range(start, len(content)) if content[i : i + 1] in b",\n}]"), len(content))
    return content[:start] + random.choice(ODD_TEXTS) + content[stop:]


def plain(value: object) -> object:
    """A value that says whether two reads came to the same, bit by bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value)


def damaged(content: bytes, random: Random, text: bool) -> Iterator[tuple[str, bytes]]:
    """Damages of one content without end."""
    kinds = (*DAMAGES, odd_value, odd_value) if text else DAMAGES
    while True:
        kind = random.choice(kinds)
        changed = kind(content, random)
        if changed != content:
            yield kind.__name__, changed


def survey(files: Mapping[str, Fuzzed], seed: int, each: int) -> tuple[Counter[str], list[Silent]]:
    """Damage every file so many times, read it each time, and put it back.

    Returns:
        How many were refused and how many read as they were, and all that must not be.
    """
    counts: Counter[str] = Counter()
    silent: list[Silent] = []
    for name, (path, read, sealed, appended) in files.items():
        content, random = path.read_bytes(), Random(f"{seed} {name}")
        before = plain(read())
        text = path.suffix in (".json", ".jsonl", ".toml", ".csv")
        for _, (kind, changed) in zip(range(each), damaged(content, random, text), strict=False):
            if appended and content.startswith(changed.removesuffix(b"\n") + b"\n"):
                counts["as it was before"] += 1
                continue
            path.write_bytes(changed)
            try:
                after = plain(read())
            except TrimtabError as error:
                counts["refused"] += 1
                if said := _said(error, path):
                    silent.append(Silent(name, kind, said))
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
                silent.append(Silent(name, kind, f"{type(error).__name__}: {str(error)[:200]}"))
            else:
                counts["the same" if after == before else "read as it stands"] += 1
                if sealed and after != before:
                    silent.append(Silent(name, kind, "read as something else"))
        path.write_bytes(content)
        assert plain(read()) == before, f"{name} is not what it was"
    return counts, silent


def _said(error: TrimtabError, path: Path) -> str:
    """What is wrong with a message; nothing where it is as it should be."""
    text = str(error)
    if path.name not in text and path.parent.name not in text:
        return f"the message does not name the file: {text[:200]}"
    return ""


def as_lines(rows: list[dict[str, object]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
