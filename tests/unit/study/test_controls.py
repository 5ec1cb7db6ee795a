"""Controls of a whole study: two more conditions on some of the problems, and traces that are continued."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study_samples import with_sections
from tiny_testbed import some_problems
from trimtab.errors import ConfigError
from trimtab.evaluation.rows import AGAIN, FIRST_TOKEN, UNSTEERED
from trimtab.evaluation.runner import other_batches
from trimtab.report import read_report
from trimtab.sampling import read_traces
from trimtab.store import Parts
from trimtab.study import Settings, Study, gather, recur, run_stage
from trimtab.tasks.contrast import ContrastRow, RecurrenceSettings
from trimtab.traces import Split

Small = Callable[..., Study]
BOTH = ("again", "first-token")


def test_batches_of_half_as_many_rows() -> None:
    assert other_batches([10, 7, 10], 1000) == 10, "three rows fit into one batch: now one each"
    assert other_batches([10] * 50, 400) == 200
    assert other_batches([10] * 50, 15) == 20, "one row each: now two"
    assert other_batches([10], 1000) == 20


def test_two_more_conditions_on_some_of_the_problems(small: Small, batches: list[int]) -> None:
    study = small()
    steering = study.tune().steering
    before = study.evaluate(steering).outcomes
    batches.clear()
    evaluation = study.evaluate(steering, controls=BOTH, control_problems=5)
    assert batches
    assert evaluation.openings == 2, "answers to test problems were made"
    outcomes = evaluation.outcomes
    assert {name: outcomes[name] for name in before} == before, "the conditions that were there stay bit for bit"
    assert [len(outcomes[name]) for name in (AGAIN, FIRST_TOKEN)] == [5, 5]
    assert (evaluation.rows[AGAIN].n, evaluation.rows[FIRST_TOKEN].n) == (5, 5)
    order = [row.problem_id for row in outcomes[UNSTEERED]]
    assert [row.problem_id for row in outcomes[AGAIN]] == sorted({row.problem_id for row in outcomes[AGAIN]}, key=order.index)
    batches.clear()
    assert small(evaluation={"controls": BOTH, "control_problems": 5}).evaluate(steering).outcomes == outcomes
    assert batches == []
    more = study.evaluate(steering, controls=BOTH, control_problems=7).outcomes
    assert {row.problem_id for row in outcomes[AGAIN]} < {row.problem_id for row in more[AGAIN]}
    assert len(study.evaluate(steering, controls=BOTH, control_problems=0).outcomes[AGAIN]) == 8


def test_the_second_time_is_in_other_batches(small: Small) -> None:
    study = small(evaluation={"controls": ["again"]})
    evaluation = study.evaluate(study.tune().steering)
    plans = {
        folder.name: Parts(folder).plan
        for folder in (study.cache.root / "answers").iterdir()
        if {i.rpartition("/")[0] for part in Parts(folder).plan.parts for i in part}
        == {problem.id for problem in study.problems().split(Split.TEST)}
    }
    bare = [plan for plan in plans.values() if plan.settings["steering"] is None]
    assert len(bare) == 2
    one, other = (sorted(map(len, plan.parts), reverse=True) for plan in bare)
    assert one != other
    controls = evaluation.controls
    assert controls.noise is not None
    assert controls.noise.responses == 8
    assert controls.first_token is None
    with pytest.raises(ConfigError, match=r"evaluation\.batch_tokens 2500 is sampling\.batch_tokens"):
        study.evaluate(evaluation.steering, controls=["again"], batch_tokens=2500)


def test_the_beginning_is_that_of_the_steering(small: Small) -> None:
    study = small(evaluation={"controls": ["first-token"], "first_tokens": 2})
    evaluation = study.evaluate(study.tune().steering)
    found = evaluation.controls.first_token
    assert found is not None
    assert found.tokens == 3, "the scope generated leaves the first token alone"
    rows = zip(*(evaluation.outcomes[name] for name in (UNSTEERED, "always", FIRST_TOKEN)), strict=True)
    beginnings = [[row.response.split()[:3] for row in three] for three in rows]
    assert all(one == forced for _, one, forced in beginnings)
    assert any(bare != forced for bare, _, forced in beginnings)
    shown = evaluation.show(evaluation.outcomes[FIRST_TOKEN][0].problem_id, FIRST_TOKEN)
    assert FIRST_TOKEN in shown


def test_the_report_holds_every_control(finished: Path, settings: Settings, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    changed = with_sections(settings, contrast={"recurrence": {"traces": 8, "times": 2}}, evaluation={"control_problems": 25})
    with Study(settings=changed, path=folder) as study:
        page = study.report()
    controls = read_report(page.with_suffix(".json")).controls
    assert controls is not None
    assert controls.extraction.rows[0].condition == UNSTEERED
    assert None not in (controls.noise, controls.first_token, controls.gate, controls.recurrence)
    text = page.read_text()
    assert "Unsteered again (A/A) (25 problems)" in text
    assert "Not run" not in text


@pytest.fixture
def continuing(small: Small) -> Study:
    return small(contrast={"recurrence": {"traces": 10, "times": 3, "share": 0.4}})


def test_classes_that_come_back_against_a_loop(continuing: Study) -> None:
    found = gather.recurrence(continuing)
    assert found is not None
    rows, _, _ = gather.contrast(continuing)
    (folder,) = (continuing.cache.root / "recur").iterdir()
    traces = {trace.id: trace for trace in continuing.traces().traces}
    classes = {row.trace_id: row.correct for row in rows}
    right: dict[str, list[bool]] = {}
    for one in read_traces(folder):
        origin = traces[one.problem_id]
        start = origin.response_ids[: max(1, min(int(0.4 * len(origin.response_ids)), len(origin.response_ids) - 1))]
        ids = (start + one.response_ids)[:12]
        text = continuing.model.tokenizer.decode(list(ids), skip_special_tokens=True)
        cut = len(start + one.response_ids) > 12 or one.truncated
        problem = next(p for p in continuing.problems() if p.id == origin.problem_id)
        score = continuing.grader.judge([(problem, text)])[0].score == "correct"
        right.setdefault(origin.id, []).append(score and not cut)
    assert len(right) == found.traces
    assert all(len(each) == 3 for each in right.values())
    correct = [np.mean(each) for name, each in right.items() if classes[name]]
    incorrect = [1 - np.mean(each) for name, each in right.items() if not classes[name]]
    assert len(correct) == len(incorrect), "as many of each class"
    assert found.correct is not None
    assert found.incorrect is not None
    assert found.difference is not None
    assert found.correct.value == pytest.approx(np.mean(correct))
    assert found.incorrect.value == pytest.approx(np.mean(incorrect))
    assert found.difference.value == pytest.approx(np.mean(correct) - (1 - np.mean(incorrect)))
    assert continuing.openings() == 0, "only train problems are read"


def test_what_does_not_come_back_is_left_out(continuing: Study, small: Small) -> None:
    whole = gather.contrast(continuing)
    keep = {"traces": 10, "times": 3, "share": 0.4, "keep": 0.34}
    study = small(contrast={"recurrence": keep})
    rows, counts, entry = gather.contrast(study)
    assert entry.name != whole[2].name
    continued, _ = recur.continued(study, whole[0], study.traces(), whole[2])
    stays = {row.trace_id for row in continued if row.again >= 0.34 * row.scored}
    assert {row.trace_id for row in rows} <= stays
    assert counts["recurrence_left_out"] == len(whole[0]) - len(stays)
    found = gather.recurrence(study)
    assert found is not None
    assert (found.keep, found.left_out) == (0.34, len(continued) - len(stays))
    summary = run_stage(study, "contrast")
    assert "right after a right beginning" in summary


def test_no_key_moves_where_nothing_is_continued(small: Small, continuing: Study) -> None:
    plain = small()
    assert gather.contrast(plain)[2].key == gather.contrast(continuing)[2].key
    assert gather.recurrence(plain) is None
    facts = json.loads((plain.cache.root / gather.contrast(plain)[2].name / "key.json").read_text())["facts"]
    assert "recurrence" not in facts["settings"]


def test_pairs_of_every_problem_come_first() -> None:
    rows = [ContrastRow(f"{problem.id}/{i}", problem.id, i % 2 == 0) for problem in some_problems(6) for i in range(4)]
    chosen = recur.chosen(rows, RecurrenceSettings(traces=9))
    assert len(chosen) == 8
    assert sum(row.correct for row in chosen) == 4
    assert len({row.problem_id for row in chosen}) == 4
    every = recur.chosen(rows, RecurrenceSettings(traces=100))
    assert sorted(row.trace_id for row in every) == sorted(row.trace_id for row in rows)
    lone = [*rows, ContrastRow("alone/0", "alone", True)]
    assert "alone/0" not in {row.trace_id for row in recur.chosen(lone, RecurrenceSettings(traces=100))}


def test_a_filter_needs_traces(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"set contrast\.recurrence\.traces"):
        small(contrast={"recurrence": {"keep": 0.5}})
