"""Each benchmark reads its own small file in the schema of the hub, odd cases included."""

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.tasks import benchmark as benchmark_module
from trimtab.tasks.benchmark import MATH
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.loading import REPEATED, read_benchmark
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import AnswerKind, Problem, Split

DATA = Path(__file__).parents[3] / "data" / "benchmarks"

EXPECTED = {
    # answers that are numbers lose zeros in front and fractions of zero; the row of 2024 is left out
    "aime": [("1983-3", "21", "", 3), ("1999-11", "179", "", 11), ("2021-I-1", "97", "", 1)],
    "aime24": [("2024-II-4", "33", "", 4), ("2024-I-2", "25", "", 2), ("60", "25", "", 0)],
    "aime25": [("0", "70", "", 0), ("1", "336^\\circ", "", 0), ("2", "7", "", 0)],
    # ids clash between the two repositories, so the rows are numbered
    "amc12": [("row-00001", "27", "", 0), ("row-00002", "36", "", 0), ("row-00003", "0.5", "", 0), ("row-00004", "-4", "", 0)],
    "math500": [
        ("test/precalculus/807.json", "\\left( 3, \\frac{\\pi}{2} \\right)", "Precalculus", 2),
        ("test/number_theory/515.json", "12", "Number Theory", 3),
        ("test/counting_and_probability/1.json", "0", "Counting & Probability", 5),
    ],
    "math": [
        ("row-00001", "2", "Algebra", 5),
        ("row-00002", "\\frac{1}{2}", "Prealgebra", 1),
        ("row-00003", "12\\pi", "Geometry", 0),
        ("row-00004", "7", "Number Theory", 3),
        ("row-00005", "\\text{even}", "Intermediate Algebra", 2),
        ("row-00006", "\\{1,\\sqrt{2}\\}", "Counting & Probability", 4),
        ("row-00007", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "Precalculus", 4),
    ],
    # the difficulty of GSM8K is the number of lines of its solution
    "gsm8k": [
        ("row-00001", "72", "", 2),
        ("row-00002", "1600", "", 1),
        ("row-00003", "-5", "", 1),
        ("row-00004", "12.50", "", 1),
        ("row-00005", "75", "", 2),
    ],
    "commonsense-qa": [("1afa02df", "A", "", 0), ("a7ab086045", "B", "", 0)],
    "strategy-qa": [("872bbe801edce7edf0d2", "no", "", 0), ("c69397b4341b65ed080f", "yes", "", 0)],
    "mmlu": [
        ("row-00001", "C", "abstract_algebra", 0),
        ("row-00002", "A", "world_religions", 0),
        ("row-00003", "D", "philosophy", 0),
    ],
    "humaneval": [("HumanEval/0", "double_all", "", 0), ("HumanEval/1", "unshift", "", 0)],
    "humaneval-plus": [("HumanEval/0", "double_all", "", 0), ("HumanEval/1", "unshift", "", 0)],
    "mbpp": [("11", "trim_ends", "", 0), ("601", "longest_chain", "", 0), ("590", "to_polar", "", 0)],
    "mbpp-plus": [("2", "shared", "", 0), ("7", "circle_area", "", 0)],
}
LEFT_OUT = {
    "aime": {"the row is of 2024, and those problems are the test set of aime24": 1},
    "commonsense-qa": {"the row has an empty answerKey": 1},
    "mmlu": {REPEATED: 1},
}
KINDS = {
    AnswerKind.MATH: {"aime", "aime24", "aime25", "amc12", "math", "math500", "gsm8k"},
    AnswerKind.CHOICE: {"commonsense-qa", "mmlu"},
    AnswerKind.YES_NO: {"strategy-qa"},
    AnswerKind.CODE: {"humaneval", "humaneval-plus", "mbpp", "mbpp-plus"},
}


def _load(name: str, path: Path | None = None) -> tuple[list[Problem], dict[str, int]]:
    problems, _, left_out = read_benchmark(BENCHMARKS[name], TaskSettings(source=name, data=str(path or DATA / f"{name}.jsonl")))
    return problems, left_out


