"""How values show themselves in a notebook and on a terminal."""

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

ROWS = 8


def as_html(text: str, table: "pandas.DataFrame") -> str:
    """A paragraph a line, then the table's first rows."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in text.splitlines())
    rest = f"<p>and {len(table) - ROWS:,} more rows</p>" if len(table) > ROWS else ""
    return f"{lines}{table.head(ROWS).to_html(index=False, border=0)}{rest}" if len(table) else lines


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text of a file, a model or a library as a terminal may be shown it: whatever would change its cursor,
    colour, title or writing direction, and half a character, becomes an escape.

    Example:
        >>> print(printable("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def counted(n: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> counted(1, "neuron"), counted(1200, "layer")
        ('1 neuron', '1,200 layers')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
