"""Writes the figures of benchmarks/results*.json into docs/design/performance.md, between its two markers.

make bench-peers && make bench && python docs/make_performance.py

Each file has a section that begins with its machine. Where a file holds scaling curves, docs/images/scaling.svg is drawn too,
with a Chrome or Chromium.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROOT = Path(__file__).parents[1]
PAGE, IMAGE = ROOT / "docs" / "design" / "performance.md", ROOT / "docs" / "images" / "scaling.svg"
BEGIN, END = "<!-- made by make_performance.py: begin -->", "<!-- made by make_performance.py: end -->"
Row = Mapping[str, Any]
DRAWN = ("record", "evaluate", "rank, adaras")

TARGETS: Mapping[str, str] = {
    "record_over_forward_12x768": ">= 0.95",
    "record_over_forward_testbed": ">= 0.95",
    "sample_record_over_sample": "<= 1.05",
    "steered_over_unsteered_decode_b1_k50": "<= 1.10",
    "steered_over_unsteered_decode_b32_k50": "<= 1.03",
    "published_way_over_ours_wall": ">= 20",
}


def main(files: Sequence[Path]) -> None:
    """Replace what stands between the markers."""
    from trimtab.report.plots import svg

    measured = [json.loads(file.read_text()) for file in files]
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    sections = "\n\n".join(section(results) for results in measured)
    PAGE.write_text(f"{head}{BEGIN}\n\n{sections}\n\n{END}{tail}")
    print(f"{PAGE}: the figures of {', '.join(file.name for file in files)}")
    for results in measured:
        if "curves" in results["details"]:
            IMAGE.write_bytes(svg(scaling_figure(results["details"]["curves"]), IMAGE.stem))
            print(IMAGE)


def section(results: Row) -> str:
    """All tables, those alone whose measurement was run."""
    machine, details = results["machine"], results["details"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    where = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gb']} GB{gpu}, "
        f"load {machine['load_before'][0]} before the run; "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items() if number)
    )
    parts = [where + "."]
    if any(ratio is not None for ratio in results["ratios"].values()):
        parts.append(_ratios(results["ratios"]))
    parts += [write(details[name]) for name, write in SECTIONS.items() if name in details]
    return "\n\n".join(parts)


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; a number that was not measured is a dash."""
    lines = [f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|"]
    lines += ["| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _ratios(ratios: Row) -> str:
    rows = [(f"`{name}`", value, TARGETS.get(name)) for name, value in ratios.items()]
    return table("The ratios", ("", "measured", "target"), rows)


def _range(row: Row) -> str:
    return f"{row['ratio_min']} to {row['ratio_max']}"


def _record(details: Row) -> str:
    head = ("", "tokens/s over those of a bare forward", "least to most", "of processor time", "tokens/s")
    rows = [(k, r["ratio"], _range(r), r["processor_ratio"], r["record_tokens_per_s"]) for k, r in details.items()]
    return table("Recording", head, rows)


def _decode(details: Row) -> str:
    head = ("", "steered step over unsteered", "of processor time", "unsteered step, ms")
    rows = [(k, r["ratio"], r["processor_ratio"], r["unsteered_step_ms"]) for k, r in details.items()]
    return table("Steered decode", head, rows)


def _drafts(details: Row) -> str:
    head = ("", "plain over drafted", "least to most", "of processor time", "responses that stay as they are")
    rows = [(k, r["ratio"], _range(r), r["processor_ratio"], f"{r['unchanged_responses']:.0%}") for k, r in details.items()]
    return table("Conditions from drafts", head, rows)


def _compiled(row: Row) -> str:
    head = ("", "steered over unsteered", "least to most", "largest difference to eager", "what steering changes")
    cells = ("compiled forward", row["ratio"], _range(row), row["largest_difference_to_eager"], row["largest_effect"])
    return table("torch.compile", head, [cells])


def _sample(row: Row) -> str:
    head = ("", "with over without", "least to most", "of processor time")
    cells = (f"recording while sampling, {row['chains']} responses", row["ratio"], _range(row), row["processor_ratio"])
    return table("Identification during sampling", head, [cells])


def _others(title: str):
    def write(details: Row) -> str:
        head = ("over `record`", "time", "least to most", "peak memory, MB", "ours, MB", "disk ratio")
        rows = [
            (way, None, None, None, None, None)
            if row is None
            else (way, row["ratio"], _range(row), _mega(row["peak_bytes"]), _mega(row["ours_peak_bytes"]), row.get("disk_ratio"))
            for way, row in details.items()
        ]
        return table(title, head, rows)

    return write


def _mega(count: float | None) -> float | None:
    return None if count is None else round(count / 1e6)


def _evaluate(details: Row) -> str:
    head = (
        "",
        "plain over ours",
        "least to most",
        "of processor time",
        "plain, s",
        "ours, s",
        "responses",
        "as the bare model's",
        "tokens shared",
        "near ties",
    )
    rows = [
        (name, *[None] * (len(head) - 1))
        if row is None
        else (
            f"{name}, {row['conditions']} conditions",
            *(row["ratio"], _range(row), row["processor_ratio"], _median(row["seconds_a"]), _median(row["seconds_b"])),
            *(row["responses"], f"{row['unchanged_responses']:.0%}", row["shared_tokens"], row["near_ties"]),
        )
        for name, row in details.items()
    ]
    return table("Evaluating conditions", head, rows)


def _median(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds), 2)


def _curves(details: Row) -> str:
    """One line a curve, its points from the smallest on; an exponent stands between two of them."""
    head = ("", "sizes", "seconds", "exponents", "peak, MB", "exponents", "on disk, kB")
    columns = ("size", "seconds", "exponent", "peak_mb", "memory_exponent", "disk_kb")
    rows = [
        (f"{verb}: {dimension}", *(_points(points, column) for column in columns))
        for verb, by_dimension in details.items()
        for dimension, points in by_dimension.items()
    ]
    return f"{table('Scaling', head, rows)}\n\n![Seconds against sizes, on logarithmic axes](../images/{IMAGE.name})"


def _points(points: Sequence[Row], column: str) -> str:
    measured = points[1:] if column.endswith("exponent") else points
    return ", ".join("-" if point[column] is None else f"{point[column]:g}" for point in measured)


def scaling_figure(details: Row) -> "go.Figure":
    """A panel a verb: seconds against the size over its base, both logarithmic; a dimension has one colour in all panels."""
    from trimtab.findings import Frame
    from trimtab.report.look import colours
    from trimtab.report.plots import together

    frames = [
        Frame(
            verb.replace(", ", "-").replace(" ", "-"),
            verb,
            [
                {"x": point["size"] / points[0]["size"], "value": point["seconds"], "series": dimension}
                for dimension, points in by_dimension.items()
                for point in points
            ],
            plot="curves",
            x_label="times the smallest",
            y_label="seconds" if number == 0 else "",
            log_x=True,
        )
        for number, (verb, by_dimension) in enumerate((verb, details[verb]) for verb in details if verb in DRAWN)
    ]
    figure = together(frames, "Seconds against one size at a time")
    figure.update_yaxes({"type": "log", "range": None, "autorange": True, "dtick": "D2"})
    traces: Any = figure.data
    palette, seen = colours(trace.name for trace in traces), set()
    for trace in traces:
        colour = palette[trace.name]
        marker = {"color": colour, "symbol": "circle"}
        trace.update(line={"color": colour}, marker=marker, showlegend=trace.name not in seen)
        seen.add(trace.name)
    return figure


def _sharing(details: Row) -> str:
    head = ("", "positions saved", "time over padded batch", "least to most", "largest difference")
    rows = [
        (f"{way}, {name}", f"{row['positions_saved']:.1%}", row["ratio"], _range(row), row["largest_difference"])
        for way, by_name in details.items()
        for name, row in by_name.items()
    ]
    return table("Forwarding less", head, rows)


def _ranking(details: Row) -> str:
    head = ("", "traces", "on disk, GB", "fetched, GB", "seconds", "of the processor", "peak GB", "seconds for all")
    rows = [
        (
            f"`{criterion}`",
            row["traces_ranked"],
            round(row["bytes_on_disk"] / 1e9, 1),
            row["fetched_gb"],
            row["seconds"],
            row["processor_seconds"],
            row["peak_gb"],
            row["seconds_for_all"],
        )
        for criterion, row in details.items()
    ]
    return table("Ranking from disk (target: 60 s, 4 GB)", head, rows)


def _padding(details: Row) -> str:
    names = [name for name in next(iter(details.values())) if name.startswith("padding_")]
    head = (
        "a token is",
        "traces",
        "tokens",
        *(name.replace("padding_of_problems", "a batch a problem").replace("padding_", "padding at ") for name in names),
        "repeated question",
    )
    rows = [
        (by, row["traces"], row["tokens"], *(f"{row[name]:.2%}" for name in names), f"{row['repeated_prefix']:.2%}")
        for by, row in details.items()
    ]
    return table("Real traces", head, rows)


SECTIONS = {
    "record": _record,
    "sample": _sample,
    "decode": _decode,
    "drafts": _drafts,
    "evaluate": _evaluate,
    "compiled": _compiled,
    "published": _others("The published way"),
    "peers": _others("Ways that keep every activation"),
    "curves": _curves,
    "sharing": _sharing,
    "padding": _padding,
    "ranking": _ranking,
}


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted((ROOT / "benchmarks").glob("results*.json"), key=lambda file: file.stem))
