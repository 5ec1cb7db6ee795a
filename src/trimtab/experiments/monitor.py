"""``monitor``: a warning while the model writes, and what steering does to everything else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from trimtab.analysis.batches import BATCH_TOKENS, batches
from trimtab.analysis.perplexity import text_traces
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Row, Section, compare_rows, comparison_table, describe
from trimtab.experiments.responses import Attached, failed_of, greedy_chains, other_chains, perplexity_table
from trimtab.experiments.workbench import GateSetting, Workbench
from trimtab.gating import youden
from trimtab.gating.cross_validation import calibrate, fit_linear
from trimtab.model import LanguageModel
from trimtab.recording.features import batch_features
from trimtab.results import Column, Curve, CurvePoint, Curves, Result, Table, bounded
from trimtab.stats.auroc import auroc, delong_interval
from trimtab.stats.estimates import wilson
from trimtab.steering import Steering
from trimtab.store import read_text
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.loading import TaskSettings, load_task
from trimtab.traces import Split, Trace

PREFIXES = (0.25, 0.5, 0.75, 1.0)
"""Shares of a response whose means the probe is fitted on: it has to work early and late."""
FOLDS = 5
INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-1, 4))
"""For rows of norm about 1."""


@dataclass(frozen=True, slots=True, eq=False)
class RunningProbe:
    """``score_t = mean over s <= t of (w . a_s) + b`` and ``p_t = sigmoid(score_t)``, over response tokens that were forwarded.

    Args:
        layer, index: int64 ``[feature]``, the neurons that it reads.
        weight: float64 ``[feature]``, on raw activations.
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    weight: NDArray[np.float64]
    bias: float

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The running score after each token, ``[token]``, from ``[token, feature]``."""
        per_token = features.astype(np.float64) @ self.weight
        return np.cumsum(per_token) / np.arange(1, len(per_token) + 1) + self.bias

    def read(self, model: LanguageModel, chains: Sequence[Trace]) -> list[NDArray[np.float64]]:
        """The running scores of some chains, ``[token]`` each, in their order."""
        scored: dict[str, NDArray[np.float64]] = {}
        for batch, features in _features(model, chains, self.layer, self.index):
            scored |= {chain.id: self.scores(values) for chain, values in zip(batch, features, strict=True)}
        return [scored[chain.id] for chain in chains]

    def calibrated(self, scores: Sequence[NDArray[np.float64]], failed: NDArray[np.bool_]) -> "RunningProbe":
        """Platt scaling on the last scores of other chains, so that p is a share of failures there."""
        slope, intercept = calibrate(np.array([score[-1] for score in scores]), failed)
        return replace(self, weight=slope * self.weight, bias=slope * self.bias + intercept)


def fit_running_probe(
    model: LanguageModel,
    chains: Sequence[Trace],
    failed: NDArray[np.bool_],
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
) -> RunningProbe:
    """L2 logistic regression on the means of response prefixes; its penalty by cross-validation that keeps a problem in one fold.

    Args:
        chains: of the train split.
        failed: bool ``[chain]``.
        layer, index: the neurons to read, int64 ``[feature]``.

    Raises:
        NotEnoughDataError: fewer problems than folds, or chains of one class only.
    """
    problems = np.array([chain.problem_id for chain in chains])
    if len(np.unique(problems)) < FOLDS or failed.all() or not failed.any():
        raise NotEnoughDataError(
            f"a running probe needs {FOLDS} problems and both verdicts, got {len(np.unique(problems))} problems with "
            f"{int(failed.sum())} failed of {len(failed)} chains; sample more"
        )
    means: dict[str, NDArray[np.float64]] = {}
    for batch, features in _features(model, chains, layer, index):
        means |= {chain.id: _prefix_means(values) for chain, values in zip(batch, features, strict=True)}
    matrix = np.concatenate([means[chain.id] for chain in chains])
    label, group = np.repeat(failed, len(PREFIXES)), np.repeat(problems, len(PREFIXES))
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    # a constant neuron tells nothing; its weight stays 0 over a spread of infinity
    spread = np.where(spread > 0, spread * matrix.shape[1] ** 0.5, np.inf)
    scaled = (matrix - centre) / spread
    line = fit_linear(scaled, label, _best_penalty(scaled, label, group))
    weight = line.weight / spread
    return RunningProbe(layer, index, weight, line.bias - float(weight @ centre))


def _best_penalty(matrix: NDArray[np.float64], label: NDArray[np.bool_], group: NDArray[np.str_]) -> float:
    """The inverse penalty with the lowest held-out log loss; on a tie the stronger penalty."""
    losses = np.zeros(len(INVERSE_PENALTIES))
    for rows, held_out in GroupKFold(FOLDS).split(matrix, label, group):
        for i, c in enumerate(INVERSE_PENALTIES):
            line = fit_linear(matrix[rows], label[rows], c)
            logit = matrix[held_out] @ line.weight + line.bias
            losses[i] += np.logaddexp(0.0, np.where(label[held_out], -logit, logit)).sum()
    return INVERSE_PENALTIES[int(losses.argmin())]


def _prefix_means(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means over the first share of the tokens, ``[prefix, feature]``; at least one token each."""
    ends = [max(1, round(share * len(features))) for share in PREFIXES]
    return np.stack([features[:end].mean(axis=0, dtype=np.float64) for end in ends])


