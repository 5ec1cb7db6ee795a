"""GSM8K: word problems of primary school; the gold answer stands after ``####``."""

from trimtab.errors import InputError
from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Entry, Part, cell
from trimtab.tasks.benchmarks.competition import number_text
from trimtab.tasks.benchmarks.wording import MATH_THINKING
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind

MARK = "####"


def entry(row: Row) -> Entry:
    """The solution has one step a line, with calculator notes like ``<<48/2=24>>``; gold numbers can be ``-5`` or ``1,600``."""
    solution, mark, answer = cell(row, "answer").rpartition(MARK)
    if not mark:
        raise InputError(f"the answer has no {MARK!r}, after which GSM8K puts its number: {answer[-80:]!r}")
    return Entry(
        question=cell(row, "question").strip(),
        answer=number_text(answer.replace(",", "").replace("$", "")),
        difficulty=sum(bool(line.strip()) for line in solution.splitlines()),
    )


GSM8K = Benchmark(
    name="gsm8k",
    title="GSM8K",
    parts=(
        Part("openai/gsm8k", "train", FIND_AND_TUNE, ("main",)),
        Part("openai/gsm8k", "test", TEST, ("main",)),
    ),
    kind=AnswerKind.MATH,
    entry=entry,
    prompt=MATH_THINKING,
)
