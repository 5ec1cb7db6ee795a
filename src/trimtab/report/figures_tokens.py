"""Figures of an analysis that are made of words: what neurons write, and at which words they are active."""

import html

import plotly.graph_objects as go

from trimtab.analysis import TokenPush, TopTokens, VocabularyProjection
from trimtab.report.palette import GREY, GRID, INK
from trimtab.report.theme import FONT, Drawing, blank, dress
from trimtab.report.wording import count, significant

NEURONS = 12
TOKENS = 5
ROW = 34
LONGEST_TOKEN = 12
LONGEST_CONTEXT = 38
LINE = 30
# tints of vermillion and blue on which dark text can be read
SCALE = [[0.0, "#EDA77F"], [0.5, "#FFFFFF"], [1.0, "#7FB8D8"]]


def vocabulary_figure(projection: VocabularyProjection) -> Drawing:
    """The tokens that the first neurons promote and demote most, one row a neuron."""
    neurons = projection.neurons[:NEURONS]
    subtitle = (
        f"n = {count(len(neurons))} of {count(len(projection.neurons))} neurons, found on the find split; "
        f"{count(projection.tokens)} tokens compared"
    )
    figure = blank(
        "What the neurons write: tokens promoted and demoted by a positive activation", subtitle, 150 + ROW * len(neurons)
    )
    cells = [[*neuron.promoted[:TOKENS], *reversed(neuron.demoted[:TOKENS])] for neuron in neurons]
    width = max(map(len, cells))
    reach = max(abs(push.z) for row in cells for push in row)
    names = [neuron.address for neuron in neurons]
    figure.add_heatmap(
        z=[[push.z for push in row] for row in cells],
        x=list(range(width)),
        y=names,
        text=[[_token(push) for push in row] for row in cells],
        texttemplate="%{text}",
        textfont={"color": INK},
        hovertext=[[f"{_token(push)}: {push.z:+.1f} standard deviations" for push in row] for row in cells],
        hoverinfo="text",
        colorscale=SCALE,
        zmin=-reach,
        zmax=reach,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "z"}, "thickness": 12, "outlinewidth": 0},
    )
    half = width // 2
    figure.update_xaxes(
        tickvals=[(half - 1) / 2, half + (width - half - 1) / 2],
        ticktext=["promoted most", "demoted most"],
        showgrid=False,
        ticks="",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    norm = {"rms": "its scale", "layer": "its scale, without the mean", None: "none there is"}[projection.final_norm]
    cap = "" if projection.soft_cap is None else f"; the cap of the logits at {projection.soft_cap:g} is monotone and left out"
    reading = (
        "A cell is how many standard deviations above the vocabulary's mean a neuron pushes a token on the direct path, through "
        f"the final norm ({norm}){cap}. A negative activation swaps the two sides."
    )
    return Drawing("vocabulary", reading, figure)


def top_tokens_figure(tokens: TopTokens) -> Drawing:
    """The token at which each of the first neurons is highest and lowest, in its context."""
    neurons = tokens.neurons[:NEURONS]
    rows = [(neuron, hit) for neuron in neurons for hit in (*neuron.highest[:1], *neuron.lowest[:1])]
    columns = {
        "neuron": [neuron.address for neuron, _ in rows],
        "activation": [significant(hit.value) for _, hit in rows],
        "before": [_shown(hit.before, LONGEST_CONTEXT, start=True) for _, hit in rows],
        "token": [f"<b>{_shown(hit.token, LONGEST_TOKEN)}</b>" for _, hit in rows],
        "after": [_shown(hit.after, LONGEST_CONTEXT) for _, hit in rows],
    }
    look = {"align": ["left", "right", "right", "center", "left"], "line": {"color": GRID}}
    font = {"family": FONT, "size": 12}
    figure = go.Figure(
        go.Table(
            columnwidth=[17, 10, 32, 11, 32],
            header={"values": list(columns), "fill": {"color": GRID}, "font": {**font, "color": INK}, "height": LINE, **look},
            cells={
                "values": list(columns.values()),
                "fill": {"color": "white"},
                "font": {**font, "color": [INK, INK, GREY, INK, GREY]},
                "height": LINE,
                **look,
            },
        )
    )
    subtitle = (
        f"n = {count(tokens.n_traces)} traces, {count(tokens.n_tokens)} response tokens, find split; the highest and the lowest "
        f"activation of {count(len(neurons))} neurons"
    )
    dress(figure, "Where the neurons are most active", subtitle, 120 + LINE * len(rows))
    figure.update_layout(margin={"l": 4, "r": 4})
    reading = "The token in bold is the input at which the neuron was read; what it writes acts on the token after it."
    return Drawing("top-tokens", reading, figure)


def _token(push: TokenPush) -> str:
    return _shown(push.token, LONGEST_TOKEN)


def _shown(text: str, longest: int, start: bool = False) -> str:
    """Escaped text, cut at its end or at its start."""
    if len(text) > longest:
        text = f"…{text[1 - longest :]}" if start else f"{text[: longest - 1]}…"
    return _escaped(text)


def _escaped(text: str) -> str:
    """Text in which plotly reads no tag, and whose white space is seen."""
    return html.escape(text.replace("\n", "⏎").replace("\t", "⇥"), quote=False)
