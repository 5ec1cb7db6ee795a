"""Workers from the side that asks: start, run a pass, end."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.timing import Spent

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Worker:
    """A process that runs one way; see :mod:`benchmarks.speed.worker`. Every pass goes into a folder that is then deleted.

    Attributes:
        means: the result of the first pass, ``[moment, trace, layer, d_ff]``; None for a way that has none.
        peak_bytes: memory that the first pass took on top of the loaded model. Later passes find what an allocator keeps.
        extrapolated: seconds of each pass that were not run.
        disk_bytes: what the last pass left on disk, its result in memory apart.
    """

    way: str
    model: Path
    job: Path
    python: Path = Path(sys.executable)
    means: NDArray[np.float32] | None = None
    peak_bytes: int | None = None
    extrapolated: list[float] = field(default_factory=list)
    disk_bytes: int = 0
    _process: "subprocess.Popen[str] | None" = None
    _errors: IO[str] | None = None

    def __enter__(self) -> "Worker":
        threads = str(torch.get_num_threads())
        command = [self.python, "-m", "benchmarks.speed.worker", self.way, self.model, self.job, threads]
        self._errors = tempfile.TemporaryFile("w+")  # not a pipe: nobody would read it while the worker writes
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
        )
        self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._errors is not None:
            self._process.communicate()
            self._errors.close()

    def run(self) -> Spent:
        """One pass; what it took with the seconds that were extrapolated."""
        with tempfile.TemporaryDirectory() as folder:
            answer = self._ask(f"run {folder}")
            self.disk_bytes = sum(path.stat().st_size for path in Path(folder).iterdir() if path.name != "means.npy")
            if not self.extrapolated:
                self.peak_bytes = None if answer["peak_bytes"] is None else int(answer["peak_bytes"])
                self.means = None if self.way == "bare" else self._loaded(folder)
        self.extrapolated.append(float(answer["extrapolated"] or 0))
        return Spent(*(float(answer[clock] or 0) + self.extrapolated[-1] for clock in ("wall", "processor")))

    def _loaded(self, folder: str) -> NDArray[np.float32]:
        self._ask(f"load {folder}")
        return np.load(Path(folder, "answer.npy"))

    def _ask(self, line: str) -> dict[str, float | None]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float | None]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._errors is not None
            self._errors.seek(0)
            raise click.ClickException(f"the worker of {self.way} ended:\n{self._errors.read()[-2000:]}")
        return json.loads(line)
