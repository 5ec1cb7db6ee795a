"""A study on a remote store: the bytes of a local one, also when it is killed again and again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from remote_stores import Killed, Kills, stored
from study_samples import comparable, results
from trimtab.report import read_report
from trimtab.steering import Steering
from trimtab.store import any_path, openings
from trimtab.study import Study, load_settings, run


def test_a_run_that_is_killed_at_every_eleventh_file_ends_with_the_bytes_of_a_local_one(
    small: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small(tmp_path / "local") as local:
        run(local)
    place, kills = any_path("memory://bucket/runs/killed"), Kills(monkeypatch)
    n_kills = 0
    for _ in range(100):
        kills.at(10, "after" if n_kills % 2 else "before")
        try:
            with small(place) as study:
                run(study)
            break
        except Killed:
            n_kills += 1
    kills.never()
    assert n_kills > 1
    assert comparable(place, stored(place)) == results(tmp_path / "local")
    assert openings(place / "ledger.jsonl") >= 1
    report, here = read_report(place / "report.json"), read_report(tmp_path / "local" / "report.json")
    assert (report.verdict, report.conditions, report.neurons) == (here.verdict, here.conditions, here.neurons)
    assert report.run.command == "trimtab run memory://bucket/runs/killed/run.toml --out NEW_FOLDER"
    assert load_settings(place / "run.toml") == local.settings
    steering = Steering.from_pretrained(str(place / "steering"))
    assert steering.digest == Steering.from_pretrained(tmp_path / "local" / "steering").digest
