"""Finding the program in a response."""

import time

import pytest

from trimtab.tasks.grading.code_extract import NoProgramError, extract_program

HUMANEVAL = 'from typing import List\n\ndef f(x: List[int]) -> int:\n    """Sum it."""\n'
GOOD = "def f(x):\n    return x\n"


def fenced(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}```\n"


@pytest.mark.parametrize(
    "response",
    [
        GOOD,
        fenced(GOOD),
        fenced(GOOD, ""),
        fenced(GOOD, "Python"),
        "~~~python\n" + GOOD + "~~~\n",
        "Here it is.\n" + fenced(GOOD) + "It works.",
        fenced("def f(x):\n    return 'first try'\n") + "No, rather:\n" + fenced(GOOD),
        fenced(GOOD) + "Use it like this:\n" + fenced("assert f(1) == 1\n"),
        fenced(GOOD) + "It prints\n" + fenced("1\n", "text"),
        "I try\n" + fenced("def f(x):\n    return 'thought'\n") + "</think>\n" + fenced(GOOD),
        "```python\n" + GOOD,
        fenced(GOOD) + "and a snippet\n" + fenced("def f(x):\n    ... (\n"),
    ],
)
def test_the_last_block_that_defines_the_function(response: str) -> None:
    assert extract_program(response, "f", "") == GOOD


def test_a_block_in_a_list_loses_the_list_s_indentation_alone() -> None:
    code = 'def f(x):\n    return """\n    \n  kept"""\n'
    response = "1. Write\n   ```python\n" + "".join("   " + line for line in code.splitlines(keepends=True)) + "   ```\n"
    assert extract_program(response, "f", "") == code
    assert extract_program(fenced(code), "f", "") == code


@pytest.mark.parametrize(
    "body", ["    return sum(x)\n", "return sum(x)\n", "    s = 0\n    for y in x:\n        s += y\n    return s\n"]
)
@pytest.mark.parametrize("fence", [True, False])
def test_a_bare_body_continues_the_prompt(body: str, fence: bool) -> None:
    program = extract_program(fenced(body) if fence else body, "f", HUMANEVAL)
    namespace: dict = {}
    exec(program, namespace)
    assert namespace["f"]([1, 2]) == 3


def test_a_body_with_a_helper_after_it_continues_the_prompt() -> None:
    namespace: dict = {}
    exec(extract_program("    return g(x)\n\ndef g(x):\n    return 7\n", "f", HUMANEVAL), namespace)
    assert namespace["f"]([]) == 7


def test_an_example_is_no_body() -> None:
    with pytest.raises(NoProgramError, match=r"^does not define f$"):
        extract_program(fenced("print(f([1]))\n"), "f", HUMANEVAL)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "no code found"),
        ("   \n", "no code found"),
        ("I cannot do it.", "no code found"),
        (fenced(GOOD) + "</think>", "no code found"),
        (fenced("cat file\n", "bash"), "no code found"),
        (fenced("def g(x):\n    return x\n"), "does not define f"),
        (fenced("class A:\n    def f(self):\n        return 1\n"), "does not define f"),
        (fenced("x = 1\nx.f = 2\n"), "does not define f"),
        (fenced("def f(x):\nreturn x\n"), r"syntax error: expected an indented block .*\(line 2\)"),
        ("def f(x)\n    return x\n", r"syntax error: expected ':' \(line 1\)"),
        (fenced("def f(x):\n    return '\0'\n"), "syntax error: source code string cannot contain null bytes"),
    ],
)
def test_why_there_is_no_program(response: str, reason: str) -> None:
    with pytest.raises(NoProgramError, match=f"^{reason}"):
        extract_program(response, "f", "")


@pytest.mark.parametrize(
    "code",
    [
        "f = lambda x: x\n",
        "from math import floor as f\n",
        "class f:\n    pass\n",
        "async def f(x):\n    return x\n",
        "try:\n    import numpy\nexcept ImportError:\n    pass\nif True:\n    def f(x):\n        return x\n",
        "f: object = abs\n",
    ],
)
def test_other_ways_to_define_it(code: str) -> None:
    assert extract_program(fenced(code), "f", "") == code


@pytest.mark.parametrize(
    "noise",
    [
        "Let me think about ``` and ~~~ again.\n" * 25_000,
        "`" * 10**6 + "\n" + "`" * 10**6 + "\n",
        "```" + "a" * 10**6 + "\n```\n",
    ],
)
def test_a_long_response_is_read_quickly(noise: str) -> None:
    start = time.process_time()
    assert extract_program(noise + fenced(GOOD), "f", "") == GOOD
    assert time.process_time() - start < 5


def test_a_longer_fence_holds_a_shorter_one() -> None:
    code = 'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return x\n'
    assert extract_program(f"````python\n{code}````\n", "f", "") == code


def test_inline_fences_are_no_blocks() -> None:
    assert extract_program("```def f``` is defined so:\n" + fenced(GOOD), "f", "") == GOOD
