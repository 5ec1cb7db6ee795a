"""The figures that the documents name, and the table for people."""

from collections.abc import Mapping

PATHS: Mapping[str, tuple[str, ...]] = {
    "record_over_forward_12x768": ("record", "12x768, means and magnitudes", "ratio"),
    "record_over_forward_testbed": ("record", "testbed, means and magnitudes", "ratio"),
    "sample_record_over_sample": ("sample", "ratio"),
    "steered_over_unsteered_decode_b1_k50": ("decode", "batch 1, K 50", "ratio"),
    "steered_over_unsteered_decode_b32_k50": ("decode", "batch 32, K 50", "ratio"),
    "plain_over_drafted_b8": ("drafts", "12x768, batch 8, hardly departs", "ratio"),
    "published_way_over_ours_wall": ("published", "published", "ratio"),
    "published_way_over_ours_disk": ("published", "published", "disk_ratio"),
    "transformer_lens_over_ours_record": ("peers", "transformer_lens", "ratio"),
    "nnsight_over_ours_record": ("peers", "nnsight", "ratio"),
}
"""Where in the details each ratio stands."""


def ratios_of(details: Mapping[str, object]) -> dict[str, float | None]:
    """Every ratio by name; None for what was not measured."""
    return {name: _at(details, path) for name, path in PATHS.items()}


def table(results: Mapping[str, Mapping[str, object]]) -> str:
    """Machine and versions, the ratios, and one line for every other measurement."""
    facts = [f"{name:<42}  {value}" for section in ("machine", "versions") for name, value in results[section].items()]
    ratios = [f"{name:<42}  {'-' if value is None else value}" for name, value in results["ratios"].items()]
    rows = [line for name, detail in results["details"].items() for line in _lines(name, detail)]
    return "\n".join([*facts, "", *ratios, "", *rows])


def _at(details: object, path: tuple[str, ...]) -> float | None:
    for key in path:
        details = details.get(key) if isinstance(details, Mapping) else None
    return details if isinstance(details, int | float) else None


def _lines(name: str, detail: object) -> list[str]:
    """One line a row; a row is what says what it is."""
    if detail is None:
        return [f"{name}: left out, not installed or not given"]
    if isinstance(detail, list):
        return [line for row in detail for line in _lines(name, row)]
    if isinstance(detail, Mapping) and "what" not in detail:
        return [line for key, value in detail.items() for line in _lines(f"{name}, {key}", value)]
    assert isinstance(detail, Mapping)
    shown = (f"{key} {value}" for key, value in detail.items() if key != "what" and not isinstance(value, list))
    return [f"{name}: {', '.join(shown)}  ({detail['what']})"]
