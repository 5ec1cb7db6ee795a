"""``trimtab grade``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trimtab.cli.options import RunPath
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.store import AnyPath


@click.command("grade")
@click.argument("path", type=RunPath(file_okay=True), metavar="FILE")
@click.option("--config", type=RunPath(file_okay=True), help="run.toml of a new run, where FILE is a run directory.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout, in place of one object a line.")
@click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
def grade(path: "AnyPath", config: "AnyPath | None", as_json: bool, quiet: bool) -> None:
    """Grade the answers of FILE.jsonl, and print one JSON object a line: id, verdict, answer, reason.

    A line of FILE has kind (math, choice, yes-no, code, exact), gold and response; a choice may have choices; code has
    entry_point, preamble and tests in place of gold. The verdict is correct, incorrect or unscored, which means that the grader
    itself failed; answer is what was found in the response. Where FILE is a run directory, its traces are graded.
    """
    output = Output(as_json, quiet)
    if config is not None or not isinstance(path, Path) or not path.is_file():
        from trimtab.cli.stages import stage_command

        stage_command(path, "grade", config, output)
        return
    from trimtab.tasks.answer_file import grade_answers, read_answers
    from trimtab.tasks.files import read_rows
    from trimtab.tasks.grading import KindGrader

    answers = read_answers(read_rows(path), str(path))
    with KindGrader() as grader:
        graded = grade_answers(answers, grader)
    output.data(graded, "\n".join(json.dumps(line, ensure_ascii=False) for line in graded))
    counts = {verdict: sum(line["verdict"] == verdict for line in graded) for verdict in ("correct", "incorrect", "unscored")}
    output.note(", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + f" of {len(graded)}")
