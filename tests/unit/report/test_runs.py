"""Two runs in a terminal."""

from rich.console import Console

from outcome_samples import outcomes
from trimtab.evaluation.breakdown import break_down
from trimtab.evaluation.compare_runs import RunComparison
from trimtab.evaluation.verdict import judge
from trimtab.report import run_tables


def _shown(result: RunComparison) -> str:
    console = Console(width=150, color_system=None)
    with console.capture() as capture:
        for table in run_tables(result):
            console.print(table)
    return capture.get()


def _comparison(*chains: str) -> RunComparison:
    base, condition = outcomes("gated", *["1100000000"] * len(chains)), outcomes("gated", *chains)
    return RunComparison(("runs/a", "runs/[b]"), ("one", "two"), "gated", judge(base, condition), break_down(base, condition))


def test_a_row_per_run_and_a_table_per_grouping() -> None:
    text = _shown(_comparison("11111110u0"))
    a, b = (next(line.split() for line in text.splitlines() if line.strip().startswith(name)) for name in ("A:", "B:"))
    dash = "\u2013"
    assert a[:5] == ["A:", "runs/a", "one", "1", "20.0"]
    assert a[-5:] == [dash, dash, dash, dash, "0"]
    # 5 fixed of 10: 2 / 2^5
    assert b[:5] == ["B:", "runs/[b]", "two", "1", "70.0"]
    assert b[-5:] == ["0.062", "5", "/", "0", "1"]
    assert "gated, n = 10 problems" in text
    assert "exact McNemar test, two-sided" in text
    assert "by domain" in text
    assert "micro average" in text


def test_several_chains_name_their_test() -> None:
    assert "sign-flip permutation test over problems, two-sided" in _shown(_comparison("1111000000", "1110000000"))
