"""What CI runs on a live cluster: the same bytes from actors, and what becomes of parts that fail."""

import threading
from functools import partial
from pathlib import Path

import pytest
import ray

from cluster_jobs import line_job, open_and_sign, open_never
from cluster_work import first_jobs
from tiny_testbed import tree_bytes
from trimtab.errors import ExecutionError
from trimtab.execution import LOCAL, ExecutorSettings
from trimtab.execution.ray_executor import RayExecutor
from trimtab.model import LanguageModel
from trimtab.progress import silent
from trimtab.study import Study

TWO = ExecutorSettings(kind="ray", actors=2, num_cpus=0.5)


@pytest.mark.usefixtures("cluster")
def test_a_run_begun_here_and_finished_by_two_actors_has_the_bytes_of_one_made_here(
    model: LanguageModel, model_folder: Path, tmp_path: Path
) -> None:
    """And beside it, in the same pool: a part that raises is listed, and the others of its job are written."""
    LOCAL.run(model, first_jobs(model, tmp_path / "local"), silent)
    jobs = first_jobs(model, tmp_path / "ray")
    first = jobs[0].missing()[:2]
    jobs[0].run(model, first, lambda items, tokens: None)
    broken = line_job(tmp_path / "broken", 6, raising=frozenset({4}))
    signed = partial(open_and_sign, model_folder, tmp_path / "processes")
    with RayExecutor(TWO, signed) as executor, pytest.raises(ExecutionError) as caught:
        executor.run(model, [*jobs, broken], silent)
    assert "1 parts could not be computed, all others are written" in str(caught.value)
    assert "ValueError" in str(caught.value)
    assert broken.plan.parts[4][0] in str(caught.value)
    assert broken.missing() == [4]
    assert tree_bytes(tmp_path / "ray") == tree_bytes(tmp_path / "local")
    opened_by = list((tmp_path / "processes").iterdir())
    assert 1 <= len(opened_by) <= 2, "each actor that gets a part opens the model once"


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_cannot_open_the_model_ends_the_run_with_its_message(model: LanguageModel, tmp_path: Path) -> None:
    job = line_job(tmp_path, 20)
    before = set(threading.enumerate())
    with (
        RayExecutor(TWO, partial(open_never, "the checkpoint of 'x' is gone")) as executor,
        pytest.raises(ExecutionError) as caught,
    ):
        executor.run(model, [job], silent)
    assert str(caught.value).startswith("ModelError on ")
    assert "the checkpoint of 'x' is gone\nThe run was stopped; what was written is kept" in str(caught.value)
    assert len(job.missing()) == 20
    left = {thread.name for thread in threading.enumerate() if thread not in before}
    assert not left, "one that calls Ray after its shutdown ends the process, without the message"


def test_a_study_reads_what_is_there_and_asks_its_cluster_for_what_is_missing_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has computed, the other reads, even where the other's cluster is not there; a new sample needs the cluster."""
    # a process that is connected already stays connected, as the tests above leave this one
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    sections = {"task": {"source": "testbed", "train": 4, "validation": 2, "test": 2}}
    with Study(path=tmp_path / "run", settings=sections) as first:
        digests = first.problems().digests
    away = {**sections, "executor": {"kind": "ray", "address": "127.0.0.1:1"}}
    with Study(path=tmp_path / "run", settings=away) as second:
        assert second.problems().digests == digests
        with pytest.raises(ExecutionError, match=r"cannot connect to a Ray cluster at 127\.0\.0\.1:1"):
            second.sample(n=1, max_new_tokens=4)
