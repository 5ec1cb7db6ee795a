"""The commands of docs/deploy.md, so that tests can run each of them on the bundled model."""

import re
import shlex
from pathlib import Path

import numpy as np

from trimtab.gate import ALWAYS, Gate
from trimtab.model import LanguageModel
from trimtab.steering import Steering

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
MODEL = "testbed:reasoner"
GAINS = ("lora", "ia3", "merged")
NEURONS = 40


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def shell_commands() -> list[str]:
    """Every command of the shell blocks."""
    return [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]


def table_commands() -> dict[str, str]:
    """The command of each row of the table of targets, by target."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    found = {row[0].strip(" `"): row[-1].strip(" `") for row in rows}
    return {target: command for target, command in found.items() if command.startswith("trimtab ")}


def arguments(command: str, steering: Path) -> list[str]:
    """A command with the bundled model and an artifact in place of the page's."""
    words = {"STEERING": str(steering), "runs/a/steering": str(steering), "Qwen/Qwen3-1.7B": MODEL}
    return [words.get(word, word) for word in shlex.split(command)]


def save_steerings(model: LanguageModel, folder: Path) -> dict[str, Path]:
    """Artifacts of 40 neurons of all layers but the first: ``gains``, ``shifts``, and ``whole`` with both, a scope and a gate."""
    flat = np.random.default_rng(0).permutation(np.arange(model.d_ff, model.identity.n_neurons))[:NEURONS]
    layer, index = flat // model.d_ff, flat % model.d_ff
    gains, shifts, none = np.full(NEURONS, -1.0, np.float32), np.full(NEURONS, 2.0, np.float32), np.zeros(NEURONS, np.float32)
    gate = Gate("logistic", layer=layer[:2], index=index[:2], weight=np.ones(2, np.float32), threshold=0.5)
    made = {
        "gains": Steering(layer, index, gains, none, 1.0, "all", ALWAYS, model.identity),
        "shifts": Steering(layer, index, none, shifts, 1.0, "all", ALWAYS, model.identity),
        "whole": Steering(layer, index, gains, shifts, 1.0, "generated", gate, model.identity),
    }
    for name, steering in made.items():
        steering.save_pretrained(folder / name)
    return {name: folder / name for name in made}


def fitting(steerings: dict[str, Path], target: str) -> Path:
    """The artifact that a target can express."""
    return steerings["gains" if target in GAINS else "shifts"]
