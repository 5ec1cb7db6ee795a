"""Five plots: every one says n and split, draws its intervals in the unit of its axis, and leaves nothing out."""

import re
import shutil

import plotly.graph_objects as go
import pytest

from findings_sample import findings_sample, row
from trimtab.errors import InputError
from trimtab.findings import Frame
from trimtab.report.look import DARK, GREY, INK, PAPER
from trimtab.report.plots import draw, svg, together

HOSTILE = "<a href='http://evil'>x</a>"


def figure(name: str) -> go.Figure:
    return draw(findings_sample()[name], "test")


@pytest.mark.parametrize("name", ["dots", "curves", "matrix", "bars", "roc"])
def test_every_figure_says_n_and_split_and_its_axes(name: str) -> None:
    layout = figure(name).layout
    assert layout.title.text == findings_sample()[name].title
    assert layout.title.subtitle.text.startswith("n = 1,200, test split")
    assert layout.xaxis.title.text
    assert layout.height > 0


def test_dots_are_drawn_in_points_with_their_intervals_and_rings() -> None:
    drawn = figure("dots")
    mark, mean, rings = drawn.data
    assert mark.x == (-12.5,)
    assert mark.error_x.array == pytest.approx((7.5,))
    assert mark.error_x.arrayminus == pytest.approx((7.5,))
    assert (mean.x, mean.marker.color) == ((0.0,), GREY)
    assert rings.x == pytest.approx((-10.0, 2.0))
    assert rings.y == (1.26, 1.26), "in the line of their mean"
    assert drawn.layout.title.subtitle.text == "n = 1,200, test split; rings: one random set; 95 % intervals"
    assert drawn.layout.xaxis.title.text == "gain (percentage points)"
    assert not drawn.layout.showlegend


def test_a_chosen_row_is_bold_and_one_without_a_value_has_no_line() -> None:
    ticks = draw(
        Frame("f", "F", [row("base", None, chosen=False), row("best", 0.1, 0.1, chosen=True)], plot="dots")
    ).layout.yaxis.ticktext
    assert ticks == ("<b>best</b>  ",)


def test_curves_have_bands_a_mark_and_a_dotted_chance() -> None:
    drawn = figure("curves")
    band, line, *_, chance = drawn.data
    assert line.y == pytest.approx((1, 10, 50))
    assert band.y == pytest.approx((2, 11, 51, 49, 9, 0))
    assert (chance.line.dash, chance.line.color, line.line.dash) == ("dot", GREY, "solid")
    assert drawn.layout.xaxis.type == "log"
    assert drawn.layout.xaxis.tickvals == pytest.approx((1, 2, 5, 10, 20, 50))
    assert [note.x for note in drawn.layout.annotations if note.text.strip() == "chosen"] == [1.0], "the logarithm of 10"
    assert {(shape.x0, shape.y0) for shape in drawn.layout.shapes} == {(10, 0), (0, 20)}, "the mark, and the reference"


def test_curves_over_words_have_error_bars_and_ring_what_was_chosen() -> None:
    rows = [row("s", 0.6 + x / 100, 0.02, "share", x=f"{x:g}", series="s", chosen=x == 3) for x in (-1, 3)]
    line, ring = draw(Frame("f", "F", rows, plot="curves")).data
    assert line.x == ("-1", "3")
    assert line.error_y.array == pytest.approx((2.0, 2.0))
    assert (ring.x, ring.y) == (("3",), (63.0,))


def test_a_share_of_x_is_in_per_cent() -> None:
    drawn = draw(Frame("f", "F", [row("s", 0.1, x=x, series="s") for x in (0.25, 0.5)], plot="curves", x_label="share seen"))
    assert drawn.data[0].x == (25, 50)
    assert drawn.layout.xaxis.ticksuffix == " %"


def test_matrices_leave_holes_and_frame_the_chosen_cell() -> None:
    drawn = figure("matrix")
    heat = drawn.data[0]
    assert [list(line) for line in heat.z] == [[10.0, None], [-5.0, 0.0]]
    assert (heat.zmin, heat.zmax) == (-10, 10)
    (frame,) = drawn.layout.shapes
    assert (round(frame.x0), round(frame.y0)) == (0, 1)
    shares = [row(str(v), v, None, "share", row="a", column=str(v)) for v in (0.5, 0.9)]
    plain = draw(Frame("f", "F", shares, plot="matrix")).data[0]
    assert (plain.zmin, plain.zmax) == (50, 90)
    around = draw(Frame("f", "F", shares, plot="matrix", reference=0.6)).data[0]
    assert (around.zmin, around.zmax) == pytest.approx((30, 90))


def test_bars_count_from_zero_and_a_histogram_has_no_gaps() -> None:
    drawn = figure("bars")
    assert drawn.data[0].y == (3, 5)
    assert drawn.layout.yaxis.rangemode == "tozero"
    many = [row("s", 1, None, "count", x=x / 10, series="s") for x in range(80)]
    assert draw(Frame("f", "F", many, plot="bars")).layout.bargap == 0


def test_roc_legend_holds_the_area() -> None:
    diagonal, curve = figure("roc").data
    assert (diagonal.x, diagonal.y) == ((0, 100), (0, 100))
    assert curve.name == "ablated: AUROC 0.750 [0.700, 0.800]"
    assert curve.x == (0, 25, 100)


@pytest.mark.parametrize("name", ["dots", "curves", "matrix", "bars", "roc"])
def test_names_are_not_read_as_tags(name: str) -> None:
    assert "<a" not in str(draw(findings_sample(HOSTILE)[name]).to_json()).replace("\\u003c", "<")


def test_what_cannot_be_drawn_says_so() -> None:
    with pytest.raises(InputError, match=r"\'gains\' is a table alone.*to_pandas"):
        draw(findings_sample()["gains"])
    with pytest.raises(InputError, match="holds no value"):
        draw(Frame("f", "F", [row("a", None)], plot="dots"))
    with pytest.raises(InputError, match="points, share, and a plot has one axis"):
        draw(Frame("f", "F", [row("a", 0.1), row("b", 0.1, None, "share")], plot="dots"))


def test_together_keeps_the_units_of_each() -> None:
    found = findings_sample()
    drawn = together([found["dots"], found["curves"]], "Both", "test")
    assert (drawn.layout.xaxis.title.text, drawn.layout.yaxis2.ticksuffix) == ("gain (percentage points)", " %")
    assert [note.text for note in drawn.layout.annotations[:2]] == ["Dots", "Curves"]


def test_a_dark_page_finds_every_colour_of_the_look() -> None:
    for name in ("dots", "curves", "matrix", "bars", "roc"):
        used = set(re.findall(r"#[0-9a-fA-F]{6}", str(figure(name).to_json())))
        # what is not swapped reads on both pages: the colours of the palette, in upper case, and none of black and white
        assert all(colour in DARK or colour != colour.lower() for colour in used), used - set(DARK)
        assert {INK, PAPER} <= used


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome", "chrome"))), reason="no Chrome or Chromium is installed"
)
def test_an_svg_is_the_same_bytes_every_time() -> None:
    first, second = (svg(figure("dots"), "dots") for _ in range(2))
    assert first == second
    assert first.startswith(b"<svg")
    assert b"Dots" in first