def _features(
    model: LanguageModel, chains: Sequence[Trace], layer: NDArray[np.int64], index: NDArray[np.int64]
) -> Iterator[tuple[list[Trace], list[NDArray[np.float32]]]]:
    """Batches of responses with their activations ``[token, feature]``; nothing is kept between batches."""
    for batch in batches(model, chains, BATCH_TOKENS):
        yield batch, batch_features(model, batch, layer, index, "response")


UNTRIED = "Plain text and other tasks were not tried: name some in experiment.monitor.texts and experiment.monitor.other_tasks."


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

    def run(steering: Steering | None, gate: GateSetting, label: str) -> list[Outcome]:
        return bench.answers_to(problems, prompt, steering, gate, label)

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


CRITERION = "paired-t"
"""What the probe's neurons are chosen by: within a problem, so that it does not read how hard the problem is."""
SHARES = tuple(i / 20 for i in range(1, 21))


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The probe on some chains.

    Args:
        probability: running p(fail) after each token, ``[token]`` a response.
        failed: bool ``[chain]``.
    """

    probability: tuple[NDArray[np.float64], ...]
    failed: NDArray[np.bool_]

    def at(self, token: int) -> NDArray[np.float64]:
        """p after so many tokens, ``[chain]``; a response that ended before keeps its last."""
        return np.array([p[min(token, len(p)) - 1] for p in self.probability])

    def at_share(self, share: float) -> NDArray[np.float64]:
        """p after this share of each response, ``[chain]``."""
        return np.array([p[max(1, round(share * len(p))) - 1] for p in self.probability])

    def highest(self, after: int) -> NDArray[np.float64]:
        """The highest p from the token `after` on, ``[chain]``: what decides whether a warning is given."""
        return np.array([p[min(after, len(p)) - 1 :].max() for p in self.probability])

    def warned_at(self, threshold: float, after: int) -> NDArray[np.float64]:
        """The first token, from `after` on, at which p reaches the threshold, ``[chain]``; infinity without a warning."""
        first = []
        for p in self.probability:
            start = min(after, len(p)) - 1
            hits = np.flatnonzero(p[start:] >= threshold)
            first.append(start + hits[0] + 1 if len(hits) else np.inf)
        return np.array(first)


def monitor(bench: Workbench) -> Result:
    """Fit a running probe on find, choose its threshold on validation, and read the test chains with it.

    The probe reads response tokens of unsteered responses. Beside it: general ability with and without the steering.
    """
    settings = bench.settings.monitor
    probe = _fit(bench)
    tune = _read(bench, probe, Split.VALIDATION)
    probe = probe.calibrated([_logit(p) for p in tune.probability], tune.failed)
    tune = _read(bench, probe, Split.VALIDATION)
    threshold = youden(tune.failed, tune.highest(settings.after))
    test = _read(bench, probe, Split.TEST)
    curves, auroc_finding = _auroc_curve(test, _gate_auroc(bench))
    table, warned, finding = _warnings(test, threshold, settings.after)
    skill = ability(bench)
    return Result(
        name="monitor",
        title="Monitor and general ability",
        question="Can a failure be seen while the response is written, how early, and what does steering cost elsewhere?",
        findings=(auroc_finding, finding, *skill.findings),
        split=Split.TEST,
        tables=(table, *skill.tables),
        figures=(curves, _course(test), warned),
    )


def _fit(bench: Workbench) -> RunningProbe:
    """On the contrast's chains, which hold both verdicts of a problem, from the neurons with the largest paired t."""
    verdict = {row.trace_id: row.correct for row in bench.contrast}
    chains = [trace for trace in bench.traces if trace.id in verdict]
    failed = np.array([not verdict[chain.id] for chain in chains])
    ranking = bench.ranking(CRITERION)
    count = 0 if ranking is None else len(ranking.order)
    neurons = bench.neurons(CRITERION, min(bench.settings.monitor.features, count))
    return fit_running_probe(bench.model, chains, failed, neurons.layer, neurons.index)


