r"""What mathematics competitions share: answers written as floats, in a ``\boxed{}``, and levels written as words."""

import re

from trimtab.errors import InputError
from trimtab.tasks.benchmark import Entry, cell
from trimtab.tasks.files import Row

IN_AIME24 = "is of 2024, and those problems are the test set of aime24"

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_YEAR_AND_NUMBER = re.compile(r"\d{4}(?:-I{1,2})?-(\d{1,2})")
_WHOLE = re.compile(r"(-?)0*(\d+)(?:\.0*)?")
_LEVEL = re.compile(r"(?:Level\s*)?([1-9])")


def aime_entry(row: Row) -> Entry:
    """A row of any of the AIME repositories, which differ in their names and capitals.

    ``ID, Problem, Solution, Answer`` (Maxwell-Jia/AIME_2024), ``ID, Year, Problem Number, Question, Answer, Part``
    (gneubig/aime-1983-2024), ``id, problem, answer`` (HuggingFaceH4/aime_2024, math-ai/aime25, yentinglin/aime_2025). The
    difficulty is the problem's number in the contest, 1 to 15, where it is known.
    """
    name = cell(row, "ID", "id")
    numbered = _YEAR_AND_NUMBER.fullmatch(name)
    number = row.get("Problem Number") or (numbered[1] if numbered else 0)
    return Entry(
        question=cell(row, "Problem", "Question", "problem", "question"),
        answer=number_text(cell(row, "Answer", "answer")),
        id=name,
        difficulty=int(number_text(str(number))),
    )


def of_2024(row: Row) -> str:
    """Why a row of the older years is left out."""
    return IN_AIME24 if int(cell(row, "Year")) >= 2024 else ""


def number_text(answer: str) -> str:
    """A whole number that was stored as a float or with zeros in front, as people write it; anything else as it is.

    Example:
        >>> number_text("27.0"), number_text("025"), number_text("0.5"), number_text("3/4")
        ('27', '25', '0.5', '3/4')
    """
    plain = answer.strip()
    whole = _WHOLE.fullmatch(plain)
    return whole[1] + whole[2] if whole else plain


def last_box(solution: str) -> str:
    r"""What the last ``\boxed{}`` or ``\fbox{}`` of a solution holds, braces matched; ``\boxed 3`` is read up to ``$``.

    Raises:
        InputError: no box, or one that is not closed.

    Example:
        >>> last_box(r"First $\boxed{1}$, so $\boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'
    """
    boxes = list(_BOX.finditer(solution))
    if not boxes:
        raise InputError(rf"the solution has no \boxed{{}}: {solution[-80:]!r}")
    start = boxes[-1].end()
    if solution[start : start + 1] != "{":
        return re.split(r"[$\s]", solution[start:], maxsplit=1)[0].rstrip(".")
    depth = 0
    for position in range(start, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[position], 0)
        if depth == 0:
            return solution[start + 1 : position].strip()
    raise InputError(rf"the last \boxed{{}} of the solution is not closed: {solution[start:][:80]!r}")


def level(value: object) -> int:
    """``Level 5`` or ``5`` as 5; ``Level ?``, which MATH has too, and no level as 0."""
    match = _LEVEL.fullmatch(str(value).strip())
    return int(match[1]) if match else 0
