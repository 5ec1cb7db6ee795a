"""MBPP+ (EvalPlus): 378 tasks of MBPP, corrected, with many more tests."""

from trimtab.errors import InputError
from trimtab.tasks.benchmark import ALL, Benchmark, Entry, Part, cell
from trimtab.tasks.benchmarks.mbpp import asserts_of, question_of
from trimtab.tasks.benchmarks.programs import code_tests, entry_point_of, unix_lines
from trimtab.tasks.benchmarks.wording import CODE
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind


def entry(row: Row) -> Entry:
    """``prompt``, ``code``, ``test_imports``, ``test_list`` (the official asserts) and ``test`` (all of EvalPlus)."""
    asserts, code = asserts_of(row), unix_lines(cell(row, "code"))
    imports = row.get("test_imports")
    if not isinstance(imports, list):
        raise InputError(f"test_imports must be a list of imports, got {str(imports)[:80]}")
    setup = "\n".join(map(str, imports))
    base: dict[str, object] = {"name": "base", "setup": setup, "asserts": asserts}
    plus: dict[str, object] = {"name": "plus", "setup": setup, "source": unix_lines(cell(row, "test"))}
    return Entry(
        question=question_of(cell(row, "prompt"), asserts[0]),
        answer=code,
        id=cell(row, "task_id"),
        tests=code_tests(entry_point_of(code, asserts), [base, plus]),
    )


MBPP_PLUS = Benchmark(
    name="mbpp-plus",
    title="MBPP+",
    parts=(Part("evalplus/mbppplus", "test", ALL),),
    kind=AnswerKind.CODE,
    entry=entry,
    prompt=CODE,
    leaks="Its problems come from every split of mbpp: 129 of the 378 also stand in AdaRAS's train and validation files.",
)
