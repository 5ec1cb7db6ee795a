"""The benchmarks of both papers, one declaration a file, or a family of them. To add one, see docs/benchmarks.md."""

from trimtab.tasks.benchmark import Benchmark
from trimtab.tasks.benchmarks.choice import COMMONSENSE_QA, MMLU, STRATEGY_QA
from trimtab.tasks.benchmarks.code import HUMANEVAL, HUMANEVAL_PLUS, MBPP, MBPP_PLUS
from trimtab.tasks.benchmarks.math import AIME, AIME24, AIME25, AMC12, GSM8K, MATH, MATH500

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