def _changed(name: str, folder: Path, row: int = 0, drop: str = "", **fields: object) -> Path:
    """The benchmark's file with one row changed."""
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    rows[row] = {key: value for key, value in {**rows[row], **fields}.items() if key != drop}
    path = folder / "changed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_benchmark_is_tested() -> None:
    assert set(BENCHMARKS) == set(EXPECTED) == set.union(*KINDS.values())
    assert {path.stem for path in DATA.glob("*.jsonl")} == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_schema(name: str) -> None:
    problems, left_out = _load(name)
    kind = BENCHMARKS[name].kind
    assert name in KINDS[kind]
    assert {problem.kind for problem in problems} == {kind}
    answers = [json.loads(p.tests)["entry_point"] if kind is AnswerKind.CODE else p.answer for p in problems]
    found = [(p.id, answer, p.domain, p.difficulty) for p, answer in zip(problems, answers, strict=True)]
    assert found == EXPECTED[name]
    assert left_out == LEFT_OUT.get(name, {})
    assert all(bool(p.choices) == (kind is AnswerKind.CHOICE) for p in problems)
    assert all(bool(p.tests) == (kind is AnswerKind.CODE) for p in problems)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_prompt_holds_the_question(name: str) -> None:
    problem = _load(name)[0][0]
    text = BENCHMARKS[name].prompt.wrap(problem.question)
    assert problem.question in text
    assert len(text) > len(problem.question)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_official_split_goes_somewhere_and_test_is_its_own(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert {split for part in benchmark.parts for split in part.to} == set(Split)
    official_test = [part for part in benchmark.parts if Split.TEST in part.to]
    assert len(official_test) == 1
    others = {(part.hub_id, part.split) for part in benchmark.parts if part is not official_test[0]}
    assert (official_test[0].hub_id, official_test[0].split) not in others


def test_choices_stand_below_the_question() -> None:
    assert _load("commonsense-qa")[0][1].question == (
        "What do invented people do when they are tired?\nA. sing\nB. sleep\nC. run\nD. shout\nE. swim"
    )
    assert _load("mmlu")[0][1].question.splitlines()[1] == "A. The first."


def test_the_tests_of_code_problems() -> None:
    def tests(name: str, place: int) -> dict[str, Any]:
        return json.loads(_load(name)[0][place].tests)

    assert tests("humaneval", 1)["preamble"].startswith("def shift")
    for name, suites in {
        "humaneval": ["base"],
        "humaneval-plus": ["plus"],
        "mbpp": ["base"],
        "mbpp-plus": ["base", "plus"],
    }.items():
        assert [suite["name"] for suite in tests(name, 0)["suites"]] == suites
    assert tests("mbpp", 2)["suites"][0]["setup"] == "root = 5"
    assert tests("mbpp-plus", 1)["suites"][1]["setup"] == "import math"
    assert len(tests("mbpp", 0)["suites"][0]["asserts"]) == 3  # without the challenge test


def test_mbpp_shows_the_first_assert_and_keeps_unix_lines() -> None:
    problem = _load("mbpp")[0][0]
    sentence = "Write a python function to remove the first and last invented character of a string."
    assert problem.question == f'"""\n{sentence}\nassert trim_ends("hello") == "ell"\n"""'
    assert "\r" not in problem.answer


def test_strategy_qa_does_not_show_the_facts() -> None:
    assert not any("give the answer away" in problem.question for problem in _load("strategy-qa")[0])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("aime", {"drop": "Year"}, "row 1: the row has none of the fields Year; it has ID, Problem Number, Question"),
        (
            "aime24",
            {"drop": "Answer"},
            "none of the fields Answer, answer; it has ID, Problem, Solution .is this the data of aime24",
        ),
        ("math", {"solution": "no box at all"}, r"row 1: the solution has no \\boxed{}: 'no box at all'"),
        ("math", {"solution": "\\boxed{1"}, "is not closed"),
        ("math", {"type": "Alchemy"}, "unknown domain 'Alchemy'; accepted: Algebra, Counting & Probability"),
        ("math500", {"answer": " "}, "the answer of problem 'test/precalculus/807.json' is empty"),
        ("gsm8k", {"answer": "just 72"}, "the answer has no '####'"),
        ("gsm8k", {"question": " "}, "row 1: a problem needs an id and a question"),
        ("gsm8k", {"answer": "#### " + "7" * 30_000}, "the answer of problem 'row-00001' has 30,000 characters, at most 20,000"),
        ("commonsense-qa", {"answerKey": "F"}, "the gold answer 'F' names no choice; accepted: one letter of A, B, C, D, E"),
        ("commonsense-qa", {"choices": ["hall", "oven"]}, "choices must be {"),
        ("strategy-qa", {"answer": "perhaps"}, "the gold answer 'perhaps' is neither yes nor no"),
        ("mmlu", {"answer": 4}, "the answer must be the index of a choice, 0 to 3, got '4'"),
        ("mmlu", {"choices": ["1", "2"]}, "choices must be a list of 4 texts"),
        ("mmlu", {"subject": "alchemy"}, "unknown domain 'alchemy'"),
        ("humaneval", {"drop": "test"}, "none of the fields test; it has task_id, prompt"),
        ("mbpp", {"code": "x = 1"}, "no test calls what the reference solution defines .x"),
        ("mbpp", {"test_list": ["assert ("]}, "not Python"),
        ("mbpp", {"test_list": []}, "test_list must be a list of asserts, got"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, name: str, change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _load(name, _changed(name, tmp_path, **change))


def test_the_documentation_names_every_benchmark_and_its_example_works() -> None:
    page = (DATA.parents[2] / "docs" / "benchmarks.md").read_text()
    assert all(f"`{name}`" in page and all(hub_id in page for hub_id in b.hub_ids) for name, b in BENCHMARKS.items())
    example = page.rpartition("```python\n")[2].partition("```")[0]
    namespace = {**vars(benchmark_module), "MATH": MATH}
    exec(example, namespace)
    entry = namespace["SVAMP"].entry({"Body": "Two and two.", "Question": "How many?", "Answer": 4.0, "ID": "x"})
    assert (entry.question, entry.answer, entry.id) == ("Two and two. How many?", "4.0", "x")


def test_amc_needs_the_year_in_the_url_where_another_year_is_the_test() -> None:
    part = BENCHMARKS["amc12"].parts[0]
    assert part.leaves_out({"url": "https://x/2023_AMC_12A_Problems/Problem_1"})
    assert not part.leaves_out({"url": "https://x/2022_AMC_12A_Problems/Problem_1"})
    with pytest.raises(InputError, match="does not name the contest's year"):
        part.leaves_out({"url": "https://x"})
