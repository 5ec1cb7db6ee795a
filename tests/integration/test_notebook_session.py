"""The session that a researcher types into a notebook, on the bundled reasoner with small numbers, and its cells run again."""

from pathlib import Path

import pandas
import pytest

import trimtab as tt
from trimtab.errors import ConfigError
from trimtab.store import openings

SMALL = {"n": 4, "temperature": 1.0, "max_new_tokens": 104}
GRID = {"criteria": ["mean-difference"], "interventions": ["ablate-and-add"], "k": [10, 20], "strengths": [2.0], "problems": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("session") / "study")


@pytest.fixture(scope="module")
def study(folder: str) -> tt.Study:
    return tt.Study("testbed:reasoner", task="testbed", train=36, validation=16, test=12, path=folder)


def test_the_session(study: tt.Study, tmp_path: Path) -> None:
    traces = study.sample(**SMALL)
    assert repr(traces).startswith("144 traces of 36 problems, ")
    assert traces.mixed > 5
    neurons = study.rank("mean-difference", k=50)
    gate = study.fit_gate(features=64)
    steering = neurons.steering("ablate-and-add", strength=4.0, gate=gate)
    assert (len(steering), steering.strength) == (50, 4.0)
    best = study.tune(**GRID)
    assert len(best.to_pandas()) == 2
    greedy = study.traces("validation", greedy=True)
    wrong = greedy.to_pandas().query("score == 'incorrect'").iloc[0]
    question = greedy.problems[wrong.problem_id].question
    bare = study.generate(question)
    assert bare == wrong.text
    with steering.with_gate(tt.ALWAYS).attach(study.model):
        assert study.generate(question) != bare
    assert study.generate(question) == bare

    result = study.evaluate(best.steering, controls=["random", "negative"], baselines=["majority"], votes=3)
    frame = result.to_pandas().set_index("condition")
    assert {"unsteered", "always", "gated", "negative", "random", "majority"} <= set(frame.index)
    assert set(frame["n"]) == {12}
    assert "opened once" in repr(result)
    assert result.verdict.sentence in repr(result)
    flips = result.flips()
    assert isinstance(flips, pandas.DataFrame)
    assert len(flips) == frame.loc[result.condition, "fixed"] + frame.loc[result.condition, "broken"]
    assert result.plot().data
    page = Path(str(study.report(str(tmp_path / "report.html"))))
    assert page.read_text().startswith("<!doctype html>") or "<html" in page.read_text()[:200]
    assert Path(steering.save_pretrained(str(tmp_path / "steering"))).is_dir()
    assert tt.Steering.from_pretrained(str(tmp_path / "steering")).digest == steering.digest


def test_a_cell_that_is_run_again_is_a_read_also_in_another_process(study: tt.Study, folder: str) -> None:
    before = _results(folder)
    first = study.sample(**SMALL)
    again = tt.Study("testbed:reasoner", task="testbed", train=36, validation=16, test=12, path=folder)
    assert again.sample(**SMALL).to_pandas().equals(first.to_pandas())
    again.fit_gate(features=64)
    best = again.tune(**GRID)
    result = again.evaluate(best.steering, controls=["random", "negative"], baselines=["majority"], votes=3)
    assert _results(folder) == before
    assert (result.openings, openings(study.cache.ledger)) == (1, 1)


def test_a_changed_setting_computes_what_depends_on_it_and_the_old_result_stays(study: tt.Study, folder: str) -> None:
    before = _results(folder)
    twenty = study.rank("paired-t", k=50)
    assert {name.split("/")[0] for name in _results(folder) - before} == {"rank"}
    assert study.rank("paired-t", k=50).layer.tolist() == twenty.layer.tolist()
    assert study.rank("mean-difference", k=50).criterion == "mean-difference"
    assert len(_results(folder) - before) == 1


def test_a_misspelt_setting_names_the_right_one(study: tt.Study) -> None:
    with pytest.raises(ConfigError, match="temprature: unknown; did you mean temperature"):
        study.sample(temprature=0.7)


def _results(folder: str) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in Path(folder).glob("*/*/key.json")}
