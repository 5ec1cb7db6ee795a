"""Findings: the result of an experiment as sentences and tidy frames that a notebook, the report and a JSON file read alike."""

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

from trimtab.errors import InputError

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Unit: TypeAlias = Literal["share", "points", "count", "number", "text"]
"""How ``value, low, high`` are shown: ``share`` as per cent, ``points`` as percentage points; both are stored as fractions."""
Plot: TypeAlias = Literal["dots", "curves", "matrix", "bars", "roc"]
Cell: TypeAlias = str | int | float | bool | None

COLUMNS = ("label", "n", "value", "low", "high", "p", "p_holm", "unit")
"""The columns that every row has, None where one says nothing."""
_NEEDED: Mapping[Plot, tuple[str, ...]] = {
    "dots": (),
    "curves": ("x", "series"),
    "matrix": ("row", "column"),
    "bars": ("x", "series"),
    "roc": ("false_positive_rate", "true_positive_rate", "series"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A tidy table: one observation a row, with the columns :data:`COLUMNS` and the frame's own.

    A plot reads columns by their names: ``curves`` and ``bars`` a ``series`` over ``x``, ``matrix`` a value per ``row`` and
    ``column``, ``roc`` the two rates of a ``series``, ``dots`` a ``label`` each (and a ``series`` as colour, where there is one).
    A row without a value is in the table and not in the plot; ``chosen``, a bool, marks the rows that stand out.

    Args:
        name: of its file, lower-case letters, digits and dashes.
        title: of the table and of its plot.
        rows: mappings from column to cell; standard columns that are left out are None.
        plot: what draws it; None for a table alone.
        x_label, y_label: of the axes.
        reference: a value to compare with, drawn as a line.
        mark: the x that was chosen.
        log_x: whether x has a logarithmic axis.
        note: one sentence below the table: how its numbers were made.
        reading: one sentence on what to read from it.

    Raises:
        InputError: a row without the columns that its plot reads, rows of different columns, or a number that is not finite.

    Example:
        >>> Frame("halves", "Overlap of halves", [{"label": "adaras", "n": 20, "value": 0.97, "unit": "share"}]).columns[:3]
        ('label', 'n', 'value')
    """

    name: str
    title: str
    rows: tuple[Mapping[str, Cell], ...]
    plot: Plot | None = None
    x_label: str = ""
    y_label: str = ""
    reference: float | None = None
    mark: float | None = None
    log_x: bool = False
    note: str = ""
    reading: str = ""

    def __init__(
        self,
        name: str,
        title: str,
        rows: Iterable[Mapping[str, Cell]],
        *,
        plot: Plot | None = None,
        x_label: str = "",
        y_label: str = "",
        reference: float | None = None,
        mark: float | None = None,
        log_x: bool = False,
        note: str = "",
        reading: str = "",
    ) -> None:
        filled = tuple({**dict.fromkeys(COLUMNS), **row} for row in rows)
        values = (name, title, filled, plot, x_label, y_label, reference, mark, log_x, note, reading)
        for field, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, field, value)
        self._check()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: the standard ones first."""
        return tuple(self.rows[0]) if self.rows else COLUMNS

    def to_pandas(self) -> "pandas.DataFrame":
        """A ``pandas.DataFrame``, columns in order; shares and gains are fractions."""
        import pandas

        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def to_json(self) -> dict[str, object]:
        """Plain values, as ``report.json`` holds them."""
        plain: dict[str, object] = {field: getattr(self, field) for field in self.__slots__}
        return {**plain, "rows": [dict(row) for row in self.rows]}

    def _check(self) -> None:
        for i, row in enumerate(self.rows):
            if row.keys() != self.rows[0].keys():
                odd = sorted(row.keys() ^ self.rows[0].keys())
                raise InputError(f"frame {self.name!r}: row {i} differs from row 0 in the columns {odd}; give every row the same")
            bad = [key for key, cell in row.items() if isinstance(cell, float) and not math.isfinite(cell)]
            if bad:
                raise InputError(
                    f"frame {self.name!r}: row {i} holds {row[bad[0]]} in {bad[0]!r}; store None for what has no value"
                )
            if row["unit"] not in (None, *get_args(Unit)):
                raise InputError(f"frame {self.name!r}: unknown unit {row['unit']!r}; accepted: {', '.join(get_args(Unit))}")
        lacking = [column for column in (_NEEDED[self.plot] if self.plot else ()) if self.rows and column not in self.columns]
        if lacking:
            raise InputError(f"frame {self.name!r} is drawn as {self.plot}, which reads the columns {lacking}; add them")


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """The findings of one experiment.

    Args:
        name: of the experiment.
        title: as a heading.
        question: what it asks, one sentence.
        sentences: what came out, one sentence each, with figures.
        split: whose problems the figures are of.
        frames: by which the sentences can be checked.
    """

    name: str
    title: str
    question: str
    sentences: tuple[str, ...]
    split: str
    frames: tuple[Frame, ...] = ()

    def __getitem__(self, name: str) -> Frame:
        """The frame of this name. Raises InputError that lists the names there are."""
        for frame in self.frames:
            if frame.name == name:
                return frame
        raise InputError(f"{self.name} has no frame {name!r}; it has {', '.join(frame.name for frame in self.frames) or 'none'}")

    def to_pandas(self, name: str | None = None) -> "pandas.DataFrame":
        """The frame of this name, or of all of them stacked, with their names in the column ``frame``."""
        import pandas

        if name is not None:
            return self[name].to_pandas()
        return pandas.concat([frame.to_pandas().assign(frame=frame.name) for frame in self.frames], ignore_index=True)

    def plot(self, name: str | None = None) -> "plotly.graph_objects.Figure":
        """A plotly figure of a frame: of this name, or of the first one that is drawn. Needs the extra ``report``."""
        from trimtab.report.plots import draw

        drawn = [frame for frame in self.frames if frame.plot] if name is None else [self[name]]
        if not drawn or drawn[0].plot is None:
            raise InputError(
                f"{self.name} has no frame to draw{'' if name is None else f' of the name {name!r}'}; see to_pandas()"
            )
        return draw(drawn[0], self.split)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "question": self.question,
            "sentences": list(self.sentences),
            "split": self.split,
            "frames": [frame.to_json() for frame in self.frames],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Findings":
        """The inverse of :meth:`to_json`. Raises InputError for a mapping of another form."""
        from pydantic import TypeAdapter, ValidationError

        try:
            form = TypeAdapter(_Form).validate_python(data)
        except ValidationError as cause:
            raise InputError(f"not the findings of an experiment: {cause.errors()[0]['msg']}") from cause
        try:
            frames = tuple(Frame(**frame) for frame in form.frames)  # type: ignore[arg-type]  # Frame checks what it is given
        except TypeError as cause:
            raise InputError(f"not the findings of an experiment: a frame has other keys ({cause})") from cause
        return cls(form.name, form.title, form.question, tuple(form.sentences), form.split, frames)

    def __repr__(self) -> str:
        first = self.sentences[0] if self.sentences else "no finding"
        return f"{self.title} ({self.split}): {first}\nframes: {', '.join(frame.name for frame in self.frames) or 'none'}"

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        tables = "".join(
            f"<h5>{html.escape(frame.title)}</h5>{frame.to_pandas().dropna(axis='columns', how='all').to_html(index=False)}"
            for frame in self.frames
        )
        return f"<h4>{html.escape(self.title)}</h4><p>{html.escape(self.question)}</p><ul>{items}</ul>{tables}"


@dataclass(frozen=True, slots=True)
class _Form:
    """What :meth:`Findings.to_json` writes."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    title: str
    question: str
    sentences: list[str]
    split: str
    frames: list[dict[str, object]]
