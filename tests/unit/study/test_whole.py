"""The whole pipeline: every file, resume, and what is refused."""

import json
import math
import shutil
from pathlib import Path

import pytest
from trimtab.pipeline import STAGES, Line, RunConfig, evaluating, run, run_one
from trimtab.pipeline import whole as module
from trimtab.pipeline.config import parse_config
from trimtab.pipeline.demo_json import demo_json
from trimtab.pipeline.estimate import estimate
from trimtab.pipeline.stages import is_done
from trimtab.pipeline.summaries import stage_summary

from tiny_testbed import tree_bytes
from trimtab.errors import ConfigError, StoreError
from trimtab.evaluation.names import ADARAS, ALWAYS, GATED, NEGATIVE, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.recording import record as recording
from trimtab.report import read_report
from trimtab.steering import Steering
from trimtab.store import RunDirectory, openings
from trimtab.testbed.problems import split_of
from trimtab.traces import Split

TIMED = ("seconds.json", ".lock", "ledger.jsonl", "report.json", "report.html")
"""Files that hold times, a process id or the run's own path."""


def _results(folder: Path) -> dict[str, bytes]:
    # the model card shows how to load the artifact from where it is
    place = str(folder).encode()
    return {name: content.replace(place, b"RUN") for name, content in tree_bytes(folder).items() if name not in TIMED}


@pytest.fixture
def line(finished: Path, config: RunConfig) -> Line:
    return Line(config, RunDirectory.open(finished))


def test_every_stage_leaves_its_file(line: Line) -> None:
    assert all(is_done(line, stage) for stage in line.config.stages)
    assert set(line.seconds) == set(line.config.stages)
    assert {path.name for path in line.directory.path.iterdir()} >= {
        "run.toml",
        "problems.parquet",
        "traces",
        "grades",
        "contrast.parquet",
        "activations",
        "neurons",
        "gate.json",
        "tune.parquet",
        "outcomes.parquet",
        "steering",
        "sources.parquet",
        "report.html",
        "report.json",
    }


def test_problems_keep_to_their_splits(line: Line) -> None:
    for split, n in ((Split.TRAIN, 48), (Split.VALIDATION, 36), (Split.TEST, 40)):
        problems = line.problems(split)
        assert len(problems) == n
        assert {split_of(problem.question) for problem in problems} == {str(split)}


def test_conditions_share_the_test_problems(line: Line) -> None:
    outcomes = line.outcomes()
    randoms = {f"{kind}-{i}" for kind in (RANDOM, RANDOM_NORM) for i in range(5)}
    assert set(outcomes) - {ADARAS} == {UNSTEERED, ALWAYS, GATED, NEGATIVE} | randoms
    ids = [problem.id for problem in line.problems(Split.TEST)]
    assert all([o.problem_id for o in rows] == ids for rows in outcomes.values())
    for b, a, g in zip(outcomes[UNSTEERED], outcomes[ALWAYS], outcomes[GATED], strict=True):
        assert g.response == (a if g.fired else b).response


def test_the_artifact_is_the_best_point_and_carries_its_figures(line: Line) -> None:
    steering = Steering.from_pretrained(line.directory.steering)
    metrics = steering.facts["metrics"]
    assert metrics["accuracy, unsteered"]["n"] == 40
    assert len(steering) in (2, 5)
    assert steering.gate.kind == "logistic"
    assert steering.model == line.model.identity


def test_the_gate_is_fitted_on_find_and_set_on_tune(line: Line) -> None:
    facts = line.gate().facts
    assert facts["train"]["problems"] == 48
    assert facts["validation"]["problems"] == 36
    assert facts["train"]["failed"] == int(line.failed(Split.TRAIN).sum())


def test_the_ledger_counts_the_opening(finished: Path) -> None:
    assert openings(finished / "ledger.jsonl") == 1


def test_the_report_reads_back(finished: Path) -> None:
    report = read_report(finished / "report.json")
    assert report.verdict.n == 40
    assert report.run.ledger_openings == 1
    assert report.claims
    assert "not evidence" in report.claims[0]
    assert sum(sum(group.values()) for group in report.flips.model_dump()["by_domain"].values()) == 40


def test_the_demos_json_keeps_its_contract(finished: Path) -> None:
    data = json.loads(json.dumps(demo_json(read_report(finished / "report.json"), 1.5), allow_nan=False))
    assert data["n"] == 40
    assert {"auroc", "auroc_low", "auroc_high", "firing_rate", "text_auroc"} <= set(data["gate"])
    fields = {"accuracy", "low", "high", "gain", "gain_low", "gain_high", "p", "fixed", "broken", "unscored", "truncated"}
    assert set(data["conditions"]) == {"unsteered", "always", "gated", "random"}
    assert all(set(condition) == fields for condition in data["conditions"].values())
    assert data["conditions"]["unsteered"]["p"] == 1.0
    assert all(
        type(condition[name]) is int
        for condition in data["conditions"].values()
        for name in ("fixed", "broken", "unscored", "truncated")
    )
    assert set(data["steering"]) == {"criterion", "neurons", "strength", "scope"}
    assert data["seconds"] == 1.5
    assert "minimum_detectable_gain" in data


def test_stage_summaries_are_plain(finished: Path, config: RunConfig) -> None:
    for stage in config.stages:
        summary = stage_summary(finished, stage)
        assert summary
        json.dumps(summary, allow_nan=False)


