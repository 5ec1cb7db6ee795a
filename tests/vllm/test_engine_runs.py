"""``--engine vllm`` on the stages of a run, beside the same stages with transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from live_engines import Figures
from trimtab.cli.main import trimtab
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import standard_conditions
from trimtab.model import LanguageModel, down_weights
from trimtab.recording import RecordingSettings, record_traces
from trimtab.sampling import Generation, Request
from trimtab.sampling.agreement import partings
from trimtab.steering import Steering
from trimtab.store import Parts, read_table, to_toml
from trimtab.study import Study
from trimtab.tasks import render_prompt

VLLM = ("--engine", "vllm,enforce_eager=true")
MODEL = "testbed:reasoner"
SECTIONS = {
    "engine": "vllm",
    "vllm": {"enforce_eager": True},
    "task": {"source": "testbed", "train": 60, "validation": 30, "test": 40},
    "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 104},
    "recording": {"moments": ["sum", "magnitude"], "while_sampling": True},
    "ranking": {"criteria": ["mean-difference"], "k": 20},
    "gate": {"features": 256},
    "tune": {"interventions": ["ablate-and-add"], "k": [20], "strengths": [2.0], "problems": 24},
}


def call(*arguments: object) -> dict[str, object]:
    """Run a command and read its object."""
    done = CliRunner().invoke(trimtab, [*map(str, arguments), "--json", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose traces were sampled and recorded by vLLM."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "my.toml").write_text(to_toml(SECTIONS))
    call("run", folder / "my.toml", "--out", folder / "run", "--until", "rank", *VLLM)
    return folder / "run"


@pytest.fixture(scope="module")
def judged(sampled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The steering that was found with vLLM, evaluated by each engine."""
    with Study.from_toml(sampled) as study:
        steering = study.tuned().steering
    folder = tmp_path_factory.mktemp("judged")
    artifact, task = steering.save_pretrained(folder / "steering"), ("--task", "testbed", "--limit", 40, "--max-new-tokens", 104)
    for name, engine in (("transformers", ()), ("vllm", VLLM)):
        call("evaluate", "--model", MODEL, *task, "--steering", artifact, "--out", folder / name, *engine)
    return {name: folder / name for name in ("transformers", "vllm")}


def test_the_store_of_a_sampled_recording_is_that_of_a_second_pass(
    sampled: Path, reasoner: LanguageModel, tmp_path: Path
) -> None:
    with Study.from_toml(sampled) as study:
        traces = study.traces().traces
        folder = study.cache.root / study.keys["sample"]
        streamed = study.recording()
    assert len(traces) == 240
    assert Parts(folder).plan.settings["engine"]["name"] == "vllm"
    settings = RecordingSettings(moments=("sum", "magnitude"))
    kept = [trace for trace in traces if len(trace.response_ids) > 1]
    recorded = record_traces(reasoner, kept, settings, tmp_path)
    second = {i: m for ids, m in recorded.stream("response") for i, m in zip(ids, _rows(m), strict=True)}
    for ids, moments in streamed.stream("response"):
        for trace_id, (count, total, magnitude) in zip(ids, _rows(moments), strict=True):
            again_count, again_total, again_magnitude = second[trace_id]
            assert count == again_count
            for ours, theirs in ((total, again_total), (magnitude, again_magnitude)):
                assert (np.abs(ours - theirs) <= 1e-5 * np.abs(theirs).max(-1, keepdims=True)).all()


def _rows(moments):
    return list(zip(moments.count, moments.sum, moments.magnitude, strict=True))


def test_outcomes_differ_at_near_ties_only(judged: dict[str, Path], reasoner: LanguageModel, figures: Figures) -> None:
    ours, theirs = (
        {(o.condition, o.problem_id): o for o in read_table(judged[name] / "outcomes.parquet", Outcome)}
        for name in ("vllm", "transformers")
    )
    assert ours.keys() == theirs.keys()
    assert len(ours) == 16 * 40
    apart = [key for key in ours if ours[key].response != theirs[key].response]
    gaps = [_gap(judged["transformers"].parent / "steering", reasoner, ours[key], theirs[key]) for key in apart]
    figures(f"{len(apart)} of {len(ours)} outcomes of evaluate --engine vllm differ")
    print("outcomes that differ:", dict(zip(apart, gaps, strict=True)))
    assert all(gap < 1e-3 for gap in gaps)
    assert len(apart) <= 6
    for key in ours.keys() - set(apart):
        one, other = ours[key], theirs[key]
        assert (one.score, one.tokens, one.fired) == (other.score, other.tokens, other.fired)
        assert one.p_fail == pytest.approx(other.p_fail, abs=1e-4)
    assert {o.fired for o in ours.values() if o.condition == "gated"} == {True, False}


def _gap(artifact: Path, reasoner: LanguageModel, one: Outcome, other: Outcome) -> float:
    steering = Steering.from_pretrained(artifact)
    problems = {problem.id: problem for problem in Study(MODEL, task="testbed", test=40).problems()}
    conditions = standard_conditions(steering, down_weights(reasoner, np.unique(steering.layer).tolist()), 5, 0)
    condition = next(condition for condition in conditions if condition.name == one.condition)
    prompt = render_prompt(reasoner.tokenizer, problems[one.problem_id].question)
    answers = [[Generation("x", tuple(reasoner.tokenizer.encode(o.response)), "stop")] for o in (one, other)]
    return partings(reasoner, [Request("x", prompt)], *answers, condition.steering, condition.gate)[0].gap


def test_running_gates_are_evaluated_with_their_control(sampled: Path, figures: Figures) -> None:
    gates = ("running", "both-gates", "running-random")
    with Study.from_toml(sampled) as study:
        judged = study.evaluate(gates=gates, controls=(), random_sets=5)
        assert study.settings.engine == "vllm"
    assert set(gates) <= judged.outcomes.keys()
    assert [row.condition for row in judged.steered] == list(gates)
    assert [row.responses for row in judged.steered] == [40] * 3
    assert any(row.steered > 0 for row in judged.steered)
    figures("; ".join(f"{row.condition}: {row.steered:.1f} tokens steered a response" for row in judged.steered))


def test_another_engine_is_another_key(sampled: Path) -> None:
    before = set(sampled.glob("sample/*/key.json"))
    call("stage", "sample", sampled, "--engine", "transformers")
    assert len(set(sampled.glob("sample/*/key.json")) - before) >= 1, "transformers does not go on with the parts of vLLM"
