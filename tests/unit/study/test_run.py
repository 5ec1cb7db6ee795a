"""A whole run: every stage and file, a run that goes on after a kill, and what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_jobs import line_job
from study_samples import results, with_sections
from trimtab.errors import ConfigError, StoreError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import ADARAS, AGAIN, ALWAYS, FIRST_TOKEN, GATED, NEGATIVE, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.execution import LOCAL
from trimtab.recording import record as recording
from trimtab.report import read_report
from trimtab.steering import Steering
from trimtab.store import cache, openings, read_table
from trimtab.study import STAGES, Settings, Study, run, run_stage, with_executor
from trimtab.study.demo_json import demo_json
from trimtab.study.estimate import estimate
from trimtab.testbed.problems import split_of
from trimtab.traces import Split

Small = Callable[..., Study]


def test_every_stage_leaves_its_result_and_its_key(study: Study, finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "run.toml",
        "steering",
        "outcomes.parquet",
        "sources.parquet",
        "report.html",
        "report.json",
        "studies",
    }
    keys = tomllib.loads((finished / "run.toml").read_text())["keys"]
    assert set(keys) >= {"problems", "sample", "grade", "contrast", "record", "rank-adaras", "gate", "tune", "evaluate"}
    assert all((finished / name / cache.KEY_FILE).exists() for name in keys.values())
    assert {"problems", "grade", "gate", "tune", "evaluate"} <= set(study.seconds)


def test_several_processes_leave_the_files_of_one(finished: Path, settings: Settings, tmp_path: Path) -> None:
    """Drafts and kept prompts among them: the bare model's responses are written first, and each process keeps what it reads."""
    spread = with_executor(settings, "processes,workers=2")
    with Study(path=tmp_path / "run", settings=spread) as study:
        run(study)
    assert results(tmp_path / "run") == results(finished)


def test_another_model_of_a_run_in_processes_runs_in_this_one(finished: Path, settings: Settings) -> None:
    """It is open here alone, so no process could be told what to open."""
    with Study(path=finished, settings=with_executor(settings, "processes,workers=2")) as study:
        other = study.on(study.model.of(study.model.hf_model, study.model.tokenizer))
        assert other.executor is LOCAL
        asked: list[object] = []
        job = line_job(finished.parent / "lines", 2)
        study.executor.run = lambda *given: asked.append(given)  # type: ignore[method-assign]
        study.run([job], other.model)
        assert not asked
        assert not job.missing()
        study.run([job])
        assert asked


def test_problems_keep_to_their_splits(study: Study) -> None:
    assert repr(study.problems()) == "124 problems: 48 train, 36 validation, 40 test"
    for split in Split:
        assert {split_of(problem.question) for problem in study.problems().split(split)} == {str(split)}


def test_conditions_share_the_test_problems(study: Study, finished: Path) -> None:
    evaluation = study.evaluate()
    outcomes = evaluation.outcomes
    randoms = {f"{kind}-{i}" for kind in (RANDOM, RANDOM_NORM) for i in range(5)}
    assert set(outcomes) - {ADARAS} == {UNSTEERED, ALWAYS, GATED, NEGATIVE, AGAIN, FIRST_TOKEN} | randoms
    ids = [problem.id for problem in study.problems().split(Split.TEST)]
    assert all([o.problem_id for o in rows] == ids for rows in outcomes.values())
    for b, a, g in zip(outcomes[UNSTEERED], outcomes[ALWAYS], outcomes[GATED], strict=True):
        assert g.response == (a if g.fired else b).response
    assert read_table(finished / "outcomes.parquet", Outcome) == [row for rows in outcomes.values() for row in rows]


def test_the_artifact_is_the_best_point_and_carries_its_figures(study: Study, finished: Path) -> None:
    steering = Steering.from_pretrained(finished / "steering")
    assert steering.facts["metrics"]["accuracy, unsteered"]["n"] == 40  # type: ignore[index]
    best = study.tuned().best
    assert (len(steering), steering.strength) == (best.k, best.strength)
    assert steering.gate.kind == "logistic"
    assert steering.model == study.model.identity


def test_the_gate_is_fitted_on_train_and_its_threshold_set_on_validation(study: Study) -> None:
    facts = study.fit_gate().facts
    assert facts["train"]["problems"] == 48  # type: ignore[index]
    assert facts["validation"]["problems"] == 36  # type: ignore[index]
    assert facts["train"]["failed"] == int(study.failed(Split.TRAIN).sum())  # type: ignore[index]


