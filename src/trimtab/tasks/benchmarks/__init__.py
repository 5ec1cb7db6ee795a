"""The benchmarks of both papers, one declaration a file, or a family of them. To add one, see docs/benchmarks.md."""

from trimtab.tasks.benchmark import Benchmark
from trimtab.tasks.benchmarks.aime import AIME, AIME24, AIME25
from trimtab.tasks.benchmarks.amc12 import AMC12
from trimtab.tasks.benchmarks.commonsense_qa import COMMONSENSE_QA
from trimtab.tasks.benchmarks.gsm8k import GSM8K
from trimtab.tasks.benchmarks.humaneval import HUMANEVAL
from trimtab.tasks.benchmarks.humaneval_plus import HUMANEVAL_PLUS
from trimtab.tasks.benchmarks.math500 import MATH500
from trimtab.tasks.benchmarks.math_full import MATH
from trimtab.tasks.benchmarks.mbpp import MBPP
from trimtab.tasks.benchmarks.mbpp_plus import MBPP_PLUS
from trimtab.tasks.benchmarks.mmlu import MMLU
from trimtab.tasks.benchmarks.strategy_qa import STRATEGY_QA

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        AIME24,
        AIME25,
        AIME,
        AMC12,
        MATH500,
        MATH,
        GSM8K,
        HUMANEVAL,
        HUMANEVAL_PLUS,
        MBPP,
        MBPP_PLUS,
        COMMONSENSE_QA,
        STRATEGY_QA,
        MMLU,
    )
}

__all__ = ["BENCHMARKS"]
