"""What each stage left, in a few figures: what the verbs print."""

from collections import Counter
from itertools import product

from trimtab.evaluation.summary import summarise
from trimtab.evaluation.tune import best_point
from trimtab.pipeline.config import Stage, parse_config
from trimtab.pipeline.experimenting import experiment_results
from trimtab.pipeline.line import SAMPLED, Line
from trimtab.store import AnyPath, RunDirectory, read_json
from trimtab.traces import Split


def stage_summary(path: AnyPath, stage: Stage) -> dict[str, object]:
    """Figures of one finished stage of a run directory."""
    with RunDirectory.open(path) as directory:
        line = Line(parse_config(dict(directory.config), str(path)), directory)
        return _SUMMARIES[stage](line)


def _problems(line: Line) -> dict[str, object]:
    return {f"{split} problems": len(line.problems(split)) for split in Split}


def _sample(line: Line) -> dict[str, object]:
    traces = line.traces(SAMPLED)
    tokens = sum(len(trace.response_ids) for trace in traces)
    return {"traces": len(traces), "tokens": tokens, "truncated": sum(trace.truncated for trace in traces)}


def _grade(line: Line) -> dict[str, object]:
    grades = line.grades(SAMPLED)
    return {
        **Counter(str(grade.verdict) for grade in grades),
        "right answer, wrong steps": sum(g.verdict == "correct" and g.quality is False for g in grades),
    }


def _contrast(line: Line) -> dict[str, object]:
    return dict(read_json(line.directory.contrast.with_suffix(".json")))  # type: ignore[call-overload]


def _record(line: Line) -> dict[str, object]:
    files = list(line.directory.activations(SAMPLED).glob("part-*.safetensors"))
    return {"parts": len(files), "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 1)}


def _rank(line: Line) -> dict[str, object]:
    summary: dict[str, object] = {}
    for criterion in line.config.ranking.criteria:
        neurons = line.neurons(criterion)
        first = ", ".join(f"{layer}:{index}" for layer, index in zip(neurons.layer[:5], neurons.index[:5], strict=True))
        summary[criterion] = f"{len(neurons)} neurons ({neurons.share:.2%} of {neurons.model.n_neurons}), first {first}"
    return summary


def _gate(line: Line) -> dict[str, object]:
    gate = line.gate()
    if not gate.reads:
        return {"gate": gate.label}
    assessment: dict[str, dict[str, float]] = gate.facts["validation_assessment"]  # type: ignore[assignment]
    shown = {
        name: f"{assessment[key]['value']:.3f} [{assessment[key]['low']:.3f}, {assessment[key]['high']:.3f}]"
        for name, key in (("AUROC on validation", "auroc"), ("text-only AUROC", "text_auroc"), ("difference", "difference"))
    }
    return {"gate": gate.label, **shown, "threshold": round(gate.cutoff, 4), "features": len(gate.layer)}


def _tune(line: Line) -> dict[str, object]:
    points = line.tune_points()
    summary: dict[str, object] = {}
    for criterion, intervention in product(line.config.ranking.criteria, line.config.tune.interventions):
        p = best_point(points, criterion, intervention)
        accuracy = f"{p.unsteered:.3f} -> {p.gated:.3f} gated, {p.always:.3f} always (n = {p.n})"
        summary[f"best {criterion}, {intervention}"] = f"K {p.k}, strength {p.strength:g}: {accuracy}"
    return summary


def _evaluate(line: Line) -> dict[str, object]:
    return {name: f"{row.accuracy:.3f}, gain {row.gain:+.3f}, p {row.p:.2g}" for name, row in summarise(line.outcomes()).items()}


def _experiments(line: Line) -> dict[str, object]:
    return {result.name: " ".join(result.findings[:1]) for result in experiment_results(line)}


def _report(line: Line) -> dict[str, object]:
    return {"report": str(line.directory.report), "artifact": str(line.directory.steering)}


_SUMMARIES = {
    "problems": _problems,
    "sample": _sample,
    "grade": _grade,
    "contrast": _contrast,
    "record": _record,
    "rank": _rank,
    "gate": _gate,
    "tune": _tune,
    "evaluate": _evaluate,
    "experiments": _experiments,
    "report": _report,
}
