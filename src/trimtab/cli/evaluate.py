"""``trimtab evaluate``: a steering on any task."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from trimtab.cli.options import (
    RunPath,
    engine_option,
    executor_option,
    model_options,
    output_options,
    response_options,
    sandbox_option,
    task_options,
)
from trimtab.cli.output import Output
from trimtab.evaluation.outcomes import write_outcomes_json
from trimtab.model import rebind
from trimtab.steering import PositionScope, Steering
from trimtab.store import AnyPath, read_directions, save_steering, write_table
from trimtab.store.import_directions import SCOPES, holds_directions
from trimtab.study import Evaluation, Study, parse_settings, with_engine, with_executor


def _seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:  # noqa: ARG001
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of whole numbers such as 0,1,2") from error


@click.command("evaluate")
@click.option("--model", required=True, help="Hub id, folder, or testbed:NAME.")
@click.option("--task", required=True, help="A benchmark, local:PATH, or testbed.")
@click.option(
    "--steering", required=True, help="An artifact (a folder or a hub repository), or a control vector (a .gguf or .svec file)."
)
@click.option("--strength", type=float, help="Replaces the artifact's; 1 for a control vector.")
@click.option(
    "--scope", type=click.Choice(get_args(PositionScope)), help="Replaces the artifact's, or that of the vector's tool."
)
@click.option("--layer", "layers", type=click.IntRange(min=0), multiple=True, help="Use only this layer of a control vector.")
@click.option("--out", type=RunPath(), help="Keep everything here, with a report: a folder or a URL.")
@task_options
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most this many problems.")
@click.option("--n", type=click.IntRange(min=1), default=1, show_default=True, help="Responses per problem and seed.")
@click.option("--seeds", default="0", show_default=True, callback=_seeds, help="Seeds, separated by commas.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Default: the benchmark's, or 1024.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(["prompt-only", "majority"]),
    help="A cheap alternative to steering as a condition of its own; may be repeated.",
)
@response_options
@click.option("--export", type=click.Path(path_type=Path, dir_okay=False), help="Write all outcomes as one JSON file, too.")
@model_options
@executor_option
@engine_option
@sandbox_option
@output_options
def evaluate_command(
    model: str,
    task: str,
    steering: str,
    strength: float | None,
    scope: PositionScope | None,
    layers: tuple[int, ...],
    out: AnyPath | None,
    data: str,
    answer: str,
    split: str,
    limit: int,
    n: int,
    seeds: tuple[int, ...],
    temperature: float,
    max_new_tokens: int | None,
    baselines: tuple[str, ...],
    force_model: bool,
    export: Path | None,
    dtype: str,
    device: str,
    revision: str | None,
    trust_remote_code: bool,
    executor: str | None,
    engine: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate a steering on a task: every condition on the same problems, controls included, and a verdict."""
    output = Output(as_json, quiet)
    vector = holds_directions(steering) and not Path(steering).is_dir()
    if layers and not vector:
        raise click.UsageError("--layer chooses among the directions of a control vector, and an artifact is steered as a whole")
    found = None if vector else _overridden(Steering.from_pretrained(steering), strength, scope)
    sections: dict[str, object] = {
        "task": {"source": task, "data": data, "answer": answer, "train": 0, "validation": 0, "test": 0, split: limit},
        "model": {
            "source": model,
            "dtype": dtype,
            "device": device,
            "revision": revision or "",
            "trust_remote_code": trust_remote_code,
        },
        "evaluation": {"split": split, "n": n, "seeds": seeds, "temperature": temperature, "baselines": baselines},
        "sampling": {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens},
    }
    settings = with_engine(with_executor(parse_settings(sections, "the command line"), executor), engine)
    with Study(path=out, settings=settings, progress=output.progress, note=output.note) as study:
        if found is None:
            found = _control_vector(steering, study, strength, scope, layers)
        evaluation = study.evaluate(rebind(found, study.model.identity) if force_model else found)
        if out is not None:
            _leave(study, evaluation)
        show_evaluation(study, evaluation, output)
    if export is not None:
        rows = [row for rows in evaluation.outcomes.values() for row in rows]
        write_outcomes_json(rows, export, {"settings": settings.stored(), "steering": found.digest})
        output.note(f"outcomes: {export}")


def _overridden(steering: Steering, strength: float | None, scope: PositionScope | None) -> Steering:
    chosen = steering if strength is None else steering.with_strength(strength)
    return chosen if scope is None else replace(chosen, scope=scope)


def _control_vector(
    path: str, study: Study, strength: float | None, scope: PositionScope | None, layers: tuple[int, ...]
) -> Steering:
    """Another tool's vector as that tool adds it, unless the command says otherwise."""
    directions = read_directions(path, study.model.identity, layers)
    made = directions.steering(1.0 if strength is None else strength, scope=scope or SCOPES[Path(path).suffix])
    study.note(f"{made!r}".replace("\n", "; "))
    hint, model = directions.facts["imported"]["model_hint"], study.model.identity  # type: ignore[index]
    if hint and hint != model.architecture:
        study.note(
            f"{path} says that it was made for a {hint}, and {model.name} is a {model.architecture}; sizes alone are checked"
        )
    return made


def _leave(study: Study, evaluation: Evaluation) -> None:
    """What a run directory shows: settings, outcomes, report; and the artifact, without which it cannot be viewed again."""
    study.save()
    save_steering(evaluation.steering, study.cache.root / "steering", force=True)
    rows = [row for rows in evaluation.outcomes.values() for row in rows]
    write_table(study.cache.root / "outcomes.parquet", rows, under=evaluation.key)
    study.report()


def show_evaluation(study: Study, evaluation: Evaluation, output: Output) -> None:
    """The verdict and its tables, or the report as JSON."""
    from trimtab.study.report_data import build_report

    report = build_report(study, evaluation, None)
    if output.as_json:
        output.data(report.model_dump(mode="json"), "")
    else:
        output.verdict(report)
