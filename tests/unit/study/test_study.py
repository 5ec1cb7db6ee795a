"""A study in a notebook: what it is made of, and that the same call is a read and another setting another key."""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import pytest
from click.testing import CliRunner

from study_samples import results
from tiny_testbed import open_tiny_testbed, some_problems
from trimtab.cli.main import trimtab
from trimtab.dose import Dose
from trimtab.errors import ConfigError, InputError
from trimtab.sampling import SamplingSettings
from trimtab.sampling import generator as generating
from trimtab.store import Cache, any_path
from trimtab.study import Study, gather
from trimtab.traces import Split

Small = Callable[..., Study]
# the questions of the testbed's splits all hash to one split; other questions do not
ROWS = [{"question": f"{problem.question} ?", "answer": str(i % 3)} for i, problem in enumerate(some_problems(24, seed=2))]
SECTIONS: dict[str, object] = {
    "sampling": {"n": 2, "temperature": 1.0, "max_new_tokens": 8, "batch_tokens": 2500},
    "gate": {"kind": "always"},
    "tune": {"k": (2,), "strengths": (50.0,), "problems": 6},
    "ranking": {"k": 4},
}


def test_the_same_call_is_a_read(small: Small, batches: list[int]) -> None:
    first = small()
    traces = first.sample()
    assert sum(batches) == 48
    batches.clear()
    again = small()
    assert [trace.response_ids for trace in again.sample()] == [trace.response_ids for trace in traces]
    assert again.rank().index.tolist() == first.rank().index.tolist()
    assert batches == []


def test_another_setting_is_another_key_and_the_old_result_stays(small: Small, batches: list[int]) -> None:
    study = small()
    old = study.sample()
    kept = results(study.cache.root)
    batches.clear()
    new = study.sample(temperature=0.7)
    assert new.key != old.key
    assert sum(batches) == 48
    batches.clear()
    assert [t.text for t in study.sample(temperature=1.0)] == [t.text for t in old]
    assert batches == []
    assert results(study.cache.root).items() >= kept.items()


def test_a_changed_setting_reaches_the_verbs_after_it(small: Small, batches: list[int]) -> None:
    study = small()
    first = study.rank(k=3)
    assert len(study.sample(n=2)) == 24
    batches.clear()
    second = study.rank()
    assert batches == []
    assert len(second) == 3
    assert first.correct_mean.tolist() != second.correct_mean.tolist()


def test_what_does_not_decide_a_result_does_not_change_its_key(small: Small) -> None:
    study = small()
    before = study.sample().key
    study.rank(k=3)
    assert study.sample().key == before


def test_a_call_that_was_interrupted_is_gone_on_with(small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole, cut = small(tmp_path / "whole"), small(tmp_path / "cut")
    settings = {"batch_tokens": 300}
    whole.sample(**settings)
    original, left = generating.generate_batch, [3]

    def interrupted(*args: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(generating, "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.sample(**settings)
    left[0] = 10_000
    assert len(list((tmp_path / "cut" / "sample").glob("*/part-*"))) == 3
    cut.sample(**settings)
    needed = len(list((tmp_path / "whole" / "sample").glob("*/part-*")))
    assert 10_000 - left[0] == needed - 3
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_repeat_computes_anew_under_other_keys(small: Small, batches: list[int]) -> None:
    first, second = small(), small(repeat=1)
    a = first.sample()
    batches.clear()
    b = second.sample()
    assert sum(batches) == 48
    assert a.key != b.key
    assert [t.text for t in a] == [t.text for t in b], "the seed is the same"


def test_from_toml_and_to_toml_are_inverse(small: Small, tmp_path: Path) -> None:
    study = small()
    study.rank(k=7)
    text = study.to_toml()
    assert tomllib.loads(text)["keys"]["rank-adaras"] == study.keys["rank-adaras"]
    (tmp_path / "mine.toml").write_text(text)
    again = Study.from_toml(tmp_path / "mine.toml", path=study.path)
    assert again.settings == study.settings
    assert len(again.rank()) == 7
    assert {name: again.keys[name] for name in ("sample", "rank-adaras")} == {
        name: study.keys[name] for name in ("sample", "rank-adaras")
    }


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda study: study.sample(temprature=1.0), r"temprature: unknown; did you mean temperature\?"),
        (lambda study: study.sample(n=0), r"n: Input should be greater than or equal to 1 \(got 0\)"),
        (lambda study: study.rank("adras"), r"ranking\.criteria names \['adras'\]; accepted: adaras"),
        (lambda study: study.rank(kk=3), "kk: unknown; did you mean k"),
        (lambda study: study.tune(strength=[1.0]), r"strength: unknown; did you mean strengths\?"),
        (lambda study: study.fit_gate(kind="forest"), r"kind: .*'logistic', 'attention' or 'always' \(got 'forest'\)"),
        (lambda study: study.evaluate(random_set=7), r"random_set: unknown; did you mean random_sets\?"),
        (lambda study: study.experiment("ablation"), r"unknown experiment 'ablation'; accepted: ablate"),
    ],
)
def test_a_setting_that_is_not_accepted_is_named_and_nothing_runs(
    small: Small, call: Callable[[Study], object], named: str, batches: list[int]
) -> None:
    study = small()
    before = study.settings
    with pytest.raises(ConfigError, match=named):
        call(study)
    assert batches == []
    assert study.settings == before


