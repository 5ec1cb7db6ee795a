"""HumanEval+ (EvalPlus): the problems of HumanEval with about eighty times as many tests."""

from trimtab.tasks.benchmark import ALL, Benchmark, Entry, Part
from trimtab.tasks.benchmarks import humaneval
from trimtab.tasks.benchmarks.wording import CODE
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind


def entry(row: Row) -> Entry:
    """The schema of HumanEval; ``test`` holds the base tests too."""
    return humaneval.entry(row, "plus")


HUMANEVAL_PLUS = Benchmark(
    name="humaneval-plus",
    title="HumanEval+",
    parts=(Part("evalplus/humanevalplus", "test", ALL),),
    kind=AnswerKind.CODE,
    entry=entry,
    prompt=CODE,
    leaks="Its 164 problems are those of humaneval.",
)
