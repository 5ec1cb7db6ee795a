"""From a contrast to neurons and a gate: record, rank, fit. Each result lies under its own key."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trimtab.gate import ALWAYS, AttentionGate, Gate, PromptGate, PromptScope, RunningGate
from trimtab.gating import RecordedRows, assess, columns, fit_logistic, fit_text, youden
from trimtab.gating.attention import fit_attention
from trimtab.gating.reading import predict, read_prompts
from trimtab.gating.running import (
    CRITERION,
    SHARES,
    Readings,
    TimedBaselines,
    assess_running,
    fit_running_probe,
    readable,
    set_thresholds,
)
from trimtab.model import down_weights
from trimtab.moments import ALL_MOMENTS
from trimtab.neurons import Neurons
from trimtab.ranking import (
    DEFAULT_STATISTICS,
    NEEDS,
    ClassMoments,
    Statistic,
    column_norms,
    rank,
    recorded_class_moments,
)
from trimtab.recording import Recording, RecordingSettings, choose_traces, prompts_job, record_job
from trimtab.store import (
    AnyPath,
    Entry,
    load_gate,
    load_neurons,
    save_gate,
    save_neurons,
)
from trimtab.study import gather
from trimtab.tasks import render_prompt
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

VERSIONS: Mapping[str, int] = {"record": 1, "rank": 1, "gate": 1, "running-gate": 1}
"""Of each verb, as :data:`trimtab.study.gather.VERSIONS`."""
READ_WEIGHTS = frozenset({"wanda", "cett"})
"""The criteria that read the down projection's columns, too."""


def recording_settings(study: "Study", criteria: Collection[str] = ()) -> RecordingSettings:
    """The moments to record of each trace: those of the settings, and those that these criteria read."""
    settings = study.settings.recording.settings
    needed = {moment for criterion in criteria for moment in NEEDS[criterion] if moment in ALL_MOMENTS}
    moments = tuple(moment for moment in ALL_MOMENTS if moment in {*settings.moments, *needed})
    return settings.model_copy(update={"moments": moments if needed - set(settings.moments) else settings.moments})


def recordings(study: "Study", *, criteria: Collection[str] = (), gate: bool = False) -> dict[str, Recording]:
    """Record what is missing, all of it as one piece of work.

    Returns:
        ``contrast``, the moments of the contrast's traces; with ``gate`` also ``train`` and ``validation``, what a gate reads of
        the prompts of these splits.
    """
    jobs = {}
    entries: dict[str, Entry] = {}
    if criteria or not gate:
        rows, _, contrast_entry = gather.contrast(study)
        found = study.traces()
        wanted = {row.trace_id for row in rows}
        chosen = [trace for trace in found.traces if trace.id in wanted]
        settings = recording_settings(study, criteria)
        if study.settings.recording.while_sampling and settings == study.settings.recording.settings:
            entries["contrast"] = gather.streamed_entry(study, gather.sampled_entry(study, Split.TRAIN, study.settings.sampling))
            with entries["contrast"].claim() as missing:
                if missing:
                    choose_traces(entries["contrast"].folder, [trace for trace in found.traces if len(trace.response_ids) > 1])
        else:
            facts = {"contrast": contrast_entry.name, "settings": settings.model_dump(mode="json"), "while_sampling": False}
            entries["contrast"] = study.entry("record", {**facts, **study.forward_facts()})
            jobs["contrast"] = lambda folder: record_job(study.model, chosen, settings, folder, label="record traces")
    if gate:
        for split in (Split.TRAIN, Split.VALIDATION):
            entries[split.value] = _prompts_entry(study, split)
            jobs[split.value] = lambda folder, split=split: prompts_job(
                study.model,
                prompts(study, split),
                folder,
                scopes=study.settings.gate.recorded,
                batch_tokens=study.settings.recording.batch_tokens,
                label=f"record {split} prompts",
            )
    by_name = {entry.name: what for what, entry in entries.items()}
    with study.cache.claim_all([entries[what] for what in jobs]) as missing:
        started = [jobs[by_name[entry.name]](entry.folder) for entry in missing]
        study.run(started)
        for job in started:
            job.finish()
    for what, entry in entries.items():
        study.note_key("record" if what == "contrast" else f"record-{what}-prompts", entry)
    return {what: Recording(entry.folder) for what, entry in entries.items()}


def prompts(study: "Study", split: Split) -> dict[str, tuple[int, ...]]:
    """The prompts of a split's problems as token ids, by problem id."""
    tokenizer, prompt = study.model.tokenizer, study.settings.prompt
    return {problem.id: render_prompt(tokenizer, problem.question, prompt) for problem in study.problems().split(split)}


