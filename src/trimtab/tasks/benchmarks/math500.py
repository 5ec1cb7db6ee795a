"""MATH-500: five hundred test problems of MATH that test what its training split found."""

from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Part
from trimtab.tasks.benchmarks.math_full import CONFIGS, HENDRYCKS, SUBJECTS, entry
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.traces import AnswerKind

MATH500 = Benchmark(
    name="math500",
    title="MATH-500",
    parts=(
        Part(HENDRYCKS, "train", FIND_AND_TUNE, CONFIGS),
        Part("HuggingFaceH4/MATH-500", "test", TEST),
    ),
    kind=AnswerKind.MATH,
    entry=entry,
    prompt=MATH_THINKING,
    domains=SUBJECTS,
    leaks="Its problems are a part of the test split of math: neurons found there by hand would leak.",
)
