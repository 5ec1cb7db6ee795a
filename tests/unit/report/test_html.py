"""The page: escaped, self-contained, rounded right, and the same for the same data."""

import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report_sample import Names, make_report, with_responses, without_text
from trimtab.errors import InputError, StoreError
from trimtab.report import Report, read_report, render_html, write_report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \"' &amp;"


class Page(HTMLParser):
    """Elements, attributes, text and scripts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (self.scripts if self.elements and self.elements[-1][0] == "script" else self.text).append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.mark.usefixtures("no_plotly_js")
def test_hostile_text_is_escaped() -> None:
    plain = Page(render_html(make_report()))
    hostile = Page(render_html(make_report(Names(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE))))
    # the same elements in the same order: no text became one
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert hostile.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    assert HOSTILE in hostile.text


@pytest.mark.usefixtures("no_plotly_js")
def test_figures_are_json_that_cannot_leave_its_script() -> None:
    page = Page(render_html(make_report(Names(domain=HOSTILE, criterion=HOSTILE))))
    data = [script for script in page.scripts if script.strip().startswith("{")]
    plots = [attributes["id"] for tag, attributes in page.elements if tag == "div" and attributes.get("class") == "plot"]
    assert len(data) == len(plots) == 12
    for script in data:
        assert "<" not in script
        assert set(json.loads(script)) == {"data", "layout"}


def test_page_loads_nothing() -> None:
    page = render_html(make_report())
    assert page.count("plotly.js v") == 1
    assert "default-src 'none'" in page
    parsed = Page(page)
    assert parsed.count("link") == 0
    for tag, attributes in parsed.elements:
        assert not {"src", "href", "srcset", "data", "action", "poster", "background"} & set(attributes), tag
    style = re.findall(r"<style>(.*?)</style>", page, flags=re.S)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    # plotly's own bundle names map servers that only map figures ask, and the policy above forbids
    ours = page.replace(max(parsed.scripts, key=len), "")
    assert "http://" not in ours
    assert "https://" not in ours


@pytest.mark.usefixtures("no_plotly_js")
def test_table_rounds_right(report: Report) -> None:
    rows = re.findall(r"<tr.*?</tr>", render_html(report), flags=re.S)
    # the first row of a name: later tables show other things of the same groups
    cells = {
        row[0]: row
        for row in ([_plain(cell) for cell in re.findall(r"<td.*?</td>", row, flags=re.S)] for row in reversed(rows))
        if row
    }
    dash = "\u2013"
    assert cells["Unsteered"][:6] == ["Unsteered", "63.2 % [60.5, 66.0]", dash, dash, dash, dash]
    assert cells["Steered when the gate fires"] == [
        "Steered when the gate fires",
        "98.4 % [97.7, 99.1]",
        "+35.2 [+33.2, +37.2]",
        "4.8",
        "< 0.001 (< 0.001)",
        "424 / 2",
        "41.2 %",
        "97.4 %",
        "31.4",
        "7",
        "0",
    ]
    assert cells["AdaRAS criterion"][4] == "0.035 (0.069)"
    assert cells["Random neurons (5 sets)"][4] == "0.25"
    assert cells["cup swaps"] == [
        "cup swaps",
        "500",
        "89.8 % [86.8, 92.8]",
        "90.0 % [87.0, 93.0]",
        "+0.2 [\u22123.8, +4.2]",
        "10.0",
        "0.40 (0.80)",
        "3 / 2",
        "0 / 1",
        "no evidence",
    ]
    assert cells["macro average"][:5] == ["macro average", "", "63.2 %", "98.4 %", "+35.2"]
    assert cells["micro average"][4] == "+35.2 [+33.2, +37.2]"


def _plain(cell: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", cell).replace("&lt;", "<").split())


@pytest.mark.usefixtures("no_plotly_js")
def test_verdict_and_caveat_come_first(report: Report) -> None:
    text = " ".join(" ".join(Page(render_html(report)).text).replace("\u00a0", " ").split())
    sentence, claim = "accuracy went from 63.2 % to 98.4 %", report.claims[0]
    assert 0 < text.index(sentence) < text.index(claim) < text.index("Conditions")
    assert "Helps: accuracy" in text
    assert "p < 0.0001; 424 fixed, 2 broken, n = 1200)." in text
    assert "With n = 1200 this test finds" in text
    assert "gains of 5 sets from \u221212.4 to +3.5" in text


@pytest.mark.usefixtures("no_plotly_js")
@pytest.mark.parametrize("word", ["helps", "no evidence", "hurts", "no verdict"])
def test_every_verdict_has_its_word(report: Report, word: str) -> None:
    changed = {"word": word, "sentence": f"{word.capitalize()}: as said.", "minimum_detectable_gain": None}
    page = render_html(report.model_copy(update={"verdict": report.verdict.model_copy(update=changed)}))
    assert f"<b>{word.capitalize()}:</b> as said." in page
    assert "no gain of any size could have been shown" in page


@pytest.mark.usefixtures("no_plotly_js")
def test_several_responses_and_what_goes_wrong_with_them() -> None:
    text = " ".join(" ".join(Page(render_html(with_responses(make_report()))).text).replace("\u00a0", " ").split())
    assert "pass@8 87.0 %" in text
    assert "of Sampled responses (8 responses) sign-flip permutation test over problems" in text
    assert "With k responses a problem accuracy is avg@k" in text
    assert "so there is no verdict: Majority vote (8 responses)." in text
    assert "disagrees with its verdict on 1,234 responses" in text


@pytest.mark.usefixtures("no_plotly_js")
def test_a_finished_artifact_has_no_tuning_and_no_text_baseline(report: Report) -> None:
    assert report.gate is not None
    gate = without_text(report.gate)
    neurons = report.neurons.model_copy(update={"top": (), "contrast": {}})
    page = render_html(report.model_copy(update={"gate": gate, "tune": None, "criteria": (), "neurons": neurons}))
    for absent in ("plot-tune", "plot-dose", "<h2>Tuning</h2>", "wording only", "<h3>Contrast</h3>"):
        assert absent not in page
    assert "no text-only baseline was fitted" in page


@pytest.mark.usefixtures("no_plotly_js")
def test_no_gate_no_bounds_no_dose_no_source() -> None:
    report = make_report(gate=False)
    tune = report.tune.model_copy(update={"dose": ()})
    flips = report.flips.model_copy(update={"by_source": None})
    page = render_html(
        report.model_copy(update={"tune": tune, "flips": flips, "examples": (), "random_gains": {}, "breakdowns": ()})
    )
    assert "No gate to assess" in page
    for absent in (
        "plot-roc",
        "plot-dose",
        "plot-flips-source",
        "<h2>Examples</h2>",
        "Unscored responses",
        "The verdict by group",
    ):
        assert absent not in page


@pytest.mark.usefixtures("no_plotly_js")
def test_controls_stand_with_their_figures(report: Report) -> None:
    assert report.controls is not None
    page = render_html(report)
    for name, sentence in report.controls.sentences.items():
        assert sentence in html.unescape(page).replace("\u00a0", " "), name
    section = page[page.index("<h2>Controls</h2>") : page.index("<h2>Figures</h2>")]
    rows = {
        cells[0]: cells
        for row in re.findall(r"<tr.*?</tr>", section, flags=re.S)
        if (cells := [_plain(cell) for cell in re.findall(r"<td.*?</td>", row, flags=re.S)])
    }
    dash = "\u2013"
    assert rows["Unsteered"] == ["Unsteered", "1,180", "3", "10", "7", "0", *[dash] * 5]
    gated = rows["Steered when the gate fires"]
    assert gated[6:] == ["+0.7 [\u22123.3, +4.7]", "0.0078", "+34.4 [+31.6, +37.1]", "1,177", "< 0.001"]
    assert rows["beginning alone, over unsteered"][1:5] == ["400", "63.0 %", "64.2 %", "+1.2 [\u22122.8, +5.2]"]
    assert rows["area under risk and coverage (lower is better)"][1] == "0.123 [0.109, 0.137]"
    assert rows["the same among the 441 failures"][1] == dash
    assert "9 of 60 were left out" in section


@pytest.mark.usefixtures("no_plotly_js")
def test_controls_that_were_not_run_say_how(report: Report) -> None:
    assert report.controls is not None
    bare = replace(report.controls, noise=None, first_token=None, gate=None, recurrence=None)
    page = render_html(report.model_copy(update={"controls": bare}))
    for said in ("add again to evaluation.controls", "add first-token to evaluation.controls", "set contrast.recurrence.traces"):
        assert f"Not run; {said}." in page
    assert "No gate that reads the question." in page
    assert "<h2>Controls</h2>" not in render_html(report.model_copy(update={"controls": None}))


@pytest.mark.usefixtures("no_plotly_js")
def test_bounds_are_shown() -> None:
    assert "gain +35.0 to +35.2 points" in render_html(make_report(unscored=True))


@pytest.mark.usefixtures("no_plotly_js")
def test_twin_draws_the_same_page(report: Report, tmp_path: Path) -> None:
    data, page = write_report(report, tmp_path / "new")
    assert (data.name, page.name) == ("report.json", "report.html")
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]
    twin = read_report(data)
    assert twin == report
    assert render_html(twin) == page.read_text()


def test_missing_plotly_says_what_to_install(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["plotly", *(name for name in sys.modules if name.startswith("plotly."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=re.escape("pip install 'trimtab[report]'")):
        write_report(report, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("no_plotly_js")
def test_unwritable_folder(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_report(report, tmp_path / "file")


def test_importing_the_package_loads_neither_plotly_nor_torch() -> None:
    code = "import sys, trimtab.report; print([name for name in ('plotly', 'torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
