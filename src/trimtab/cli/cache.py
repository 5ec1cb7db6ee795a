"""``trimtab cache``."""

import click

from trimtab.cli.options import RunPath, output_options
from trimtab.cli.output import Output
from trimtab.store import AnyPath, Cache, CacheRow, default_root


@click.command("cache")
@click.argument("run", type=RunPath(exists=True), required=False)
@click.option("--prune", is_flag=True, help="List only results that no study refers to.")
@click.option("--yes", is_flag=True, help="With --prune: delete them.")
@output_options
def cache_command(run: AnyPath | None, prune: bool, yes: bool, as_json: bool, quiet: bool) -> None:
    """List the results in RUN, or in the cache of studies without a path: sizes, and the studies that refer to them."""
    if yes and not prune:
        raise click.UsageError("--yes deletes what --prune lists; give both")
    output = Output(as_json, quiet)
    cache = Cache(default_root() if run is None else run)
    rows = [row for row in cache.rows() if not (prune and row.studies)]
    if yes:
        for row in rows:
            cache.delete(row.name)
    total = sum(row.size for row in rows)
    done = "deleted" if yes else "to delete with --yes" if prune else "in all"
    lines = [_line(row) for row in rows] + [f"{total / 1e6:>10,.2f} MB  {done}, {len(rows)} results"]
    data = {"deleted": yes, "bytes": total, "results": [_json(row) for row in rows]}
    output.data(data, "\n".join(lines))


def _line(row: CacheRow) -> str:
    state = "" if row.whole else "  unfinished"
    used = f"  {len(row.studies)} studies" if len(row.studies) > 1 else "" if row.studies else "  no study"
    return f"{row.size / 1e6:>10,.2f} MB  {row.name}{used}{state}"


def _json(row: CacheRow) -> dict[str, object]:
    return {"name": row.name, "bytes": row.size, "whole": row.whole, "studies": list(row.studies)}
