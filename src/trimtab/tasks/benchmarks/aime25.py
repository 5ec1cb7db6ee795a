"""AIME 2025: thirty problems that test what older years found."""

from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Part
from trimtab.tasks.benchmarks.aime import OLDER_YEARS
from trimtab.tasks.benchmarks.competition import aime_entry, of_2024
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.traces import AnswerKind

AIME25 = Benchmark(
    name="aime25",
    title="AIME 2025",
    parts=(
        Part(OLDER_YEARS, "train", FIND_AND_TUNE, leaves_out=of_2024),
        Part("math-ai/aime25", "test", TEST),
    ),
    kind=AnswerKind.MATH,
    entry=aime_entry,
    prompt=MATH_THINKING,
)
