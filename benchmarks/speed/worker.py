"""One way in a process of its own, so that its memory is its own and others' libraries stay in their environment.

``python -m benchmarks.speed.worker WAY MODEL JOB THREADS`` answers each line on stdin, ``run FOLDER`` or ``load FOLDER``, with
one line of JSON.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.ways.job import Job

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes(field: str) -> int | None:
    """``VmRSS`` now, or ``VmHWM``, the most since the last reset; None where the system does not say."""
    if not STATUS.exists():
        return None
    lines = [line for line in STATUS.read_text().splitlines() if line.startswith(field)]
    return 1024 * int(lines[0].split()[1]) if lines else None


def reset_peak() -> None:
    """Forget the peak that loading the model left."""
    if RESET.exists():
        RESET.write_text("5")


def main() -> None:
    """Serve until stdin ends."""
    way, model, job_path, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    torch.set_num_threads(int(threads))
    module, job = importlib.import_module(f"benchmarks.speed.ways.{way}"), Job.read(Path(job_path))
    run = module.prepare(Path(model), job)
    print(json.dumps({"ready": way}), file=answers, flush=True)
    for line in sys.stdin:
        command, folder = line.split(maxsplit=1)
        place = Path(folder.strip())
        if command == "load":
            np.save(place / "answer.npy", module.load(place, job))
            print(json.dumps({}), file=answers, flush=True)
            continue
        before = resident_bytes("VmRSS")
        reset_peak()
        wall, processor = time.perf_counter(), time.process_time()
        extrapolated = run(place)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resident_bytes("VmHWM")
        grown = None if before is None or peak is None else peak - before
        answer = {"wall": wall, "processor": processor, "extrapolated": extrapolated, "peak_bytes": grown}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
