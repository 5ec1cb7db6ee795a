import tomllib
from pathlib import Path

import pytest

from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.store.ledger import openings, record_opening
from trimtab.store.run_directory import RunDirectory

CONFIG = {"seed": 0, "model": "some/model", "revision": None, "train": {"k": 50, "scopes": ("all",), "strength": 0.3}}


def create(path: Path, **options: bool) -> RunDirectory:
    return RunDirectory.create(path, CONFIG, **options)


def test_run_toml_is_the_configuration_below_its_digest(tmp_path: Path) -> None:
    with create(tmp_path / "runs" / "a") as run:
        text = (run.path / "run.toml").read_text()
    wanted = {"seed": 0, "model": "some/model", "train": {"k": 50, "scopes": ["all"], "strength": 0.3}}
    assert tomllib.loads(text) == wanted == run.config
    assert text.splitlines()[0] == f"# trimtab run, digest of the configuration: {run.digest}"
    model = RunDirectory.open(run.path)
    assert (model.config, model.digest) == (wanted, run.digest)


def test_the_digest_ignores_order_and_unset_keys(tmp_path: Path) -> None:
    with create(tmp_path / "a") as run:
        pass
    with RunDirectory.create(tmp_path / "b", {key: CONFIG[key] for key in ("train", "model", "seed")}) as other:
        assert other.digest == run.digest
    with RunDirectory.create(tmp_path / "c", {**CONFIG, "seed": 0.0}) as another:
        assert another.digest != run.digest


def test_layout(tmp_path: Path) -> None:
    with create(tmp_path / "a") as run:
        found = {
            "problems.parquet": run.problems,
            "traces/base": run.traces("base"),
            "grades/base.parquet": run.grades("base"),
            "contrast.parquet": run.contrast,
            "activations/train": run.activations("train"),
            "neurons/random": run.ranking("random"),
            "gate.json": run.gate,
            "steering": run.steering,
            "tune.parquet": run.tune,
            "tune": run.tune_parts,
            "outcomes/steered": run.outcome_parts("steered"),
            "outcomes.parquet": run.outcomes,
            "sources.parquet": run.sources,
            "seconds.json": run.seconds,
            "report.html": run.report,
            "ledger.jsonl": run.ledger,
        }
    assert {path.relative_to(run.path).as_posix() for path in found.values()} == set(found)
    assert all(path == run.path / name for name, path in found.items())


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "../x"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with create(tmp_path / "a") as run, pytest.raises(InputError, match="cannot name a part of a run"):
        run.traces(name)


def test_a_second_run_in_the_folder_needs_a_flag(tmp_path: Path) -> None:
    with create(tmp_path / "a") as run:
        run.problems.write_bytes(b"something")
    with pytest.raises(ConfigError, match=r"already holds a run.*--resume.*--force"):
        create(tmp_path / "a")
    with pytest.raises(ConfigError, match="give one"):
        create(tmp_path / "a", resume=True, force=True)
    # the refusals released the lock
    create(tmp_path / "a", resume=True).close()


def test_resume_keeps_files_and_sweeps_leftovers(tmp_path: Path) -> None:
    with create(tmp_path / "a", resume=True) as run:
        run.outcomes.write_text("x")
        (run.path / ".outcomes.parquet.01234567.trimtab-partial").write_text("")
        before = (run.path / "run.toml").read_bytes()
    with create(tmp_path / "a", resume=True) as run:
        assert run.outcomes.read_text() == "x"
        assert (run.path / "run.toml").read_bytes() == before
        assert {path.name for path in run.path.iterdir()} == {".lock", "run.toml", "outcomes.parquet"}


def test_resume_with_another_configuration_lists_what_differs(tmp_path: Path) -> None:
    create(tmp_path / "a").close()
    other = {"seed": 0.0, "model": "some/model", "new": True, "train": {"k": 51, "strength": 0.3}}
    with pytest.raises(ConfigError) as caught:
        RunDirectory.create(tmp_path / "a", other, resume=True)
    message = str(caught.value)
    for change in ("train.k: 50 -> 51", "train.scopes: ['all'] -> (not set)", "new: (not set) -> True", "seed: 0 -> 0.0"):
        assert change in message
    assert "model" not in message.split("configuration: ")[1].split("; resume")[0]
    assert "strength" not in message


