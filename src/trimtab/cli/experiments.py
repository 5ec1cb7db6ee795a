"""One command per experiment: each on a run directory whose steering is found."""

import click

from trimtab.cli.main import EXPERIMENT_HELP
from trimtab.cli.options import RunPath, sandbox_option
from trimtab.cli.output import Output
from trimtab.experiments import ExperimentName
from trimtab.pipeline.experimenting import run_experiment_on
from trimtab.results import Result
from trimtab.store import AnyPath


def _command(name: ExperimentName) -> click.Command:
    @click.command(name, help=f"{EXPERIMENT_HELP[name]}\n\nRUN is a run directory that `tune` has finished.")
    @click.argument("run", type=RunPath(exists=True))
    @sandbox_option
    @click.option("--force", is_flag=True, help="Run it again; answers on disk are used all the same.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
    def command(run: AnyPath, force: bool, as_json: bool, quiet: bool, others: tuple[str, ...] = ()) -> None:
        output = Output(as_json, quiet)
        show(run_experiment_on(run, name, force=force, other_models=others, progress=output.progress), run, output)

    return command


def show(result: Result, run: AnyPath, output: Output) -> None:
    """Print the tables and the findings, and say where the figures are."""
    if output.as_json:
        output.data(result.model_dump(mode="json"), "")
        return
    from trimtab.report import terminal_table

    output.tables([terminal_table(table) for table in result.tables], "\n".join(result.findings))
    output.note(f"figures, tables and data: {run / 'experiments' / result.name}")


ablate_command = _command("ablate")
sweep_command = _command("sweep")
stability_command = _command("stability")
causal_command = _command("causal")
monitor_command = _command("monitor")
transfer_command = _command("transfer")
domains_command = _command("domains")
transfer_model_command = click.option(
    "--to", "others", multiple=True, metavar="MODEL", help="A model to carry to, in place of the configuration's; repeatable."
)(_command("transfer-model"))
analyse_command = _command("analyse")
