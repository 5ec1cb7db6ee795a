"""``trimtab run``, ``trimtab stage`` and ``trimtab experiment``: a study from its settings file or its run directory."""

from typing import TYPE_CHECKING

import click

from trimtab.cli.options import RunPath, engine_option, executor_option, output_options, sandbox_option
from trimtab.cli.output import Output
from trimtab.experiments.settings import EXPERIMENT_NAMES, ExperimentName
from trimtab.study.settings import STAGES, Settings, Stage, check_until, load_settings, with_engine, with_executor

if TYPE_CHECKING:
    from trimtab.store import AnyPath
    from trimtab.study import Study


LONGEST_TABLE = 40
"""Rows of a frame that a terminal is shown; longer ones are left to the page and the CSV."""


@click.command("run")
@click.argument("config", type=RunPath(file_okay=True))
@click.option("--out", type=RunPath(), required=True, help="The run directory: a folder or a URL.")
@executor_option
@engine_option
@sandbox_option
@click.option("--until", type=click.Choice(STAGES), default="report", show_default=True, help="The last stage.")
@click.option("--dry-run", is_flag=True, help="Print tokens, disk, memory and time, and write nothing.")
@output_options
def run_command(
    config: "AnyPath",
    out: "AnyPath",
    executor: str | None,
    engine: str | None,
    until: Stage,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the whole pipeline from CONFIG, a settings file: problems, traces, grades, neurons, gate, steering, verdict, report.

    Results that are in the run directory are read, so the same command continues after a stop, and a changed setting computes
    only the results that depend on it.
    """
    output = Output(as_json, quiet)
    settings = with_engine(with_executor(load_settings(config), executor), engine)
    check_until(settings, until)
    if dry_run:
        show_cost(settings, until, output)
        return
    with study_of(settings, out, output) as study:
        run_pipeline(study, until, output)


@click.command("stage")
@click.argument("name", type=click.Choice(STAGES))
@click.argument("run", type=RunPath(exists=True))
@click.option("--regrade", is_flag=True, help="With grade: list the scores that differ from an older grader's, and why.")
@executor_option
@engine_option
@sandbox_option
@output_options
def stage_command(
    name: Stage, run: "AnyPath", regrade: bool, executor: str | None, engine: str | None, as_json: bool, quiet: bool
) -> None:
    """Bring one stage of RUN up to date, with whatever it needs, under the settings of RUN/run.toml."""
    if regrade and name != "grade":
        raise click.UsageError("--regrade belongs to `trimtab stage grade RUN`")
    from trimtab.study import RUN_FILE, run_stage
    from trimtab.study.gather import regraded_since

    output = Output(as_json, quiet)
    settings = with_engine(with_executor(load_settings(run / RUN_FILE), executor), engine)
    with study_of(settings, run, output) as study:
        found = run_stage(study, name)
        if regrade:
            changes = regraded_since(study)
            found["changed scores"] = len(changes)
            found |= {c.trace_id: f"{c.before.value} -> {c.after.value}: {c.why_after}" for c in changes}
        output.data(found, "\n".join(f"{key}: {value}" for key, value in found.items()))


@click.command("experiment")
@click.argument("name", type=click.Choice(EXPERIMENT_NAMES))
@click.argument("run", type=RunPath(exists=True))
@click.option("--onto", "other_models", multiple=True, help="transfer-model: a model to carry the neurons to; may be repeated.")
@click.option("--out", type=RunPath(), help="Write index.html, a CSV for each frame and findings.json into this folder, too.")
@executor_option
@output_options
def experiment_command(
    name: ExperimentName,
    run: "AnyPath",
    other_models: tuple[str, ...],
    out: "AnyPath | None",
    executor: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Answer one question about what RUN found.

    \b
    ablate          what each part of the method is worth
    sweep           how K, strength, threshold, scope and layers matter, on the validation split
    transfer        neurons and gate of one domain on another, those of hard problems on easy ones
    causal          whether the model needs the neurons: ablate them, as many others, amplify them
    domains         which neurons serve one domain alone
    stability       whether other problems would have found the same neurons
    transfer-model  the neurons on a fine-tuned or another model
    monitor         a warning while the model writes, and what steering does to everything else
    analyse         layers, ratios, probes, vocabulary, drift, top tokens
    """
    from trimtab.study import RUN_FILE

    output = Output(as_json, quiet)
    settings = with_executor(load_settings(run / RUN_FILE), executor)
    with study_of(settings, run, output) as study:
        findings = study.experiment(name, **({"other_models": other_models} if other_models else {}))
        study.save()
    from trimtab.report import terminal_table, write_findings

    if out is not None:
        output.note(f"wrote {write_findings(findings, out).parent}")
    if as_json:
        output.data(findings.to_json(), "")
        return

    output.tables(
        [terminal_table(frame) for frame in findings.frames if len(frame.rows) <= LONGEST_TABLE], "\n".join(findings.sentences)
    )


def study_of(settings: Settings, path: "AnyPath", output: Output) -> "Study":
    """The study of some settings, kept in a folder."""
    from trimtab.study import Study

    return Study(path=path, settings=settings, progress=output.progress, note=output.note)


def run_pipeline(study: "Study", until: Stage, output: Output) -> None:
    """Run a study to a stage and print the verdict, or the result of its last stage."""
    from trimtab.report import read_report
    from trimtab.study import run

    last: dict[str, object] = {}

    def on_stage(stage: Stage, seconds: float, summary: "dict[str, object]") -> None:
        last.clear()
        last.update(summary)
        output.stage(stage, seconds, summary)

    run(study, until=until, on_stage=on_stage)  # type: ignore[arg-type]
    if until != "report" or "report" not in study.settings.stages:
        output.data(last, "\n".join(f"{key}: {value}" for key, value in last.items()))
        return
    report = read_report(study.cache.root / "report.json")
    if output.as_json:
        output.data(report.model_dump(mode="json"), "")
    else:
        output.verdict(report)
        root = study.cache.root
        output.note(f"report: {root / 'report.html'}    every pair: {root / 'view.html'}    artifact: {root / 'steering'}")


def show_cost(settings: Settings, until: Stage, output: Output) -> None:
    """The upper bound of a run's cost."""
    from trimtab.study.estimate import estimate

    cost = estimate(settings, until)
    output.data(cost.to_json(), str(cost))
