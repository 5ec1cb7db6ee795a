"""The order of work here, and what is made of the answers of actors, which a fake gives."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster_jobs import LineJob, line_job
from tiny_testbed import open_tiny_testbed
from trimtab.errors import ExecutionError, MismatchError
from trimtab.execution import LOCAL, Job
from trimtab.execution.job import ExecutorSettings, check_facts, model_facts, package_facts
from trimtab.execution.ray_executor import RayExecutor
from trimtab.model import LanguageModel
from trimtab.progress import Advance


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return open_tiny_testbed(Path(tmp_path_factory.mktemp("model")))


class Bar:
    """Remembers what a bar was told."""

    def __init__(self) -> None:
        self.model: list[tuple[str, int, int]] = []
        self.advances: list[tuple[int, int]] = []

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        self.model.append((label, total, done))
        yield lambda items, tokens: self.advances.append((items, tokens))


class Answers(RayExecutor):
    """An executor whose actors say what the test tells them to, and write where they say that they wrote."""

    def __init__(self, fates: dict[tuple[int, int], str], blind: bool = False) -> None:
        super().__init__(ExecutorSettings(kind="ray"), lambda: pytest.fail("nobody opens a model"))
        self.fates, self.blind, self.asked, self.rounds = fates, blind, [], 0

    def _rows(self, model: LanguageModel, jobs: Sequence[Job], keys: Sequence[tuple[int, int]]) -> Iterator[dict[str, object]]:
        self.asked = list(keys)
        self.rounds += 1
        for job, part in reversed(keys):
            fate = self.fates.get((job, part), "written")
            if fate == "written" and not self.blind:
                jobs[job].run(model, [part], lambda items, tokens: None)
            if fate == "lost once":
                self.fates = {**self.fates, (job, part): "written"}
            elif fate != "lost":
                yield {"job": job, "part": part, "fate": fate, "tokens": 7, "error": f"{fate} by the test"}


def test_local_runs_one_job_after_the_other(model: LanguageModel, tmp_path: Path) -> None:
    jobs, bar = [line_job(tmp_path / "a", 3), line_job(tmp_path / "b", 2)], Bar()
    jobs[0].run(model, [1], lambda items, tokens: None)
    LOCAL.run(model, jobs, bar)
    assert bar.model == [("lines", 3, 1), ("lines", 2, 0)]
    assert bar.advances == [(1, 10)] * 4
    assert not jobs[0].missing()
    assert not jobs[1].missing()


def test_local_ends_with_the_first_error(model: LanguageModel, tmp_path: Path) -> None:
    job = line_job(tmp_path, 4, raising=frozenset({2}))
    with pytest.raises(ValueError, match="part 2 is broken"):
        LOCAL.run(model, [job], Bar())
    assert job.missing() == [2, 3]


def test_actors_are_asked_for_what_is_missing_under_one_bar(model: LanguageModel, tmp_path: Path) -> None:
    jobs, bar = [line_job(tmp_path / "a", 3), line_job(tmp_path / "b", 2)], Bar()
    jobs[0].run(model, [1], lambda items, tokens: None)
    executor = Answers({})
    executor.run(model, jobs, bar)
    assert executor.asked == [(0, 0), (0, 2), (1, 0), (1, 1)]
    assert bar.model == [("lines, 2 jobs, parts", 5, 1)]
    assert bar.advances == [(1, 7)] * 4
    executor.asked = []
    executor.run(model, jobs, bar)
    assert not executor.asked, "nothing was missing, so no actor is needed"


def test_parts_that_fail_are_listed_with_their_problems_and_the_others_written(model: LanguageModel, tmp_path: Path) -> None:
    job = line_job(tmp_path, 5)
    with pytest.raises(ExecutionError) as caught:
        Answers({(0, 1): "failed", (0, 3): "lost"}).run(model, [job], Bar())
    message = str(caught.value)
    assert "2 parts could not be computed, all others are written" in message
    assert f"lines, part 1: failed by the test\n    problems: {job.plan.parts[1][0]}" in message
    assert f"lines, part 3: its actor died 9 times\n    problems: {job.plan.parts[3][0]}" in message
    assert "run the same command again" in message
    assert job.missing() == [1, 3]


def test_a_part_whose_actor_died_is_handed_out_again(model: LanguageModel, tmp_path: Path) -> None:
    job, bar, executor = line_job(tmp_path, 5), Bar(), Answers({(0, 1): "lost once"})
    executor.run(model, [job], bar)
    assert (executor.asked, executor.rounds) == ([(0, 1)], 2)
    assert bar.advances == [(1, 7)] * 5
    assert not job.missing()


def test_what_would_fail_everywhere_stops_the_run(model: LanguageModel, tmp_path: Path) -> None:
    job = line_job(tmp_path, 5)
    with pytest.raises(ExecutionError, match="stop by the test"):
        Answers({(0, 3): "stop"}).run(model, [job], Bar())
    assert job.missing() == [0, 1, 2, 3], "part 4 came first and is kept"


def test_a_run_directory_that_nodes_do_not_share_is_noticed(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"does not see \(lines: 2 parts\)"):
        Answers({}, blind=True).run(model, [line_job(tmp_path, 2)], Bar())


def test_a_worker_that_differs_is_refused_with_both_values(model: LanguageModel) -> None:
    ours = {**package_facts(), **model_facts(model)}
    check_facts(ours, dict(ours), "node")
    assert ours["model fingerprint"] == model.identity.fingerprint
    for key in ours:
        with pytest.raises(MismatchError) as caught:
            check_facts(ours, {**ours, key: "another"}, "node")
        assert f"{key}: here {ours[key]}, there another" in str(caught.value)
        assert str(caught.value).count(": here ") == 1


def test_the_driver_leaves_the_gpus_to_the_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.execution.ray_executor import Pool

    assert LOCAL.driver_device == ""
    for num_gpus, device in ((0.0, ""), (0.5, "cpu"), (4.0, "cpu")):
        executor = Answers({})
        executor.__dict__["pool"] = Pool(2, 1.0, num_gpus)
        assert executor.driver_device == device


def test_a_job_survives_the_way_to_another_process(tmp_path: Path) -> None:
    import pickle

    job: LineJob = pickle.loads(pickle.dumps(line_job(tmp_path, 3)))
    assert job.missing() == [0, 1, 2]
    assert job.plan == line_job(tmp_path, 3).plan


def test_a_grader_that_is_in_use_travels_without_its_processes() -> None:
    import pickle

    from trimtab.tasks.grading import KindGrader
    from trimtab.traces import AnswerKind, Problem, Split

    problem = Problem("p", "What is 1 + 1?", "2", Split.TEST, kind=AnswerKind.MATH)
    with KindGrader() as grader:
        here = grader.judge([(problem, "It is 2, so \\boxed{2}.")])
        with pickle.loads(pickle.dumps(grader)) as copy:
            assert copy.judge([(problem, "It is 2, so \\boxed{2}.")]) == here
