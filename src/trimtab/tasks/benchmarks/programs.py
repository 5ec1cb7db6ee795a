"""What the code benchmarks share: which function the tests call, and the tests as the grader of code reads them."""

import ast
from collections.abc import Sequence

from pydantic import ValidationError

from trimtab.errors import InputError
from trimtab.tasks.grading.code_tests import CodeTests, Suite


def unix_lines(text: str) -> str:
    """MBPP was written on Windows: its programs end their lines with CR LF."""
    return text.replace("\r\n", "\n")


def code_tests(entry_point: str, suites: Sequence[dict[str, object]], preamble: str = "") -> str:
    """``Problem.tests``: the JSON of :class:`trimtab.tasks.grading.code_tests.CodeTests`. Raises InputError for what is none."""
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