def test_a_verb_shows_its_settings_as_keyword_arguments() -> None:
    shown = inspect.signature(Study.sample).parameters
    assert set(SamplingSettings.model_fields) <= set(shown)
    assert shown["temperature"].default == SamplingSettings().temperature
    assert inspect.Parameter.VAR_KEYWORD not in {parameter.kind for parameter in shown.values()}


def test_a_starved_contrast_says_so(small: Small) -> None:
    said: list[str] = []
    study = small()
    study.note = said.append
    study.sample(n=1)
    (sentence,) = said
    assert sentence.startswith("only 0 of 12 problems have both correct and incorrect traces; ")
    said.clear()
    study.sample(n=4)
    assert said == []


def test_what_starves_a_contrast_is_told_while_it_is_sampled(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "EARLY", 4)
    said: list[str] = []
    study = small()
    study.note = said.append
    study.sample(n=1, seed=77)
    first, last = said
    assert first.startswith("of the first ")
    assert "have both correct and incorrect traces" in first
    assert last.startswith("only 0 of 12 problems")


@pytest.mark.parametrize("kind", ["list", "dataset", "path"])
def test_problems_of_ones_own(kind: str, tiny_folder: Path, coin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import json

    if kind == "path":
        (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        task: object = f"local:{tmp_path / 'mine.jsonl'}"
    else:
        task = ROWS if kind == "list" else datasets.Dataset.from_list(ROWS)
    with Study(str(tiny_folder), task=task, path=str(tmp_path / "run"), settings=SECTIONS) as study:  # type: ignore[arg-type]
        problems = study.problems()
        assert len(problems) <= 24
        assert {problem.question for problem in problems} <= {row["question"] for row in ROWS}
        assert all(problems.split(split) for split in Split)
        assert {t.problem_id for t in study.sample()} == {p.id for p in problems.split(Split.TRAIN)}


def test_problems_in_memory_have_the_keys_of_their_content(tiny_folder: Path, tmp_path: Path) -> None:
    def keys(rows: list[dict[str, str]]) -> Mapping[Split, str]:
        return Study(str(tiny_folder), task=rows, path=tmp_path / "run", settings=SECTIONS).problems().digests

    assert keys(ROWS) == keys([dict(row) for row in ROWS])
    changed = [dict(row) for row in ROWS]
    changed[3]["question"] += " ?"
    assert keys(changed) != keys(ROWS)


@pytest.mark.parametrize(
    ("task", "message"), [([], "task is an empty list"), (["what?"], r"task\[0\] is a str; every problem is a mapping")]
)
def test_problems_that_are_none(task: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Study("testbed:reasoner", task=task, path=tmp_path / "run")  # type: ignore[arg-type]


def test_plain_text_is_accepted_for_a_path(tiny_folder: Path, tmp_path: Path) -> None:
    study = Study(str(tiny_folder), task="testbed", train=3, validation=2, test=2, path=str(tmp_path / "run"))
    assert study.path == tmp_path / "run"
    assert len(study.problems()) == 7
    assert str(any_path("memory://a/b")) == str(Study(str(tiny_folder), task="testbed", path="memory://a/b").path)


def test_without_a_path_the_cache_of_the_user_is_taken(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "mine"))
    study = Study(str(tiny_folder), task="testbed", train=3, validation=2, test=2)
    assert (study.path, len(study.problems())) == (None, 7)
    assert list((tmp_path / "mine" / "problems").iterdir())
    with pytest.raises(InputError, match=r"no path to leave its report in; name a file: study\.report\('report\.html'\)"):
        study.report()


def test_a_loaded_model_is_named_by_all_its_weights_as_they_are(
    coin: pytest.MonkeyPatch, tmp_path: Path, batches: list[int]
) -> None:
    loaded = open_tiny_testbed(tmp_path / "model")
    model = loaded.hf_model

    def study() -> Study:
        return Study(model, loaded.tokenizer, task=ROWS, path=tmp_path / "run", settings=SECTIONS)

    first = study().sample()
    batches.clear()
    assert study().sample().key == first.key
    assert batches == []
    weight = model.model.layers[1].mlp.down_proj.weight  # type: ignore[union-attr]
    weight.data[3, 5] += 4.0
    changed = study().sample()
    assert changed.key != first.key
    assert batches
    weight.data[3, 5] -= 4.0


def test_a_loaded_model_needs_its_tokenizer_and_only_it(tmp_path: Path) -> None:
    loaded = open_tiny_testbed(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"a loaded model needs its tokenizer"):
        Study(loaded.hf_model, task=ROWS, path=tmp_path / "run")
    with pytest.raises(ConfigError, match="is opened with its own: leave the tokenizer out"):
        Study(str(tmp_path / "model"), loaded.tokenizer, task=ROWS, path=tmp_path / "run")
    with pytest.raises(ConfigError, match="given in memory; open it again and pass it"):
        Study("memory", task=ROWS, path=tmp_path / "run")


def test_values_show_themselves(small: Small) -> None:
    study = small()
    traces = study.sample()
    assert repr(traces).startswith("48 traces of 12 problems, ")
    assert traces._repr_html_().startswith("<p>48 traces")
    assert len(traces.to_pandas()) == 48
    shown = traces.show(traces.traces[0].id, beside=traces.traces[1].id)
    assert traces.traces[1].text in shown
    with pytest.raises(InputError):
        traces.show("nobody")
    tuning = study.tune()
    frame = tuning.to_pandas()
    assert len(frame) == 2
    dose = Dose.of(tuning.steering.facts)
    assert dose is not None
    assert set(dose.layer) == set(tuning.steering.layer.tolist())
    assert tuning.dose(tuning.best) == dose.at(tuning.best.strength) > 0
    assert frame.dose.tolist() == [tuning.dose(point) for point in tuning.points]
    assert repr(tuning)
    evaluation = study.evaluate()
    assert "have been opened once with this model" in repr(evaluation)
    flips = evaluation.flips()
    assert set(flips["flip"]) <= {"fixed", "broken"}
    assert evaluation.rows["always"].fixed + evaluation.rows["always"].broken == len(flips)
    assert evaluation.show(next(iter(evaluation.problems))).count("gold:") == 2
    with pytest.raises(InputError, match="no condition 'nothing'"):
        evaluation.flips("nothing")


def test_prune_lists_and_deletes_only_what_no_study_refers_to(small: Small) -> None:
    study = small()
    kept = study.sample()
    cache = Cache(study.cache.root)
    orphan = cache.entry("sample", {"nobody": 1})
    with orphan.claim():
        (orphan.folder / "part-00000.parquet").write_bytes(b"x" * 10)
    assert {row.name for row in cache.rows() if not row.studies} == {orphan.name}
    listed = CliRunner().invoke(trimtab, ["cache", str(cache.root), "--prune"])
    assert listed.exit_code == 0, listed.output
    assert orphan.name in listed.output
    assert kept.key not in listed.output
    assert orphan.done
    done = CliRunner().invoke(trimtab, ["cache", str(cache.root), "--prune", "--yes"])
    assert done.exit_code == 0, done.output
    assert not orphan.folder.exists()
    assert (cache.root / kept.key / "key.json").exists()


def test_a_closed_study_opens_again(small: Small) -> None:
    study = small()
    with study:
        first = study.sample()
    assert study.sample().key == first.key
    assert study.generator.facts is not None
