"""Made-up findings with one frame of each plot."""

from trimtab.findings import Cell, Findings, Frame

NOTE = "95 % intervals; made up."


def row(label: str, value: float | None, half: float | None = None, unit: str = "points", **own: Cell) -> dict[str, Cell]:
    """A row on 1,200 problems."""
    ends = (None, None) if value is None or half is None else (value - half, value + half)
    return {"label": label, "n": 1200, "value": value, "low": ends[0], "high": ends[1], "unit": unit, **own}


def findings_sample(label: str = "ablated") -> Findings:
    """``label`` comes from outside and may be hostile."""
    gains = Frame(
        "gains",
        "Gains",
        [
            row("unsteered", None, series="unsteered", accuracy=0.66, accuracy_low=0.63, accuracy_high=0.69, chosen=False),
            row(label, -0.125, 0.075, p=0.0004, series="a", accuracy=0.535, accuracy_low=0.5, accuracy_high=0.57, chosen=True),
        ],
        note="A note.",
    )
    dots = Frame(
        "dots",
        "Dots",
        [row(label, -0.125, 0.075, series="a"), row("random neurons", 0.0, 0.01, series="random neurons")]
        + [row("random neurons", value, series="one random set") for value in (-0.1, 0.02)],
        plot="dots",
        x_label="gain",
        reference=0.0,
        note=NOTE,
        reading="What to read.",
    )
    curves = Frame(
        "curves",
        "Curves",
        [row(name, x / 100, 0.01, "share", series=name, x=x) for name in (label, "other") for x in (1, 10, 50)]
        + [{**row("chance", 0.0, None, "share", series="chance", x=x), "n": None} for x in (1, 50)],
        plot="curves",
        x_label="K",
        y_label="accuracy",
        reference=0.2,
        mark=10,
        log_x=True,
        note=NOTE,
    )
    matrix = Frame(
        "matrix",
        "Matrix",
        [
            row(f"{a} {b}", value, 0.1, row=a, column=b, chosen=value == -0.05)
            for (a, b), value in {(label, "a"): 0.1, ("b", "a"): -0.05, ("b", "b"): 0.0}.items()
        ],
        plot="matrix",
        x_label="tested on",
        y_label="found on",
    )
    bars = Frame(
        "bars",
        "Bars",
        [row(label, n, None, "count", x=str(layer), series=label) for layer, n in enumerate((3, 5))],
        plot="bars",
        x_label="layer",
        y_label="neurons",
    )
    roc = Frame(
        "roc",
        "ROC",
        [
            row("gate", 0.75, 0.05, "number", series=label, false_positive_rate=x, true_positive_rate=y)
            for x, y in ((0, 0), (0.25, 1), (1, 1))
        ],
        plot="roc",
    )
    return Findings("sample", "Sample", "What is this?", (f"It is {label}.",), "test", (gains, dots, curves, matrix, bars, roc))
