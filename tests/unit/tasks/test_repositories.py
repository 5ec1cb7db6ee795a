"""Repositories through `datasets`: copies on this machine, the cache of the hub, and no hub at all; and data that changed."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from trimtab.errors import InputError
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.loading import load_problems, load_task
from trimtab.tasks.repositories import Origin, Provenance, digest_of_problems, pieces_of
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import Problem, Split

PROBLEM = Problem("p", "What is 2 + 2?", "4", Split.TRAIN)
OTHER = Problem("q", "What is 2 + 3?", "5", Split.TEST)


def test_the_digest_names_the_problems_and_not_their_order() -> None:
    digest = digest_of_problems([PROBLEM, OTHER])
    assert digest_of_problems([OTHER, PROBLEM]) == digest
    for field, value in {
        "id": "r",
        "question": "?",
        "answer": "5",
        "split": Split.VALIDATION,
        "tests": "{}",
        "choices": ("a",),
    }.items():
        assert digest_of_problems([replace(PROBLEM, **{field: value}), OTHER]) != digest
    assert digest_of_problems([PROBLEM]) != digest


def test_what_is_recorded_with_the_problems() -> None:
    origin = Origin("openai/gsm8k", "main", "test", "aaa", rows=1)
    recorded = Provenance("gsm8k", (origin,), "d1", {"why": 1}).to_json()
    assert recorded["digest"] == "d1"
    assert recorded["origins"] == [{"where": "openai/gsm8k", "config": "main", "split": "test", "revision": "aaa", "rows": 1}]


COMMIT = "e53f048856ff4f594e959d75785d2c2d37b678ee"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and nothing beyond it."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _configured(folder: Path, configs: tuple[str, ...]) -> None:
    """The README of a repository, which names its configurations."""
    files = {c: [{"split": split, "path": f"{c}/{split}.jsonl"} for split in ("train", "test")] for c in configs}
    entries = [{"config_name": config, "data_files": paths} for config, paths in files.items()]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(entries)}\n---\n")


def _gsm8k(n: int, word: str) -> list[dict[str, object]]:
    return [{"question": f"{word} {i}?", "answer": f"so\n#### {i}"} for i in range(n)]


def test_a_folder_with_one_file_a_split(tmp_path: Path) -> None:
    _write(tmp_path / "train.jsonl", _gsm8k(30, "train"))
    _write(tmp_path / "test.jsonl", _gsm8k(5, "test"))
    task = load_task(TaskSettings(source="gsm8k", data=str(tmp_path)))
    by_split = {split: [p for p in task.problems if p.split is split] for split in Split}
    assert [len(problems) for problems in by_split.values()] == [len(by_split[Split.TRAIN]), 30 - len(by_split[Split.TRAIN]), 5]
    assert {p.question.split()[0] for p in by_split[Split.TEST]} == {"test"}
    assert {p.question.split()[0] for p in by_split[Split.TRAIN] + by_split[Split.VALIDATION]} == {"train"}
    assert by_split[Split.VALIDATION]
    assert {p.id for p in by_split[Split.TEST]} == {f"test-{i:05d}" for i in range(1, 6)}
    assert [(o.where, o.split, o.rows) for o in task.provenance.origins] == [
        (str(tmp_path), "train", 30),
        (str(tmp_path), "test", 5),
    ]


def test_a_copy_is_read_afresh(tmp_path: Path) -> None:
    """`datasets` caches a folder with configurations under a name that does not depend on what its files hold."""
    _configured(tmp_path, ("main",))
    _write(tmp_path / "main" / "train.jsonl", _gsm8k(3, "train"))
    _write(tmp_path / "main" / "test.jsonl", _gsm8k(1, "before"))
    settings = TaskSettings(source="gsm8k", data=str(tmp_path), train=0, validation=0)
    assert load_problems(settings)[0].question == "before 0?"
    _write(tmp_path / "main" / "test.jsonl", _gsm8k(1, "after"))
    assert load_problems(settings)[0].question == "after 0?"


def test_a_copy_with_configurations(tmp_path: Path) -> None:
    """Laid out as on the hub: MATH has a configuration for each subject."""
    benchmark = BENCHMARKS["math"]
    configs = benchmark.parts[0].configs
    for number, config in enumerate(configs):
        for split in ("train", "test"):
            row = {
                "problem": f"{split} {config}?",
                "level": "Level 1",
                "type": benchmark.domains[number],
                "solution": "\\boxed{1}",
            }
            _write(tmp_path / config / f"{split}.jsonl", [row])
    _configured(tmp_path, configs)
    task = load_task(TaskSettings(source="math", data=str(tmp_path)))
    assert len(task.problems) == 14
    assert {p.domain for p in task.problems if p.split is Split.TEST} == set(benchmark.domains)
    assert {o.config for o in task.provenance.origins} == set(configs)
    assert "algebra-test-00001" in {p.id for p in task.problems}


def test_a_benchmark_of_two_repositories(tmp_path: Path) -> None:
    older = [
        {"ID": f"1990-{i}", "Year": 1990, "Problem Number": i, "Question": f"older {i}?", "Answer": str(i)} for i in (1, 2, 3)
    ]
    newer = [{"ID": "2024-I-1", "Problem": "newer?", "Answer": 7}]
    _write(tmp_path / "Maxwell-Jia" / "AIME_2024" / "train.jsonl", newer)
    settings = TaskSettings(source="aime24", data=str(tmp_path))
    with pytest.raises(
        InputError, match=r"has no folder gneubig/aime-1983-2024; copy .* or set task\.train = 0 and task\.validation = 0"
    ):
        load_problems(settings)
    assert [p.question for p in load_problems(settings.model_copy(update={"train": 0, "validation": 0}))] == ["newer?"]
    _write(tmp_path / "gneubig" / "aime-1983-2024" / "train.jsonl", older)
    problems = load_problems(settings)
    assert {p.question for p in problems if p.split is not Split.TEST} == {"older 1?", "older 2?", "older 3?"}
    assert [p.question for p in problems if p.split is Split.TEST] == ["newer?"]


def test_a_folder_without_a_split(tmp_path: Path) -> None:
    _write(tmp_path / "test.jsonl", _gsm8k(2, "test"))
    settings = TaskSettings(source="gsm8k", data=str(tmp_path))
    with pytest.raises(InputError, match=r"the split 'train' of openai/gsm8k cannot be read from .*hold a file train\.jsonl"):
        load_problems(settings)
    assert len(load_problems(settings.model_copy(update={"train": 0, "validation": 0}))) == 2


def test_a_damaged_folder(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"question": "a"}\n\x00\xff\xfe\n')
    _write(tmp_path / "test.jsonl", _gsm8k(1, "test"))
    with pytest.raises(InputError, match="the split 'train' of openai/gsm8k cannot be read"):
        load_problems(TaskSettings(source="gsm8k", data=str(tmp_path)))
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(InputError, match="cannot be read from"):
        load_problems(TaskSettings(source="gsm8k", data=str(tmp_path)))


def test_no_hub_and_no_cache(no_hub: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_problems(TaskSettings(source="gsm8k"))
    message = str(caught.value)
    for part in (
        "openai/gsm8k",
        "'gsm8k'",
        "hf download openai/gsm8k --repo-type dataset",
        "task.data",
        'task.source = "local:PATH"',
    ):
        assert part in message
    assert "\n" not in message


@pytest.fixture
def cached(no_hub: Path, tmp_path: Path) -> Path:
    """The cache as it is after GSM8K was loaded from the hub at COMMIT."""
    _write(tmp_path / "gsm8k" / "train.jsonl", _gsm8k(4, "train"))
    _write(tmp_path / "gsm8k" / "test.jsonl", _gsm8k(2, "test"))
    builder = datasets.load_dataset_builder(str(tmp_path / "gsm8k"), cache_dir=str(tmp_path / "made"))
    builder.download_and_prepare()
    home = no_hub / "openai___gsm8k" / "main" / "0.0.0" / COMMIT
    shutil.copytree(builder.cache_dir, home)
    info = json.loads((home / "dataset_info.json").read_text())
    (home / "dataset_info.json").write_text(json.dumps({**info, "config_name": "main"}))
    return home


def test_the_cache_is_enough_and_its_commit_is_recorded(cached: Path) -> None:
    for revision in ("", COMMIT, COMMIT[:8]):
        task = load_task(TaskSettings(source="gsm8k", revision=revision))
        assert len(task.problems) == 6
        assert {origin.revision for origin in task.provenance.origins} == {COMMIT}


def test_the_cache_of_another_commit_is_not_taken_for_the_one_asked_for(cached: Path) -> None:
    with pytest.raises(InputError, match=f"commit abcdef0 of openai/gsm8k was asked for, but the cache holds {COMMIT}"):
        load_problems(TaskSettings(source="gsm8k", revision="abcdef0"))


def test_one_revision_cannot_pin_two_repositories() -> None:
    with pytest.raises(InputError, match=r"aime24 is made of 2 repositories .*; pin the problems with task\.digest"):
        pieces_of(BENCHMARKS["aime24"], revision=COMMIT)
