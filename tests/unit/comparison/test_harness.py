"""Files that the real lm-evaluation-harness writes, and what is refused of them."""

import json
import shutil
from pathlib import Path

import pytest
from scipy import stats

from comparison_samples import PUBLISHED, harness_folder, write_rows
from trimtab.comparison import compare
from trimtab.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("harness")
    first, second = (harness_folder(home / name, right) for name, right in zip("ab", PUBLISHED, strict=True))
    return first, second


def copy_of(folder: Path, home: Path) -> Path:
    return Path(shutil.copytree(folder, home / "copy"))


def rewrite(folder: Path, change) -> Path:
    """The samples of a folder, each changed."""
    (file,) = folder.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return write_rows(file, [change(row) for row in rows])


def test_the_published_example_by_its_authors_figures(folders) -> None:
    base, other = (sum(right) / 220 for right in PUBLISHED)
    variance = sum(share * (1 - share) / 219 for share in (base, other))
    assert 2 * stats.norm.sf((other - base) / variance**0.5) == pytest.approx(0.080, abs=5e-4), "model_comparator.py's z"
    (against,) = compare(*folders, filter_name="strict").against
    c = against.tasks[0].comparison
    assert (c.n, c.fixed, c.broken, c.test) == (220, 30, 12, "McNemar")
    assert c.p == pytest.approx(0.008, abs=5e-4)
    assert (c.base_accuracy, c.accuracy) == (80 / 220, 98 / 220)
    assert against.word == "better"
    assert against.differences == ()


def test_what_the_files_say_is_read(folders) -> None:
    result = compare(*folders, filter_name="lower")
    assert result.base.format == "lm-evaluation-harness"
    assert result.base.model == "told"
    (against,) = result.against
    assert [row.task for row in against.tasks] == ["tiny"]
    flip = against.flips[0]
    assert (flip.kind, flip.document, flip.base.response, flip.other.response) == ("fixed", "68", "no idea", "answer 68")
    assert (flip.base.prompt, flip.base.target) == ("question 68", "answer 68")


def test_a_samples_file_and_a_results_file_are_the_folder(folders) -> None:
    whole = compare(*folders, filter_name="strict")
    for pattern in ("samples_*.jsonl", "results_*.json"):
        files = [next(folder.rglob(pattern)) for folder in folders]
        assert compare(*files, filter_name="strict").against[0].overall == whole.against[0].overall


def test_several_filters_need_a_name(folders) -> None:
    with pytest.raises(InputError, match=r"several filters: strict, lower; choose one with --filter NAME"):
        compare(*folders)
    with pytest.raises(InputError, match=r"no filter 'loose'; it has strict, lower"):
        compare(*folders, filter_name="loose")
    with pytest.raises(InputError, match=r"no metric 'acc'; it has exact_match"):
        compare(*folders, filter_name="strict", metric="acc")


def test_two_evaluations_in_one_folder_or_file_are_refused(folders, tmp_path) -> None:
    copy = copy_of(folders[0], tmp_path)
    (file,) = copy.rglob("samples_*.jsonl")
    shutil.copy(file, copy / "samples_tiny_2020-01-01T00-00-00.000000.jsonl")
    with pytest.raises(InputError, match="several evaluations of tiny; give the results_"):
        compare(copy, folders[1], filter_name="strict")
    file.write_text(file.read_text() * 2)
    with pytest.raises(InputError, match=r"220 documents twice: 0, 1, 2, 3, 4 and 215 more"):
        compare(file, folders[1], filter_name="strict")


def test_other_documents_under_the_same_ids_are_refused_always(folders, tmp_path) -> None:
    other = harness_folder(tmp_path / "c", PUBLISHED[1][:3], question="another question")
    with pytest.raises(InputError, match=r"other documents under the same ids of tiny: 3 of 3, 0, 1, 2"):
        compare(folders[0], other, filter_name="strict", allow=("documents",))


def test_few_shots_and_versions_are_refused_unless_allowed(folders, tmp_path) -> None:
    other = harness_folder(tmp_path / "c", PUBLISHED[1], few_shots=2, version=4)
    with pytest.raises(ConfigError, match="not measured in the same way") as refusal:
        compare(folders[0], other, filter_name="strict")
    lines = str(refusal.value).splitlines()
    assert "  version: 1 -> 4" in lines
    assert "  few-shots: 0 -> 2" in lines
    assert lines[-1].endswith("--allow version --allow few-shots")
    (against,) = compare(folders[0], other, filter_name="strict", allow=("version", "few-shots")).against
    kinds = [item.kind for item in against.differences]
    assert {"version", "few-shots", "prompts"} <= set(kinds)
    prompts = next(item.text for item in against.differences if item.kind == "prompts")
    assert prompts == "prompts: 220 of 220 documents were asked otherwise: 0, 1, 2, 3, 4 and 215 more"


def test_missing_documents_are_refused_unless_allowed(folders, tmp_path) -> None:
    copy = copy_of(folders[1], tmp_path)
    (file,) = copy.rglob("samples_*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if json.loads(line)["doc_id"] >= 3))
    with pytest.raises(ConfigError, match=r"documents: 3 only in A: 0, 1, 2"):
        compare(folders[0], copy, filter_name="strict")
    (against,) = compare(folders[0], copy, filter_name="strict", allow=("documents",)).against
    assert against.tasks[0].comparison.n == 217
    assert [item.kind for item in against.differences] == ["documents"]


def test_what_a_lone_file_does_not_tell_is_listed(folders, tmp_path) -> None:
    (file,) = folders[1].rglob("samples_*.jsonl")
    alone = shutil.copy(file, tmp_path / file.name)
    (against,) = compare(folders[0], alone, filter_name="strict").against
    assert "version: 1 -> (not told)" in [item.text for item in against.differences]


def test_older_files_without_hashes_are_paired_with_newer_ones(folders, tmp_path) -> None:
    copy = copy_of(folders[1], tmp_path)
    absent = {"doc_hash", "prompt_hash", "target_hash", "metrics"}
    rewrite(copy, lambda row: {key: value for key, value in row.items() if key not in absent})
    (against,) = compare(folders[0], copy, filter_name="strict").against
    assert (against.overall, against.differences) == (compare(*folders, filter_name="strict").against[0].overall, ())


def test_a_score_between_right_and_wrong_is_refused(folders, tmp_path) -> None:
    file = rewrite(copy_of(folders[1], tmp_path), lambda row: row | {"exact_match": 0.5})
    with pytest.raises(InputError, match=r"samples_.*, document 0: exact_match is 0.5, neither 0 nor 1"):
        compare(folders[0], file, filter_name="strict")


def test_averages_alone_are_refused(folders, tmp_path) -> None:
    summary = next(folders[0].rglob("results_*.json"))
    alone = shutil.copy(summary, tmp_path / summary.name)
    with pytest.raises(InputError, match=r"averages alone.*evaluate again with --log_samples"):
        compare(alone, folders[1])
