"""How values show themselves in a notebook: the sentences of their ``repr`` and the first rows of a table."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

ROWS = 8


def as_html(text: str, table: "pandas.DataFrame") -> str:
    """A paragraph a line, then the table's first rows."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in text.splitlines())
    rest = f"<p>and {len(table) - ROWS:,} more rows</p>" if len(table) > ROWS else ""
    return f"{lines}{table.head(ROWS).to_html(index=False, border=0)}{rest}" if len(table) else lines


def counted(n: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> counted(1, "neuron"), counted(1200, "layer")
        ('1 neuron', '1,200 layers')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
