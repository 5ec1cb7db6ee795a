"""Ways to write a program into a response: each is found and passes, and a wrong program in the same dress fails."""

import pytest

from trimtab.tasks.grading.code import CodeGrader, CodeTests, Suite
from trimtab.traces import AnswerKind, Problem, Split

PREAMBLE = (
    "from typing import List\n\n\ndef total(xs: List[int]) -> int:\n"
    '    """Add the numbers up.\n    >>> total([1, 2])\n    3\n    """\n'
)
ASSERTS = ("assert total([1, 2, 3]) == 6", "assert total([]) == 0")
BODY = "    result = 0\n    for x in xs:\n        result = result + x\n    return result\n"
GOOD = "def total(xs):\n" + BODY

WITHOUT_PREAMBLE = {
    "plain": GOOD,
    "fence": f"```python\n{GOOD}```",
    "py": f"```py\n{GOOD}```",
    "py3": f"```py3\n{GOOD}```",
    "Python3": f"```Python3\n{GOOD}```",
    "ipython": f"```ipython\n{GOOD}```",
    "ipython3": f"```ipython3\n{GOOD}```",
    "braces": f"```{{.python}}\n{GOOD}```",
    "file name": f"```python:total.py\n{GOOD}```",
    "title": f'```python title="total.py"\n{GOOD}```',
    "no language": f"```\n{GOOD}```",
    "code": f"```code\n{GOOD}```",
    "tilde": f"~~~python\n{GOOD}~~~",
    "long fence": f"`````python\n{GOOD}`````",
    "unclosed": f"```python\n{GOOD}",
    "prose around": f"Sure!\n\n```python\n{GOOD}```\nThis adds the numbers.",
    "prose on the line": f"Here it is: ```python\n{GOOD}```",
    "closed on the line": f"```python\n{GOOD.rstrip()}```",
    "prose after": f"{GOOD}\nThis function adds the numbers.\n",
    "prose before and after": f"Here is my program.\n\n{GOOD}\nIt's simple, isn't it?\n",
    "begin and done": f"[BEGIN]\n{GOOD}[DONE]",
    "python tags": f"[PYTHON]\n{GOOD}[/PYTHON]",
    "python tags in prose": f"I think so.\n[PYTHON]\n{GOOD}[/PYTHON]\nDone.",
    "tags around a fence": f"[PYTHON]\n```python\n{GOOD}```\n[/PYTHON]",
    "answer tags": f"<answer>\n{GOOD}</answer>",
    "answer tags around a fence": f"<answer>\n```python\n{GOOD}```\n</answer>",
    "code tags": f"<code>\n{GOOD}</code>",
    "end of text": f"```python\n{GOOD}```<|im_end|>",
    "end of text in the code": f"{GOOD}<|endoftext|>",
    "end of sequence": f"```python\n{GOOD}```</s>",
    "byte order mark": f"\ufeff{GOOD}",
    "byte order mark in a fence": f"```python\n\ufeff{GOOD}```",
    "no-break spaces": f"```python\n{GOOD.replace('    ', chr(160) * 4)}```",
    "windows lines": f"```python\n{GOOD}```".replace("\n", "\r\n"),
    "quoted": "".join(f"> {line}\n" for line in f"```python\n{GOOD}```".splitlines()),
    "in a list": "1. Write\n   ```python\n" + "".join(f"   {line}\n" for line in GOOD.splitlines()) + "   ```\n",
    "session": "```pycon\n>>> def total(xs):\n"
    + "".join(f"... {line}\n" for line in BODY.splitlines())
    + "...\n>>> total([1])\n1\n```",
    "lambda": "```python\ntotal = lambda xs: sum(xs) + 0\n```".replace("sum(xs) + 0", "0 + sum(xs)"),
    "thought": f"<think>\n```python\ndef total(xs): return 1\n```\n</think>\n```python\n{GOOD}```",
    "usage after": f"```python\n{GOOD}```\nUse it:\n```python\nprint(total([1, 2]))\n```",
    "import after": f"```python\n{GOOD}```\nUse it:\n```python\nfrom total import total\nprint(total([1, 2]))\n```",
    "output after": f"```python\n{GOOD}```\nIt prints\n```\n3\n```",
    "shell before": f"```bash\npip install nothing\n```\n```python\n{GOOD}```",
    "draft before": f"```python\ndef total(xs):\n    return 1\n```\nBetter:\n```python\n{GOOD}```",
    "helper before": "```python\ndef plus(a, b):\n    return a + b\n```\nand\n```python\n"
    + GOOD.replace("result + x", "plus(result, x)")
    + "```",
    "helper after": "```python\n"
    + GOOD.replace("result + x", "plus(result, x)")
    + "```\nwith\n```python\ndef plus(a, b):\n    return a + b\n```",
    "import before": "```python\nimport operator\n```\nthen\n```python\n"
    + GOOD.replace("result + x", "operator.add(result, x)")
    + "```",
    "constant of another block": "```python\nZERO = 0\n```\n```python\n" + GOOD.replace("result = 0", "result = ZERO") + "```",
    "fence in the docstring": "```python\ndef total(xs):\n    '''Add.\n\n    ```\n    total([1]) == 1\n    ```\n    '''\n"
    + BODY
    + "```",
    "python fence in the docstring": '```python\ndef total(xs):\n    """Add.\n\n    ```python\n    total([1])\n    ```\n    """\n'
    + BODY
    + "```",
    "short fence inside": f"Plan:\n    `````python\n    # think\n    ```\n\nNow:\n\n````python\n{GOOD}````\n",
    "main guard": f"```python\n{GOOD}\nif __name__ == '__main__':\n    print(total([int(input())]))\n```",
    "cut off after it": f"{GOOD}\n\ndef other(a):\n    return (a +",
    "cut off in a fence": f"```python\n{GOOD}\n\ndef other(a):\n    return (a +",
    "tests cut off": f"```python\n{GOOD}\nassert total([1, 2",
    "mistral thinking": f"[THINK]def total(xs): return 1[/THINK]```python\n{GOOD}```",
    "typed": f"```python\nfrom typing import List\n{GOOD.replace('(xs)', '(xs: List[int]) -> int')}```",
    "async neighbours": f"```python\nasync def f():\n    return 1\n\n{GOOD}```",
    "decorated": "```python\nimport functools\n\n@functools.lru_cache(None)\ndef zero():\n    return 0\n\n"
    + GOOD.replace("= 0", "= zero()")
    + "```",
}
BODIES = {
    "indented": BODY,
    "at the edge": "".join(line[4:] + "\n" for line in BODY.splitlines()),
    "fence": f"```python\n{BODY}```",
    "fence at the edge": "```python\n" + "".join(line[4:] + "\n" for line in BODY.splitlines()) + "```",
    "tabs": BODY.replace("    ", "\t"),
    "two spaces": BODY.replace("    ", "  "),
    "a function after": BODY + "\n\ndef other(x):\n    return x\n",
    "cut off": BODY + "\n\ndef other(x):\n    return (x +",
    "prose after": BODY + "\nThis adds the numbers up.\n",
    "prose before": "Here is the body:\n" + BODY,
    "special token": BODY + "<|endoftext|>",
    "tests after": BODY + "\n\nassert total([1, 2]) == 3\nprint(total([",
    "whole with typing": "```python\n" + GOOD.replace("(xs)", "(xs: List[int]) -> int") + "```",
}
NO_PROGRAM = {
    "prose": "I would add the numbers.",
    "empty": "",
    "imports": "```python\nimport math\nfrom typing import List\n```",
    "tests": "```python\nassert total([1]) == 1\n```",
    "another name": GOOD.replace("total", "totals"),
    "thought alone": f"<think>```python\n{GOOD}```",
    "pass": "def total(xs):\n    pass\n",
    "none": "```python\ndef total(xs):\n    return None\n```",
    "javascript": "```javascript\nfunction total(xs) { return xs.reduce((a, b) => a + b, 0); }\n```",
    "itself imported": "```python\nfrom total import total\n```",
    "cut off inside": "```python\ndef total(xs):\n    result = 0\n    for x in xs:\n        result = (result",
}


