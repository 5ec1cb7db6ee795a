"""`trimtab verify-serving` on the bundled reasoner: a block that says ok, and one that names what failed."""

import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("vllm")

from live_engines import MODEL, Figures

CHECKS = ["graph", "steering", "steered", "unsteered", "strength 0", "transformers", "neighbours", "gate"]


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own, as a user starts it; ``code`` runs before it."""
    command = f"import sys; {code}; sys.argv = ['trimtab', *sys.argv[1:]]; from trimtab.cli.main import main; main()"
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", command, "verify-serving", MODEL, *arguments], env=environment, capture_output=True, text=True
    )


def test_a_gated_steering_passes_compiled(steerings: dict[str, str], figures: Figures) -> None:
    done = run("pass", "--steering", steerings["mild-gated"], "--quiet")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    lines = done.stdout.splitlines()
    assert [line.split(maxsplit=1)[1].split(":")[0] for line in lines if line.startswith("ok ")] == CHECKS
    assert any(re.search("graph: [1-9].* in the cache without the plugin, [1-9].* more with it", line) for line in lines)
    assert lines[-1].split() == ["result", "ok"]
    figures("; ".join(line.removeprefix("decode").strip() for line in lines if line.startswith("decode")))


def test_a_running_gate_passes(steerings: dict[str, str]) -> None:
    done = run("pass", "--steering", steerings["last-open"], "--enforce-eager", "--quiet")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ok ") and " gate: running" in line]
    assert "0 otherwise than by the hooks" in line


def test_what_fails_is_named_and_the_exit_code_is_1(steerings: dict[str, str]) -> None:
    """The hooks are given another strength than the engine, which has therefore not their effect."""
    other = (
        "import trimtab.export.serving as s; h = s.hooks_engine; "
        "s.hooks_engine = lambda model, steering: h(model, steering.with_strength(0.5))"
    )
    done = run(other, "--steering", steerings["mild"], "--enforce-eager", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert {"steering", "steered"} <= set(told["failed"]) <= {"steering", "steered", "neighbours"}
    assert "failed: steering, steered" in done.stderr
    assert len(told["costs"]) == 4
