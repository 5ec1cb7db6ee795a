"""Outcomes as JSON that others read, exactly."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome, write_outcomes_json
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
def test_every_value_comes_back(tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome]) -> None:
    path = tmp_path_factory.mktemp("x") / "outcomes.json"
    write_outcomes_json(outcomes, path, FACTS)
    data = json.loads(path.read_bytes())
    assert data["facts"] == FACTS
    assert [Outcome(**{**row, "score": Score(row["score"])}) for row in data["outcomes"]] == outcomes


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


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.json"
    write_outcomes_json([ONE], path, {})
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"outcomes\[0\]\.p_fail is nan"):
        write_outcomes_json([replace(ONE, p_fail=float("nan"))], path, {})
    with pytest.raises(InputError, match="facts"):
        write_outcomes_json([ONE], path, {"seen": {1, 2}})
    assert path.read_bytes() == before
