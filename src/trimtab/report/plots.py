"""Draw a frame: dots, curves, a matrix, bars or an ROC curve."""

import plotly.graph_objects as go

from trimtab.findings import Frame


def draw(frame: Frame) -> go.Figure:
    """The figure of a frame, by its ``plot``."""
    table = frame.to_pandas()
    figure = go.Figure(layout={"title": {"text": frame.title}})
    if frame.plot == "dots":
        figure.add_scatter(x=table["value"], y=table["label"], mode="markers")
    elif frame.plot == "matrix":
        wide = table.pivot(index="row", columns="column", values="value")
        figure.add_heatmap(z=wide.to_numpy(), x=list(wide.columns), y=list(wide.index))
    else:
        x, y = ("false_positive_rate", "true_positive_rate") if frame.plot == "roc" else ("x", "value")
        for series, rows in table.groupby("series", sort=False):
            add = figure.add_bar if frame.plot == "bars" else figure.add_scatter
            add(x=rows[x], y=rows[y], name=str(series))
    return figure