def test_an_edited_or_truncated_run_toml(tmp_path: Path) -> None:
    create(tmp_path / "a").close()
    file = tmp_path / "a" / "run.toml"
    text = file.read_text()
    file.write_text(text.replace("k = 50", "k = 51"))
    for write in (False, True):
        with pytest.raises(ConfigError, match="was edited after the run began"):
            RunDirectory.open(tmp_path / "a", write=write)
    with pytest.raises(ConfigError, match="was edited"):
        create(tmp_path / "a", resume=True)
    file.write_text(text[:-10])
    with pytest.raises((ConfigError, StoreError), match=r"run\.toml"):
        RunDirectory.open(tmp_path / "a")
    file.write_text(text[20:])
    with pytest.raises(StoreError, match="first line holds no digest"):
        RunDirectory.open(tmp_path / "a")
    file.unlink()
    with pytest.raises(StoreError, match="is missing"):
        RunDirectory.open(tmp_path / "a")


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"force": True}])
@pytest.mark.parametrize("names", [["thesis.tex"], ["run.toml"], ["run.toml", "thesis.tex"]])
def test_a_folder_that_is_no_run_is_left_untouched(tmp_path: Path, flags: dict[str, bool], names: list[str]) -> None:
    create(tmp_path / "real").close()
    folder = tmp_path / "a"
    folder.mkdir()
    for name in names:
        # a copy of a run's run.toml that serves as a configuration does not make a folder a run
        (folder / name).write_bytes((tmp_path / "real" / "run.toml").read_bytes())
    with pytest.raises(ConfigError, match=r"is not a run directory.*nothing there was touched"):
        create(folder, **flags)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_force_starts_again_and_keeps_the_ledger(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    with create(tmp_path / "a", force=True) as run:
        run.traces("base").mkdir(parents=True)
        (run.traces("base") / "part").write_text("x")
        (run.path / "link").symlink_to(outside)
        record_opening(run.ledger, "evaluate", "all", run.digest)
    with RunDirectory.create(tmp_path / "a", {"seed": 1}, force=True) as run:
        assert {path.name for path in run.path.iterdir()} == {".lock", "run.toml", "ledger.jsonl"}
        assert openings(run.ledger) == 1
        assert RunDirectory.open(run.path).config == {"seed": 1}
    assert (outside / "precious").read_text() == "x"


def test_a_run_killed_before_run_toml_was_written_starts_anew(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in (".lock", ".run.toml.01234567.trimtab-partial"):
        (folder / name).write_text("")
    create(folder).close()
    assert {path.name for path in folder.iterdir()} == {".lock", "run.toml"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(StoreError, match="a file stands where a folder is needed"):
            create(path)


def test_a_configuration_that_toml_cannot_hold_touches_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.x is nan"):
        RunDirectory.create(tmp_path / "a", {"x": float("nan")})
    assert not (tmp_path / "a").exists()


HOLDER = """
import sys, time
from pathlib import Path
from trimtab.store.run_directory import RunDirectory
run = RunDirectory.create(Path(sys.argv[1]), {"seed": 0}, resume=True)
print("ready", flush=True)
time.sleep(60)
"""


def test_two_processes_on_one_run_are_refused_until_the_first_is_killed(tmp_path: Path, start) -> None:
    path = tmp_path / "a"
    process = start(HOLDER, path)
    for attempt in (
        lambda: RunDirectory.create(path, {"seed": 0}, resume=True),
        lambda: RunDirectory.create(path, {"seed": 0}, force=True),
        lambda: RunDirectory.open(path, write=True),
    ):
        with pytest.raises(StoreError, match=rf"another process \(id {process.pid}\) works on"):
            attempt()
    assert RunDirectory.open(path).config == {"seed": 0}
    process.kill()
    process.wait()
    with RunDirectory.create(path, {"seed": 0}, resume=True), pytest.raises(StoreError, match="another process"):
        RunDirectory.open(path, write=True)
    with RunDirectory.open(path, write=True) as run:
        run.close()


def test_a_run_that_left_nothing_is_begun_again_without_force(tmp_path: Path) -> None:
    """Its first stage failed, on a misspelt task say: the corrected command is the same folder."""
    create(tmp_path / "run").close()
    other = {**CONFIG, "seed": 1}
    with RunDirectory.create(tmp_path / "run", other) as again:
        assert again.config["seed"] == 1
        again.problems.write_bytes(b"something")
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory.create(tmp_path / "run", other)
