"""Every file format under damage: what is read is what was written, or the read is refused with a message that names the file.

A flipped bit, a missing end, a hole, zeros, noise, odd numbers, deep nesting and keys that stand twice, a few thousand times with
a fixed seed; ``slow`` does it for minutes. The last tests take the checks out and see that the suite fails then.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from fuzzing import Fuzzed, Silent, as_lines, survey
from trimtab.comparison.readers import read_results
from trimtab.errors import StoreError, TrimtabError
from trimtab.evaluation.outcomes import Outcome
from trimtab.export.record import ExportRecord, read_export, write_record
from trimtab.findings import Findings, Frame
from trimtab.gate import AttentionGate, Gate
from trimtab.moments import Moments
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.recording import Recording
from trimtab.recording.record import tensors_of, write_index
from trimtab.report import read_report
from trimtab.sampling.sample import read_traces
from trimtab.steering import Steering
from trimtab.store import (
    Cache,
    Parts,
    Plan,
    any_path,
    atomic,
    digest_of,
    key_facts,
    load_gate,
    load_neurons,
    load_steering,
    openings,
    read_json,
    read_table,
    record_opening,
    save_gate,
    save_neurons,
    save_steering,
    save_tensors,
    tables,
    tensors,
    write_json,
    write_table,
)
from trimtab.store.export_files import digests_of
from trimtab.store.import_lists import read_adaras_csv, read_neurons, read_plain_json
from trimtab.study.gather import write_rows
from trimtab.study.settings import load_settings
from trimtab.tasks.files import read_rows
from trimtab.tasks.loading import problems_of
from trimtab.traces import Problem, Score, Split, Trace

IDENTITY = ModelIdentity("some/model", None, "Qwen3ForCausalLM", "blake2b:0123", n_layers=3, d_model=8, d_ff=200, vocab_size=97)
MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)
RNG = np.random.default_rng(0)


def neurons() -> Neurons:
    flat = RNG.permutation(600)[:7]
    good, bad = RNG.normal(size=(2, 7)).astype(np.float32)
    return Neurons(flat // 200, flat % 200, RNG.normal(size=7), good, bad, "adaras", IDENTITY, {"counts": {"correct": 60}})


def gate() -> Gate:
    columns = np.array([0, 2, 1]), np.array([3, 15, 0]), np.array([0.1, -2.5, 3e-8], np.float32)
    return Gate("logistic", "hard", *columns, bias=1 / 3, threshold=0.42, facts={"auroc": 0.76})


def attention() -> AttentionGate:
    wide = RNG.normal(size=(4, 3)).astype(np.float32)
    one, unit = RNG.normal(size=3).astype(np.float32), RNG.normal(size=4).astype(np.float32)
    return AttentionGate(
        np.array([0, 1, 2]), np.array([4, 5, 6]), query=one, hidden=wide, offset=unit, output=unit, threshold=0.5
    )


def problem(i: int) -> Problem:
    return Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i), Split.TEST)


def outcome(i: int) -> Outcome:
    return Outcome("gated", f"p{i}", "domain", 1, Score.CORRECT, "equal", "5", "It is 5.", 12, False, None, 0.25, True)


def trace(i: int) -> Trace:
    return Trace(f"p{i}/0", f"p{i}", 0, (1, 2, 3), (4, 5, 6, 7), "some text", "stop")


def read_recording(folder: Path) -> list[object]:
    recording = Recording(folder)
    return [
        tables.read_arrow(folder / "index.parquet").to_pylist(),
        recording.shape("response"),
        list(recording.stream("response")),
    ]


def exported(folder: Path, files: dict[str, Fuzzed]) -> None:
    """The files of exports, as ``trimtab verify`` reads them; what the targets write is in tests/unit/export."""
    folder.mkdir()
    save_file({"down_proj.lora_A.weight": np.ones((8, 4), np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "target_modules": ["down_proj"]}\n')
    (folder / "neurons.csv").write_text("overall_neuron_index,weight\n5,1.5\n20,-2\n")
    (folder / "control-vector.gguf").write_bytes(b"GGUF\x03\0\0\0" + RNG.bytes(200))
    facts: dict[str, object] = {"max_lora_rank": 8}
    listed = digests_of(folder)
    record = ExportRecord(
        target="lora",
        steering="blake2b:0",
        n_neurons=4,
        strength=0.5,
        scope="all",
        dropped={},
        model=IDENTITY,
        license="mit",
        facts=facts,
        usage="vllm serve",
        files=listed,
        versions={},
    )
    write_record(record, folder)
    for name in (*listed, "export.json"):
        files[f"export/{name}"] = Fuzzed(folder / name, lambda: [read_export(folder).model_dump(), digests_of(folder)])
    files["export/list"] = Fuzzed(folder / "neurons.csv", lambda: read_neurons(folder / "neurons.csv", MODEL))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fuzzed]:
    """The files of a run, by format and use, and what reads each."""
    root = tmp_path_factory.mktemp("fuzz")
    cache, files = Cache(root), {}

    def entry(verb: str, work: Callable[[Path], object], read: Callable[[Path], object], *names: str) -> Path:
        made = cache.entry(verb, {"seed": 0, "verb": verb})
        with made.claim():
            work(made.folder)  # type: ignore[arg-type]  # local
        folder = Path(str(made.folder))
        files.update({f"{verb}/{name}": Fuzzed(folder / name, lambda: read(folder)) for name in names})
        return folder

    def recorded(folder: Path) -> None:
        parts = Parts(folder, ".safetensors")
        parts.ensure_plan(Plan((("p0/0", "p1/0"), ("p2/0",)), {"recording": {"scopes": ["response"]}}))
        for part, rows in enumerate((2, 1)):
            found = Moments(np.full(rows, 4), *RNG.normal(size=(2, rows, 3, 200)).astype(np.float32))
            parts.write_tensors(part, tensors_of({"response": found}), {})
        write_index(folder, [("p0/0", "p0", 0, 0), ("p1/0", "p1", 0, 1), ("p2/0", "p2", 1, 0)])

    def sampled(folder: Path) -> None:
        parts = Parts(folder)
        parts.ensure_plan(Plan((("p0/0", "p1/0"),), {"seed": 0}))
        parts.write_table(0, [trace(0), trace(1)])

    findings = Findings("ablate", "Ablate", "What?", ("This.",), "test", (Frame("f", "F", [{"label": "a", "x": 1.5}]),))
    entry("rank", lambda f: save_neurons(neurons(), f), load_neurons, "neurons.json", "neurons.safetensors")
    entry("gate", lambda f: save_gate(gate(), f), load_gate, "gate.json", "gate.safetensors")
    entry("attention", lambda f: save_gate(attention(), f), load_gate, "gate.json", "gate.safetensors")
    entry("record", recorded, read_recording, "plan.json", "part-00000.safetensors", "part-00001.safetensors", "index.parquet")
    entry("sample", sampled, lambda f: read_traces(f, ["p0/0", "p1/0"]), "plan.json", "part-00000.parquet")
    tables_ = {"problems": problem, "evaluate": outcome}
    for verb, row in tables_.items():
        rows = [row(i) for i in range(30)]
        kind = type(rows[0])
        entry(
            verb,
            lambda f, rows=rows: write_table(f / "a.parquet", rows),
            lambda f, k=kind: read_table(f / "a.parquet", k),
            "a.parquet",
        )
    entry(
        "contrast",
        lambda f: write_json(f / "contrast.json", {"n": 3, "x": 0.5}),
        lambda f: read_json(f / "contrast.json"),
        "contrast.json",
    )
    entry(
        "experiment",
        lambda f: write_json(f / "findings.json", findings.to_json()),
        lambda f: Findings.from_json(read_json(f / "findings.json")).to_json(),  # type: ignore[arg-type]
        "findings.json",
    )
    rows: list[dict[str, object]] = [{"question": f"What is {i} + {i}?", "answer": str(2 * i), "x": i / 3} for i in range(9)]
    kept = cache.entry("rows", {"rows": digest_of(rows)})
    with kept.claim():
        write_rows(kept.folder / "problems.jsonl", rows)
    own_rows = Path(str(kept.folder)) / "problems.jsonl"
    files["rows/problems.jsonl"] = Fuzzed(own_rows, lambda: list(read_rows(own_rows)))
    exported(root / "export", files)
    folder = entry("key", lambda f: None, key_facts, "key.json")
    assert folder.is_dir()
    write_table(root / "outcomes.parquet", [outcome(i) for i in range(30)], under="evaluate/x")
    files["outcomes.parquet"] = Fuzzed(root / "outcomes.parquet", lambda: read_table(root / "outcomes.parquet", Outcome))
    write_json(root / "seconds.json", {"sample": 1.5, "tune": 20.0}, "")
    files["seconds.json"] = Fuzzed(root / "seconds.json", lambda: read_json(root / "seconds.json", ""))
    cache.write_study({"seed": 0, "tune": {"k": [1, 2]}}, {"sample": "sample/0", "rank": "rank/1"})
    study = next((root / "studies").iterdir())
    files["studies"] = Fuzzed(study, cache.rows)
    for i in range(3):
        record_opening(root / "ledger.jsonl", "evaluate", f"40 problems of abc-{i}", "fingerprint")
    # a torn end may be of any opening, so a count is never too low
    files["ledger.jsonl"] = Fuzzed(
        root / "ledger.jsonl", lambda: [openings(root / "ledger.jsonl", f"abc-{i}") > 0 for i in range(3)], appended=True
    )
    for name, found in {"steering": gate(), "steering-attention": attention()}.items():
        steering = Steering.of(neurons(), 0.3, gate=found, facts={"criterion": "adaras"})
        save_steering(steering, root / name)
        for file in ("config.json", "neurons.safetensors", "gate.safetensors"):
            files[f"{name}/{file}"] = Fuzzed(root / name / file, lambda name=name: load_steering(root / name))
    from report_sample import make_report

    write_json(root / "report.json", make_report().model_dump(mode="json"), "evaluate/x")
    files["report.json"] = Fuzzed(root / "report.json", lambda: read_report(root / "report.json").model_dump())
    return files


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fuzzed]:
    """Files that people and other tools write."""
    root = tmp_path_factory.mktemp("foreign")
    rows = [{"id": f"p{i}", "question": f"{i} + {i}?", "answer": str(2 * i), "difficulty": i} for i in range(6)]
    (root / "problems.jsonl").write_text(as_lines(rows))  # type: ignore[arg-type]
    pa.parquet.write_table(pa.Table.from_pylist(rows), root / "problems.parquet")
    (root / "run.toml").write_text('[task]\nsource = "testbed"\ntrain = 40\n[tune]\nstrengths = [1.5, 2.0]\nk = [5, 10]\n')
    (root / "list.json").write_text(
        '{"neurons": [{"layer": 2, "index": 5, "weight": 1.5}, {"layer": 0, "index": 0, "weight": -1}]}'
    )
    (root / "list.csv").write_text("overall_neuron_index,weight\n5,1.5\n20,-2\n")
    (root / "scores.jsonl").write_text(as_lines([{"id": i, "correct": bool(i % 2), "response": "x"} for i in range(8)]))
    (root / "scores.csv").write_text("id,correct\n" + "".join(f"{i},{i % 2}\n" for i in range(8)))
    samples = {f"HumanEval/{i}": [{"base_status": "pass", "plus_status": "fail", "solution": "x"}] for i in range(4)}
    (root / "eval_results.json").write_text(json.dumps({"hash": "abc", "eval": samples}))
    reads: dict[str, Callable[[Path], object]] = {
        "problems.jsonl": lambda p: problems_of(read_rows(p), str(p)),
        "problems.parquet": lambda p: problems_of(read_rows(p), str(p)),
        "run.toml": load_settings,
        "list.json": lambda p: read_plain_json(p, MODEL),
        "list.csv": lambda p: read_adaras_csv(p, MODEL),
        "scores.jsonl": lambda p: read_results(p).tasks,
        "scores.csv": lambda p: read_results(p).tasks,
        "eval_results.json": lambda p: read_results(p, metric="base").tasks,
    }
    return {
        name: Fuzzed(root / name, lambda name=name, read=read: read(root / name), sealed=False) for name, read in reads.items()
    }


def told(counts: Counter[str], files: dict[str, Fuzzed], silent: list[Silent]) -> str:
    """The figures of a survey."""
    each = ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
    return f"{sum(counts.values()):,} damages of {len(files)} files: {each}, {len(silent)} silent"


def test_nothing_but_what_was_written_is_read(sealed: dict[str, Fuzzed], record_property: Callable[[str, object], None]) -> None:
    counts, silent = survey(sealed, seed=0, each=100)
    record_property("tried", told(counts, sealed, silent))
    assert silent == []
    assert sum(counts.values()) >= 2500
    assert counts["refused"] > 0.9 * sum(counts.values())


def test_files_of_other_tools_raise_our_errors_alone(
    foreign: dict[str, Fuzzed], record_property: Callable[[str, object], None]
) -> None:
    counts, silent = survey(foreign, seed=0, each=100)
    record_property("tried", told(counts, foreign, silent))
    assert silent == []
    assert counts["refused"] > 100


@pytest.mark.slow  # minutes
@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_but_what_was_written_is_read_for_long(
    sealed: dict[str, Fuzzed], foreign: dict[str, Fuzzed], seed: int, record_property: Callable[[str, object], None]
) -> None:
    for files in (sealed, foreign):
        counts, silent = survey(files, seed=seed, each=1000)
        record_property("tried", f"seed {seed}, {told(counts, files, silent)}")
        assert silent == []


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("digests of JSON files", ".json"),
        ("digests of tables", ".parquet"),
        ("sums of tensors", ".safetensors"),
        ("lines", ".jsonl"),
        ("digests of exports", ".gguf"),
    ],
)
def test_the_suite_fails_where_a_check_is_taken_out(
    sealed: dict[str, Fuzzed], what: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that finds nothing is worth as much as what it finds where there is something."""
    if kind == ".json":
        monkeypatch.setattr(atomic, "check_seal", lambda *args: None)
    elif kind == ".parquet":
        monkeypatch.setattr(tables, "check_sealed_table", lambda *args: None)
        whole = pa.parquet.ParquetFile
        monkeypatch.setattr(pa.parquet, "ParquetFile", lambda source, page_checksum_verification: whole(source))
    elif kind == ".safetensors":
        monkeypatch.setattr(tensors.CheckedSlice, "_checked", lambda self, found, read: found)
    elif kind == ".gguf":
        monkeypatch.setattr("trimtab.export.record.check_files", lambda *args: None)
    else:
        from trimtab.store import ledger

        monkeypatch.setattr(ledger, "_fits", lambda line, before: True)
    # an artifact's tensors have a digest of their own, and other files check more than their seal: some are enough
    some = {name: file for name, file in sealed.items() if name.endswith(kind) and not name.startswith("steering")}
    _, silent = survey(some, seed=0, each=150)
    assert any(one.what == "read as something else" for one in silent), what


