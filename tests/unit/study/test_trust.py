"""What is told or refused before anything is sampled, and files of a study that do not belong to it."""

from pathlib import Path

import pytest

from trimtab.errors import InputError, StoreError
from trimtab.study import Settings, Study
from trimtab.tasks.grading import KindGrader
from trimtab.tasks.grading import code as code_grading
from trimtab.tasks.sandbox import NoSandboxError

TESTS = '{"entry_point": "f", "suites": [{"name": "base", "asserts": ["assert f(1) == 1"]}]}'


def _study(settings: Settings, rows: list[dict[str, object]], path: Path, notes: list[str]) -> Study:
    return Study(settings.model.source, task=rows, path=path, note=notes.append)


def test_near_duplicates_within_a_split_are_told_before_sampling(
    settings: Settings, tmp_path: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    texts = [f"Tom has {i} apples and eats {i + 3} of them{' ' * space}." for i in range(4) for space in range(6)]
    rows: list[dict[str, object]] = [{"question": text, "answer": "1", "split": "test"} for text in texts]
    notes: list[str] = []
    problems = _study(settings, rows, tmp_path / "run", notes).problems()
    assert len(set(problems.clusters.values())) == 4
    assert len(problems.clusters) == 24
    assert len(notes) == 1
    assert notes[0].startswith("24 test problems are near-duplicates of each other, in 4 clusters")
    assert batches == []


def test_a_missing_sandbox_is_told_before_sampling(
    settings: Settings, tmp_path: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise NoSandboxError("no sandbox works on this machine")

    monkeypatch.setattr(code_grading, "Sandbox", none)
    monkeypatch.setattr(Study, "grader", property(lambda study: KindGrader()))
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    rows: list[dict[str, object]] = [
        {"question": f"Write f{i}.", "answer": "x", "tests": TESTS, "split": split}
        for i, split in enumerate(("train", "test") * 2)
    ]
    study = Study(settings.model.source, task=rows, path=tmp_path / "run", settings={"task": {"answer": "code"}})
    with pytest.raises(NoSandboxError):
        study.sample(n=2, max_new_tokens=4)
    assert batches == []


def test_a_template_that_leaves_the_question_out_is_refused_before_sampling(
    settings: Settings, tmp_path: Path, batches: list[int]
) -> None:
    with Study(settings=settings, path=tmp_path / "run") as study:
        study.model.tokenizer.chat_template = "Q:"
        with pytest.raises(InputError, match="leaves the question out"):
            study.sample(n=2, max_new_tokens=4)
    assert batches == []


def test_the_problems_of_another_seed_are_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    data = settings.model_dump(mode="json")
    for seed in (0, 1):
        data["task"] |= {"train": 4, "validation": 2, "test": 2, "seed": seed}
        Study(settings=data, path=tmp_path / "run").problems()
    own, other = (tmp_path / "run" / "problems").iterdir()
    (own / "problems.parquet").write_bytes((other / "problems.parquet").read_bytes())
    data["task"] |= {"seed": int('"seed": 1' in (own / "key.json").read_text())}
    with pytest.raises(StoreError, match=rf"belongs to another result: it was made as problems/{other.name}/problems.parquet"):
        Study(settings=data, path=tmp_path / "run").problems()
