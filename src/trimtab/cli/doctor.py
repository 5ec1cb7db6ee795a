"""``trimtab doctor``."""

from dataclasses import asdict

import click

from trimtab.cli.options import model_options, output_options
from trimtab.cli.output import Output


@click.command("doctor")
@click.argument("source", metavar="MODEL")
@model_options
@output_options
def doctor(
    source: str, dtype: str, device: str, revision: str | None, trust_remote_code: bool, as_json: bool, quiet: bool
) -> None:
    """Open MODEL (a hub id, a folder or testbed:NAME) and prove each hook point.

    For every layer: the hook fires with the right shape, changing the activation changes the logits, and removing the hook
    restores them bit for bit.
    """
    from trimtab.model import check_model, open_model

    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    diagnosis = check_model(model)
    Output(as_json, quiet).data({**asdict(diagnosis), "ok": diagnosis.ok}, diagnosis.summary())
    if not diagnosis.ok:
        raise SystemExit(1)
