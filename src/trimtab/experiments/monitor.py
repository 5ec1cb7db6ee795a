"""``monitor``: a warning while the model writes, and what steering does to everything else."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.analysis.perplexity import text_traces
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Part, compare_rows, describe, gain_frame, gathered
from trimtab.experiments.responses import Attached, failed_of, greedy_responses, outside_contrast, perplexity_frame
from trimtab.experiments.search import GateSetting, Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.gating import youden
from trimtab.gating.running import CRITERION, Readings, RunningProbe, fit_running_probe, readable
from trimtab.stats.auroc import auroc, delong_interval
from trimtab.stats.estimates import wilson
from trimtab.steering import Steering
from trimtab.store import read_text
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.loading import TaskSettings, load_task
from trimtab.tasks.near_duplicates import clusters_within
from trimtab.traces import Split, Trace

SHARES = tuple(i / 20 for i in range(1, 21))
UNTRIED = "Plain text and other tasks were not tried: name some in experiment.monitor.texts and experiment.monitor.other_tasks."


def monitor(search: Search) -> Findings:
    """Fit a running probe on train, choose its threshold on validation, and read the test responses with it.

    The probe reads response tokens of unsteered responses. Beside it: general ability with and without the steering.
    """
    after = search.settings.monitor.after
    probe = _fit(search)
    responses, failed = _responses(search, Split.VALIDATION)
    probe, scores = probe.calibrated(probe.read(search.model, responses), failed)
    threshold = youden(failed, Readings.of(scores, failed).highest(after))
    responses, failed = _responses(search, Split.TEST)
    test = Readings.of(probe.read(search.model, responses), failed)
    parts = (_auroc(test, _gate_auroc(search)), Part((_course(test),)), _warnings(test, threshold, after), *_ability(search))
    question = "Can a failure be seen while the response is written, how early, and what does steering cost elsewhere?"
    return gathered("monitor", "Monitor and general ability", question, Split.TEST, parts)


def _fit(search: Search) -> RunningProbe:
    """On the contrast's responses, which hold both scores of a problem, from the neurons with the largest paired t."""
    verdict = {row.trace_id: row.correct for row in search.contrast}
    responses = [trace for trace in search.traces if trace.id in verdict]
    failed = np.array([not verdict[response.id] for response in responses])
    ranking = search.ranking(CRITERION)
    count = 0 if ranking is None else len(ranking.order)
    neurons = search.neurons(CRITERION, min(search.settings.monitor.features, count))
    return fit_running_probe(search.model, responses, failed, neurons.layer, neurons.index)


def _responses(search: Search, split: Split) -> tuple[list[Trace], NDArray[np.bool_]]:
    responses = readable(greedy_responses(search, search.split(split)))
    return responses, np.array(failed_of(responses, search.answers(split, None, label="unsteered")))


def _auroc(test: Readings, gate: float | None) -> Part:
    """AUROC as a function of the tokens seen, beside that of the question's gate."""
    longest = max(len(p) for p in test.probability)
    tokens = sorted({1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096, 8192} | {longest})
    rows: list[dict[str, Cell]] = []
    for token in (t for t in tokens if t <= longest):
        p = test.at(token)
        low, high = delong_interval(test.failed, p)
        value: dict[str, Cell] = {"value": auroc(test.failed, p), "low": low, "high": high, "unit": "number"}
        rows.append({"label": f"{token} tokens", "n": len(p), **value, "series": "running probe", "x": token})
    against = "" if gate is None else f"; the gate, from the question alone, has {gate:.3f}"
    frame = Frame(
        "auroc",
        "AUROC of the running probe",
        rows,
        plot="curves",
        x_label="response tokens seen",
        y_label="AUROC",
        reference=gate,
        log_x=True,
        note=f"{int(test.failed.sum())} of n responses failed; DeLong's 95 % intervals. A response that ended before keeps its "
        "last score. The line is the question's gate.",
        reading=f"How well the probe knows of a failure after this many tokens{against}.",
    )
    sentence = (
        f"The running probe tells failing from correct responses with AUROC {rows[0]['value']:.3f} after one token and "
        f"{rows[-1]['value']:.3f} [{rows[-1]['low']:.3f}, {rows[-1]['high']:.3f}] at the end{against}."
    )
    return Part((frame,), (sentence,))


def _gate_auroc(search: Search) -> float | None:
    """Of the gate on the same questions; None where there is none that reads them."""
    if search.steering.gate.kind in ("always", "never"):
        return None
    base = search.answers(Split.TEST, None, label="unsteered")
    p_fail = {
        outcome.problem_id: outcome.p_fail for outcome in search.answers(Split.TEST, search.steering, "auto", label="gated")
    }
    score = np.array([p_fail[outcome.problem_id] for outcome in base], np.float64)
    return auroc([not outcome.correct for outcome in base], score)


def _course(test: Readings) -> Frame:
    """The mean running p of failing and of correct responses, with the middle half of each."""
    rows: list[dict[str, Cell]] = []
    for label, chosen in (("failed", test.failed), ("correct", ~test.failed)):
        for share in SHARES:
            p = test.at_share(share)[chosen]
            low, high = np.quantile(p, [0.25, 0.75]).tolist()
            value: dict[str, Cell] = {"value": float(p.mean()), "low": low, "high": high, "unit": "number"}
            rows.append({"label": f"{label}, {share:.0%}", "n": len(p), **value, "series": label, "x": share})
    return Frame(
        "course",
        "Running p(fail) while the response is written",
        rows,
        plot="curves",
        x_label="share of the response seen",
        y_label="p(fail)",
        note="Mean over n responses, and the middle half of them as a band.",
        reading="Where the two lines part, the probe begins to know.",
    )