def _read(bench: Workbench, probe: RunningProbe, split: Split) -> Readings:
    chains = _readable(greedy_chains(bench, bench.split(split)))
    failed = np.array(failed_of(chains, bench.answers(split, None, label="unsteered")))
    return Readings(tuple(1 / (1 + np.exp(-scores)) for scores in probe.read(bench.model, chains)), failed)


def _readable(chains: Sequence[Trace]) -> list[Trace]:
    """The last token is never forwarded, so a response of one has none to read."""
    return [chain for chain in chains if len(chain.response_ids) > 1]


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(p) - np.log1p(-p)


def _auroc_curve(test: Readings, gate: float | None) -> tuple[Curves, str]:
    """AUROC as a function of the tokens seen, beside that of the question's gate."""
    longest = max(len(p) for p in test.probability)
    tokens = sorted({1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096, 8192} | {longest})
    points = []
    for token in (t for t in tokens if t <= longest):
        p = test.at(token)
        low, high = delong_interval(test.failed, p)
        points.append(CurvePoint(x=token, value=auroc(test.failed, p), low=low, high=high))
    against = "" if gate is None else f"; the gate, from the question alone, has {gate:.3f} (dotted)"
    end = points[-1]
    finding = (
        f"The running probe tells failing from right responses with AUROC {points[0].value:.3f} after one token and "
        f"{end.value:.3f} [{end.low:.3f}, {end.high:.3f}] at the end{against}."
    )
    figure = Curves(
        name="auroc",
        title="AUROC of the running probe",
        n=len(test.failed),
        of="chains",
        split=Split.TEST,
        detail=f"{int(test.failed.sum())} failed; DeLong's 95 % intervals; a response that ended before keeps its last score",
        reading=f"How well the probe knows of a failure after so many tokens{against}.",
        x_label="response tokens seen",
        y_label="AUROC",
        unit="number",
        log_x=True,
        curves=(Curve(label="running probe", points=tuple(points)),),
        reference=gate,
    )
    return figure, finding