def test_the_report_reads_back(finished: Path) -> None:
    report = read_report(finished / "report.json")
    assert (report.verdict.n, report.run.ledger_openings) == (40, 1)
    assert "not evidence" in report.claims[0]
    assert sum(sum(group.values()) for group in report.flips.by_domain.values()) == 40


def test_the_demos_json_keeps_its_contract(finished: Path) -> None:
    data = json.loads(json.dumps(demo_json(read_report(finished / "report.json"), 1.5), allow_nan=False))
    assert (data["n"], data["seconds"]) == (40, 1.5)
    assert {"auroc", "auroc_low", "auroc_high", "firing_rate", "text_auroc"} <= set(data["gate"])
    fields = {"accuracy", "low", "high", "gain", "gain_low", "gain_high", "p", "fixed", "broken", "unscored", "truncated"}
    assert set(data["conditions"]) == {"unsteered", "always", "gated", "random"}
    assert all(set(condition) == fields for condition in data["conditions"].values())
    assert data["conditions"]["unsteered"]["p"] == 1.0
    counts = ("fixed", "broken", "unscored", "truncated")
    assert all(type(condition[name]) is int for condition in data["conditions"].values() for name in counts)
    assert set(data["steering"]) == {"criterion", "neurons", "strength", "scope"}
    assert "minimum_detectable_gain" in data


def test_a_finished_run_is_read_and_generates_nothing(finished: Path, batches: list[int]) -> None:
    before = results(finished)
    seen: list[str] = []
    with Study.from_toml(finished) as again:
        for stage in again.settings.stages[:-1]:
            summary = run_stage(again, stage, lambda stage, seconds, summary: seen.append(stage))
            assert summary
            json.dumps(summary, allow_nan=False)
    assert seen == list(again.settings.stages[:-1])
    assert batches == []
    assert results(finished) == before
    assert openings(finished / "ledger.jsonl") == 1


def test_a_run_in_two_pieces_ends_with_the_same_bytes(finished: Path, settings: Settings, tmp_path: Path) -> None:
    with Study(settings=settings, path=tmp_path / "run") as first:
        run(first, until="contrast")
    assert set(results(tmp_path / "run")) < set(results(finished))
    with Study.from_toml(tmp_path / "run") as second:
        run(second)
    assert results(tmp_path / "run") == results(finished)


CHILD = """
import sys
from study_samples import with_sections
from trimtab.store import atomic
from trimtab.study import Study, run
from steering_samples import CoinGrader
import os, signal

Study.grader = property(lambda study: CoinGrader())
left, original = int(sys.argv[2]), os.replace

def dying(*args, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    original(*args, **options)

os.replace = dying
with Study.from_toml(sys.argv[1]) as study:
    run(study)
"""


