"""Values to store, and a writer process that a test can kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from remote_stores import Kills
from trimtab.gate import Gate
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.steering import Steering


@pytest.fixture
def identity() -> ModelIdentity:
    return ModelIdentity("some/model", None, "Qwen3ForCausalLM", "blake2b:0123", n_layers=3, d_model=8, d_ff=16, vocab_size=97)


@pytest.fixture
def neurons(identity: ModelIdentity) -> Neurons:
    rng = np.random.default_rng(0)
    flat = rng.permutation(identity.n_neurons)[:7]
    score = rng.normal(size=7)
    score[0] = np.nextafter(1.0, 2.0)
    good, bad = rng.normal(size=(2, 7)).astype(np.float32)
    good[1] = -0.0
    return Neurons(flat // 16, flat % 16, score, good, bad, "adaras", identity, {"counts": {"correct_mean": 60}, "p": 0.1 + 0.2})


@pytest.fixture
def gate() -> Gate:
    return Gate(
        "logistic",
        "proportional",
        np.array([0, 2, 1]),
        np.array([3, 15, 0]),
        np.array([0.1, -2.5, 3e-8], np.float32),
        bias=1 / 3,
        threshold=0.42,
        facts={"auroc": 0.7612345678901234},
    )


@pytest.fixture
def steering(neurons: Neurons, gate: Gate) -> Steering:
    facts: dict[str, object] = {
        "criterion": neurons.criterion,
        "seed": 3,
        "metrics": {"accuracy": {"value": 0.625, "low": 0.51, "high": 0.7251, "n": 80}},
    }
    return Steering.of(neurons, 0.3, gate=gate, facts=facts)


Start = Callable[[str, object], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program with one argument and return once it has printed a line; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, argument: object) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(argument)], stdout=subprocess.PIPE, text=True, env=environment, encoding="utf-8"
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        return process

    yield run
    for process in started:
        kill(process)


def kill(process: "subprocess.Popen[str]") -> None:
    """``kill -9`` and wait."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(params=["memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder behind fsspec: of an object store, where a put is whole, and of one where a file grows."""
    return UPath(f"memory://{tmp_path.name}") if request.param == "memory" else UPath(f"file://{tmp_path}/remote")


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Kills:
    return Kills(monkeypatch)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a list of neurons that somebody else made."""

    def write(text: str) -> Path:
        path = tmp_path / "list"
        path.write_text(text)
        return path

    return write
