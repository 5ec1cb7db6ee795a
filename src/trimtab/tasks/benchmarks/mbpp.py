"""MBPP: a sentence and three asserts, of which the prompt shows the first, as AdaRAS and EvalPlus do."""

from trimtab.errors import InputError
from trimtab.tasks.benchmark import TEST, Benchmark, Entry, Part, cell
from trimtab.tasks.benchmarks.programs import code_tests, entry_point_of, unix_lines
from trimtab.tasks.benchmarks.wording import CODE
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind, Split


def question_of(text: str, first_assert: str) -> str:
    """The task as a docstring with one assert, without which nobody could know the function's name."""
    return f'"""\n{text.strip()}\n{first_assert.strip()}\n"""'


def asserts_of(row: Row) -> list[str]:
    """The asserts of a row. Raises InputError where there are none."""
    asserts = row.get("test_list")
    if not isinstance(asserts, list) or not asserts:
        raise InputError(f"test_list must be a list of asserts, got {str(asserts)[:80]}")
    return [unix_lines(str(line)) for line in asserts]


def entry(row: Row) -> Entry:
    """``text``, ``code``, ``test_list`` and ``test_setup_code``; the challenge tests are no part of the official score."""
    asserts, code = asserts_of(row), unix_lines(cell(row, "code"))
    setup = unix_lines(str(row.get("test_setup_code") or ""))
    return Entry(
        question=question_of(cell(row, "text"), asserts[0]),
        answer=code,
        id=cell(row, "task_id"),
        tests=code_tests(entry_point_of(code, asserts), [{"name": "base", "setup": setup, "asserts": asserts}]),
    )


MBPP = Benchmark(
    name="mbpp",
    title="MBPP",
    parts=(
        Part("google-research-datasets/mbpp", "train", (Split.TRAIN,), ("full",)),
        Part("google-research-datasets/mbpp", "validation", (Split.VALIDATION,), ("full",)),
        Part("google-research-datasets/mbpp", "test", TEST, ("full",)),
    ),
    kind=AnswerKind.CODE,
    entry=entry,
    prompt=CODE,
    leaks="Several tasks of its splits are the same in other words. mbpp-plus takes its problems from all of its splits.",
)
