"""Finding the final answer in a chain of thought."""

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

THINK_END = "</think>"
MOST_STATEMENTS = 20
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"[{}]")
_HASHES = re.compile(r"####\s*(.+)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_STATED = re.compile(
    r"(?i)(?<!to )\banswers?\b[^\n.,:=?!]{0,60}?(?:\s(?:is|are|would be|should be|must be)\b(?! not\b)|[:=]|[*_# ]{0,8}\n)"
    r"[:*_\s]{0,12}(?:(?:\$\$|\\\[)\s{0,4})?"
)


class Box(NamedTuple):
    r"""One ``\boxed{}``: where it starts and stops, and what it holds; None when it never closes."""

    start: int
    stop: int
    content: str | None


class Statement(NamedTuple):
    """Where a response says what its answer is, and the rest of that line."""

    start: int
    text: str


def final_answer(text: str) -> str | None:
    r"""The answer of a response: the last ``\boxed{}``, else what follows ``####``, else the text after ``</think>``.

    Returns None when the response never closed its thinking or nothing follows it.

    Example:
        >>> final_answer("a 5 -9 gives 6 . </think> 6")
        '6'
    """
    box = next(boxes(text), None)
    if box is not None and box.content is not None:
        return box.content
    tail = text.rpartition(THINK_END)[2] if THINK_END in text else ""
    hashes = _HASHES.findall(tail or text)
    if hashes:
        return hashes[-1].strip()
    return tail.strip() or None


def conclusion(text: str) -> str:
    """What follows the last ``</think>``, or the whole text where there is none."""
    return text.rpartition(THINK_END)[2].strip()


def boxes(text: str) -> Iterator[Box]:
    r"""Every ``\boxed{}`` and ``\fbox{}``, the last one first; one that would reach into the next is never closed."""
    stop = len(text)
    for head in reversed([*_BOXED.finditer(text)]):
        yield _box(text, head, stop)
        stop = head.start()


def after_hashes(text: str) -> str | None:
    """What follows the last ``####`` on its line."""
    found = _HASHES.findall(text)
    return found[-1].strip() if found else None


def statements(text: str) -> list[Statement]:
    """The last twenty of "the answer is ..." and "Answer: ...", in order, with the rest of the line each stands on or announces.

    Example:
        >>> statements("The answer is not 3. So the final answer is 5.")
        [Statement(start=34, text='5.')]
    """
    last = deque(_STATED.finditer(text), maxlen=MOST_STATEMENTS)
    found = [Statement(match.start(), _line_from(text, match.end())) for match in last]
    return [statement for statement in found if statement.text]


def normalise(answer: str) -> str:
    """A comparable form: case, outer white space, dollar signs and thousands separators removed, ``5.0`` as ``5``."""
    plain = " ".join(answer.replace("$", "").strip().rstrip(".").lower().split())
    if _NUMBER.fullmatch(plain):
        plain = plain.replace(",", "")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain


def _line_from(text: str, start: int) -> str:
    stop = text.find("\n", start)
    return text[start : stop if stop >= 0 else None].strip()


def _box(text: str, head: re.Match[str], stop: int) -> Box:
    depth = 1
    for brace in _BRACE.finditer(text, head.end(), stop):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return Box(head.start(), brace.end(), text[head.end() : brace.start()].strip())
    return Box(head.start(), stop, None)