def test_a_resumed_run_ends_with_the_same_bytes(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    run(config, tmp_path / "run", until="contrast")
    run(config, tmp_path / "run", resume=True, on_stage=lambda stage, seconds: seen.append((stage, seconds is None)))
    assert seen == [(stage, i <= STAGES.index("contrast")) for i, stage in enumerate(config.stages)]
    assert _results(tmp_path / "run") == _results(finished)


@pytest.mark.parametrize(
    ("module", "function", "last"), [(recording, "write_index", "record"), (evaluating, "save_steering", "evaluate")]
)
def test_a_kill_before_a_stages_last_file_is_made_good(
    finished: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, function: str, last: str
) -> None:
    """The parts are all there, but what is written after them is not."""

    original = getattr(module, function)

    def killed(*args, **kwargs):
        if last == "evaluate" and "metrics" not in args[0].facts:
            return original(*args, **kwargs)  # the artifact that tune writes
        raise KeyboardInterrupt

    folder = shutil.copytree(finished, tmp_path / "run")
    later = {"record": ["neurons", "activations/sampled/index.parquet"], "evaluate": ["steering"]}[last]
    for name in (*later, "outcomes.parquet", "report.html", "report.json"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("activations/prompts-find", "activations/prompts-tune"):
        assert (folder / name / "index.parquet").exists()
    with monkeypatch.context() as patch:
        patch.setattr(module, function, killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, resume=True)
    run(config, folder, resume=True)
    assert _results(folder) == _results(finished)


def test_stages_one_by_one(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    RunDirectory.create(folder, config.stored()).close()
    with pytest.raises(StoreError, match=r"does not exist; run `trimtab problems .*` first"):
        run_one(folder, "sample")
    for stage in STAGES[:6]:
        run_one(folder, stage)
    with pytest.raises(StoreError, match=r"run `trimtab tune .*` first"):
        run_one(folder, "evaluate")
    assert set(_results(folder)) < set(_results(finished))
    assert all(_results(finished)[name] == content for name, content in _results(folder).items())


def test_another_configuration_does_not_resume(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "run", until="problems")
    other = parse_config({**config.model_dump(mode="json"), "sampling": {"n": 5}, "ranking": {"k": 11}}, "f")
    with pytest.raises(ConfigError) as caught:
        run(other, tmp_path / "run", resume=True)
    assert "sampling.n: 4 -> 5" in str(caught.value)
    assert "ranking.k: 10 -> 11" in str(caught.value)
    assert "model.source" not in str(caught.value)
    with pytest.raises(ConfigError, match="--resume"):
        run(config, tmp_path / "run")


def test_force_starts_again(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "run", until="problems")
    other = parse_config({**config.model_dump(mode="json"), "task": {"train": 5, "validation": 5, "test": 5}}, "f")
    run(other, tmp_path / "run", force=True, until="problems")
    assert stage_summary(tmp_path / "run", "problems") == {"find problems": 5, "tune problems": 5, "test problems": 5}


def test_an_unwritable_place(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        run(config, tmp_path / "file" / "run")


def test_a_stage_that_fails_keeps_what_came_before(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coin: pytest.MonkeyPatch
) -> None:
    def broken(line: Line) -> None:
        raise StoreError("the disk is full")

    functions = {**module.STAGE_FUNCTIONS, "grade": broken}
    monkeypatch.setattr(module, "STAGE_FUNCTIONS", functions)
    with pytest.raises(StoreError, match="the disk is full"):
        run(config, tmp_path / "run")
    line = Line(config, RunDirectory.open(tmp_path / "run"))
    assert is_done(line, "sample")
    assert not is_done(line, "grade")
    assert "grade" not in line.seconds


def test_without_a_gate(config: RunConfig, tmp_path: Path, coin: pytest.MonkeyPatch) -> None:
    data = {**config.model_dump(mode="json"), "gate": {"kind": "always"}}
    folder = run(parse_config(data, "f"), tmp_path / "run")
    report = read_report(folder / "report.json")
    assert (report.gate, report.verdict.condition) == (None, "always")
    assert sorted(path.name for path in (folder / "traces").iterdir()) == ["sampled"]
    line = Line(parse_config(data, "f"), RunDirectory.open(folder))
    assert line.gate().kind == "always"
    outcomes = line.outcomes()
    assert [o.response for o in outcomes[GATED]] == [o.response for o in outcomes[ALWAYS]]
    assert demo_json(report, 0.0)["gate"] is None


def test_the_estimate_bounds_the_run(line: Line, config: RunConfig) -> None:
    cost = estimate(config, "report")
    sampled = sum(len(trace.response_ids) for name in line.trace_folders for trace in line.traces(name))
    assert sampled <= cost.tokens["sample"] == (48 * 4 + 48 + 36) * 12
    evaluated = sum(o.tokens for rows in line.outcomes().values() for o in rows)
    assert evaluated <= cost.tokens["evaluate"]
    moments = sum(path.stat().st_size for path in line.directory.path.rglob("activations/*/part-*.safetensors"))
    assert moments <= cost.disk_bytes * 1.2 + 10_000
    assert cost.tokens_per_second > 0
    assert math.isfinite(cost.seconds)
    early = estimate(config, "rank")
    assert (early.tokens["tune"], early.tokens["evaluate"]) == (0, 0)
    assert "MB for weights" in str(cost)
    json.dumps(cost.to_json(), allow_nan=False)
