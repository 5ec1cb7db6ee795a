"""The same bytes from every number of actors, from actors that are killed, and from a node that goes away."""

import threading
from functools import partial
from pathlib import Path

import pytest

from cluster_jobs import killing, open_and_sign, slowed
from cluster_work import do_all, first_jobs, record_jobs
from steering_samples import CoinGrader
from tiny_testbed import tree_bytes
from trimtab.execution import LOCAL, ExecutorSettings
from trimtab.execution.ray_executor import RayExecutor
from trimtab.model import LanguageModel, open_model
from trimtab.progress import silent
from trimtab.study import Study, parse_settings, run, with_executor

pytestmark = pytest.mark.slow

PART_S = 1.0


@pytest.fixture(scope="module")
def expected(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What this process writes."""
    folder = Path(tmp_path_factory.mktemp("local"))
    do_all(model, folder, LOCAL)
    return tree_bytes(folder)


def pool(actors: int, **changes: object) -> ExecutorSettings:
    return ExecutorSettings.model_validate({"kind": "ray", "actors": actors, "num_cpus": 0.5, **changes})


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("actors", "batch_size"), [(1, 1), (2, 3), (4, 1)])
def test_any_number_of_actors(
    model: LanguageModel, model_folder: Path, tmp_path: Path, expected: dict[str, bytes], actors: int, batch_size: int
) -> None:
    with RayExecutor(pool(actors, batch_size=batch_size), partial(open_model, model_folder)) as executor:
        do_all(model, tmp_path, executor)
    assert tree_bytes(tmp_path) == expected


@pytest.mark.usefixtures("cluster")
def test_local_then_ray_then_local(model: LanguageModel, model_folder: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    jobs = first_jobs(model, tmp_path)
    jobs[0].run(model, jobs[0].missing()[:2], lambda items, tokens: None)
    with RayExecutor(pool(2), partial(open_model, model_folder)) as executor:
        executor.run(model, jobs[:2], silent)
    assert jobs[2].missing() == list(range(len(jobs[2].plan.parts)))
    do_all(model, tmp_path, LOCAL)
    assert tree_bytes(tmp_path) == expected


@pytest.mark.usefixtures("cluster")
def test_actors_that_are_killed_every_few_seconds(
    model: LanguageModel, model_folder: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    signatures = tmp_path / "processes"
    signatures.mkdir()
    signed = partial(open_and_sign, model_folder, signatures)
    with RayExecutor(pool(2), signed) as executor, killing(signatures) as killed:
        executor.run(model, slowed(first_jobs(model, tmp_path / "run"), PART_S), silent)
    assert len(killed) >= 2
    LOCAL.run(model, record_jobs(model, tmp_path / "run"), silent)
    assert tree_bytes(tmp_path / "run") == expected


def test_a_node_that_goes_away_in_the_middle(
    model: LanguageModel, model_folder: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    signatures = tmp_path / "processes"
    signatures.mkdir()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = nodes.add_node(num_cpus=1)
    signed = partial(open_and_sign, model_folder, signatures)
    part, gone = tmp_path / "run" / "traces", threading.Event()

    def remove() -> None:
        while not list(part.glob("part-*")) or len(list(signatures.iterdir())) < 2:
            if gone.wait(0.2):
                return
        nodes.remove_node(second, allow_graceful=False)
        gone.set()

    remover = threading.Thread(target=remove)
    try:
        with RayExecutor(pool(2, num_cpus=0.6, address=nodes.address), signed) as executor:
            jobs = slowed(first_jobs(model, tmp_path / "run"), PART_S)
            remover.start()
            executor.run(model, jobs, silent)
            assert gone.is_set(), "the run was over before the node went away"
            assert sum(node["Alive"] for node in ray.nodes()) == 1
    finally:
        gone.set()
        remover.join()
        nodes.shutdown()
    LOCAL.run(model, record_jobs(model, tmp_path / "run"), silent)
    assert tree_bytes(tmp_path / "run") == expected


@pytest.mark.usefixtures("cluster")
def test_a_whole_run_has_the_same_neurons_gate_and_outcomes(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "grader", property(lambda study: CoinGrader()))
    settings = parse_settings(
        {
            "model": {"source": str(model_folder)},
            "task": {"source": "testbed", "train": 48, "validation": 36, "test": 40},
            "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 12, "batch_tokens": 2500},
            "recording": {"batch_tokens": 1500},
            "ranking": {"k": 10},
            "gate": {"features": 16},
            "tune": {"k": [2, 5], "strengths": [10.0], "problems": 20},
        },
        "the test",
    )
    with Study(path=tmp_path / "local", settings=settings) as study:
        run(study, until="evaluate")
    with Study(path=tmp_path / "ray", settings=settings) as study:
        run(study, until="sample")
    with Study(path=tmp_path / "ray", settings=with_executor(settings, "ray,actors=2,num_cpus=0.5")) as study:
        run(study, until="evaluate")
    ours, theirs = (tree_bytes(tmp_path / name) for name in ("ray", "local"))
    differs = {"ledger.jsonl", "seconds.json"}
    apart = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name) and not name.endswith(".lock")}
    assert apart <= differs
    assert {"outcomes.parquet", "run.toml"} < ours.keys()
    assert {name.split("/")[0] for name in ours} >= {"sample", "record", "rank", "gate", "tune", "evaluate"}