def test_a_file_of_another_result_is_refused_by_name(tmp_path: Path) -> None:
    """The same verb and the same names under two keys, such as the problems of two seeds."""
    folders = []
    for seed in (0, 1):
        entry = Cache(tmp_path).entry("problems", {"seed": seed})
        with entry.claim():
            write_table(entry.folder / "problems.parquet", [problem(seed)])
            write_json(entry.folder / "problems.json", {"seed": seed})
            write_json(entry.folder / "contrast.json", {"n": seed})
            save_gate(gate(), entry.folder / "gate")
            save_tensors(entry.folder / "part.safetensors", {"x": np.arange(3.0)}, {})
        folders.append(Path(str(entry.folder)))
    here, other = folders
    reads: dict[str, Callable[[Path], object]] = {
        "problems.parquet": lambda path: read_table(path, Problem),
        "problems.json": read_json,
        "contrast.json": read_json,
        "key.json": lambda path: key_facts(path.parent),
        "gate/gate.json": lambda path: load_gate(path.parent),
        "gate/gate.safetensors": lambda path: load_gate(path.parent),
        "part.safetensors": tensors.load_tensors,
    }
    for name, read in reads.items():
        own = (here / name).read_bytes()
        read(here / name)
        (here / name).write_bytes((other / name).read_bytes())
        foreign = f"{name} belongs to another result: it was made as problems/{other.name}/{name}, here problems/{here.name} is"
        with pytest.raises(StoreError, match=f"{foreign}|do not belong together"):
            read(here / name)
        (here / name).write_bytes(own)
        read(here / name)