def _prompts_entry(study: "Study", split: Split) -> Entry:
    facts = {
        "problems": study.problems().digests[split],
        "prompt": study.settings.prompt.model_dump(mode="json"),
        "scopes": list(study.settings.gate.recorded),
        "batch_tokens": study.settings.recording.batch_tokens,
    }
    return study.entry("record", {**facts, **study.forward_facts()})


def moments(
    study: "Study",
    rows: Sequence[ContrastRow],
    statistics: Collection[Statistic] = DEFAULT_STATISTICS,
    *,
    criteria: Collection[str] = (),
) -> ClassMoments:
    """Moments of some of the contrast's traces, or of other labels for them; read from disk, no forward."""
    recording = recordings(study, criteria=criteria or ("mean-difference",))["contrast"]
    executor = study.executor
    scope = study.settings.ranking.scope
    return recorded_class_moments(recording, scope, rows, statistics, at_once=executor.width, run_blocks=executor.map)


def rankings(study: "Study", criteria: Sequence[str], k: int) -> dict[str, Neurons]:
    """The best k neurons by each criterion; the recording is read once for all that are missing."""
    rows, counts, contrast_entry = gather.contrast(study)
    recordings(study, criteria=criteria)
    settings = recording_settings(study, criteria)
    facts = {
        "contrast": contrast_entry.name,
        "recording": settings.model_dump(mode="json"),
        "while_sampling": study.settings.recording.while_sampling,
        "scope": study.settings.ranking.scope,
        "k": k,
    }
    entries = {
        criterion: study.entry("rank", {**facts, "criterion": criterion, **study.forward_facts()}) for criterion in criteria
    }
    with study.cache.claim_all(list(entries.values())) as missing:
        wanted = [criterion for criterion, entry in entries.items() if entry in missing]
        if wanted:
            statistics = frozenset().union(*(NEEDS[criterion] for criterion in wanted))
            found = moments(study, rows, statistics, criteria=criteria)
            if READ_WEIGHTS & set(wanted):
                found = replace(found, column_norm=column_norms(down_weights(study.model, range(study.model.n_layers))))
            said: dict[str, object] = {"contrast": counts, "scope": study.settings.ranking.scope}
            for criterion in wanted:
                neurons = rank(found, criterion, k, study.model.identity, said)
                save_neurons(neurons, entries[criterion].folder / "neurons")
    for criterion, entry in entries.items():
        study.note_key(f"rank-{criterion}", entry)
    return {
        criterion: study.remember(entry, lambda entry=entry: load_neurons(entry.folder / "neurons"))
        for criterion, entry in entries.items()
    }


def failed(study: "Study", split: Split) -> NDArray[np.bool_]:
    """True where the greedy trace of a problem is not correct; the label of a gate."""
    by_problem = {grade.problem_id: grade.score != "correct" for grade in gather.traces(study, split, greedy=True).grades}
    return np.array([by_problem[problem.id] for problem in study.problems().split(split)])


def prompt_features(study: "Study", split: Split, scope: PromptScope) -> RecordedRows:
    """Recorded activations of a split's prompts, the last token or the mean over all."""
    recording = recordings(study, gate=True)[split.value]
    return RecordedRows(recording, scope, [problem.id for problem in study.problems().split(split)])


def p_fail(study: "Study", gate: PromptGate, split: Split) -> dict[str, float]:
    """The gate's probability by problem id, from the recording where it holds what this gate reads, else from a forward."""
    settings, problems = study.settings, study.problems().split(split)
    if isinstance(gate, AttentionGate) or gate.scope not in settings.gate.recorded or split is Split.TEST:
        return predict(study.model, gate, prompts(study, split), batch_tokens=settings.recording.batch_tokens)
    probability = gate.probability(columns(prompt_features(study, split, gate.scope), gate.layer, gate.index))
    return {problem.id: float(p) for problem, p in zip(problems, probability, strict=True)}


def fit_gate(study: "Study") -> PromptGate:
    """p(fail) fitted on the train split, its threshold chosen on the validation split, the text-only baseline beside it."""
    settings = study.settings.gate
    if not settings.fitted:
        return ALWAYS
    gather.sample(study, [(split, study.settings.sampling.greedy()) for split in (Split.TRAIN, Split.VALIDATION)])
    graded = {split: gather.traces(study, split, greedy=True) for split in (Split.TRAIN, Split.VALIDATION)}
    facts = {
        "settings": settings.model_dump(mode="json"),
        "problems": [study.problems().digests[split] for split in (Split.TRAIN, Split.VALIDATION)],
        "grades": [found.grades_key for found in graded.values()],
        "batch_tokens": study.settings.recording.batch_tokens,
    }
    entry = study.entry("gate", {**facts, **study.forward_facts()})
    return study.compute("gate", entry, lambda folder: save_gate(_fitted_gate(study), folder), _load_prompt_gate)


