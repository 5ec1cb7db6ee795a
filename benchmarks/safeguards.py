"""What makes a sceptic believe the demo's verdict: ``python benchmarks/safeguards.py --out runs/safeguards``.

Runs the demo's line, unchanged, on every bundled model (three training seeds, the negative control, the fine-tuned one), then on
the reasoner: the cheap baselines (a majority vote, fine-tuning on the same traces), 20 steerings ranked from labels shuffled
within problems, the dose-response curve with negative strengths, and the most careful wordings as a ceiling. Prints one JSON
object and writes it to OUT/safeguards.json.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from trimtab.pipeline import DEMO, Line, RunConfig, run
from trimtab.pipeline.config import ModelSettings
from trimtab.pipeline.demo_json import demo_json
from trimtab.pipeline.line import SAMPLED

from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.names import ALWAYS, UNSTEERED
from trimtab.evaluation.pairing import paired
from trimtab.evaluation.runner import evaluate_condition
from trimtab.evaluation.tune import best_point
from trimtab.interventions import INTERVENTIONS
from trimtab.neurons import Neurons
from trimtab.ranking import class_moments, rank
from trimtab.report import read_report
from trimtab.sampling import sample_traces
from trimtab.steering import Steering
from trimtab.store import RunDirectory, write_json
from trimtab.tasks import grade_traces
from trimtab.testbed.chains import check_steps
from trimtab.testbed.problems import TestbedProblem, parse
from trimtab.testbed.wordings import most_careful
from trimtab.traces import Problem, Split

MODELS = ("reasoner", "second", "third", "tuned", "control")
SHUFFLES = 20
DOSES = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""In multiples of the chosen strength."""


def configured(name: str) -> RunConfig:
    """The demo on one of the bundled models; on the reasoner with the cheap baselines beside it."""
    baselines = ("majority", "sft-lora") if name == "reasoner" else ()
    evaluation = DEMO.evaluation.model_copy(update={"baselines": baselines, "votes": 6})
    return DEMO.model_copy(update={"model": ModelSettings(source=f"testbed:{name}"), "evaluation": evaluation})


def shuffled_neurons(line: Line, criterion: str, k: int, seed: int) -> Neurons:
    """The neurons that the same criterion finds when the labels are shuffled within each problem."""
    rng = random.Random(seed)
    by_problem: dict[str, list[tuple[str, bool]]] = {}
    for row in line.contrast():
        by_problem.setdefault(row.problem_id, []).append((row.trace_id, row.correct))
    labels: dict[str, tuple[str, bool]] = {}
    for problem_id, rows in by_problem.items():
        shuffled = [label for _, label in rows]
        rng.shuffle(shuffled)
        labels |= {trace_id: (problem_id, label) for (trace_id, _), label in zip(rows, shuffled, strict=True)}
    parts = (
        (moments, [labels[i][0] for i in ids], [labels[i][1] for i in ids])
        for ids, moments in line.recording(SAMPLED).stream(line.config.ranking.scope)
    )
    return rank(class_moments(parts), criterion, k, line.model.identity)


def with_push_of(steering: Steering, reference: Steering) -> Steering:
    """The same direction with the norm of the reference's shift: a shuffled difference is short."""
    scale = np.linalg.norm(reference.shift) / np.linalg.norm(steering.shift)
    return replace(steering, shift=(steering.shift * scale).astype(np.float32))


def condition_row(line: Line, name: str, steering: Steering, folder: Path) -> dict[str, object]:
    """An always-on condition on the test split beside the unsteered outcomes of the run."""
    problems = line.problems(Split.TEST)
    condition = evaluate_condition(
        line.model,
        Condition(name, steering),
        problems,
        line.config.sampling.greedy(),
        line.grader,
        folder / name,
        checker=line.checker,
    )
    comparison = paired(line.outcomes()[UNSTEERED], condition)
    return {
        "accuracy": comparison.accuracy,
        "gain": comparison.gain,
        "p": comparison.p,
        "fixed": comparison.fixed,
        "broken": comparison.broken,
        "steps_right": float(np.mean([bool(o.steps_right) for o in condition])),
    }


