"""HumanEval: a signature and a docstring to complete, tested by the official ``check``."""

from trimtab.tasks.benchmark import ALL, Benchmark, Entry, Part, cell
from trimtab.tasks.benchmarks.programs import code_tests
from trimtab.tasks.benchmarks.wording import CODE
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind


def entry(row: Row, suite: str = "base") -> Entry:
    """``prompt``, ``canonical_solution``, ``test`` with ``check(candidate)``, and ``entry_point``.

    The prompt comes before the answer when the tests run: it brings the imports and helpers that a response may not repeat.
    """
    prompt = cell(row, "prompt")
    return Entry(
        question=prompt.strip(),
        answer=prompt + cell(row, "canonical_solution"),
        id=cell(row, "task_id"),
        tests=code_tests(cell(row, "entry_point"), [{"name": suite, "source": cell(row, "test")}], preamble=prompt),
    )


HUMANEVAL = Benchmark(
    name="humaneval",
    title="HumanEval",
    parts=(Part("openai/openai_humaneval", "test", ALL),),
    kind=AnswerKind.CODE,
    entry=entry,
    prompt=CODE,
    leaks="Its 164 problems are those of humaneval-plus, which has more tests.",
)
