"""How well each kind of gate predicts failure on problems it was not fitted on: ``python benchmarks/gate_kinds.py RUN``.

Fits every kind on the train split of a finished run and prints AUROC and Brier score on its validation split. Recordings go
to a temporary folder.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from trimtab.gate import AnyGate
from trimtab.gating import fit_logistic
from trimtab.gating.attention import fit_attention
from trimtab.gating.reading import predict, read_prompts
from trimtab.gating.settings import GateSettings
from trimtab.recording import Recording, record_prompts
from trimtab.stats.auroc import auroc, delong_interval
from trimtab.study import Study
from trimtab.study.find import prompts
from trimtab.traces import Split

KINDS = (
    GateSettings(),
    GateSettings(penalty="l1"),
    GateSettings(pooling="mean"),
    GateSettings(pooling="mean", penalty="l1"),
    GateSettings(kind="attention"),
)


def main() -> None:
    """Print one row a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run whose gate is fitted")
    arguments = parser.parse_args()
    with Study.from_toml(arguments.run) as study, tempfile.TemporaryDirectory() as folder:
        for split in (Split.TRAIN, Split.VALIDATION):
            print(f"{split}: {len(study.failed(split))} problems, {study.failed(split).sum()} failed")
        print("\n| gate | AUROC on validation [95 %] | Brier | AUROC, held out in train | features read | seconds to fit |")
        print("|---|---|---|---|---|---|")
        recording = record_prompts(study.model, prompts(study, Split.TRAIN), Path(folder), scopes=("last-prompt", "prompt"))
        for settings in KINDS:
            start = time.perf_counter()
            gate = fit(study, settings, recording)
            print(row(study, gate, settings, time.perf_counter() - start), flush=True)


def fit(study: Study, settings: GateSettings, recording: Recording) -> AnyGate:
    """A gate of one kind, fitted on the train split."""
    failed, asked = study.failed(Split.TRAIN), prompts(study, Split.TRAIN)
    features = recording.means(settings.scope, list(asked))
    if settings.kind == "attention":
        return fit_attention(
            features, failed, lambda layer, index: read_prompts(study.model, asked, layer, index, settings.scope)
        )
    return fit_logistic(features, failed, pooling=settings.pooling, penalty=settings.penalty)


def row(study: Study, gate: AnyGate, settings: GateSettings, seconds: float) -> str:
    """Its figures on the validation split."""
    failed = study.failed(Split.VALIDATION)
    p_fail = np.array(list(predict(study.model, gate, prompts(study, Split.VALIDATION)).values()))
    low, high = delong_interval(failed, p_fail)
    name = gate.label if settings.kind == "attention" else f"{gate.label}, {settings.penalty.upper()}"
    area, brier = f"{auroc(failed, p_fail):.3f} [{low:.3f}, {high:.3f}]", ((p_fail - failed) ** 2).mean()
    return f"| {name} | {area} | {brier:.4f} | {gate.facts['held_out_auroc']:.3f} | {len(gate.layer)} | {seconds:.1f} |"


if __name__ == "__main__":
    main()
