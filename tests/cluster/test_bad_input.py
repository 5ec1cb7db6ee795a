"""Bad input on a live cluster: one message each, and nothing lost."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cluster_jobs import line_job, open_with_full_disk
from tiny_testbed import open_tiny_testbed
from trimtab.errors import ConfigError, ExecutionError
from trimtab.execution import ExecutorSettings
from trimtab.execution.ray_executor import RayExecutor
from trimtab.model import LanguageModel, open_model
from trimtab.progress import silent

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

TWO = ExecutorSettings(kind="ray", actors=2, num_cpus=0.5)
GROWTH_KB_A_PART = 8
CHILD = """
import os, sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from cluster_jobs import line_job
from trimtab.execution import ExecutorSettings
from trimtab.execution.ray_executor import RayExecutor
from trimtab.model import open_model

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

seen = []

@contextmanager
def watching(label, total, done):
    yield lambda items, tokens: seen.append(resident())

address, model, folder, parts = sys.argv[1:]
opened, job = open_model(model), line_job(Path(folder), int(parts))
settings = ExecutorSettings(kind="ray", address=address, actors=2, num_cpus=0.5, batch_size=10)
with RayExecutor(settings, partial(open_model, model)) as executor:
    executor.run(opened, [job], watching)
assert not job.missing()
print("kilobytes", max(seen))
"""


def test_no_cluster_at_the_address(model: LanguageModel, tmp_path: Path) -> None:
    job = line_job(tmp_path, 3)
    wrong = ExecutorSettings(kind="ray", address="127.0.0.1:1")
    with RayExecutor(wrong, partial(open_model, "nowhere")) as executor, pytest.raises(ExecutionError) as caught:
        executor.run(model, [job], silent)
    assert "cannot connect to a Ray cluster at 127.0.0.1:1" in str(caught.value)
    assert "RAY_ADDRESS" in str(caught.value)


def test_the_address_of_the_environment_is_honoured(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    with (
        RayExecutor(ExecutorSettings(kind="ray"), partial(open_model, "nowhere")) as executor,
        pytest.raises(ExecutionError, match=r"127\.0\.0\.1:2"),
    ):
        executor.run(model, [line_job(tmp_path, 3)], silent)


@pytest.mark.usefixtures("cluster")
def test_more_actors_than_the_cluster_holds(model: LanguageModel, tmp_path: Path) -> None:
    many = ExecutorSettings(kind="ray", actors=3, num_cpus=1.0)
    with RayExecutor(many, partial(open_model, "nowhere")) as executor, pytest.raises(ConfigError, match="do not fit"):
        executor.run(model, [line_job(tmp_path, 3)], silent)


@pytest.mark.usefixtures("cluster")
def test_a_worker_with_another_model(model: LanguageModel, tmp_path: Path) -> None:
    other = open_tiny_testbed(tmp_path / "other", seed=1)
    job = line_job(tmp_path / "lines", 3)
    with RayExecutor(TWO, partial(open_model, tmp_path / "other")) as executor, pytest.raises(ExecutionError) as caught:
        executor.run(model, [job], silent)
    expected = f"model fingerprint: here {model.identity.fingerprint}, there {other.identity.fingerprint}"
    assert expected in str(caught.value)
    assert len(job.missing()) == 3


@pytest.mark.usefixtures("cluster")
def test_a_full_disk_stops_the_run_and_keeps_what_was_written(model: LanguageModel, model_folder: Path, tmp_path: Path) -> None:
    job = line_job(tmp_path, 40)
    job.run(model, [0], lambda items, tokens: None)
    with (
        RayExecutor(TWO, partial(open_with_full_disk, model_folder)) as executor,
        pytest.raises(ExecutionError, match=r"StoreError on .*No space left on device.*free space") as caught,
    ):
        executor.run(model, [job], silent)
    assert str(caught.value).count("StoreError") == 1
    assert len(job.missing()) == 39
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.usefixtures("cluster")
def test_a_part_that_kills_its_actor_is_given_up(model: LanguageModel, model_folder: Path, tmp_path: Path) -> None:
    job = line_job(tmp_path, 4, killing=frozenset({3}))
    with (
        RayExecutor(TWO, partial(open_model, model_folder)) as executor,
        pytest.raises(ExecutionError, match="lines, part 3: its actor died 9 times"),
    ):
        executor.run(model, [job], silent)
    assert job.missing() == [3]


@pytest.mark.usefixtures("cluster")
def test_the_memory_of_this_process_does_not_grow_with_the_parts(model_folder: Path, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    peak = {}
    for parts in (100, 10_000):
        arguments = [address, str(model_folder), str(tmp_path / str(parts)), str(parts)]
        done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True)
        peak[parts] = int(re.findall(r"kilobytes (\d+)", done.stdout)[0])
    assert peak[10_000] - peak[100] < GROWTH_KB_A_PART * 10_000, peak
    print(peak)
