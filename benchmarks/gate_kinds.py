"""How well each kind of gate predicts failure on problems it was not fitted on: ``python benchmarks/gate_kinds.py RUN``.

Fits every kind on the find split of a finished run and prints AUROC and Brier score on its tune split. The run is only read; what
has to be recorded goes to a temporary folder.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from trimtab.gating import fit_logistic
from trimtab.gating.attention import fit_attention
from trimtab.gating.discrimination import auroc, delong_interval
from trimtab.pipeline import Line
from trimtab.pipeline.config import parse_config
from trimtab.recording import prompt_traces, record_features, record_prompts
from trimtab.store import RunDirectory
from trimtab.tasks import render_prompt
from trimtab.traces import Split

SPLITS = (Split.FIND, Split.TUNE)


def main() -> None:
    """Print one row a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run whose gate stage is done")
    parser.add_argument("--features", type=int, default=4096)
    arguments = parser.parse_args()
    with RunDirectory.open(arguments.run) as directory, tempfile.TemporaryDirectory() as folder:
        line = Line(parse_config(dict(directory.config), str(arguments.run)), directory)
        measure(line, Path(folder), arguments.features)


def measure(line: Line, folder: Path, n_features: int) -> None:
    """Fit and assess every kind."""
    failed = {split: line.failed(split) for split in SPLITS}
    prompts = {
        split: {p.id: render_prompt(line.opened.tokenizer, p.question, line.config.prompt) for p in line.problems(split)}
        for split in SPLITS
    }
    recordings = {
        split: record_prompts(line.opened, prompts[split], folder / split, scopes=("last-prompt", "prompt")) for split in SPLITS
    }
    print(f"find {len(failed[Split.FIND])} problems, {failed[Split.FIND].sum()} failed", end="; ")
    print(f"tune {len(failed[Split.TUNE])}, {failed[Split.TUNE].sum()} failed\n")
    print("| gate | AUROC on tune [95 %] | Brier | AUROC, held out in find | features read | seconds |")
    print("|---|---|---|---|---|---|")

    def show(name: str, p_tune: np.ndarray, facts: dict[str, object], n_read: int, seconds: float) -> None:
        truth = failed[Split.TUNE]
        low, high = delong_interval(truth, p_tune)
        area = f"{auroc(truth, p_tune):.3f} [{low:.3f}, {high:.3f}]"
        brier, held_out = ((p_tune - truth) ** 2).mean(), facts["held_out_auroc"]
        print(f"| {name} | {area} | {brier:.4f} | {held_out:.3f} | {n_read} | {seconds:.1f} |")

    for pooling, scope in (("last", "last-prompt"), ("mean", "prompt")):
        find, tune = (recordings[split].means(scope, list(prompts[split])) for split in SPLITS)
        for penalty in ("l2", "l1"):
            start = time.perf_counter()
            gate = fit_logistic(find, failed[Split.FIND], n_features=n_features, pooling=pooling, penalty=penalty)
            seconds = time.perf_counter() - start
            p_tune = gate.probability(tune[:, gate.layer, gate.index])
            show(f"{gate.label}, {penalty.upper()}", p_tune, gate.facts, len(gate.layer), seconds)

    def tokens(split: Split, layer: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
        traces = prompt_traces(prompts[split])
        return record_features(line.opened, traces, layer, index, "prompt", folder / f"features-{split}").of(list(prompts[split]))

    start = time.perf_counter()
    means = recordings[Split.FIND].means("prompt", list(prompts[Split.FIND]))
    gate = fit_attention(means, failed[Split.FIND], lambda layer, index: tokens(Split.FIND, layer, index), n_features=n_features)
    seconds = time.perf_counter() - start
    show(gate.label, gate.probability(tokens(Split.TUNE, gate.layer, gate.index)), gate.facts, len(gate.layer), seconds)
    print(f"\nattention: epoch {gate.facts['epoch']}, validation AUROC {gate.facts['validation_auroc']:.3f}")


if __name__ == "__main__":
    main()
