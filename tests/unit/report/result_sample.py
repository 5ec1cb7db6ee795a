"""A made-up experiment with one figure of each kind."""

from trimtab.results import (
    Bar,
    Bars,
    Column,
    Curve,
    CurvePoint,
    Curves,
    Dot,
    Dots,
    Matrix,
    Point,
    Result,
    Series,
    Table,
)

FIGURE = {"n": 1200, "split": "test", "reading": "what to read from it"}


def result_sample(label: str = "suppressed") -> Result:
    """``label`` comes from outside and may be hostile."""
    table = Table(
        name="gains",
        title="Gains",
        columns=(
            Column(name="what"),
            Column(name="n", unit="count"),
            Column(name="gain", unit="points"),
            Column(name="gain low", unit="points", bound="low"),
            Column(name="gain high", unit="points", bound="high"),
            Column(name="p", unit="p"),
        ),
        rows=(("unsteered", 1200, None, None, None, None), (label, 1200, -0.125, -0.2, -0.05, 0.0004)),
        note="A note.",
        highlight=1,
    )
    dots = Dots(
        name="dots",
        title="Dots",
        x_label="gain (percentage points)",
        unit="points",
        dots=(Dot(label=label, value=-0.125, low=-0.2, high=-0.05, others=(-0.1, 0.02)), Dot(label="none", value=0.0)),
        reference=0.0,
        **FIGURE,
    )
    points = tuple(CurvePoint(x=x, value=x / 100, low=x / 100 - 0.01, high=x / 100 + 0.01) for x in (1, 10, 50))
    curves = Curves(
        name="curves",
        title="Curves",
        x_label="K",
        y_label="accuracy",
        unit="percent",
        log_x=True,
        mark=10,
        reference=0.2,
        curves=(Curve(label=label, points=points), Curve(label="other", points=points)),
        **FIGURE,
    )
    matrix = Matrix(
        name="matrix",
        title="Matrix",
        row_label="found on",
        column_label="tested on",
        unit="points",
        rows=(label, "b"),
        columns=("a", "b"),
        cells=((Point(value=0.1, low=0.0, high=0.2), None), (Point(value=-0.05), Point(value=0.0))),
        **FIGURE,
    )
    bars = Bars(
        name="bars",
        title="Bars",
        x_label="layer",
        y_label="neurons",
        unit="count",
        series=(Series(label=label, bars=(Bar(x="0", value=3), Bar(x="1", value=5))),),
        **FIGURE,
    )
    return Result(
        name="sample",
        title="Sample",
        question="What is this?",
        findings=(f"It is {label}.",),
        split="test",
        tables=(table,),
        figures=(dots, curves, matrix, bars),
    )
