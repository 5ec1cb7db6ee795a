"""The benchmarks of code: HumanEval and MBPP, and both with EvalPlus's tests.

They share how the tests name the function that they call, and the tests as the grader of code reads them.
"""

import ast
from collections.abc import Sequence

from pydantic import ValidationError

from trimtab.errors import InputError
from trimtab.tasks.benchmark import ALL, CODE, TEST, Benchmark, Entry, Part, cell
from trimtab.tasks.files import Row
from trimtab.tasks.grading.code import CodeTests, Suite
from trimtab.traces import AnswerKind, Split


def unix_lines(text: str) -> str:
    """MBPP was written on Windows: its programs end their lines with CR LF."""
    return text.replace("\r\n", "\n")


def code_tests(entry_point: str, suites: Sequence[dict[str, object]], preamble: str = "") -> str:
    """``Problem.tests``: the JSON of :class:`trimtab.tasks.grading.code.CodeTests`. Raises InputError for what is none."""
    try:
        found = tuple(Suite.model_validate(suite) for suite in suites)
        return CodeTests(entry_point=entry_point, preamble=preamble, suites=found).model_dump_json()
    except ValidationError as error:
        raise InputError(f"the tests cannot be used: {'; '.join(issue['msg'] for issue in error.errors())}") from error


def tests_from_json(text: str) -> str:
    """The same, checked, from JSON that somebody else wrote."""
    try:
        return CodeTests.model_validate_json(text).model_dump_json()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors())
        raise InputError(
            f"the tests are no CodeTests ({wrong}); give a list of asserts, or "
            '{"entry_point": "f", "suites": [{"name": "base", "asserts": ["assert f(1) == 2"]}]}'
        ) from error


def entry_point_of(code: str, asserts: Sequence[str]) -> str:
    """The function that a solution must define: MBPP names it in its asserts alone.

    It is the outermost call in the first assert whose name the reference solution defines, so that neither ``set(...)`` around it
    nor a helper class among its arguments is taken for it, and one called ``sum``, as in MBPP 126, is found.

    Raises:
        InputError: the solution or an assert is not Python, or no assert calls what the solution defines.

    Example:
        >>> entry_point_of("class P: ...\\ndef chain(ps): ...", ["assert set(chain([P(1)])) == set((3,))"])
        'chain'
    """
    defined = {name for node in _parsed(code).body for name in _names(node)}
    for text in asserts:
        for node in ast.walk(_parsed(text)):  # breadth first, so the outermost call comes first
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
                return node.func.id
    raise InputError(f"no test calls what the reference solution defines ({', '.join(sorted(defined)) or 'nothing'})")


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"not Python: {error}: {source[:80]!r}") from error


def humaneval_entry(row: Row, suite: str = "base") -> Entry:
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
    entry=humaneval_entry,
    prompt=CODE,
    leaks="Its 164 problems are those of humaneval-plus, which has more tests.",
)


def humaneval_plus_entry(row: Row) -> Entry:
    """The schema of HumanEval; ``test`` holds the base tests too."""
    return humaneval_entry(row, "plus")


HUMANEVAL_PLUS = Benchmark(
    name="humaneval-plus",
    title="HumanEval+",
    parts=(Part("evalplus/humanevalplus", "test", ALL),),
    kind=AnswerKind.CODE,
    entry=humaneval_plus_entry,
    prompt=CODE,
    leaks="Its 164 problems are those of humaneval.",
)


def question_of(text: str, first_assert: str) -> str:
    """The task as a docstring with one assert, without which nobody could know the function's name."""
    return f'"""\n{text.strip()}\n{first_assert.strip()}\n"""'


def asserts_of(row: Row) -> list[str]:
    """The asserts of a row. Raises InputError where there are none."""
    asserts = row.get("test_list")
    if not isinstance(asserts, list) or not asserts:
        raise InputError(f"test_list must be a list of asserts, got {str(asserts)[:80]}")
    return [unix_lines(str(line)) for line in asserts]


def mbpp_entry(row: Row) -> Entry:
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
    entry=mbpp_entry,
    prompt=CODE,
    leaks="Several tasks of its splits are the same in other words. mbpp-plus takes its problems from all of its splits.",
)


def mbpp_plus_entry(row: Row) -> Entry:
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
    entry=mbpp_plus_entry,
    prompt=CODE,
    leaks="Its problems come from every split of mbpp: 129 of the 378 also stand in AdaRAS's train and validation files.",
)
