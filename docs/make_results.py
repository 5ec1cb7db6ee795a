"""Writes the findings and tables of experiments into docs/results.md, between its two markers; others stay as they are there.

for name in ablate sweep ...; do trimtab experiment $name runs/everything --out found/$name; done
python docs/make_results.py found
trimtab experiment ablate runs/real-0 --out found-real/ablate
python docs/make_results.py found-real docs/results-real.md
"""

import sys
from pathlib import Path

from trimtab.findings import Findings, Frame
from trimtab.report import FINDINGS, read_findings
from trimtab.report.tables import cells_shown, columns_shown

PAGE = Path(__file__).with_name("results.md")
BEGIN, END = "<!-- made by make_results.py: begin -->", "<!-- made by make_results.py: end -->"
LONGEST = 30
"""Longer tables are left to the run's own report."""


def main(folder: Path, page: Path = PAGE) -> None:
    """Replace the sections of these experiments on a page."""
    found = [read_findings(path) for path in sorted(folder.glob(f"*/{FINDINGS}"))]
    head, _, rest = page.read_text().partition(BEGIN)
    body, _, tail = rest.partition(END)
    sections = {part.partition("\n")[0]: f"## {part.strip()}\n" for part in body.split("\n## ")[1:]}
    sections.update({findings.title: section(findings) for findings in found})
    whole = "\n".join(sections[title] for title in sections)
    page.write_text(f"{head}{BEGIN}\n\n{whole}\n{END}{tail}")
    print(f"{page}: {len(found)} experiments")


def section(findings: Findings) -> str:
    """One experiment as Markdown."""
    parts = [f"## {findings.title}", findings.question, f"`trimtab experiment {findings.name} RUN`"]
    parts.append("\n".join(f"- {escaped(sentence)}" for sentence in findings.sentences))
    parts += [markdown(frame) for frame in findings.frames if len(frame.rows) <= LONGEST and is_numeric(frame)]
    return "\n\n".join(parts) + "\n"


def is_numeric(frame: Frame) -> bool:
    """Tables of words, such as tokens in their context, are for the report."""
    return sum(column.is_text for column in columns_shown(frame)) <= 2


def markdown(frame: Frame) -> str:
    """A table with its title and note; chosen rows are bold."""
    shown = columns_shown(frame)
    lines = [f"**{escaped(frame.title)}**", ""]
    lines.append("| " + " | ".join(escaped(column.heading) for column in shown) + " |")
    lines.append("|" + "|".join("---" if column.is_text else "---:" for column in shown) + "|")
    for row in frame.rows:
        cells = [escaped(f"{cell.text} {cell.interval}".strip()) for cell in cells_shown(frame, row)]
        lines.append("| " + " | ".join(f"**{cell}**" if row.get("chosen") and cell else cell for cell in cells) + " |")
    return "\n".join([*lines, "", escaped(frame.note)]).rstrip()


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
