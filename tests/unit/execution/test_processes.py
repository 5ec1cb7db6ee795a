"""Processes on the cores of this machine: the same bytes, and what becomes of parts that fail or end their process."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from cluster_jobs import killing, line_job, open_and_sign, open_never, slowed
from cluster_work import do_all, first_jobs, record_jobs
from tiny_testbed import save_tiny_testbed, tree_bytes
from trimtab.errors import ConfigError, ExecutionError
from trimtab.execution import LOCAL, ExecutorSettings, ProcessExecutor
from trimtab.model import LanguageModel, open_model
from trimtab.progress import silent
from trimtab.study import Study

TWO = ExecutorSettings(kind="processes", workers=2)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LanguageModel:
    return open_model(model_folder)


def test_two_processes_write_the_bytes_of_this_one_and_open_the_model_once(
    model: LanguageModel, model_folder: Path, tmp_path: Path
) -> None:
    """And a part that raises is listed beside them, while the others of its job are written."""
    do_all(model, tmp_path / "here", LOCAL)
    jobs = first_jobs(model, tmp_path / "there")
    jobs[0].run(model, jobs[0].missing()[:2], lambda items, tokens: None)
    broken = line_job(tmp_path / "broken", 6, raising=frozenset({4}))
    with ProcessExecutor(TWO, partial(open_and_sign, model_folder, tmp_path / "processes")) as executor:
        with pytest.raises(ExecutionError) as caught:
            executor.run(model, [*jobs, broken], silent)
        assert "1 parts could not be computed, all others are written" in str(caught.value)
        assert "ValueError" in str(caught.value)
        assert broken.plan.parts[4][0] in str(caught.value)
        assert broken.missing() == [4]
        do_all(model, tmp_path / "there", executor)
    assert tree_bytes(tmp_path / "there") == tree_bytes(tmp_path / "here")
    assert len(list((tmp_path / "processes").iterdir())) == 2


def test_a_process_that_dies_is_replaced_and_one_that_always_does_gives_its_part_up(
    model: LanguageModel, model_folder: Path, tmp_path: Path
) -> None:
    job = line_job(tmp_path / "lines", 5, killing=frozenset({2}))
    with ProcessExecutor(TWO, partial(open_model, model_folder)) as executor, pytest.raises(ExecutionError) as caught:
        executor.run(model, [job], silent)
    assert f"part 2: its process ended 3 times, the last time with exit code {-signal.SIGKILL}" in str(caught.value)
    assert job.missing() == [2]


@pytest.mark.slow
def test_processes_that_are_killed_every_few_seconds(model: LanguageModel, model_folder: Path, tmp_path: Path) -> None:
    do_all(model, tmp_path / "here", LOCAL)
    signatures = tmp_path / "processes"
    signatures.mkdir()
    opening = partial(open_and_sign, model_folder, signatures)
    with ProcessExecutor(TWO, opening) as executor, killing(signatures, every_s=5.0) as killed:
        executor.run(model, slowed(first_jobs(model, tmp_path / "there"), 1.0), silent)
    assert len(killed) >= 2
    LOCAL.run(model, record_jobs(model, tmp_path / "there"), silent)
    assert tree_bytes(tmp_path / "there") == tree_bytes(tmp_path / "here")


def test_a_process_that_cannot_open_the_model_ends_the_run_with_its_message(model: LanguageModel, tmp_path: Path) -> None:
    job = line_job(tmp_path, 20)
    opening = partial(open_never, "the checkpoint of 'x' is gone")
    with ProcessExecutor(TWO, opening) as executor, pytest.raises(ExecutionError) as caught:
        executor.run(model, [job], silent)
    assert str(caught.value).startswith("ModelError on ")
    assert "the checkpoint of 'x' is gone\nThe run was stopped; what was written is kept" in str(caught.value)
    assert len(job.missing()) == 20


def test_threads_are_divided_while_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for settings, workers in (({}, 8), ({"threads": 3}, 2), ({"threads": 16}, 1), ({"workers": 5, "threads": 2}, 5)):
        executor = ProcessExecutor(ExecutorSettings.model_validate({"kind": "processes", **settings}), open_model)
        assert executor.workers == workers
        with executor:
            pass
        assert asked == [settings.get("threads", 1), 8]
        asked.clear()


def test_what_it_cannot_do_is_refused(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ProcessExecutor(TWO, open_model) as executor:
        monkeypatch.setattr(LanguageModel, "device", property(lambda _: torch.device("cuda:0")))
        with pytest.raises(ConfigError, match=r"the model is on cuda:0; set model.device"):
            executor.run(model, [line_job(tmp_path, 1)], silent)
    with (
        Study(path=tmp_path / "run", settings={"engine": "vllm", "executor": {"kind": "processes"}}) as study,
        pytest.raises(ConfigError, match="uses all cores by itself"),
    ):
        _ = study.executor


SCRIPT = """
import sys
sys.path.insert(0, {helpers!r})
from functools import partial
from pathlib import Path
from cluster_jobs import line_job
from trimtab.execution import ExecutorSettings, ProcessExecutor
from trimtab.model import open_model
from trimtab.progress import silent
folder = Path({model!r})
with ProcessExecutor(ExecutorSettings(kind="processes", workers=2), partial(open_model, folder)) as executor:
    executor.run(open_model(folder), [line_job(Path({out!r}), 3)], silent)
"""


@pytest.mark.slow
def test_a_script_from_stdin_needs_no_guard(model_folder: Path, tmp_path: Path) -> None:
    """multiprocessing would import it once more in each process, and not find it."""
    helpers = Path(__file__).parents[2] / "helpers"
    script = SCRIPT.format(helpers=str(helpers), model=str(model_folder), out=str(tmp_path / "lines"))
    subprocess.run([sys.executable, "-"], input=script, text=True, timeout=300, check=True)
    assert len(list((tmp_path / "lines").glob("part-*"))) == 3
