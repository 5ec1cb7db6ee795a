"""``trimtab evaluate``: the stage of a run, or an artifact on any task."""

from pathlib import Path

import click

from trimtab.cli.options import (
    RunPath,
    chain_options,
    engine_option,
    executor_option,
    model_options,
    output_options,
    sandbox_option,
    task_options,
)
from trimtab.cli.output import Output
from trimtab.cli.run import show_result
from trimtab.cli.stages import stage_command
from trimtab.pipeline import run as run_line
from trimtab.pipeline import with_engine, with_executor
from trimtab.pipeline.config import artifact_run
from trimtab.store import AnyPath


def _seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:  # noqa: ARG001
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of whole numbers such as 0,1,2") from error


@click.command("evaluate")
@click.argument("run", type=RunPath())
@click.option("--config", type=RunPath(file_okay=True), help="run.toml of a new run.")
@click.option("--task", help="Evaluate an artifact on this task: testbed, a benchmark, or local:PATH.")
@task_options
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--model", default="testbed:reasoner", show_default=True, help="A hub id, a folder, or testbed:NAME.")
@click.option("--steering", help="The artifact: a folder or a hub repository.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many problems.")
@click.option("--n", type=click.IntRange(min=1), default=1, show_default=True, help="Chains per problem and seed.")
@click.option("--seeds", default="0", show_default=True, callback=_seeds, help="Seeds, with commas between.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Default: the benchmark's, or 1024.")
@click.option(
    "--baseline", "baselines", multiple=True, type=click.Choice(["prompt-only", "majority"]), help="Cheap things beside it."
)
@chain_options
@click.option("--resume", is_flag=True, help="Go on with the evaluation that is in the folder.")
@click.option("--force", is_flag=True, help="Delete the evaluation that is in the folder and start again.")
@click.option("--export", type=click.Path(path_type=Path, dir_okay=False), help="Write all outcomes as one JSON file, too.")
@model_options
@executor_option
@engine_option
@sandbox_option
@output_options
def evaluate_command(
    run: AnyPath,
    config: AnyPath | None,
    task: str | None,
    data: str,
    answer: str,
    split: str,
    model: str,
    steering: str | None,
    limit: int,
    n: int,
    seeds: tuple[int, ...],
    temperature: float,
    max_new_tokens: int | None,
    baselines: tuple[str, ...],
    force_model: bool,
    resume: bool,
    force: bool,
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
    """Open the test split: every condition on the same problems.

    RUN is a run directory. With --task it is a new one, in which the artifact of --steering is evaluated on that task with the
    same controls and the same verdict.
    """
    output = Output(as_json, quiet)
    if task is None:
        stage_command(run, "evaluate", config, output, executor=executor, engine=engine)
    else:
        if steering is None:
            raise click.UsageError("--task evaluates an artifact; name it with --steering")
        settings = artifact_run(
            task={"source": task, "data": data, "answer": answer, "train": 0, "validation": 0, "test": 0, split: limit},
            model={
                "source": model,
                "dtype": dtype,
                "device": device,
                "revision": revision or "",
                "trust_remote_code": trust_remote_code,
            },
            steering=steering,
            force_model=force_model,
            evaluation={"split": split, "n": n, "seeds": seeds, "temperature": temperature, "baselines": baselines},
            max_new_tokens=max_new_tokens,
        )
        run_line(
            with_engine(with_executor(settings, executor), engine),
            run,
            resume=resume,
            force=force,
            progress=output.progress,
            on_stage=output.stage,
            note=output.note,
        )
        show_result(run, "report", output)
    if export is not None:
        _export(run, export, output)


def _export(run: AnyPath, path: Path, output: Output) -> None:
    from trimtab.evaluation.outcomes import Outcome
    from trimtab.evaluation.outcomes_json import write_outcomes_json
    from trimtab.store import RunDirectory, read_table

    with RunDirectory.open(run) as directory:
        write_outcomes_json(read_table(directory.outcomes, Outcome), path, {"run": dict(directory.config)})
    output.note(f"outcomes: {path}")