def _warnings(test: Readings, threshold: float, after: int) -> Part:
    """Who is warned, and how long before the end."""
    first = test.warned_at(threshold, after)
    length = np.array([len(p) for p in test.probability])
    totals: list[dict[str, Cell]] = []
    course: list[dict[str, Cell]] = []
    for label, chosen in (("failed", test.failed), ("correct", ~test.failed)):
        n, warned = int(chosen.sum()), chosen & np.isfinite(first)
        lead = length[warned] - first[warned]
        quartiles = np.quantile(lead, (0.5, 0.25, 0.75)).tolist() if len(lead) else (None,) * 3
        left = float(np.median(lead / length[warned])) if len(lead) else None
        leads: dict[str, Cell] = dict(zip(("lead", "lead_low", "lead_high"), quartiles, strict=True))
        totals.append({"label": label, **_share(int(warned.sum()), n), **leads, "left_share": left})
        for share in SHARES:
            seen = _share(int((chosen & (first <= share * length)).sum()), n)
            course.append({"label": f"{label}, {share:.0%}", **seen, "series": label, "x": share})
    table = Frame(
        "warnings",
        f"Warnings at p >= {threshold:.3f}, from token {after} on",
        totals,
        note="value: share of the n responses warned of. The threshold is Youden's on the validation split, of the highest "
        "running p. lead: median and quartiles of the tokens from the warning to the end of the response, where the answer "
        "stands; left_share: the median of the rest of the response.",
    )
    curves = Frame(
        "warned",
        "Responses warned of so far",
        course,
        plot="curves",
        x_label="share of the response seen",
        y_label="share of responses warned of",
        note="95 % Wilson intervals.",
        reading="The upper line are failures that are announced, the lower false alarms.",
    )
    failed, correct = totals
    words = (
        f"It warns of {failed['value']:.1%} of {failed['n']} failing responses and of {correct['value']:.1%} of {correct['n']} "
        "correct ones"
    )
    if failed["lead"] is not None:
        words += (
            f"; the median warning comes {failed['lead']:.0f} tokens before the end, with {failed['left_share']:.0%} of it left"
        )
    return Part((table, curves), (f"{words}.",))


def _share(count: int, n: int) -> dict[str, Cell]:
    """A share of n with Wilson's interval."""
    low, high = wilson(count, n)
    return {"n": n, "value": count / n, "low": low, "high": high, "unit": "share"}


def _ability(search: Search) -> Iterator[Part]:
    """General ability before and after steering: perplexity of sampled responses and of plain text, and other tasks."""
    steered: Attached = {"steered when the gate fires": (search.steering, "auto"), "steered always": (search.steering, "on")}
    if search.steering.gate.kind == "always":
        del steered["steered when the gate fires"]
    settings = search.settings.monitor
    yield _perplexity(
        search, "responses", "correct responses of problems outside the contrast", outside_contrast(search), steered
    )
    if settings.texts:
        texts = text_traces(search.model, _lines(Path(settings.texts)))
        # plain text has no question for a gate to read
        yield _perplexity(search, "texts", "plain text", texts, {"steered always": (search.steering, "on")})
    for task in settings.other_tasks:
        yield _other_task(search, task, steered)
    if not settings.texts and not settings.other_tasks:
        yield Part(sentences=(UNTRIED,))


def _perplexity(search: Search, name: str, what: str, traces: Sequence[Trace], attached: Attached) -> Part:
    try:
        frame = perplexity_frame(search, f"perplexity-{name}", f"Perplexity: {what}", traces, attached)
    except NotEnoughDataError:
        return Part(sentences=(f"There are not enough {what} for a perplexity.",))
    said = "; ".join(f"{row['label']} x {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in frame.rows[1:])
    return Part((frame,), (f"Perplexity of {what}: {said}.",))


def _other_task(search: Search, task: TaskSettings, attached: Attached) -> Part:
    """Accuracy on the test problems of a task on which nothing was found."""
    problems = [problem for problem in load_task(task)[0] if problem.split is Split.TEST]
    prompt = BENCHMARKS[task.source].prompt if task.source in BENCHMARKS else search.prompt
    slug = "".join(c if c.isalnum() else "-" for c in task.source)

    def run(steering: Steering | None, gate: GateSetting) -> list[Outcome]:
        return search.answers_to(problems, prompt, steering, gate, task.source)

    base = run(None, "on")
    alike = {problem: first for first, ids in clusters_within(problems).items() for problem in ids}
    rows = compare_rows(base, {label: run(*how) for label, how in attached.items()}, alike)
    title, note = f"Another task: {task.source}", "Nothing was found or tuned on this task."
    frame = gain_frame(f"task-{slug.lower()}", title, base, rows, note=note)
    return Part((frame,), tuple(f"On {task.source}, {row.label}: {describe(row)}." for row in rows))


def _lines(path: Path) -> list[str]:
    texts = [line for line in read_text(path).splitlines() if line.strip()]
    if not texts:
        raise InputError(f"{path} holds no text; give one text a line, or leave experiment.monitor.texts empty")
    return texts
