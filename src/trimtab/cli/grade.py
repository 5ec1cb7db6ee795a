"""``trimtab grade``."""

import json
from pathlib import Path

import click

from trimtab.cli.options import sandbox_option
from trimtab.cli.output import Output


@click.command("grade")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
@sandbox_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on stdout, in place of one object a line.")
@click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
def grade(path: Path, as_json: bool, quiet: bool) -> None:
    """Grade the answers of FILE.jsonl, and print one JSON object a line: id, verdict, answer, reason.

    A line of FILE has kind (math, choice, yes-no, code, exact), gold and response; a choice may have choices; code has
    entry_point, preamble and tests in place of gold. The verdict is correct, incorrect or unscored, which means that the grader
    itself failed; answer is what was found in the response.
    """
    output = Output(as_json, quiet)
    from trimtab.tasks.answer_file import grade_answers, read_answers
    from trimtab.tasks.files import read_rows
    from trimtab.tasks.grading import KindGrader

    answers = read_answers(read_rows(path), str(path))
    with KindGrader() as grader:
        graded = grade_answers(answers, grader)
    output.data(graded, "\n".join(json.dumps(line, ensure_ascii=False) for line in graded))
    counts = {verdict: sum(line["verdict"] == verdict for line in graded) for verdict in ("correct", "incorrect", "unscored")}
    output.note(", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + f" of {len(graded)}")