@pytest.fixture(scope="module")
def grader() -> CodeGrader:
    return CodeGrader()


def _scores(grader: CodeGrader, responses: list[str], preamble: str = "", asserts: tuple[str, ...] = ASSERTS) -> list[str]:
    tests = CodeTests(entry_point="total", preamble=preamble, suites=(Suite(name="base", asserts=asserts),)).model_dump_json()
    problem = Problem("p", "?", "", Split.TEST, kind=AnswerKind.CODE, tests=tests)
    return [one.score.value for one in grader.judge([(problem, response) for response in responses])]


def _wrong(response: str) -> str:
    """The same response with programs that subtract."""
    for right, wrong in (
        ("result + x", "result - x"),
        ("0 + sum", "1 + sum"),
        ("plus(result, x)", "-plus(result, x)"),
        ("operator.add", "operator.sub"),
    ):
        response = response.replace(right, wrong)
    return response


def _named(scores: list[str], responses: dict[str, str]) -> dict[str, str]:
    return dict(zip(responses, scores, strict=True))


@pytest.mark.parametrize("preamble", ["", PREAMBLE])
def test_the_program_is_found(grader: CodeGrader, preamble: str) -> None:
    scores = _scores(grader, [*WITHOUT_PREAMBLE.values()], preamble)
    assert _named(scores, WITHOUT_PREAMBLE) == dict.fromkeys(WITHOUT_PREAMBLE, "correct")


