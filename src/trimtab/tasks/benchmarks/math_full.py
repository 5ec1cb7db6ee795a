"""MATH (Hendrycks et al. 2021): seven subjects, which are the domains."""

from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Decoding, Entry, Part, cell
from trimtab.tasks.benchmarks.competition import last_box, level
from trimtab.tasks.benchmarks.wording import MATH as MATH_PROMPT
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind

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


def entry(row: Row) -> Entry:
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
    entry=entry,
    prompt=MATH_PROMPT,
    decoding=Decoding(max_new_tokens=4096),
    domains=SUBJECTS,
    leaks="The 500 problems of math500 stand in its test split.",
)
