"""What `trimtab verify-serving` accepts and names, on numbers; the live run is tests/vllm/test_verify_serving.py."""

import numpy as np
import pytest

from trimtab.export.serving import Cost, Line, Row, ServingProof, compare, course_line, effect_line, gate_line

TOLERANCE = 1e-3


def row(tokens: list[int], logprob: list[float], gap: list[float]) -> Row:
    return Row(np.array(tokens, np.int64), np.array(logprob), np.array(gap))


GIVEN = row([3, 4, 5], [-0.5, -0.25, -0.125], [1.0, 1.0, 1.0])


def test_equal_responses_pass_and_the_largest_difference_is_told() -> None:
    seen = GIVEN._replace(logprob=GIVEN.logprob + np.array([0.0, 5e-4, -2e-4]))
    line = compare("steered", "against the hooks", [GIVEN, seen], [GIVEN, GIVEN], TOLERANCE)
    assert line == Line(
        "steered",
        True,
        "against the hooks: 2 of 2 responses have the same tokens; log probabilities within 5.0e-04, accepted 0.001",
    )


@pytest.mark.parametrize("forced", [False, True])
def test_a_larger_difference_or_another_token_fails(forced: bool) -> None:
    louder = GIVEN._replace(logprob=GIVEN.logprob + np.array([0.0, 0.0, 2e-3]))
    assert not compare("x", "y", [louder], [GIVEN], TOLERANCE, forced).ok
    other = GIVEN._replace(tokens=np.array([3, 9, 5]))
    line = compare("x", "y", [GIVEN, other], [GIVEN, GIVEN], TOLERANCE, forced)
    assert not line.ok
    assert "1 of 2 responses have the same tokens" in line.text


def test_after_a_near_tie_responses_may_part_but_not_before_it() -> None:
    expected = GIVEN._replace(gap=np.array([1.0, 1e-3, 1.0]))
    parted = row([3, 9, 7], [-0.5, -9.0, -9.0], [1.0, 1e-3, 1.0])
    line = compare("x", "y", [parted], [expected], TOLERANCE)
    assert line.ok
    assert "1 from a near tie on" in line.text
    assert not compare("x", "y", [parted._replace(tokens=np.array([8, 9, 7]))], [expected], TOLERANCE).ok
    # each token of a forced response is chosen anew, so the third has no excuse, nor have the log probabilities
    assert not compare("x", "y", [parted], [expected], TOLERANCE, forced=True).ok


def test_the_effect_is_relative_to_the_hooks() -> None:
    hooks = [np.array([3.0, 4.0])]
    assert effect_line([np.array([3.0, 4.004])], hooks, TOLERANCE).ok  # 0.004 of 5
    assert not effect_line([np.array([3.0, 4.006])], hooks, TOLERANCE).ok
    silent = effect_line([np.zeros(2)], hooks, TOLERANCE)
    assert (silent.ok, silent.text) == (False, "it changes no log probability in vLLM")
    assert "under the hooks" in effect_line([np.ones(2)], [np.zeros(2)], TOLERANCE).text


@pytest.mark.parametrize(
    ("seen", "fired", "ok"),
    [
        ([0.2, 0.9], [False, True], True),
        ([0.2, 0.9], [True, True], False),
        ([0.2, 0.91], [False, True], False),
        ([0.2, None], [False, True], False),
    ],
)
def test_the_gate_is_compared_by_probability_and_by_decision(seen: list[float | None], fired: list[bool], ok: bool) -> None:
    assert gate_line("logistic", seen, fired, [0.2, 0.9], 0.5, TOLERANCE).ok is ok


def test_a_decision_within_rounding_of_the_threshold_is_nobodys_fault() -> None:
    assert gate_line("logistic", [0.4999], [False], [0.5001], 0.5, TOLERANCE).ok


COURSE = np.array([[0.2, 0.0], [0.6, 0.0], [0.7, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("changed", "ok"),
    [({}, True), ({(0, 0): 0.21}, False), ({(2, 1): 0.0}, False), ({(2, 0): 0.7005}, True)],
)
def test_a_course_has_the_p_fail_and_the_decisions_of_the_hooks(changed: dict[tuple[int, int], float], ok: bool) -> None:
    seen = np.concatenate([COURSE, [[0.9, 1.0]]]).astype(np.float32)  # the engine has read the end token, too
    for place, value in changed.items():
        seen[place] = value
    line = course_line("running", [seen], [COURSE], (0.5, 0.0), TOLERANCE)
    assert line.ok is ok
    assert "after 3 tokens of 1 responses" in line.text
    assert not course_line("running", [None], [COURSE], (0.5, 0.0), TOLERANCE).ok


def test_after_a_token_near_a_threshold_a_course_may_part() -> None:
    seen = COURSE.copy()
    seen[2] = 0.1, 0.0
    assert course_line("running", [seen], [COURSE], (0.6, 0.0), TOLERANCE).ok


def test_the_block_ends_with_the_names_of_what_failed() -> None:
    lines = (Line("graph", True, "compiled"), Line("gate", False, "far off"), Line("steered", False, "other tokens"))
    proof = ServingProof({"vllm": "0.32.0"}, lines, (Cost(32, "idle", 0.98, 0.99, 1.0),))
    assert proof.failed == ("gate", "steered")
    assert proof.text().splitlines() == [
        "vllm          0.32.0",
        "ok            graph: compiled",
        "FAILED        gate: far off",
        "FAILED        steered: other tokens",
        "decode        batch 32, idle: 0.990 of the throughput without the plugin (0.980 to 1.000), 7 pairs",
        "result        FAILED: gate, steered",
    ]
    assert ServingProof({}, lines[:1], ()).text().splitlines()[-1] == "result        ok"
