"""``--engine vllm`` in the actors of a Ray cluster: an engine in each of them, and the bytes of one engine here."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tiny_testbed import tree_bytes
from trimtab.cli.main import trimtab
from trimtab.store import Parts, to_toml

pytest.importorskip("ray")

SECTIONS = {
    "task": {"source": "testbed", "find": 60, "tune": 30, "test": 24},
    "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 104, "batch_tokens": 6000},
    "recording": {"moments": ["sum"]},
    "ranking": {"criteria": ["mean-difference"], "k": 20},
    "gate": {"features": 256},
    "tune": {"interventions": ["ablate-and-add"], "k": [20], "strengths": [1.0, 2.0], "problems": 24},
}
RAY = ("--executor", "ray,address=local,actors=2,num_cpus=0.5")


def call(stage: str, run: Path, *options: str) -> None:
    done = CliRunner().invoke(trimtab, [stage, str(run), *options, "--json", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    json.loads(done.stdout.splitlines()[-1])


def made(run: Path) -> dict[str, bytes]:
    """Every file of a run but those that tell the time."""
    return {name: data for name, data in tree_bytes(run).items() if name not in ("ledger.jsonl", "seconds.json")}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the actors inherit."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_two_actors_with_an_engine_each_leave_the_bytes_of_one_engine_here(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(to_toml(SECTIONS))
    engine = ("--engine", "vllm,enforce_eager=true")
    for name, executor in (("local", ()), ("ray", RAY)):
        run = tmp_path / name
        call("problems", run, "--config", str(tmp_path / "my.toml"))
        call("sample", run, "--record", *engine, *executor)
        for stage in ("grade", "contrast", "record", "rank", "gate"):
            call(stage, run)
        for stage in ("tune", "evaluate"):
            call(stage, run, *engine, *executor)
    plan = Parts(tmp_path / "ray" / "traces" / "sampled").plan
    assert plan.settings["engine"]["name"] == "vllm"
    assert len(plan.parts) > 3
    ours, theirs = (made(tmp_path / name) for name in ("ray", "local"))
    assert {"outcomes.parquet", "gate.safetensors", "steering/neurons.safetensors"} < ours.keys()
    assert ours == theirs
