"""AMC 12: the forty problems of 2023 that are usually reported test what those of 2022 found."""

import re

from trimtab.errors import InputError
from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Entry, Part, cell
from trimtab.tasks.benchmarks.competition import number_text
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind

_YEAR = re.compile(r"(20\d\d)_AMC")


def entry(row: Row) -> Entry:
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
    entry=entry,
    prompt=MATH_THINKING,
    leaks="The train split's repository holds 2023 too, from which math-ai/amc23 is drawn; those rows are left out.",
)
