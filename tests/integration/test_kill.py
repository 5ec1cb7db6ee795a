"""kill -9 during ``sample``, ``record`` and both in one, then resume: the same bytes as an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny_testbed import open_tiny_testbed, settings, some_problems, tree_bytes
from trimtab.model import LanguageModel
from trimtab.recording import RecordingSettings, StreamedParts, record_traces
from trimtab.sampling import sample_traces

PROBLEMS = some_problems(12)
SAMPLING = settings(n=2, temperature=1.0, batch_tokens=350)
RECORDING = RecordingSettings(batch_tokens=250)
CHILD = """
import sys, time
from pathlib import Path
import test_kill
from trimtab.model import open_model

verb, model, folder = sys.argv[1], open_model(sys.argv[2]), Path(sys.argv[3])
model.hf_model.model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
test_kill.work(verb, model, folder)
"""


def work(verb: str, model: LanguageModel, folder: Path) -> None:
    """The verb into its folder below ``folder``; ``record`` needs the traces of ``sample``, ``streamed`` makes both."""
    moments = StreamedParts(model, RECORDING, folder / "streamed") if verb == "streamed" else None
    traces = sample_traces(model, PROBLEMS, SAMPLING, folder / "sample", moments=moments)
    if verb == "record":
        record_traces(model, [trace for trace in traces if len(trace.response_ids) > 1], RECORDING, folder / "record")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the child has it: the bytes are those of one machine and one setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _start(verb: str, model: Path, folder: Path) -> "subprocess.Popen[bytes]":
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, verb, str(model), str(folder)], env=environment)


@pytest.mark.parametrize("verb", ["sample", "record", "streamed"])
@pytest.mark.usefixtures("one_thread")
def test_kill_9_and_resume_end_with_the_same_bytes(tmp_path: Path, verb: str) -> None:
    model = open_tiny_testbed(tmp_path / "model")
    work(verb, model, tmp_path / "undisturbed")
    expected = tree_bytes(tmp_path / "undisturbed")
    total = {name for name in expected if name.startswith(f"{verb}/part-")}
    resumed = tmp_path / "resumed"
    if verb == "record":
        work("sample", model, resumed)
    with _start(verb, tmp_path / "model", resumed) as child:
        deadline = time.monotonic() + 120
        while len(list((resumed / verb).glob("part-*"))) < 2:
            assert child.poll() is None, "the child ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    kept = {f"{verb}/{path.name}" for path in (resumed / verb).glob("part-*")}
    assert 2 <= len(kept) < len(total), "nothing was left to do"
    assert all((resumed / name).read_bytes() == expected[name] for name in kept)
    work(verb, model, resumed)
    assert tree_bytes(resumed) == expected
