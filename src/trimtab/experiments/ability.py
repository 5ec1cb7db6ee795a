"""General ability before and after steering: perplexity of held-out chains and of plain text, and other tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.analysis.perplexity import compare_perplexity, perplexity, text_traces
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import evaluate_condition
from trimtab.experiments.comparisons import Row, compare_rows, comparison_table, describe
from trimtab.experiments.section import Section
from trimtab.experiments.workbench import GateSetting, Workbench, answer_key
from trimtab.results import Cell, Column, Table, bounded
from trimtab.steering import Steering
from trimtab.store import read_text
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.loading import TaskSettings, load_task
from trimtab.traces import Split, Trace, Verdict

MOST_CHAINS = 300
UNTRIED = "Plain text and other tasks were not tried: name some in experiment.monitor.texts and experiment.monitor.other_tasks."

Attached = Mapping[str, tuple[Steering, GateSetting]]


def ability(bench: Workbench) -> Section:
    """Perplexity under the found steering, and its accuracy on other tasks."""
    steered: Attached = {"steered when the gate fires": (bench.steering, "auto"), "steered always": (bench.steering, "on")}
    if bench.steering.gate.kind == "always":
        del steered["steered when the gate fires"]
    parts = [_perplexity(bench, "chains", "correct responses of problems outside the contrast", other_chains(bench), steered)]
    if bench.settings.monitor.texts:
        texts = text_traces(bench.model, _lines(Path(bench.settings.monitor.texts)))
        # plain text has no question for a gate to read
        parts.append(_perplexity(bench, "texts", "plain text", texts, {"steered always": (bench.steering, "on")}))
    parts += [_other_task(bench, task, steered) for task in bench.settings.monitor.other_tasks]
    if not bench.settings.monitor.texts and not bench.settings.monitor.other_tasks:
        parts.append(Section((), (), (UNTRIED,)))
    return Section(tuple(t for part in parts for t in part.tables), (), tuple(f for part in parts for f in part.findings))


def other_chains(bench: Workbench) -> list[Trace]:
    """Correct sampled responses of the find problems that the contrast leaves out: the neurons were not found on them."""
    contrasted = {row.problem_id for row in bench.contrast}
    correct = {grade.trace_id for grade in bench.grades if grade.verdict is Verdict.CORRECT}
    chains = [trace for trace in bench.traces if trace.problem_id not in contrasted and trace.id in correct]
    return sorted(chains, key=lambda trace: trace.id)[:MOST_CHAINS]


def perplexity_table(bench: Workbench, name: str, title: str, chains: Sequence[Trace], attached: Attached) -> Table:
    """Perplexity of the same tokens with and without steerings, and the ratio with its interval.

    Raises:
        NotEnoughDataError: fewer than two problems.
    """
    bare = perplexity(bench.model, chains)
    rows: list[tuple[Cell, ...]] = [("unsteered", len(chains), int(bare.tokens.sum()), bare.perplexity, None, None, None)]
    for label, (steering, gate) in attached.items():
        edited = perplexity(bench.model, chains, steering, gate=gate)
        ratio = compare_perplexity(bare, edited, bench.settings.seed).ratio
        rows.append((label, len(chains), int(edited.tokens.sum()), edited.perplexity, ratio.value, ratio.low, ratio.high))
    return Table(
        name=name,
        title=title,
        columns=_PERPLEXITY_COLUMNS,
        rows=tuple(rows),
        note="The same tokens, read and not generated. Above a ratio of 1 the steering makes them less likely. Intervals draw "
        "problems.",
    )


_PERPLEXITY_COLUMNS = (
    Column(name="what"),
    Column(name="texts", unit="count"),
    Column(name="tokens", unit="count"),
    Column(name="perplexity", unit="number"),
    *bounded("ratio to unsteered", "number"),
)


def _perplexity(bench: Workbench, name: str, what: str, chains: Sequence[Trace], attached: Attached) -> Section:
    try:
        table = perplexity_table(bench, f"perplexity-{name}", f"Perplexity: {what}", chains, attached)
    except NotEnoughDataError:
        return Section((), (), (f"There are not enough {what} for a perplexity.",))
    said = "; ".join(f"{row[0]} x {row[4]:.3f} [{row[5]:.3f}, {row[6]:.3f}]" for row in table.rows[1:])
    return Section((table,), (), (f"Perplexity of {what}: {said}.",))


def _other_task(bench: Workbench, task: TaskSettings, attached: Attached) -> Section:
    """Accuracy on the test problems of a task on which nothing was found."""
    problems = [problem for problem in load_task(task)[0] if problem.split is Split.TEST]
    prompt = BENCHMARKS[task.source].prompt if task.source in BENCHMARKS else bench.prompt
    folder = bench.folder / f"other-{''.join(c if c.isalnum() else '-' for c in task.source)}"

    def run(steering: Steering | None, gate: GateSetting, label: str) -> list[Outcome]:
        key = answer_key(steering, gate)
        condition = Condition(key, steering, gate)
        settings = bench.sampling
        return evaluate_condition(
            bench.model,
            condition,
            problems,
            settings,
            bench.grader,
            folder / key,
            prompt=prompt,
            generator=bench.generator,
            progress=bench.progress,
            label=label,
        )

    base = run(None, "on", task.source)
    rows: list[Row] = compare_rows(base, {label: run(*how, task.source) for label, how in attached.items()})
    name = f"task-{''.join(c if c.isalnum() else '-' for c in task.source.lower())}"
    table = comparison_table(name, f"Another task: {task.source}", base, rows, "Nothing was found or tuned on this task.")
    return Section((table,), (), tuple(f"On {task.source}, {row.label}: {describe(row)}." for row in rows))


def _lines(path: Path) -> list[str]:
    texts = [line for line in read_text(path).splitlines() if line.strip()]
    if not texts:
        raise InputError(f"{path} holds no text; give one text a line, or leave experiment.monitor.texts empty")
    return texts