def _gate_auroc(bench: Workbench) -> float | None:
    """Of the gate on the same questions; None where there is none that reads them."""
    if bench.steering.gate.kind in ("always", "never"):
        return None
    base = bench.answers(Split.TEST, None, label="unsteered")
    p_fail = {outcome.problem_id: outcome.p_fail for outcome in bench.answers(Split.TEST, bench.steering, "auto", label="gated")}
    score = np.array([p_fail[outcome.problem_id] for outcome in base], np.float64)
    return auroc([not outcome.correct for outcome in base], score)


def _course(test: Readings) -> Curves:
    """The mean running p of failing and of right responses, with the middle half of each."""
    curves = []
    for label, chosen in (("chains that fail", test.failed), ("chains that are right", ~test.failed)):
        points = []
        for share in SHARES:
            p = test.at_share(share)[chosen]
            points.append(CurvePoint(x=share, value=p.mean(), low=np.quantile(p, 0.25), high=np.quantile(p, 0.75)))
        curves.append(Curve(label=f"{label} (n = {int(chosen.sum())})", points=tuple(points)))
    return Curves(
        name="course",
        title="Running p(fail) while the response is written",
        n=len(test.failed),
        of="chains",
        split=Split.TEST,
        detail="mean, and the middle half of the responses as a band",
        reading="Where the two lines part, the probe begins to know.",
        x_label="share of the response seen",
        y_label="p(fail)",
        unit="number",
        x_unit="percent",
        curves=tuple(curves),
    )


def _warnings(test: Readings, threshold: float, after: int) -> tuple[Table, Curves, str]:
    """Who is warned, and how long before the end."""
    first = test.warned_at(threshold, after)
    length = np.array([len(p) for p in test.probability])
    rows, curves = [], []
    for label, chosen in (("failed", test.failed), ("right", ~test.failed)):
        warned = chosen & np.isfinite(first)
        lead = length[warned] - first[warned]
        share, n = float(warned.sum() / chosen.sum()), int(chosen.sum())
        low, high = wilson(int(warned.sum()), n)
        quartiles = tuple(np.quantile(lead, (0.5, 0.25, 0.75)).tolist()) if len(lead) else (None, None, None)
        left = float(np.median(lead / length[warned])) if len(lead) else None
        rows.append((label, n, share, low, high, *quartiles, left))
        seen = [(float((chosen & (first <= s * length)).sum()), s) for s in SHARES]
        points = [CurvePoint(x=s, value=k / n, low=wilson(int(k), n).low, high=wilson(int(k), n).high) for k, s in seen]
        curves.append(Curve(label=f"{label} chains (n = {n})", points=tuple(points)))
    table = Table(
        name="warnings",
        title=f"Warnings at p >= {threshold:.3f}, from token {after} on",
        columns=_WARNING_COLUMNS,
        rows=tuple(rows),
        note="The threshold is Youden's on the validation split, of the highest running p. Lead: median tokens from the "
        "warning to the end of the response, where the answer stands.",
    )
    figure = Curves(
        name="warned",
        title="Chains warned of so far",
        n=len(test.failed),
        of="chains",
        split=Split.TEST,
        detail="95 % Wilson intervals",
        reading="The upper line are failures that are announced, the lower false alarms.",
        x_label="share of the response seen",
        y_label="share of responses warned of",
        unit="percent",
        x_unit="percent",
        curves=tuple(curves),
    )
    return table, figure, _warning_finding(rows)


_WARNING_COLUMNS = (
    Column(name="chains"),
    Column(name="n", unit="count"),
    *bounded("warned", "percent"),
    *bounded("lead, tokens [quartiles]", "number"),
    Column(name="chain left", unit="percent"),
)


def _warning_finding(rows: Sequence[tuple]) -> str:
    (_, n_failed, caught, _, _, median, _, _, left), (_, n_right, alarms, *_) = rows
    lead = (
        ""
        if median is None
        else f"; the median warning comes {median:.0f} tokens before the end, with {left:.0%} of the response left"
    )
    return f"It warns of {caught:.1%} of {n_failed} failing chains and of {alarms:.1%} of {n_right} right ones{lead}."
