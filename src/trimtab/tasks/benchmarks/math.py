"""The benchmarks of mathematics: AIME, AMC 12, GSM8K, MATH and MATH-500.

What competitions share: answers written as floats, in a ``\boxed{}``, and levels written as words. Thirty problems of one AIME
are too few to be divided, so all of a newer year test what older years found.
"""

import re

from trimtab.errors import InputError
from trimtab.tasks.benchmark import ALL, FIND_AND_TUNE, MATH_THINKING, TEST, Benchmark, Decoding, Entry, Part, cell
from trimtab.tasks.benchmark import MATH as MATH_PROMPT
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind

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


OLDER_YEARS = "gneubig/aime-1983-2024"


def _aime(name: str, title: str, parts: tuple[Part, ...], leaks: str = "") -> Benchmark:
    return Benchmark(
        name=name, title=title, parts=parts, kind=AnswerKind.MATH, entry=aime_entry, prompt=MATH_THINKING, leaks=leaks
    )


_FOUND = Part(OLDER_YEARS, "train", FIND_AND_TUNE, leaves_out=of_2024)

AIME = _aime(
    "aime",
    "AIME, 1983 to 2023",
    (Part(OLDER_YEARS, "train", ALL, leaves_out=of_2024),),
    leaks="The repository holds 2024 too; those rows are left out, since they are the test set of aime24.",
)
AIME24 = _aime(
    "aime24",
    "AIME 2024",
    (_FOUND, Part("Maxwell-Jia/AIME_2024", "train", TEST)),
    leaks="The repository of the older years holds 2024 too; those rows are left out.",
)
AIME25 = _aime("aime25", "AIME 2025", (_FOUND, Part("math-ai/aime25", "test", TEST)))


_YEAR = re.compile(r"(20\d\d)_AMC")


def amc12_entry(row: Row) -> Entry:
    """``question`` or ``problem``, and an ``answer`` stored as a float (27.0); ids clash between the two repositories."""
    return Entry(
        question=cell(row, "question", "problem"),
        answer=number_text(cell(row, "answer")),
    )


def _of_2023(row: Row) -> str:
    url = cell(row, "url")
    year = _YEAR.search(url)
    if year is None:
        raise InputError(f"the url does not name the contest's year, without which the test set would leak: {url!r}")
    return "is of 2023, from which the test set is drawn" if year[1] == "2023" else ""


AMC12 = Benchmark(
    name="amc12",
    title="AMC 12",
    parts=(
        Part("AI-MO/aimo-validation-amc", "train", FIND_AND_TUNE, leaves_out=_of_2023),
        Part("math-ai/amc23", "test", TEST),
    ),
    kind=AnswerKind.MATH,
    entry=amc12_entry,
    prompt=MATH_THINKING,
    leaks="The train split's repository holds 2023 too, from which math-ai/amc23 is drawn; those rows are left out.",
)


MARK = "####"


def gsm8k_entry(row: Row) -> Entry:
    """The solution has one step a line, with calculator notes like ``<<48/2=24>>``; gold numbers can be ``-5`` or ``1,600``."""
    solution, mark, answer = cell(row, "answer").rpartition(MARK)
    if not mark:
        raise InputError(f"the answer has no {MARK!r}, after which GSM8K puts its number: {answer[-80:]!r}")
    return Entry(
        question=cell(row, "question").strip(),
        answer=number_text(answer.replace(",", "").replace("$", "")),
        difficulty=sum(bool(line.strip()) for line in solution.splitlines()),
    )


GSM8K = Benchmark(
    name="gsm8k",
    title="GSM8K",
    parts=(
        Part("openai/gsm8k", "train", FIND_AND_TUNE, ("main",)),
        Part("openai/gsm8k", "test", TEST, ("main",)),
    ),
    kind=AnswerKind.MATH,
    entry=gsm8k_entry,
    prompt=MATH_THINKING,
)


HENDRYCKS = "EleutherAI/hendrycks_math"
CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
SUBJECTS = (
    "Algebra",
    "Counting & Probability",
    "Geometry",
    "Intermediate Algebra",
    "Number Theory",
    "Prealgebra",
    "Precalculus",
)


def math_entry(row: Row) -> Entry:
    r"""MATH has its answer in the last ``\boxed{}`` of ``solution`` and its subject in ``type``; MATH-500 has fields for both."""
    answer = row.get("answer")
    return Entry(
        question=cell(row, "problem"),
        answer=last_box(cell(row, "solution")) if answer is None else str(answer),
        id=str(row.get("unique_id") or ""),
        domain=cell(row, "subject", "type"),
        difficulty=level(row.get("level")),
    )


MATH = Benchmark(
    name="math",
    title="MATH, seven subjects",
    parts=(
        Part(HENDRYCKS, "train", FIND_AND_TUNE, CONFIGS),
        Part(HENDRYCKS, "test", TEST, CONFIGS),
    ),
    kind=AnswerKind.MATH,
    entry=math_entry,
    prompt=MATH_PROMPT,
    decoding=Decoding(max_new_tokens=4096),
    domains=SUBJECTS,
    leaks="The 500 problems of math500 stand in its test split.",
)


MATH500 = Benchmark(
    name="math500",
    title="MATH-500",
    parts=(
        Part(HENDRYCKS, "train", FIND_AND_TUNE, CONFIGS),
        Part("HuggingFaceH4/MATH-500", "test", TEST),
    ),
    kind=AnswerKind.MATH,
    entry=math_entry,
    prompt=MATH_THINKING,
    domains=SUBJECTS,
    leaks="Its problems are a part of the test split of math: neurons found there by hand would leak.",
)