def _killed(folder: Path, files: int) -> int:
    """A run in another process that ends by SIGKILL before its file of this number is put in place; its exit status."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", CHILD, str(folder), str(files)], env=environment, check=False).returncode


@pytest.mark.slow  # two more processes, which import torch
def test_kill_9_at_files_and_run_again_end_with_the_same_bytes(small: Small, tmp_path: Path) -> None:
    with small(tmp_path / "undisturbed") as whole:
        run(whole)
    folder = tmp_path / "killed"
    with small(folder) as begun:
        begun.save()
    statuses = [_killed(folder, files) for files in (9, 30)]
    assert statuses == [-signal.SIGKILL] * 2
    assert set(results(folder)) < set(results(tmp_path / "undisturbed")), "nothing was left to do"
    with Study.from_toml(folder) as again:
        run(again)
    assert results(folder) == results(tmp_path / "undisturbed")


def test_an_interrupt_before_a_recordings_last_file_is_made_good(
    finished: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are all there, but what is written after them is not."""

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with Study(settings=settings, path=tmp_path / "run") as study, monkeypatch.context() as patch:
        patch.setattr(recording, "write_index", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(study, until="rank")
    assert list((tmp_path / "run" / "record").glob("*/part-*"))
    with Study.from_toml(tmp_path / "run") as study:
        run(study, until="rank")
    found = results(tmp_path / "run")
    assert any(name.startswith("rank/") for name in found)
    assert {name: results(finished)[name] for name in found} == found


def test_stages_one_by_one(small: Small, batches: list[int]) -> None:
    study = small()
    assert run_stage(study, "problems") == {"train problems": 12, "validation problems": 8, "test problems": 8}
    assert batches == []
    assert run_stage(study, "sample")["traces"] == 48
    sampled = len(batches)
    assert sampled > 0
    assert run_stage(study, "rank").keys() == {"adaras", "mean-difference"}
    assert len(batches) == sampled
    assert run_stage(study, "evaluate").keys() >= {ALWAYS}
    assert (study.cache.root / "run.toml").exists()


def test_a_stage_asks_for_what_is_missing_before_it(small: Small, batches: list[int]) -> None:
    study = small()
    run_stage(study, "contrast")
    assert sum(batches) == 48
    assert {"problems", "sample", "grade", "contrast"} <= set(study.keys)


def test_an_unwritable_place(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        run(Study(settings=settings, path=tmp_path / "file" / "run"), until="problems")


def test_a_folder_of_somebody_else_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty and is no run directory \(it holds thesis\.tex\); nothing was touched"):
        Study(settings=settings, path=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_needs_a_path(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"give the study a path: Study\(\.\.\., path=FOLDER\)"):
        run(Study(settings=settings))


def test_without_a_gate(small: Small) -> None:
    with small(evaluation={"controls": ("random",)}) as study:
        run(study)
        report = read_report(study.cache.root / "report.json")
        assert (report.gate, report.verdict.condition) == (None, "always")
        assert study.fit_gate().kind == "always"
        outcomes = study.evaluate().outcomes
    assert [o.response for o in outcomes[GATED]] == [o.response for o in outcomes[ALWAYS]]
    assert demo_json(report, 0.0)["gate"] is None


def test_the_estimate_bounds_the_run(study: Study, settings: Settings, finished: Path) -> None:
    cost = estimate(settings, "report")
    greedy = [study.traces(split, greedy=True) for split in (Split.TRAIN, Split.VALIDATION)]
    sampled = sum(len(trace.response_ids) for found in (study.traces(), *greedy) for trace in found)
    assert sampled <= cost.tokens["sample"] == (48 * 4 + 48 + 36) * 12
    evaluated = sum(o.tokens for rows in study.evaluate().outcomes.values() for o in rows)
    assert evaluated <= cost.tokens["evaluate"]
    moments = sum(path.stat().st_size for path in finished.glob("record/*/part-*.safetensors"))
    assert 0 < moments <= cost.disk_bytes * 1.2 + 10_000
    assert cost.tokens_per_second is not None
    assert cost.seconds is not None
    assert math.isfinite(cost.seconds)
    early = estimate(settings, "rank")
    assert (early.tokens["tune"], early.tokens["evaluate"]) == (0, 0)
    assert "MB a process: weights" in str(cost)
    json.dumps(cost.to_json(), allow_nan=False)


def test_the_last_stage_is_named(settings: Settings, tmp_path: Path) -> None:
    for stage in STAGES:
        if stage != "experiments":
            assert stage in settings.stages
    with pytest.raises(ConfigError, match="the settings name no experiments"):
        run(Study(settings=settings, path=tmp_path / "run"), until="experiments")
    imported = with_sections(settings, traces={"path": "t.jsonl"})
    with pytest.raises(ConfigError, match="use --until rank"):
        run(Study(settings=imported, path=tmp_path / "other"), until="gate")


def test_imported_traces_end_with_the_ranking(settings: Settings, study: Study, tmp_path: Path, batches: list[int]) -> None:
    """Traces from a file, with a column for their grades; nothing is generated."""
    found = study.traces()
    rows = [
        {
            "id": trace.problem_id,
            "question": found.problems[trace.problem_id].question,
            "answer": found.problems[trace.problem_id].answer,
            "response": trace.text,
            "good": grade.score == "correct",
        }
        for trace, grade in zip(found.traces, found.grades, strict=True)
        if trace.text.strip()
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    traces = {"path": str(path), "verdict_column": "good"}
    with Study(settings=with_sections(settings, traces=traces), path=tmp_path / "run") as imported:
        assert imported.settings.stages[-1] == "rank"
        run(imported, until="rank")
        assert batches == []
        assert [grade.score == "correct" for grade in imported.traces().grades] == [row["good"] for row in rows]
        neurons = imported.rank()
    assert neurons.index.tolist()
    assert (neurons.model, len(neurons)) == (study.model.identity, 10)
    path.write_text(path.read_text().replace('"good": true', '"good": false', 1))
    with Study(settings=with_sections(settings, traces=traces), path=tmp_path / "run") as changed:
        assert changed.traces().key != imported.keys["sample"], "another content is another key"
