"""Settings of a study with some changed, and the files that a study leaves."""

from pathlib import Path

from tiny_testbed import tree_bytes
from trimtab.store import AnyPath
from trimtab.study import Settings, parse_settings

TIMED = {"seconds.json", "ledger.jsonl", "report.json", "report.html"}
"""Files that hold times, or the study's own path."""


def with_sections(settings: Settings, **sections: object) -> Settings:
    """The settings with some values of some sections changed."""
    data = settings.model_dump(mode="json")
    for name, values in sections.items():
        data[name] = {**data[name], **values} if isinstance(values, dict) else values
    return parse_settings(data, "the test")


def results(folder: Path) -> dict[str, bytes]:
    """Every file below a study's folder whose bytes are the same for the same settings."""
    return comparable(folder, tree_bytes(folder))


def comparable(folder: AnyPath, files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of some files, by name, that do not hold times; the folder's own name in them is replaced."""
    left_out = TIMED | {"run.toml"}
    place = str(folder).encode()
    kept = {name for name in files if name not in left_out and ".lock" not in name and not name.startswith("studies/")}
    return {name: files[name].replace(place, b"RUN") for name in kept}