def _load_prompt_gate(folder: AnyPath) -> PromptGate:
    gate = load_gate(folder)
    assert isinstance(gate, Gate | AttentionGate)
    return gate


def _load_running_gate(folder: AnyPath) -> RunningGate:
    gate = load_gate(folder)
    assert isinstance(gate, RunningGate)
    return gate


def fit_running_gate(study: "Study") -> RunningGate:
    """A gate on the response, fitted on the contrast's traces, its thresholds chosen on greedy responses to validation."""
    rows, _, contrast_entry = gather.contrast(study)
    settings = study.settings.running_gate
    greedy = gather.traces(study, Split.VALIDATION, greedy=True)
    neurons = rankings(study, [CRITERION], min(settings.features, study.model.identity.n_neurons))[CRITERION]
    facts = {
        "settings": settings.model_dump(mode="json"),
        "contrast": contrast_entry.name,
        "neurons": study.keys[f"rank-{CRITERION}"],
        "grades": greedy.grades_key,
        "problems": study.problems().digests[Split.VALIDATION],
    }
    entry = study.entry("running-gate", {**facts, **study.forward_facts()})

    def fit(folder: AnyPath) -> None:
        failed_by = {row.trace_id: not row.correct for row in rows}
        train = readable([trace for trace in study.traces().traces if trace.id in failed_by])
        probe = fit_running_probe(
            study.model,
            train,
            np.array([failed_by[trace.id] for trace in train]),
            neurons.layer,
            neurons.index,
            settings.memory,
        )
        by_problem = {grade.problem_id: grade.score != "correct" for grade in greedy.grades}
        responses = readable(greedy.traces)
        labels = np.array([by_problem[trace.problem_id] for trace in responses])
        probe, scores = probe.calibrated(probe.read(study.model, responses), labels)
        readings = Readings.of(scores, labels)
        gate = set_thresholds(probe.gate(), settings, readings)
        baselines = TimedBaselines.fit(study.model, _questions(study, train), train, np.array([failed_by[t.id] for t in train]))
        beside = [baselines.scores(study.model, _questions(study, responses), responses, share) for share in SHARES]
        assessed = assess_running(readings, gate.cutoff, gate.after, beside).to_json()
        save_gate(replace(gate, facts={**gate.facts, "validation_assessment": assessed}), folder)

    return study.compute("running-gate", entry, fit, _load_running_gate)


def _questions(study: "Study", responses: Sequence[Trace]) -> list[str]:
    asked = {problem.id: problem.question for problem in study.problems()}
    return [asked[response.problem_id] for response in responses]


def _fitted_gate(study: "Study") -> PromptGate:
    labels = {split: failed(study, split) for split in (Split.TRAIN, Split.VALIDATION)}
    fitted = _fitted(study, labels[Split.TRAIN])
    p_validation = np.array(list(p_fail(study, fitted, Split.VALIDATION).values()))
    text = fit_text([problem.question for problem in study.problems().split(Split.TRAIN)], labels[Split.TRAIN])
    p_text = text.probability([problem.question for problem in study.problems().split(Split.VALIDATION)])
    said = {
        "train": _counts(labels[Split.TRAIN]),
        "validation": _counts(labels[Split.VALIDATION]),
        "validation_assessment": assess(labels[Split.VALIDATION], p_validation, p_text).to_json(),
    }
    threshold = youden(labels[Split.VALIDATION], p_validation)
    return replace(fitted, mode=study.settings.gate.mode, threshold=threshold, facts={**fitted.facts, **said})


def _fitted(study: "Study", labels: NDArray[np.bool_]) -> PromptGate:
    settings, executor = study.settings.gate, study.executor
    features = prompt_features(study, Split.TRAIN, settings.scope)
    if settings.kind == "logistic":
        return fit_logistic(
            features,
            labels,
            n_features=settings.features,
            pooling=settings.pooling,
            penalty=settings.penalty,
            at_once=executor.width,
            run_blocks=executor.map,
        )

    def read(layer: NDArray[np.int64], index: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        tokens = study.settings.recording.batch_tokens
        return read_prompts(study.model, prompts(study, Split.TRAIN), layer, index, "prompt", batch_tokens=tokens)

    return fit_attention(features, labels, read, n_features=settings.features, at_once=executor.width, run_blocks=executor.map)


def _counts(labels: NDArray[np.bool_]) -> dict[str, int]:
    return {"problems": len(labels), "failed": int(labels.sum())}
