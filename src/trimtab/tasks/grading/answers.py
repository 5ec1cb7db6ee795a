"""Finding the final answer in a chain of thought."""

import re

THINK_END = "</think>"
_BOXED = re.compile(r"\\boxed\s*\{")
_HASHES = re.compile(r"####\s*(.+)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_answer(text: str) -> str | None:
    r"""The answer of a response: the last ``\boxed{}``, else what follows ``####``, else the text after ``</think>``.

    Returns None when the chain never closed its thinking or nothing follows it.

    Example:
        >>> final_answer("a 5 -9 gives 6 . </think> 6")
        '6'
    """
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    tail = text.rpartition(THINK_END)[2] if THINK_END in text else ""
    hashes = _HASHES.findall(tail or text)
    if hashes:
        return hashes[-1].strip()
    return tail.strip() or None


def normalise(answer: str) -> str:
    """A comparable form: case, outer white space, dollar signs and thousands separators removed, ``5.0`` as ``5``."""
    plain = " ".join(answer.replace("$", "").strip().rstrip(".").lower().split())
    if _NUMBER.fullmatch(plain):
        plain = plain.replace(",", "")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain


def _last_boxed(text: str) -> str | None:
    start = None
    for match in _BOXED.finditer(text):
        start = match.end()
    if start is None:
        return None
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip()
    return None
