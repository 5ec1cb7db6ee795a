"""Writes the tables and findings of a run's experiments into docs/results.md, between its two markers.

python docs/make_results.py runs/everything
"""

import sys
from pathlib import Path

from trimtab.report import RESULT, read_result
from trimtab.report.tables import cells_shown, columns_shown
from trimtab.results import Result, Table

PAGE = Path(__file__).with_name("results.md")
BEGIN, END = "<!-- made by make_results.py: begin -->", "<!-- made by make_results.py: end -->"
LONGEST = 30
"""Longer tables are left to the run's own report."""


def main(run: Path) -> None:
    """Replace what stands between the markers."""
    results = [read_result(path) for path in sorted(run.glob(f"experiments/*/{RESULT}"))]
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    body = "\n".join(section(result) for result in results)
    PAGE.write_text(f"{head}{BEGIN}\n\n{body}\n{END}{tail}")
    print(f"{PAGE}: {len(results)} experiments")


def section(result: Result) -> str:
    """One experiment as Markdown."""
    parts = [f"## {result.title}", result.question, f"`trimtab {result.name} RUN`"]
    parts.append("\n".join(f"- {escaped(finding)}" for finding in result.findings))
    parts += [markdown(table) for table in result.tables if len(table.rows) <= LONGEST and is_numeric(table)]
    return "\n\n".join(parts) + "\n"


def is_numeric(table: Table) -> bool:
    """Tables of words, such as tokens in their context, are for the report."""
    return sum(column.unit == "text" for column in table.columns) <= 2


def markdown(table: Table) -> str:
    """A table with its title and note; the chosen row is bold."""
    shown = columns_shown(table)
    lines = [f"**{escaped(table.title)}**", ""]
    lines.append("| " + " | ".join(escaped(column.name) for column in shown) + " |")
    lines.append("|" + "|".join("---" if column.unit == "text" else "---:" for column in shown) + "|")
    for i, row in enumerate(table.rows):
        cells = [escaped(f"{cell.text} {cell.interval}".strip()) for cell in cells_shown(table, row)]
        lines.append("| " + " | ".join(f"**{cell}**" if i == table.highlight and cell else cell for cell in cells) + " |")
    return "\n".join([*lines, "", escaped(table.note)]).rstrip()


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
