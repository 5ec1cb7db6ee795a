"""Safeguards of the demo's verdict: ``python benchmarks/safeguards.py --out runs/safeguards``.

Runs the demo, unchanged, on every bundled model (three training seeds, the negative control, the fine-tuned one), then on
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

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import ALWAYS, UNSTEERED
from trimtab.evaluation.runner import Condition
from trimtab.evaluation.verdict import paired
from trimtab.interventions import INTERVENTIONS
from trimtab.neurons import Neurons
from trimtab.ranking import rank
from trimtab.report import read_report
from trimtab.sampling import sample_traces
from trimtab.steering import Steering
from trimtab.store import write_json
from trimtab.study import DEMO, Settings, Study, run
from trimtab.study.demo_json import demo_json
from trimtab.study.settings import ModelSettings
from trimtab.tasks import grade_traces
from trimtab.tasks.contrast import ContrastRow
from trimtab.testbed.chains import check_steps
from trimtab.testbed.problems import TestbedProblem, parse
from trimtab.testbed.wordings import most_careful
from trimtab.traces import Problem, Split

MODELS = ("reasoner", "second", "third", "tuned", "control")
SHUFFLES = 20
DOSES = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""In multiples of the chosen strength."""


def configured(name: str) -> Settings:
    """The demo on one of the bundled models; on the reasoner with the cheap baselines beside it."""
    baselines = ("majority", "sft-lora") if name == "reasoner" else ()
    evaluation = DEMO.evaluation.model_copy(update={"baselines": baselines, "votes": 6})
    return DEMO.model_copy(update={"model": ModelSettings(source=f"testbed:{name}"), "evaluation": evaluation})


def shuffled_neurons(study: Study, criterion: str, k: int, seed: int) -> Neurons:
    """The neurons that the same criterion finds when the labels are shuffled within each problem."""
    rng = random.Random(seed)
    by_problem: dict[str, list[ContrastRow]] = {}
    for row in study.contrast():
        by_problem.setdefault(row.problem_id, []).append(row)
    relabelled: list[ContrastRow] = []
    for rows in by_problem.values():
        shuffled = [row.correct for row in rows]
        rng.shuffle(shuffled)
        relabelled += [replace(row, correct=label) for row, label in zip(rows, shuffled, strict=True)]
    return rank(study.moments(relabelled), criterion, k, study.model.identity)


def with_push_of(steering: Steering, reference: Steering) -> Steering:
    """The same direction with the norm of the reference's shift: a shuffled difference is short."""
    scale = np.linalg.norm(reference.shift) / np.linalg.norm(steering.shift)
    return replace(steering, shift=(steering.shift * scale).astype(np.float32))


def condition_row(study: Study, name: str, steering: Steering, unsteered: list[Outcome]) -> dict[str, object]:
    """An always-on condition on the test split beside the unsteered outcomes of the run."""
    steered = study.answers(Condition(name, steering), study.problems().split(Split.TEST), what="safeguards")
    comparison = paired(unsteered, steered)
    return {
        "accuracy": comparison.accuracy,
        "gain": comparison.gain,
        "p": comparison.p,
        "fixed": comparison.fixed,
        "broken": comparison.broken,
        "steps_right": float(np.mean([bool(o.steps_right) for o in steered])),
    }


def counted(rows: list[dict[str, object]]) -> dict[str, object]:
    """Conditions that must not gain, with how many of them did."""
    return {"runs": len(rows), "gains with p < 0.05": sum(r["gain"] > 0 and r["p"] < 0.05 for r in rows), "rows": rows}  # type: ignore[operator]


def ceiling(study: Study, folder: Path) -> dict[str, float]:
    """The test problems asked in the five most careful wordings of their domain, unsteered: accuracy and step accuracy."""
    reworded = []
    for i, problem in enumerate(study.problems().split(Split.TEST)):
        instance = parse(problem.question).instance
        wording = most_careful(instance.domain)[i % 5]
        reworded.append(replace(problem, question=TestbedProblem(instance, wording).question))
    traces = sample_traces(study.model, reworded, study.settings.sampling.greedy(), folder / "ceiling")
    reports = [check_steps(parse(p.question), t.text) for p, t in zip(reworded, traces, strict=True)]
    grades = grade_traces(traces, {p.id: p for p in reworded}, study.grader)
    plain = [r for p, r in zip(reworded, reports, strict=True) if r.source != "content"]
    return {
        "accuracy": float(np.mean([g.score == "correct" for g in grades])),
        "step_accuracy": sum(r.right for r in reports) / sum(r.written for r in reports),
        "step_accuracy_without_misread_content": sum(r.right for r in plain) / sum(r.written for r in plain),
    }


def wording_table(study: Study) -> dict[str, int]:
    """How many wordings stand in each split, and how many of the test split's are unseen in train."""

    def wordings(problems: list[Problem]) -> set[str]:
        return {str(parse(p.question).wording) for p in problems}

    found, test = wordings(study.problems().split(Split.TRAIN)), wordings(study.problems().split(Split.TEST))
    return {"train": len(found), "test": len(test), "unseen in train": len(test - found)}


def reasoner_checks(path: Path) -> dict[str, object]:
    """Everything that is asked of the reasoner beyond the demo."""
    with Study.from_toml(path) as study:
        tuning, evaluation = study.tuned(), study.evaluate()
        best, found = tuning.best, tuning.steering
        unsteered = list(evaluation.outcomes[UNSTEERED])
        shuffled, scaled = [], []
        for seed in range(SHUFFLES):
            neurons = shuffled_neurons(study, best.criterion, best.k, seed)
            steering = Steering.of(neurons, best.strength, found.scope, intervention=INTERVENTIONS[best.intervention])
            shuffled.append(condition_row(study, f"shuffled-{seed:02d}", steering, unsteered))
            scaled.append(condition_row(study, f"shuffled-scaled-{seed:02d}", with_push_of(steering, found), unsteered))
        doses = {
            f"{dose * best.strength:g}": condition_row(
                study, f"dose-{dose:g}", found.with_strength(dose * best.strength), unsteered
            )
            for dose in DOSES
        }
        rows = read_report(path / "report.json").conditions
        steps = {
            name: float(np.mean([bool(o.steps_right) for o in evaluation.outcomes[name] if o.correct]))
            for name in (UNSTEERED, ALWAYS)
        }
        return {
            "shuffled labels": counted(shuffled),
            "shuffled labels, shift scaled to the found norm": counted(scaled),
            "dose response": doses,
            "ceiling": ceiling(study, path.parent / "extra"),
            "conditions": {
                row.condition: {"accuracy": row.accuracy, "gain": row.gain, "p": row.p, "tokens": row.tokens_per_answer}
                for row in rows
            },
            "right steps among right answers": steps,
            "wordings": wording_table(study),
        }


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/safeguards"), show_default=True)
def main(out: Path) -> None:
    """Run all safeguards; a run that was interrupted goes on."""
    table: dict[str, object] = {}
    for name in MODELS:
        with Study(path=out / name, settings=configured(name)) as study:
            run(study, on_stage=lambda stage, seconds, _, name=name: click.echo(f"{name} {stage} {seconds:.1f} s", err=True))
        table[name] = demo_json(read_report(out / name / "report.json"), 0.0)
    table["reasoner, beyond the demo"] = reasoner_checks(out / "reasoner")
    write_json(out / "safeguards.json", table)
    click.echo(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
