"""AIME 2024: thirty problems are too few to be divided, so all of them test what older years found."""

from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Part
from trimtab.tasks.benchmarks.aime import OLDER_YEARS
from trimtab.tasks.benchmarks.competition import aime_entry, of_2024
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.traces import AnswerKind

AIME24 = Benchmark(
    name="aime24",
    title="AIME 2024",
    parts=(
        Part(OLDER_YEARS, "train", FIND_AND_TUNE, leaves_out=of_2024),
        Part("Maxwell-Jia/AIME_2024", "train", TEST),
    ),
    kind=AnswerKind.MATH,
    entry=aime_entry,
    prompt=MATH_THINKING,
    leaks="The repository of the older years holds 2024 too; those rows are left out.",
)