def test_a_wrong_program_fails_in_every_dress(grader: CodeGrader) -> None:
    scores = _scores(grader, [_wrong(response) for response in WITHOUT_PREAMBLE.values()])
    assert _named(scores, WITHOUT_PREAMBLE) == dict.fromkeys(WITHOUT_PREAMBLE, "incorrect")


def test_a_body_continues_the_preamble(grader: CodeGrader) -> None:
    assert _named(_scores(grader, [*BODIES.values()], PREAMBLE), BODIES) == dict.fromkeys(BODIES, "correct")
    wrong = _scores(grader, [_wrong(response) for response in BODIES.values()], PREAMBLE)
    assert _named(wrong, BODIES) == dict.fromkeys(BODIES, "incorrect")


@pytest.mark.parametrize("preamble", ["", PREAMBLE])
def test_no_program(grader: CodeGrader, preamble: str) -> None:
    assert _named(_scores(grader, [*NO_PROGRAM.values()], preamble), NO_PROGRAM) == dict.fromkeys(NO_PROGRAM, "incorrect")


BEHAVIOURS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a function is returned": ("def total(n):\n    return lambda x: x + n\n", ("assert total(2)(3) == 5",), "correct"),
    "another function is returned": ("def total(n):\n    return lambda x: x - n\n", ("assert total(2)(3) == 5",), "incorrect"),
    "a counter": (
        "def total():\n    n = 0\n    def step():\n        nonlocal n\n        n += 1\n        return n\n    return step\n",
        ("s = total()\nassert s() == 1\nassert s() == 2",),
        "correct",
    ),
    "a function of functions": (
        "def total(n):\n    return lambda f: lambda x: f + x + n\n",
        ("assert total(1)(2)(3) == 6",),
        "correct",
    ),
    "sorted in place": ("def total(xs):\n    xs.sort()\n", ("xs = [3, 1, 2]\ntotal(xs)\nassert xs == [1, 2, 3]",), "correct"),
    "not sorted in place": (
        "def total(xs):\n    sorted(xs)\n",
        ("xs = [3, 1, 2]\ntotal(xs)\nassert xs == [1, 2, 3]",),
        "incorrect",
    ),
    "in place and returned": (
        "def total(xs):\n    xs.append(4)\n    return xs\n",
        ("xs = [3]\nassert total(xs) is xs\nassert xs == [3, 4]",),
        "correct",
    ),
    "a nested list in place": (
        "def total(grid):\n    grid[0][1] = 7\n",
        ("row = [1, 2]\ngrid = [row, [3]]\ntotal(grid)\nassert row == [1, 7]\nassert grid == [[1, 7], [3]]",),
        "correct",
    ),
    "a dictionary in place": (
        "def total(d):\n    d['b'] = 2\n",
        ("d = {'a': 1}\ntotal(d)\nassert d == {'a': 1, 'b': 2}",),
        "correct",
    ),
    "a set in place": ("def total(s):\n    s.discard(1)\n", ("s = {1, 2}\ntotal(s)\nassert s == {2}",), "correct"),
    "arguments stay when it returns something new": (
        "def total(xs):\n    ys = sorted(xs)\n    return ys\n",
        ("xs = [2, 1]\nassert total(xs) == [1, 2]\nassert xs == [2, 1]",),
        "correct",
    ),
    "endless": ("def total(xs):\n    while True:\n        pass\n", ASSERTS, "incorrect"),
    "too much memory": ("def total(xs):\n    return [0] * 10**12\n", ASSERTS, "incorrect"),
    "too deep": ("def total(xs):\n    return total(xs)\n", ASSERTS, "incorrect"),
    "it ends itself": ("import os\ndef total(xs):\n    os._exit(0)\n", ASSERTS, "incorrect"),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(grader: CodeGrader, name: str) -> None:
    program, asserts, expected = BEHAVIOURS[name]
    assert _scores(grader, [program], "", asserts) == [expected]
