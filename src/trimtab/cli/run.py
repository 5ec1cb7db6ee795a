"""``trimtab run``."""

import click

from trimtab.cli.options import RunPath, engine_option, executor_option, output_options, run_options, sandbox_option
from trimtab.cli.output import Output
from trimtab.pipeline import STAGES, RunConfig, Stage, check_until, load_config, run, with_engine, with_executor
from trimtab.store import AnyPath


@click.command("run")
@click.argument("config", type=RunPath(file_okay=True))
@run_options
@executor_option
@engine_option
@sandbox_option
@click.option("--until", type=click.Choice(STAGES), default="report", show_default=True, help="The last stage.")
@click.option("--dry-run", is_flag=True, help="Print tokens, disk, memory and time, and write nothing.")
@output_options
def run_command(
    config: AnyPath,
    out: AnyPath,
    resume: bool,
    force: bool,
    executor: str | None,
    engine: str | None,
    until: Stage,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the whole pipeline from CONFIG, a run.toml: problems, traces, verdicts, neurons, gate, steering, verdict, report."""
    output = Output(as_json, quiet)
    settings = with_engine(with_executor(load_config(config), executor), engine)
    check_until(settings, until)
    if dry_run:
        show_estimate(settings, out, until, output)
        return
    run(
        settings,
        out,
        resume=resume,
        force=force,
        until=until,
        progress=output.progress,
        on_stage=output.stage,
        note=output.note,
    )
    show_result(out, until, output)


def show_estimate(settings: RunConfig, out: AnyPath, until: Stage, output: Output) -> None:
    """Print what a run would cost."""
    from trimtab.pipeline.estimate import estimate

    cost = estimate(settings, until)
    output.data(cost.to_json(), f"{cost}\nnothing was written to {out}")


def show_result(out: AnyPath, until: Stage, output: Output) -> None:
    """Print the verdict of a whole run, or the summary of its last stage."""
    from trimtab.pipeline.summaries import stage_summary

    if until != "report":
        summary = stage_summary(out, until)
        output.data(summary, "\n".join(f"{name:<24}  {value}" for name, value in summary.items()))
        return
    from trimtab.report import read_report

    report = read_report(out / "report.json")
    if output.as_json:
        output.data(report.model_dump(mode="json"), "")
        return
    output.verdict(report)
    # the artifact of an evaluated one is where it was
    made = f"    artifact: {out / 'steering'}" if (out / "steering" / "config.json").exists() else ""
    output.note(f"report: {out / 'report.html'}{made}")
