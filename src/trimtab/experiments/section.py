"""One part of an experiment's result."""

from typing import NamedTuple

from trimtab.results import Figure, Table


class Section(NamedTuple):
    """Tables, figures, and what they came to."""

    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    findings: tuple[str, ...]
