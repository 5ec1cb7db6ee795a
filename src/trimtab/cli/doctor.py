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
    """Open MODEL (a hub id, a folder, a GGUF file or testbed:NAME) and prove each hook point.

    For every layer: the hook fires with the right shape, changing the activation changes the logits, and removing the hook
    restores them bit for bit. For the model: an attached steering does in a padded, cached generation what a plain hook does, and
    the sampler gives each row of a batch what the row gets alone.
    """
    from trimtab.model import check_model, open_model
    from trimtab.sampling import way_of

    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    diagnosis = check_model(model)
    way = way_of(model)
    facts = {**asdict(diagnosis), "ok": diagnosis.ok, "sampling": str(way)}
    Output(as_json, quiet).data(facts, f"{diagnosis.summary()}\nsampling: {way}")
    if not diagnosis.ok:
        raise SystemExit(1)
