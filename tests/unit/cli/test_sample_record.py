"""``trimtab sample --record``: the moments are there before ``record`` is asked for."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tiny_testbed import save_tiny_testbed
from trimtab.cli.main import trimtab
from trimtab.store import Parts, to_toml


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    sections = {
        "model": {"source": str(save_tiny_testbed(tmp_path / "model"))},
        "task": {"source": "testbed", "train": 4, "tune": 2, "test": 2},
        "sampling": {"n": 2, "temperature": 1.0, "max_new_tokens": 8},
        "ranking": {"k": 50},
        "gate": {"kind": "always"},
    }
    (tmp_path / "my.toml").write_text(to_toml(sections))
    return tmp_path / "my.toml"


def test_moments_are_written_beside_the_traces(toml: Path, tmp_path: Path) -> None:
    for arguments in (["problems", "--config", str(toml)], ["sample", "--record", "--json"]):
        done = CliRunner().invoke(trimtab, [arguments[0], str(tmp_path / "run"), *arguments[1:]], catch_exceptions=False)
        assert done.exit_code == 0
    assert json.loads(done.stdout)["traces"] == 8
    traces = Parts(tmp_path / "run" / "traces" / "sampled")
    moments = Parts(tmp_path / "run" / "activations" / "sampled", ".safetensors")
    assert moments.complete
    assert moments.plan.parts == traces.plan.parts


def test_without_it_nothing_is_recorded(toml: Path, tmp_path: Path) -> None:
    for stage in ("problems", "sample"):
        done = CliRunner().invoke(trimtab, [stage, str(tmp_path / "run"), "--config", str(toml)], catch_exceptions=False)
        assert done.exit_code == 0
    assert not (tmp_path / "run" / "activations").exists()
