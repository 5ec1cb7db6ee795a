"""AIME: the years before 2024, from which AdaRAS draws its training problems and AIME-Extend, and the two years they test.

Thirty problems are too few to be divided, so all of a newer year test what older years found.
"""

from trimtab.tasks.benchmark import ALL, FIND_AND_TUNE, TEST, Benchmark, Part
from trimtab.tasks.benchmarks.competition import aime_entry, of_2024
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.traces import AnswerKind

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
