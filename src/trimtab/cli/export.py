"""``trimtab export``: an artifact as the files of another program."""

from pathlib import Path

import click

from trimtab.cli.options import output_options
from trimtab.cli.output import Output
from trimtab.export.parts import PARTS, TARGET_NAMES, Part, TargetName
from trimtab.steering import Steering


@click.command("export")
@click.argument("steering")
@click.option("--to", "target", type=click.Choice(TARGET_NAMES), required=True, help="The target format.")
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder of the export.")
@click.option("--drop", multiple=True, type=click.Choice(PARTS), help="Leave out a part that the target cannot express.")
@click.option("--model", help="The base model, if it is not where the artifact says: a hub id, a folder, or testbed:NAME.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the model's repository brings.")
@click.option("--allow-pickle", is_flag=True, help="Write lm-eval's file, which its loader unpickles.")
@click.option("--force", is_flag=True, help="Replace the export that is in the folder.")
@output_options
def export_command(
    steering: str,
    target: TargetName,
    out: Path,
    drop: tuple[Part, ...],
    model: str | None,
    revision: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write STEERING, a folder or a hub repository, for another program.

    A part that the target cannot express is refused by name. The base model's weights are read from its files and never opened as
    a whole. trimtab verify then shows whether the export does what the hooks do.
    """
    from trimtab.export.exporting import export_steering

    record = export_steering(
        Steering.from_pretrained(steering),
        target,
        out,
        model=model,
        revision=revision,
        drop=drop,
        allow_pickle=allow_pickle,
        force=force,
        trust_remote_code=trust_remote_code,
    )
    lines = [f"{record.n_neurons} neurons at strength {record.strength}, scope {record.scope}: {out}"]
    lines += [f"dropped: {words}" for words in record.dropped.values()]
    lines += [f"{name}: {value}" for name, value in record.facts.items()]
    lines += ["", record.usage]
    Output(as_json, quiet).data({"export": str(out), **record.model_dump()}, "\n".join(lines))
