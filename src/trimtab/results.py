"""What an experiment shows, as data: findings, tables and figures from which the report draws, and the JSON that others read.

Shares are fractions and gains differences of fractions; a unit says how a number is shown, never how it is stored.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Literal["text", "count", "percent", "points", "p", "number"]
"""``percent`` shows a share, ``points`` a difference of shares, ``number`` three significant digits."""
Cell = str | int | float | None


class Block(BaseModel):
    """Frozen, unknown keys refused, no NaN: what has no value is None."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Column(Block):
    """A column of one unit; a ``bound`` belongs to the last column that is none, and is shown in brackets beside it."""

    name: str
    unit: Unit = "text"
    bound: Literal["low", "high"] | None = None


def bounded(name: str, unit: Unit = "number") -> tuple[Column, Column, Column]:
    """The columns of a value with its interval: ``NAME``, ``NAME low`` and ``NAME high``.

    Example:
        >>> [column.name for column in bounded("gain", "points")]
        ['gain', 'gain low', 'gain high']
    """
    low, high = Column(name=f"{name} low", unit=unit, bound="low"), Column(name=f"{name} high", unit=unit, bound="high")
    return Column(name=name, unit=unit), low, high


class Table(Block):
    """Rows of cells; ``highlight`` is the row that was chosen.

    Args:
        name: of its file, letters and dashes.
        note: one sentence under the table.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    highlight: int | None = None

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        odd = [i for i, row in enumerate(self.rows) if len(row) != len(self.columns)]
        if odd:
            raise ValueError(
                f"table {self.name!r}: row {odd[0]} has {len(self.rows[odd[0]])} cells for {len(self.columns)} columns"
            )
        return self


class Point(Block):
    """A value with its interval, None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


class _Figure(Block):
    """What every figure says.

    Args:
        name: of its file, letters and dashes.
        n, of: how many there are, and of what: ``n = 1,000 problems``.
        split: where they come from.
        detail: more for the subtitle, such as which intervals are drawn.
        reading: one sentence that says what to read from it.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    n: int
    of: str = "problems"
    split: str
    detail: str = ""
    reading: str


class Dot(Point):
    """A row of a dot plot; rows of one group share a colour. ``others`` are small rings beside it, such as single random sets."""

    label: str
    group: str = ""
    others: tuple[float, ...] = ()


class Dots(_Figure):
    """A dot with its interval per row, and a line at ``reference``."""

    kind: Literal["dots"] = "dots"
    x_label: str
    unit: Unit
    dots: tuple[Dot, ...] = Field(min_length=1)
    reference: float | None = None


class CurvePoint(Point):
    """``(x, value)`` with its interval."""

    x: float


class Curve(Block):
    """One line of a figure."""

    label: str
    points: tuple[CurvePoint, ...] = Field(min_length=1)


class Curves(_Figure):
    """Lines over x with bands; ``mark`` is the x that was chosen, ``reference`` a level to compare with."""

    kind: Literal["curves"] = "curves"
    x_label: str
    y_label: str
    unit: Unit
    x_unit: Unit = "number"
    log_x: bool = False
    curves: tuple[Curve, ...] = Field(min_length=1)
    mark: float | None = None
    mark_label: str = "chosen"
    reference: float | None = None


class Matrix(_Figure):
    """A value per row and column, coloured on a scale around 0 (``diverging``) or from the lowest to the highest."""

    kind: Literal["matrix"] = "matrix"
    row_label: str
    column_label: str
    unit: Unit
    rows: tuple[str, ...] = Field(min_length=1)
    columns: tuple[str, ...] = Field(min_length=1)
    cells: tuple[tuple[Point | None, ...], ...]
    diverging: bool = True


class Bar(Point):
    """One bar of a group of bars."""

    x: str


class Series(Block):
    """Bars of one colour."""

    label: str
    bars: tuple[Bar, ...] = Field(min_length=1)


class Bars(_Figure):
    """Bars per category or per bin of a histogram, series side by side."""

    kind: Literal["bars"] = "bars"
    x_label: str
    y_label: str
    unit: Unit
    series: tuple[Series, ...] = Field(min_length=1)


Figure = Annotated[Dots | Curves | Matrix | Bars, Field(discriminator="kind")]


class Result(Block):
    """One experiment's outcome.

    Args:
        name: of the experiment and of its folder.
        question: what it asks, one sentence.
        findings: what came out, one sentence each, with figures.
        split: whose problems the figures are of.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    question: str
    findings: tuple[str, ...]
    split: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
