"""Outcomes to JSON and back, exactly, and readable without trimtab."""

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trimtab.errors import InputError, StoreError
from trimtab.evaluation.outcomes import Outcome, read_outcomes_json, write_outcomes_json
from trimtab.traces import Score

ONE = Outcome(
    condition="gated",
    problem_id="test-7",
    domain="tea",
    difficulty=3,
    score=Score.INCORRECT,
    reason='truncated, "said" the grader',
    answer="",
    response="line one\nzwei \\ drei € 𝄞 \u2028",
    tokens=96,
    truncated=True,
    p_fail=0.1 + 0.2,
    fired=False,
)
FACTS: dict[str, object] = {"task": "testbed", "sampling": {"temperature": 0.0, "seeds": [1, 2]}, "note": None}

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_floats = st.floats(allow_nan=False, allow_infinity=False)


def _values(name: str) -> SearchStrategy[object]:
    annotation = Outcome.__annotations__[name]
    known: dict[object, SearchStrategy[object]] = {
        str: _texts,
        int: st.integers(-(2**70), 2**70),
        bool: st.booleans(),
        float: _floats,
        Score: st.sampled_from(Score),
        bool | None: st.none() | st.booleans(),
        float | None: st.none() | _floats,
    }
    return known[annotation]


_outcomes = st.builds(Outcome, **{field.name: _values(field.name) for field in fields(Outcome)})


@given(st.lists(_outcomes, max_size=3))
def test_the_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome]) -> None:
    path = tmp_path_factory.mktemp("x") / "outcomes.json"
    write_outcomes_json(outcomes, path, FACTS)
    back, facts = read_outcomes_json(path)
    assert (back, facts) == (outcomes, FACTS)
    assert [type(outcome.score) for outcome in back] == [Score] * len(back)


def test_others_read_it_with_their_own_json(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.json"
    write_outcomes_json([ONE, replace(ONE, condition="always", score=Score.CORRECT)], path, FACTS)
    data = json.loads(path.read_bytes())
    assert (data["format"], data["facts"]) == ("trimtab-outcomes/1", FACTS)
    assert [row["condition"] for row in data["outcomes"]] == ["gated", "always"]
    assert [row["score"] for row in data["outcomes"]] == ["incorrect", "correct"]
    assert set(data["outcomes"][0]) == {field.name for field in fields(Outcome)}
    assert data["outcomes"][0]["p_fail"] == 0.30000000000000004
    assert data["outcomes"][0]["steps_right"] is None


def test_a_file_from_before_a_field_was_added_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.json"
    write_outcomes_json([ONE], path, {})
    data = json.loads(path.read_text())
    for field in fields(Outcome):
        if field.default is not MISSING:
            del data["outcomes"][0][field.name]
    path.write_text(json.dumps(data))
    [back], _ = read_outcomes_json(path)
    assert back == replace(ONE, **{field.name: field.default for field in fields(Outcome) if field.default is not MISSING})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "right"}, "outcomes.0.score: Input should be 'correct', 'incorrect' or 'unscored'"),
        ({"tokens": "96"}, "outcomes.0.tokens: Input should be a valid integer"),
        ({"truncated": 1}, "outcomes.0.truncated: Input should be a valid boolean"),
        ({"p_fail": float("nan")}, "outcomes.0.p_fail: Input should be a finite number"),
        ({"colour": "red"}, "outcomes.0.colour: Unexpected keyword argument"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "outcomes.json"
    write_outcomes_json([ONE], path, {})
    data = json.loads(path.read_text())
    data["outcomes"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError) as error:
        read_outcomes_json(path)
    assert f": {message}" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "trimtab-outcomes/2", "facts": {}, "outcomes": []}', '{"outcomes": ['])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "outcomes.json"
    path.write_text(text)
    with pytest.raises(StoreError, match="does not hold outcomes in the format 'trimtab-outcomes/1'"):
        read_outcomes_json(path)
    with pytest.raises(StoreError, match="is missing"):
        read_outcomes_json(tmp_path / "none.json")


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.json"
    write_outcomes_json([ONE], path, {})
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"outcomes\[0\]\.p_fail is nan"):
        write_outcomes_json([replace(ONE, p_fail=float("nan"))], path, {})
    with pytest.raises(InputError, match="facts"):
        write_outcomes_json([ONE], path, {"seen": {1, 2}})
    assert path.read_bytes() == before
