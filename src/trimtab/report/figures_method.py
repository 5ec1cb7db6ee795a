"""Figures of the method: the gate, the neurons and how the settings were chosen."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trimtab.report.data import GateReport, NeuronsReport, Report, TuneReport, TuneRow
from trimtab.report.palette import BLACK, BLUE, FAINT, GREY, ORANGE
from trimtab.report.theme import CORNER, SERIES, SYMBOLS, Drawing, bars, blank, dress, hover, label, padded, sample
from trimtab.report.wording import base_condition, count, percent
from trimtab.stats.estimates import wilson

COLUMNS = 3


def roc_figure(gate: GateReport) -> Drawing:
    """ROC of the gate and, where there is one, of the text-only baseline."""
    subtitle = sample(gate.n, gate.split, f"{count(gate.n_failed)} failed unsteered")
    figure = blank("Gate: ROC", subtitle, 460)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": FAINT, "dash": "dot"}, hoverinfo="skip", showlegend=False)
    curves = [("gate", gate.roc, gate.auroc, BLUE, "solid")]
    if gate.text_auroc is not None:
        curves.insert(0, ("wording only", gate.text_roc, gate.text_auroc, ORANGE, "dash"))
    for name, curve, area, colour, dash in curves:
        figure.add_scatter(
            x=[x for x, _ in curve],
            y=[y for _, y in curve],
            mode="lines",
            line={"color": colour, "width": 2.2, "dash": dash},
            name=f"{name}: AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]",
        )
    figure.update_layout(legend={**CORNER, "y": 0.02, "yanchor": "bottom", "orientation": "v", "traceorder": "reversed"})
    figure.update_xaxes(title="false alarms (share of solved problems)", tickformat=".0%", range=[-0.02, 1.02])
    figure.update_yaxes(title="failures caught", tickformat=".0%", range=[-0.02, 1.02])
    reading = f"The further a curve lies above the diagonal the better; {_against_wording(gate)}."
    return Drawing("roc", reading, figure, narrow=True)


def _against_wording(gate: GateReport) -> str:
    difference = gate.difference
    if difference is None:
        return "no text-only baseline was fitted, so it is open whether this gate knows more than the wording"
    ahead = "knows more than the wording" if gate.beats_text else "is not shown to know more than the wording"
    return f"this gate {ahead}: AUROC difference {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def calibration_figure(gate: GateReport) -> Drawing:
    """Observed failures over predicted p(fail), in bins of equal counts."""
    subtitle = sample(gate.n, gate.split, "95 % Wilson intervals")
    figure = blank("Gate: calibration", subtitle, 460)
    predicted = [row.predicted for row in gate.calibration]
    observed = [row.observed for row in gate.calibration]
    intervals = [wilson(round(row.observed * row.n), row.n) for row in gate.calibration]
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": FAINT, "dash": "dot"}, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        x=predicted,
        y=observed,
        mode="markers",
        marker={"size": 9, "color": BLUE},
        error_y=bars(observed, [low for low, _ in intervals], [high for _, high in intervals], BLUE),
        hovertext=[f"p(fail) {percent(row.predicted)}: {percent(row.observed)} of {row.n} failed" for row in gate.calibration],
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_vline(x=gate.threshold, line={"color": GREY, "width": 1, "dash": "dash"}, layer="below")
    figure.add_annotation(
        x=gate.threshold, y=1.02, text=" fires from here", showarrow=False, xanchor="left", yanchor="top", font_color=GREY
    )
    figure.update_xaxes(title="predicted p(fail)", tickformat=".0%", range=[-0.02, 1.02])
    figure.update_yaxes(title="failed", tickformat=".0%", range=[-0.02, 1.02])
    beside = "" if gate.text_brier is None else f", wording only {gate.text_brier:.3f}"
    brier = f"Brier score {gate.brier:.3f}{beside} (0 is perfect)"
    reading = f"Dots on the diagonal mean that a p(fail) can be taken at its word; {brier}."
    return Drawing("calibration", reading, figure, narrow=True)


def layer_figure(report: Report) -> Drawing:
    """Selected neurons per layer."""
    neurons: NeuronsReport = report.neurons
    counts = neurons.layer_counts
    subtitle = f"n = {count(neurons.k)} neurons by {label(neurons.criterion)}, found on the train split"
    figure = blank("Where the selected neurons sit", subtitle, 320)
    figure.add_bar(
        x=[str(layer) for layer in range(len(counts))],
        y=list(counts),
        marker={"color": BLUE},
        text=[str(number) if number else "" for number in counts],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="layer %{x}: %{y} neurons<extra></extra>",
    )
    figure.update_layout(bargap=0.3)
    figure.update_xaxes(title="layer (0 is nearest to the input)", type="category", showgrid=False)
    figure.update_yaxes(title="neurons", rangemode="tozero", tickformat="d", nticks=6)
    most = max(range(len(counts)), key=counts.__getitem__)
    reading = (
        f"Layer {most} holds the most, {counts[most]} of {neurons.k}; "
        f"the set is {100 * neurons.share:.2g} % of the model's {count(report.run.model.n_neurons)} neurons."
    )
    return Drawing("layers", reading, figure)


def tune_figure(tune: TuneReport) -> Drawing:
    """Gated accuracy over strength: a panel per criterion and intervention, a line per K, the chosen point ringed."""
    methods = list(dict.fromkeys((point.criterion, point.intervention) for point in tune.points))
    several = len({intervention for _, intervention in methods}) > 1
    titles = [label(f"{criterion}, {intervention}" if several else criterion) for criterion, intervention in methods]
    strengths = sorted({point.strength for point in tune.points})
    ks = sorted({point.k for point in tune.points})
    columns = min(COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    figure = make_subplots(rows, columns, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04)
    subtitle = sample(tune.chosen.n, "validation", "ring: chosen point with 95 % Wilson interval; dotted: unsteered")
    dress(figure, "Tuning: accuracy with the gate", subtitle, 190 + 240 * rows)
    for i, method in enumerate(methods):
        cell = {"row": i // columns + 1, "col": i % columns + 1}
        for j, k in enumerate(ks):
            line = sorted(
                (p for p in tune.points if (p.criterion, p.intervention, p.k) == (*method, k)), key=lambda p: p.strength
            )
            _add_line(figure, line, j, show=i == 0, cell=cell)
        if method == (tune.chosen.criterion, tune.chosen.intervention):
            _add_ring(figure, tune.chosen, cell)
    figure.add_hline(y=tune.chosen.unsteered, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
    figure.update_annotations(font={"size": 12, "color": GREY}, yshift=2)
    figure.update_xaxes(
        title="strength", type="category", categoryorder="array", categoryarray=[f"{strength:g}" for strength in strengths]
    )
    low, high = wilson(round(tune.chosen.gated * tune.chosen.n), tune.chosen.n)
    figure.update_yaxes(
        tickformat=".0%", range=padded([tune.chosen.unsteered, low, high, *(point.gated for point in tune.points)])
    )
    figure.update_yaxes(title="accuracy", col=1)
    figure.update_layout(margin={"t": 96, "b": 84})
    reading = (
        "The ring is the point that was taken to the test split. Neighbours that do as well speak for an effect, a lone peak for "
        "luck; its accuracy here is too high either way, because it was chosen for it."
    )
    return Drawing("tune", reading, figure)


def _add_line(figure: go.Figure, line: list[TuneRow], j: int, show: bool, cell: dict[str, int]) -> None:
    figure.add_scatter(
        x=[f"{point.strength:g}" for point in line],
        y=[point.gated for point in line],
        mode="lines+markers",
        name=f"K = {line[0].k}" if line else "",
        legendgroup=str(j),
        showlegend=show,
        line={"color": SERIES[j % len(SERIES)], "width": 1.8},
        marker={"size": 7, "symbol": SYMBOLS[j % len(SYMBOLS)]},
        hovertext=[
            f"K = {point.k}, strength {point.strength:g}: {percent(point.gated)} gated, {percent(point.always)} always"
            for point in line
        ],
        hoverinfo="text",
        **cell,
    )


def _add_ring(figure: go.Figure, chosen: TuneRow, cell: dict[str, int]) -> None:
    low, high = wilson(round(chosen.gated * chosen.n), chosen.n)
    figure.add_scatter(
        x=[f"{chosen.strength:g}"],
        y=[chosen.gated],
        mode="markers",
        marker={"size": 16, "color": BLACK, "symbol": "circle-open", "line": {"width": 2}},
        error_y=bars([chosen.gated], [low], [high], BLACK),
        hoverinfo="skip",
        showlegend=False,
        **cell,
    )


def dose_figure(report: Report, tune: TuneReport) -> Drawing:
    """Accuracy over strength, negative ones too."""
    dose = sorted(tune.dose, key=lambda row: row.strength)
    accuracies = [row.accuracy for row in dose]
    intervals = [wilson(round(row.accuracy * row.n), row.n) for row in dose]
    lows, highs = [low for low, _ in intervals], [high for _, high in intervals]
    subtitle = sample(min(row.n for row in dose), tune.dose_split, "always on; 95 % Wilson intervals")
    figure = blank("Dose and response", subtitle, 360)
    figure.add_scatter(
        x=[f"{row.strength:g}" for row in dose],
        y=accuracies,
        mode="lines+markers",
        line={"color": BLUE, "width": 1.8},
        marker={"size": 9},
        error_y=bars(accuracies, lows, highs, BLUE),
        hovertext=[hover(f"strength {row.strength:g}", row.accuracy, *ends) for row, ends in zip(dose, intervals, strict=True)],
        hoverinfo="text",
        showlegend=False,
    )
    unsteered = {"validation": tune.chosen.unsteered, report.verdict.split: base_condition(report).accuracy}.get(tune.dose_split)
    if unsteered is not None:
        figure.add_hline(y=unsteered, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
        lows = [*lows, unsteered]
    figure.update_xaxes(title="strength", type="category")
    figure.update_yaxes(title="accuracy", tickformat=".0%", range=padded([*lows, *highs]))
    reading = "An effect of the found direction rises with strength, falls when it is too strong, and turns round with the sign."
    return Drawing("dose", reading, figure)