@pytest.mark.parametrize("content", ["[" * 100_000, "[" * 150 + "]" * 150, '{"a":' * 150 + "1" + "}" * 150])
def test_deep_json_in_any_file_is_one_line(sealed: dict[str, Fuzzed], content: str) -> None:
    for name, (path, read, *_) in sealed.items():
        if path.suffix != ".json" or name == "export/adapter_config.json":  # which is compared as bytes and not parsed
            continue
        whole = path.read_bytes()
        path.write_text(content)
        with pytest.raises(TrimtabError, match="nested more than 100 deep") as caught:
            read()
        assert "\n" not in str(caught.value), name
        path.write_bytes(whole)


@pytest.mark.parametrize("size", [10**30, -1, 0])
@pytest.mark.parametrize("name", ["n_layers", "d_ff", "vocab_size"])
def test_a_size_that_no_model_has_is_refused_also_under_a_seal_that_fits(tmp_path: Path, name: str, size: int) -> None:
    save_neurons(neurons(), tmp_path)
    content = read_json(tmp_path / "neurons.json")
    content["model"][name] = size  # type: ignore[index]  # an object
    write_json(tmp_path / "neurons.json", content, "")
    with pytest.raises(StoreError, match=rf"neurons\.json.*{name} is {size}; a model's sizes lie between 1 and"):
        load_neurons(tmp_path)