def counted(rows: list[dict[str, object]]) -> dict[str, object]:
    """Conditions that must not gain, with how many of them did."""
    return {"runs": len(rows), "gains with p < 0.05": sum(r["gain"] > 0 and r["p"] < 0.05 for r in rows), "rows": rows}  # type: ignore[intervention]


def ceiling(line: Line, folder: Path) -> dict[str, float]:
    """The test problems asked in the five most careful wordings of their domain, unsteered: accuracy and step accuracy."""
    reworded = []
    for i, problem in enumerate(line.problems(Split.TEST)):
        instance = parse(problem.question).instance
        wording = most_careful(instance.domain)[i % 5]
        reworded.append(replace(problem, question=TestbedProblem(instance, wording).question))
    traces = sample_traces(line.model, reworded, line.config.sampling.greedy(), folder / "ceiling")
    reports = [check_steps(parse(p.question), t.text) for p, t in zip(reworded, traces, strict=True)]
    grades = grade_traces(traces, {p.id: p for p in reworded}, line.grader)
    plain = [r for p, r in zip(reworded, reports, strict=True) if r.source != "content"]
    return {
        "accuracy": float(np.mean([g.verdict == "correct" for g in grades])),
        "step_accuracy": sum(r.right for r in reports) / sum(r.written for r in reports),
        "step_accuracy_without_misread_content": sum(r.right for r in plain) / sum(r.written for r in plain),
    }


def wording_table(line: Line) -> dict[str, int]:
    """How many wordings stand in each split, and how many of the test split's are unseen in find."""

    def wordings(problems: list[Problem]) -> set[str]:
        return {str(parse(p.question).wording) for p in problems}

    found, test = wordings(line.problems(Split.TRAIN)), wordings(line.problems(Split.TEST))
    return {"train": len(found), "test": len(test), "unseen in find": len(test - found)}


def reasoner_checks(path: Path) -> dict[str, object]:
    """Everything that is asked of the reasoner beyond the demo."""
    with RunDirectory.open(path) as directory:
        line = Line(configured("reasoner"), directory)
        best = best_point(line.tune_points())
        found = line.steering_at(best)
        extra = path.parent / "extra"
        shuffled, scaled = [], []
        for seed in range(SHUFFLES):
            neurons = shuffled_neurons(line, best.criterion, best.k, seed)
            steering = Steering.of(neurons, best.strength, found.scope, intervention=INTERVENTIONS[best.intervention])
            shuffled.append(condition_row(line, f"shuffled-{seed:02d}", steering, extra))
            scaled.append(condition_row(line, f"shuffled-scaled-{seed:02d}", with_push_of(steering, found), extra))
        doses = {
            f"{dose * best.strength:g}": condition_row(line, f"dose-{dose:g}", found.with_strength(dose * best.strength), extra)
            for dose in DOSES
        }
        rows = read_report(path / "report.json").conditions
        steps = {
            name: float(np.mean([bool(o.steps_right) for o in line.outcomes()[name] if o.correct]))
            for name in (UNSTEERED, ALWAYS)
        }
        return {
            "shuffled labels": counted(shuffled),
            "shuffled labels, shift scaled to the found norm": counted(scaled),
            "dose response": doses,
            "ceiling": ceiling(line, extra),
            "conditions": {
                row.condition: {"accuracy": row.accuracy, "gain": row.gain, "p": row.p, "tokens": row.tokens_per_answer}
                for row in rows
            },
            "right steps among right answers": steps,
            "wordings": wording_table(line),
        }


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/safeguards"), show_default=True)
def main(out: Path) -> None:
    """Run all safeguards; a run that was interrupted goes on."""
    table: dict[str, object] = {}
    for name in MODELS:
        run(
            configured(name),
            out / name,
            resume=True,
            on_stage=lambda stage, seconds, name=name: click.echo(f"{name} {stage} {seconds}", err=True),
        )
        table[name] = demo_json(read_report(out / name / "report.json"), 0.0)
    table["reasoner, beyond the demo"] = reasoner_checks(out / "reasoner")
    write_json(out / "safeguards.json", table)
    click.echo(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
