"""``monitor``: a warning while the model writes, and what steering does to everything else.

The gate of the question is not valid while the response is written: response tokens look different from the last prompt token,
so the running probe is fitted on them. It is linear, so the mean of the scores is the score of the mean: a monitor needs one
number a token, and no past.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from trimtab.analysis.passes import BATCH_TOKENS, batches
from trimtab.analysis.perplexity import text_traces
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Part, compare_rows, describe, gain_frame, gathered
from trimtab.experiments.responses import Attached, failed_of, greedy_responses, outside_contrast, perplexity_frame
from trimtab.experiments.search import GateSetting, Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.gating import youden
from trimtab.gating.probe import calibrate, fit_linear
from trimtab.model import LanguageModel
from trimtab.recording.features import batch_features
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
CRITERION = "paired-t"
"""Chooses the probe's neurons: within a problem, so that it does not read how hard the problem is."""
SHARES = tuple(i / 20 for i in range(1, 21))
UNTRIED = "Plain text and other tasks were not tried: name some in experiment.monitor.texts and experiment.monitor.other_tasks."


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

    def read(self, model: LanguageModel, responses: Sequence[Trace]) -> list[NDArray[np.float64]]:
        """The running scores of some responses, ``[token]`` each, in their order."""
        scored: dict[str, NDArray[np.float64]] = {}
        for batch, features in _features(model, responses, self.layer, self.index):
            scored |= {response.id: self.scores(values) for response, values in zip(batch, features, strict=True)}
        return [scored[response.id] for response in responses]

    def calibrated(self, scores: Sequence[NDArray[np.float64]], failed: NDArray[np.bool_]) -> "RunningProbe":
        """Platt scaling on the last scores of other responses, so that p is a share of failures there."""
        slope, intercept = calibrate(np.array([score[-1] for score in scores]), failed)
        return replace(self, weight=slope * self.weight, bias=slope * self.bias + intercept)


def fit_running_probe(
    model: LanguageModel,
    responses: Sequence[Trace],
    failed: NDArray[np.bool_],
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
) -> RunningProbe:
    """L2 logistic regression on the means of response prefixes; its penalty by cross-validation that keeps a problem in one fold.

    Args:
        responses: of the train split.
        failed: bool ``[response]``.
        layer, index: the neurons to read, int64 ``[feature]``.

    Raises:
        NotEnoughDataError: fewer problems than folds, or responses of one class only.
    """
    problems = np.array([response.problem_id for response in responses])
    if len(np.unique(problems)) < FOLDS or failed.all() or not failed.any():
        raise NotEnoughDataError(
            f"a running probe needs {FOLDS} problems and both scores, got {len(np.unique(problems))} problems with "
            f"{int(failed.sum())} failed of {len(failed)} responses; sample more"
        )
    means: dict[str, NDArray[np.float64]] = {}
    for batch, features in _features(model, responses, layer, index):
        means |= {response.id: _prefix_means(values) for response, values in zip(batch, features, strict=True)}
    matrix = np.concatenate([means[response.id] for response in responses])
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
    model: LanguageModel, responses: Sequence[Trace], layer: NDArray[np.int64], index: NDArray[np.int64]
) -> Iterator[tuple[list[Trace], list[NDArray[np.float32]]]]:
    """Batches of responses with their activations ``[token, feature]``; nothing is kept between batches."""
    for batch in batches(model, responses, BATCH_TOKENS):
        yield batch, batch_features(model, batch, layer, index, "response")


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The probe on some responses.

    Args:
        probability: running p(fail) after each token, ``[token]`` a response.
        failed: bool ``[response]``.
    """

    probability: tuple[NDArray[np.float64], ...]
    failed: NDArray[np.bool_]

    def at(self, token: int) -> NDArray[np.float64]:
        """p after a number of tokens, ``[response]``; a response that ended before keeps its last."""
        return np.array([p[min(token, len(p)) - 1] for p in self.probability])

    def at_share(self, share: float) -> NDArray[np.float64]:
        """p after this share of each response, ``[response]``."""
        return np.array([p[max(1, round(share * len(p))) - 1] for p in self.probability])

    def highest(self, after: int) -> NDArray[np.float64]:
        """The highest p from the token `after` on, ``[response]``: what decides whether a warning is given."""
        return np.array([p[min(after, len(p)) - 1 :].max() for p in self.probability])

    def warned_at(self, threshold: float, after: int) -> NDArray[np.float64]:
        """The first token, from `after` on, at which p reaches the threshold, ``[response]``; infinity without a warning."""
        first = []
        for p in self.probability:
            start = min(after, len(p)) - 1
            hits = np.flatnonzero(p[start:] >= threshold)
            first.append(start + hits[0] + 1 if len(hits) else np.inf)
        return np.array(first)


def monitor(search: Search) -> Findings:
    """Fit a running probe on train, choose its threshold on validation, and read the test responses with it.

    The probe reads response tokens of unsteered responses. Beside it: general ability with and without the steering.
    """
    after = search.settings.monitor.after
    probe = _fit(search)
    validation = _read(search, probe, Split.VALIDATION)
    probe = probe.calibrated([_logit(p) for p in validation.probability], validation.failed)
    validation = _read(search, probe, Split.VALIDATION)
    threshold = youden(validation.failed, validation.highest(after))
    test = _read(search, probe, Split.TEST)
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


def _read(search: Search, probe: RunningProbe, split: Split) -> Readings:
    responses = _readable(greedy_responses(search, search.split(split)))
    failed = np.array(failed_of(responses, search.answers(split, None, label="unsteered")))
    return Readings(tuple(1 / (1 + np.exp(-scores)) for scores in probe.read(search.model, responses)), failed)


def _readable(responses: Sequence[Trace]) -> list[Trace]:
    """The last token is never forwarded, so a response of one has none to read."""
    return [response for response in responses if len(response.response_ids) > 1]


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(p) - np.log1p(-p)


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
    rows = compare_rows(base, {label: run(*how) for label, how in attached.items()})
    title, note = f"Another task: {task.source}", "Nothing was found or tuned on this task."
    frame = gain_frame(f"task-{slug.lower()}", title, base, rows, note=note)
    return Part((frame,), tuple(f"On {task.source}, {row.label}: {describe(row)}." for row in rows))


def _lines(path: Path) -> list[str]:
    texts = [line for line in read_text(path).splitlines() if line.strip()]
    if not texts:
        raise InputError(f"{path} holds no text; give one text a line, or leave experiment.monitor.texts empty")
    return texts
