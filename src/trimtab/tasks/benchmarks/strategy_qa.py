"""StrategyQA: questions whose steps are implied, answered yes or no."""

from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Decoding, Entry, Part, cell
from trimtab.tasks.benchmarks.wording import YES_NO
from trimtab.tasks.choices import yes_or_no
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind


def entry(row: Row) -> Entry:
    """``qid``, ``question`` and a boolean ``answer``; ``facts`` would give the answer away and is not shown."""
    return Entry(
        question=cell(row, "question").strip(),
        answer=yes_or_no(cell(row, "answer")),
        id=cell(row, "qid"),
    )


STRATEGY_QA = Benchmark(
    name="strategy-qa",
    title="StrategyQA",
    parts=(
        Part("ChilleD/StrategyQA", "train", FIND_AND_TUNE),
        Part("ChilleD/StrategyQA", "test", TEST),
    ),
    kind=AnswerKind.YES_NO,
    entry=entry,
    prompt=YES_NO,
    decoding=Decoding(max_new_tokens=2048),
    leaks="The repository divides the official training set; the official test set has no public answers.",
)
