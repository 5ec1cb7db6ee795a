"""AIME before 2024: the years from which AdaRAS draws its training problems and AIME-Extend."""

from trimtab.tasks.benchmark import ALL, Benchmark, Part
from trimtab.tasks.benchmarks.competition import aime_entry, of_2024
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.traces import AnswerKind

OLDER_YEARS = "gneubig/aime-1983-2024"

AIME = Benchmark(
    name="aime",
    title="AIME, 1983 to 2023",
    parts=(Part(OLDER_YEARS, "train", ALL, leaves_out=of_2024),),
    kind=AnswerKind.MATH,
    entry=aime_entry,
    prompt=MATH_THINKING,
    leaks="The repository holds 2024 too; those rows are left out, since they are the test set of aime24.",
)
