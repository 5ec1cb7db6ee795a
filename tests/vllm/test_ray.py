"""``--engine vllm`` in the actors of a Ray cluster: an engine in each of them, and the bytes of one engine here."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from study_samples import TIMED
from tiny_testbed import tree_bytes
from trimtab.cli.main import trimtab
from trimtab.store import Parts, to_toml
from trimtab.study import Study

pytest.importorskip("ray")

SECTIONS = {
    "task": {"source": "testbed", "train": 60, "validation": 30, "test": 24},
    "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 104, "batch_tokens": 6000},
    "recording": {"moments": ["sum"]},
    "ranking": {"criteria": ["mean-difference"], "k": 20},
    "gate": {"features": 256},
    "tune": {"interventions": ["ablate-and-add"], "k": [20], "strengths": [1.0, 2.0], "problems": 24},
}
RAY = ("--executor", "ray,address=local,actors=2,num_cpus=0.5")


def made(run: Path) -> dict[str, bytes]:
    """Every file of a run but those that tell the time, and the settings, which name the executor."""
    return {name: data for name, data in tree_bytes(run).items() if name not in TIMED and name != "run.toml"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the actors inherit."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_two_actors_with_an_engine_each_leave_the_bytes_of_one_engine_here(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(to_toml(SECTIONS))
    engine = ("--engine", "vllm,enforce_eager=true", "--until", "evaluate", "--quiet")
    for name, executor in (("local", ()), ("ray", RAY)):
        command = ["run", str(tmp_path / "my.toml"), "--out", str(tmp_path / name), *engine, *executor]
        done = CliRunner().invoke(trimtab, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    with Study.from_toml(tmp_path / "ray") as study:
        plan = Parts(study.cache.root / study.keys["sample"]).plan if study.traces() else None
    assert plan is not None
    assert plan.settings["engine"]["name"] == "vllm"
    assert len(plan.parts) > 3
    ours, theirs = (made(tmp_path / name) for name in ("ray", "local"))
    assert {"outcomes.parquet", "steering/neurons.safetensors"} < ours.keys()
    assert ours == theirs
