"""Every kind of gate comes back from its files bit for bit, and from an artifact."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stored_samples import assert_equal, content
from trimtab.errors import InputError, StoreError
from trimtab.gate import ALWAYS, NEVER, AnyGate, AttentionGate, Gate, RunningGate
from trimtab.steering import Steering
from trimtab.store import load_gate, read_json, save_gate, write_json


def attention() -> AttentionGate:
    rng = np.random.default_rng(0)
    shapes = {"query": (3,), "hidden": (4, 3), "offset": (4,), "output": (4,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return AttentionGate(
        np.array([0, 2, 1]),
        np.array([3, 15, 0]),
        **arrays,
        query_bias=1 / 7,
        bias=-1 / 3,
        mode="proportional",
        threshold=0.3,
        facts={"auroc": 0.71},
    )


def running() -> RunningGate:
    weight = np.array([0.1, -0.3], np.float32)
    words = {"action": "close", "threshold": 0.3, "release": 0.6, "memory": 20, "after": 4}
    return RunningGate(np.array([0, 2]), np.array([3, 15]), weight, bias=-1 / 3, **words, facts={"held_out_auroc": 0.71})


@pytest.fixture(params=["last", "mean", "attention", "running", "joined", "always", "never"])
def any_gate(request: pytest.FixtureRequest, gate: Gate) -> AnyGate:
    made = {
        "last": gate,
        "mean": replace(gate, pooling="mean"),
        "attention": attention(),
        "running": running(),
        "joined": running().joined(gate, "or"),
        "always": ALWAYS,
        "never": NEVER,
    }
    return made[request.param]


def test_it_comes_back_exactly_and_with_the_same_bytes(tmp_path: Path, any_gate: AnyGate) -> None:
    save_gate(any_gate, tmp_path / "a")
    assert_equal(load_gate(tmp_path / "a"), any_gate)
    save_gate(load_gate(tmp_path / "a"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_an_artifact_carries_it(tmp_path: Path, any_gate: AnyGate, steering: Steering) -> None:
    saved = steering.with_gate(any_gate)
    saved.save_pretrained(tmp_path / "a")
    loaded = Steering.from_pretrained(tmp_path / "a")
    assert_equal(loaded.gate, any_gate)
    assert loaded.digest == saved.digest
    assert any_gate.label in (tmp_path / "a" / "README.md").read_text()


def test_a_gate_replaces_another(tmp_path: Path, gate: Gate) -> None:
    for value in (gate, attention(), ALWAYS):
        save_gate(value, tmp_path)
        assert_equal(load_gate(tmp_path), value)


def test_a_gate_of_before_pooling_was_a_choice_reads_the_last_token(tmp_path: Path, gate: Gate) -> None:
    save_gate(gate, tmp_path)
    path = tmp_path / "gate.json"
    record = json.loads(path.read_text())
    write_json(path, {key: record[key] for key in record if key not in ("pooling", "units", "query_bias", "seal")}, "")
    assert_equal(load_gate(tmp_path), gate)


def test_a_pair_left_by_a_killed_run_is_refused(tmp_path: Path, gate: Gate) -> None:
    save_gate(gate, tmp_path)
    record = (tmp_path / "gate.json").read_bytes()
    save_gate(replace(gate, weight=gate.weight * 2), tmp_path)
    (tmp_path / "gate.json").write_bytes(record)
    with pytest.raises(StoreError, match=r"gate\.safetensors and gate\.json do not belong together"):
        load_gate(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"pooling": "max"}, "pooling: .*'last' or 'mean'"),
        ({"units": 5}, r"gate\.safetensors holds .* expected .*\(5, 3\)"),
        ({"kind": "logistic"}, r"gate\.safetensors holds .* expected .*weight"),
        ({"threshold": 1.0}, "threshold between 0 and 1"),
    ],
)
def test_an_edited_record_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save_gate(attention(), tmp_path)
    path = tmp_path / "gate.json"
    write_json(path, {**read_json(path), **change}, "")  # type: ignore[dict-item]
    with pytest.raises(StoreError, match=message):
        load_gate(tmp_path)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path, gate: Gate) -> None:
    with pytest.raises(InputError, match=r"column 'weight'.*float64.*astype"):
        save_gate(replace(gate, weight=gate.weight.astype(np.float64)), tmp_path)
    with pytest.raises(InputError, match=r"column 'hidden'.*float64.*astype"):
        save_gate(replace(attention(), hidden=attention().hidden.astype(np.float64)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_artifacts_with_a_running_gate_have_the_newer_format(tmp_path: Path, any_gate: AnyGate, steering: Steering) -> None:
    steering.with_gate(any_gate).save_pretrained(tmp_path / "a")
    config = read_json(tmp_path / "a" / "config.json")
    running_gate = isinstance(any_gate, RunningGate)
    assert config["format_version"] == (3 if running_gate else 2)
    assert ("running" in config["gate"]) is running_gate


def test_a_record_that_lost_what_runs_is_refused(tmp_path: Path) -> None:
    save_gate(running(), tmp_path)
    record = read_json(tmp_path / "gate.json")
    write_json(tmp_path / "gate.json", {key: record[key] for key in record if key not in ("running", "seal")}, "")
    with pytest.raises(StoreError, match="lacks the key 'running'"):
        load_gate(tmp_path)
