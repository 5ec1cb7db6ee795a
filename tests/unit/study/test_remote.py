"""The whole pipeline on a remote store: the bytes of a local run, also when it is killed again and again."""

from pathlib import Path

import pytest
from trimtab.pipeline import RunConfig, run, run_one
from trimtab.pipeline.config import load_config
from trimtab.pipeline.summaries import stage_summary
from upath import UPath

from remote_stores import Killed, Kills, stored
from trimtab.errors import StoreError
from trimtab.report import read_report
from trimtab.steering import Steering
from trimtab.store import AnyPath, any_path, openings

TIMED = {"seconds.json", "ledger.jsonl", "report.json", "report.html"}
"""Files that hold times or the run's own path."""


def results(folder: AnyPath) -> dict[str, bytes]:
    place = str(folder).encode()
    return {name: content.replace(place, b"RUN") for name, content in stored(folder).items() if name not in TIMED}


def test_a_run_that_is_killed_at_every_eleventh_file_ends_with_the_bytes_of_a_local_one(
    finished: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, kills = any_path("memory://bucket/runs/killed"), Kills(monkeypatch)
    n_kills = 0
    for _ in range(100):
        kills.at(10, "after" if n_kills % 2 else "before")
        try:
            run(config, place, resume=True)
            break
        except Killed:
            n_kills += 1
    assert n_kills > 5
    assert results(place) == results(finished)
    assert set(stored(place)) == set(stored(finished))
    assert openings(place / "ledger.jsonl") >= 1
    report, local = read_report(place / "report.json"), read_report(finished / "report.json")
    assert (report.verdict, report.conditions, report.gate) == (local.verdict, local.conditions, local.gate)
    assert report.run.command == "trimtab run memory://bucket/runs/killed/run.toml --out NEW_FOLDER"
    assert load_config(place / "run.toml") == config
    assert Steering.from_pretrained(str(place / "steering")).digest == Steering.from_pretrained(finished / "steering").digest
    for stage in config.stages:
        changing = ("report",)
        assert stage in changing or stage_summary(place, stage) == stage_summary(finished, stage)


def test_stages_one_by_one_where_files_grow(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    place = UPath(f"file://{tmp_path}/run")
    run(config, place, until="problems")
    with pytest.raises(StoreError, match=rf"does not exist; run `trimtab sample file://{tmp_path}/run` first"):
        run_one(place, "grade")
    for stage in ("sample", "grade", "contrast", "record", "rank", "gate"):
        run_one(place, stage)
    found = results(place)
    assert {"gate.json", "contrast.parquet", "activations/sampled/index.parquet"} <= found.keys()
    assert found.items() <= results(finished).items()
