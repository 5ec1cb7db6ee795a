"""``--engine vllm`` on the stages of a run, beside the same stages with transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from trimtab.pipeline import Line
from trimtab.pipeline.config import parse_config

from live_engines import Figures
from trimtab.cli.main import trimtab
from trimtab.evaluation.conditions import standard_conditions
from trimtab.evaluation.outcomes import Outcome
from trimtab.model import LanguageModel, down_weights
from trimtab.recording import Recording, RecordingSettings, record_traces
from trimtab.sampling import Generation, Request, read_traces
from trimtab.sampling.agreement import partings
from trimtab.store import Parts, RunDirectory, read_table, to_toml
from trimtab.tasks import render_prompt

VLLM = ("--engine", "vllm,enforce_eager=true")
SECTIONS = {
    "task": {"source": "testbed", "find": 60, "tune": 30, "test": 40},
    "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 104},
    "recording": {"moments": ["sum", "magnitude"]},
    "ranking": {"criteria": ["mean-difference"], "k": 20},
    "gate": {"features": 256},
    "tune": {"interventions": ["ablate-and-add"], "k": [20], "strengths": [2.0], "problems": 24},
}


def call(stage: str, run: Path, *options: str) -> dict[str, object]:
    """Run a stage from the command line."""
    done = CliRunner().invoke(trimtab, [stage, str(run), *options, "--json", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose traces were sampled and recorded by vLLM, found and fitted by transformers."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "my.toml").write_text(to_toml(SECTIONS))
    run = folder / "run"
    call("problems", run, "--config", str(folder / "my.toml"))
    call("sample", run, "--record", *VLLM)
    for stage in ("grade", "contrast", "record", "rank", "gate"):
        call(stage, run)
    return run


@pytest.fixture(scope="module")
def tuned(sampled: Path) -> dict[str, Path]:
    """The same run, tuned and evaluated by each engine."""
    runs = {"transformers": sampled.with_name("transformers"), "vllm": sampled.with_name("vllm")}
    for name, run in runs.items():
        shutil.copytree(sampled, run)
        for stage in ("tune", "evaluate"):
            call(stage, run, *(VLLM if name == "vllm" else ()))
    return runs


def test_the_store_of_a_sampled_recording_is_that_of_a_second_pass(
    sampled: Path, reasoner: LanguageModel, tmp_path: Path
) -> None:
    traces = read_traces(sampled / "traces" / "sampled")
    assert len(traces) == 240
    plan = Parts(sampled / "traces" / "sampled").plan
    assert plan.settings["engine"]["name"] == "vllm"
    settings = RecordingSettings(moments=("sum", "magnitude"))
    kept = [trace for trace in traces if len(trace.response_ids) > 1]
    recorded = record_traces(reasoner, kept, settings, tmp_path)
    second = {i: m for ids, m in recorded.stream("response") for i, m in zip(ids, _rows(m), strict=True)}
    for ids, moments in Recording(sampled / "activations" / "sampled").stream("response"):
        for trace_id, (count, total, magnitude) in zip(ids, _rows(moments), strict=True):
            again_count, again_total, again_magnitude = second[trace_id]
            assert count == again_count
            for ours, theirs in ((total, again_total), (magnitude, again_magnitude)):
                assert (np.abs(ours - theirs) <= 1e-5 * np.abs(theirs).max(-1, keepdims=True)).all()


def _rows(moments):
    return list(zip(moments.count, moments.sum, moments.magnitude, strict=True))


def test_both_engines_tune_to_the_same_steering(tuned: dict[str, Path]) -> None:
    ours, theirs = ((tuned[name] / "steering" / "neurons.safetensors").read_bytes() for name in ("vllm", "transformers"))
    assert ours == theirs


def test_outcomes_differ_at_near_ties_only(tuned: dict[str, Path], reasoner: LanguageModel, figures: Figures) -> None:
    ours, theirs = (
        {(o.condition, o.problem_id): o for o in read_table(tuned[name] / "outcomes.parquet", Outcome)}
        for name in ("vllm", "transformers")
    )
    assert ours.keys() == theirs.keys()
    assert len(ours) == 14 * 40
    apart = [key for key in ours if ours[key].response != theirs[key].response]
    gaps = [_gap(tuned["transformers"], reasoner, ours[key], theirs[key]) for key in apart]
    figures(f"{len(apart)} of {len(ours)} outcomes of evaluate --engine vllm differ")
    print("outcomes that differ:", dict(zip(apart, gaps, strict=True)))
    assert all(gap < 1e-3 for gap in gaps)
    assert len(apart) <= 6
    for key in ours.keys() - set(apart):
        one, other = ours[key], theirs[key]
        assert (one.verdict, one.tokens, one.fired) == (other.verdict, other.tokens, other.fired)
        assert one.p_fail == pytest.approx(other.p_fail, abs=1e-4)
    assert {o.fired for o in ours.values() if o.condition == "gated"} == {True, False}


def _gap(run: Path, reasoner: LanguageModel, one: Outcome, other: Outcome) -> float:
    with RunDirectory.open(run) as directory, Line(parse_config(dict(directory.config), "run.toml"), directory) as line:
        steering, problems = line.steering(), {problem.id: problem for problem in line.problems()}
        conditions = standard_conditions(steering, down_weights(reasoner, np.unique(steering.layer).tolist()), 5, 0)
        condition = next(condition for condition in conditions if condition.name == one.condition)
        prompt = render_prompt(reasoner.tokenizer, problems[one.problem_id].question, line.config.prompt)
    answers = [[Generation("x", tuple(reasoner.tokenizer.encode(o.response)), "stop")] for o in (one, other)]
    return partings(reasoner, [Request("x", prompt)], *answers, condition.steering, condition.gate)[0].gap


def test_another_engine_does_not_go_on_with_the_parts_of_one(sampled: Path, tmp_path: Path) -> None:
    shutil.copytree(sampled, tmp_path / "run")
    next((tmp_path / "run" / "traces" / "sampled").glob("part-*")).unlink()
    done = CliRunner().invoke(trimtab, ["sample", str(tmp_path / "run")])
    assert "holds the parts of another plan: engine" in str(done.exception)
