"""``trimtab view``: a run as one page to look through, as a file or served on this machine."""

import click

from trimtab.cli.options import RunPath, output_options
from trimtab.cli.output import Output
from trimtab.errors import ModelError
from trimtab.store import AnyPath


@click.command("view")
@click.argument("run", type=RunPath())
@click.option("--out", type=RunPath(file_okay=True), help="Write the page here.  [default: RUN/view.html]")
@click.option("--serve", "serving", is_flag=True, help="Serve it on 127.0.0.1, with all pairs, every neuron, and forks.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="For --serve; 0 takes a free one.")
@output_options
def view_command(run: AnyPath, out: AnyPath | None, serving: bool, port: int, as_json: bool, quiet: bool) -> None:
    """Look at every pair of responses of RUN, a folder that run, demo or evaluate --out left: where steered and unsteered part,
    with which probabilities, and which neurons did it.

    The page is one HTML file that loads nothing from anywhere. With --serve it is at an address that only this machine can open
    and that nobody can guess, and a response can be continued from any token, at any strength.
    """
    from trimtab.report.view_page import render_view
    from trimtab.store import write_text
    from trimtab.study import Study
    from trimtab.study.view_data import build_bare_view, build_view, check_evaluated, evaluation_of_run

    output = Output(as_json, quiet)
    with Study.from_toml(run, progress=output.progress, note=output.note) as study:
        evaluation = None
        check_evaluated(run)
        try:
            _ = study.model
        except ModelError as error:
            output.note(f"the model could not be opened, so the page has texts and scores alone: {error}")
            view = build_bare_view(study)
        else:
            evaluation, tuning = evaluation_of_run(study)
            view = build_view(study, evaluation, tuning)
        if serving:
            from trimtab.study.view_server import serve_view

            output.note("serving until Ctrl-C, to this machine alone; open")
            serve_view(study, view, evaluation, port, lambda url: output.data({"url": url}, url))
            return
        target = out if out is not None else run / "view.html"
        write_text(target, render_view(view))
    output.data({"view": str(target)}, str(target))
