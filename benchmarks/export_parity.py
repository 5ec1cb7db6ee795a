"""Export a steering of the bundled reasoner to every target and compare each, in its own engine, with the transformers hooks.

    python benchmarks/export_parity.py [--problems 200] [--keep FOLDER] [--vllm PYTHON]

It prints one row a target, then one line of figures. The exit code is 1 when a target differs. Two steerings are used: ablated
neurons (as by ``ablate``, for lora, ia3 and merged), and the same neurons with shifts (as by ``add``, for gguf, lm-eval, lists).

With --vllm, the interpreter of an environment with vLLM, LoRA and merged checkpoints are verified there, too (``--engine vllm``
is what runs there). In bfloat16 that row is printed and not judged: two programs round at other places even where nothing
is exported.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from trimtab.export.exporting import export_steering
from trimtab.export.parts import ENGINE_NAMES, TargetName
from trimtab.export.verify import verify_export
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel, open_model
from trimtab.steering import Steering
from trimtab.tasks import load_problems
from trimtab.tasks.settings import TaskSettings

MODEL, NEURONS = "testbed:reasoner", 200
MULTIPLICATIVE: tuple[TargetName, ...] = ("lora", "ia3", "merged")
ADDITIVE: tuple[TargetName, ...] = ("gguf", "lm-eval", "adaras-csv", "json")
IN_VLLM: tuple[TargetName, ...] = ("lora", "merged")


def silencing(model: LanguageModel) -> Steering:
    """200 neurons of all layers but the first, by a fixed draw, ablated at every position."""
    flat = np.random.default_rng(0).permutation(np.arange(model.d_ff, model.identity.n_neurons))[:NEURONS]
    gains, shifts = np.full(NEURONS, -1.0, np.float32), np.zeros(NEURONS, np.float32)
    return Steering(flat // model.d_ff, flat % model.d_ff, gains, shifts, 1.0, "all", ALWAYS, model.identity)


def shifting(model: LanguageModel) -> Steering:
    """The same neurons moved by random amounts."""
    shifts = np.random.default_rng(1).normal(0.0, 1.0, NEURONS).astype(np.float32)
    return replace(silencing(model), gain=np.zeros(NEURONS, np.float32), shift=shifts)


def _in_vllm(python: Path, problems: int) -> tuple[bool, str]:
    """Whether this script passes in another environment, and the figures of its last line."""
    command = [str(python), __file__, "--engine", "vllm", "--problems", str(problems)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    *rows, last = done.stdout.strip().splitlines() or ["nothing was said"]
    print("\n".join(row for row in rows if row.startswith(IN_VLLM)))
    return done.returncode == 0, last.partition(": ")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="Leave the exports in this folder.")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="Verify in vLLM, too, with this interpreter.")
    parser.add_argument("--engine", choices=ENGINE_NAMES, default="own", help="vllm: verify in vLLM alone, in this environment.")
    given = parser.parse_args()
    if given.vllm is not None and not given.vllm.exists():
        parser.error(f"there is no {given.vllm}; make test-export installs it")
    problems = load_problems(TaskSettings(train=0, validation=given.problems, test=0))
    questions = [problem.question for problem in problems]
    figures, passed = [], True
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("float32", "bfloat16"):
            model = open_model(MODEL, dtype=dtype)
            for target in (*MULTIPLICATIVE, *ADDITIVE) if given.engine == "own" else IN_VLLM:
                if dtype == "bfloat16" and target == "gguf":
                    continue  # llama.cpp runs the float32 copy
                steering = silencing(model) if target in MULTIPLICATIVE else shifting(model)
                folder = (given.keep or Path(scratch)) / dtype / target
                export_steering(steering, target, folder, allow_pickle=True, force=True)
                record = verify_export(
                    folder, model, steering, questions, max_new_tokens=128, engine=given.engine, allow_pickle=True
                )
                seen = record.verification if given.engine == "own" else record.elsewhere[given.engine]
                assert seen is not None
                judged = given.engine == "own" or dtype == "float32"
                passed &= seen.ok or not judged
                word = "ok" if seen.ok else "FAILED" if judged else "differs"
                print(
                    f"{target:<11} {dtype:<9} {seen.engine:<26} effect differs by {seen.effect:.1e} (up to {seen.tolerance}), "
                    f"size {seen.size:.2f}, greedy tokens {seen.tokens_differing} of {seen.tokens} differ, "
                    f"near ties {seen.near_ties}  {word}",
                    flush=True,
                )
                where = "" if given.engine == "own" else " in vLLM"
                figures.append(f"{target}{where} {dtype} {seen.effect:.1e}")
    if given.vllm is not None:
        in_vllm, told = _in_vllm(given.vllm, given.problems)
        passed &= in_vllm
        figures.append(told)
    print(f"exports {'ok' if passed else 'FAILED'} on {len(questions)} problems: {', '.join(figures)}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
