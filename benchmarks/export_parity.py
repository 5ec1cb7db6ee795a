"""Export a steering of the bundled reasoner to every target and compare each, in its own engine, with the transformers hooks.

    python benchmarks/export_parity.py [--problems 200] [--keep FOLDER]

One row a target, then one line of figures. Exit code 1 when a target differs. Two steerings are used: neurons that are silenced
(``suppress``, for lora, ia3 and merged), and the same neurons with shifts (``steer``, for gguf, lm-eval and the lists).
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from trimtab.export.exporting import export_steering
from trimtab.export.parts import TargetName
from trimtab.export.verify import verify_export
from trimtab.gate import ALWAYS
from trimtab.model import OpenModel, open_model
from trimtab.steering import Steering
from trimtab.tasks import load_problems
from trimtab.tasks.settings import TaskSettings

MODEL, NEURONS = "testbed:reasoner", 200
MULTIPLICATIVE: tuple[TargetName, ...] = ("lora", "ia3", "merged")
ADDITIVE: tuple[TargetName, ...] = ("gguf", "lm-eval", "adaras-csv", "json")


def silencing(opened: OpenModel) -> Steering:
    """200 neurons of all layers but the first, by a fixed draw, silenced at every position."""
    flat = np.random.default_rng(0).permutation(np.arange(opened.d_ff, opened.identity.n_neurons))[:NEURONS]
    gains, shifts = np.full(NEURONS, -1.0, np.float32), np.zeros(NEURONS, np.float32)
    return Steering(flat // opened.d_ff, flat % opened.d_ff, gains, shifts, 1.0, "all", ALWAYS, opened.identity)


def shifting(opened: OpenModel) -> Steering:
    """The same neurons moved by random amounts."""
    shifts = np.random.default_rng(1).normal(0.0, 1.0, NEURONS).astype(np.float32)
    return replace(silencing(opened), dgain=np.zeros(NEURONS, np.float32), shift=shifts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="Leave the exports in this folder.")
    given = parser.parse_args()
    problems = load_problems(TaskSettings(find=0, tune=given.problems, test=0))
    questions = [problem.question for problem in problems]
    figures, passed = [], True
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("float32", "bfloat16"):
            opened = open_model(MODEL, dtype=dtype)
            for target in (*MULTIPLICATIVE, *ADDITIVE):
                if dtype == "bfloat16" and target == "gguf":
                    continue  # llama.cpp runs the float32 copy
                steering = silencing(opened) if target in MULTIPLICATIVE else shifting(opened)
                folder = (given.keep or Path(scratch)) / dtype / target
                export_steering(steering, target, folder, allow_pickle=True, force=True)
                record = verify_export(folder, opened, steering, questions, max_new_tokens=128, allow_pickle=True)
                seen = record.verification
                assert seen is not None
                passed &= seen.ok
                print(
                    f"{target:<11} {dtype:<9} {seen.engine:<26} effect differs by {seen.effect:.1e} (up to {seen.tolerance}), "
                    f"size {seen.size:.2f}, greedy tokens {seen.tokens_differing} of {seen.tokens} differ, "
                    f"near ties {seen.near_ties}  {'ok' if seen.ok else 'FAILED'}",
                    flush=True,
                )
                figures.append(f"{target} {dtype} {seen.effect:.1e}")
    print(f"exports {'ok' if passed else 'FAILED'} on {len(questions)} problems: {', '.join(figures)}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