def test_a_file_outside_its_result_names_its_key(tmp_path: Path) -> None:
    write_table(tmp_path / "outcomes.parquet", [outcome(0)], under="evaluate/a")
    assert read_table(tmp_path / "outcomes.parquet", Outcome, "evaluate/a") == [outcome(0)]
    with pytest.raises(
        StoreError, match=r"outcomes\.parquet belongs to another result: it was made as evaluate/a, here evaluate/b"
    ):
        read_table(tmp_path / "outcomes.parquet", Outcome, "evaluate/b")


def test_a_table_without_a_checksum_says_so(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "old.parquet")
    with pytest.raises(StoreError, match=r"old\.parquet carries no checksum: another program or version of trimtab wrote it"):
        tables.read_arrow(tmp_path / "old.parquet")


def test_damage_is_found_at_a_url(tmp_path: Path) -> None:
    place = any_path(f"memory://{tmp_path.name}/run")
    entry = Cache(place).entry("rank", {"seed": 0})
    with entry.claim():
        save_neurons(neurons(), entry.folder)
        write_table(entry.folder / "a.parquet", [problem(0)])
        save_tensors(entry.folder / "part.safetensors", {"x": RNG.normal(size=(2, 3, 200))}, {})
    for name, read in {
        "neurons.json": lambda path: load_neurons(path.parent),
        "neurons.safetensors": lambda path: load_neurons(path.parent),
        "a.parquet": lambda path: read_table(path, Problem),
        "part.safetensors": tensors.load_tensors,
    }.items():
        path = entry.folder / name
        whole = path.read_bytes()
        before = read(path)
        assert before is not None
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(StoreError, match=name.partition(".")[0]):
                read(path)
        path.write_bytes(whole)
