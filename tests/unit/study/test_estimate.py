"""What ``--dry-run`` counts, by hand; that it bounds a whole run is tested beside the run."""

import json
from pathlib import Path

import pytest

from study_samples import with_sections
from trimtab.study import Settings
from trimtab.study import estimate as module
from trimtab.study.estimate import estimate
from trimtab.tasks import Prompt


@pytest.mark.parametrize(
    ("interventions", "evaluation", "tune", "evaluated"),
    [
        # 20 problems x (2 criteria x interventions x 2 k x 2 strengths + unsteered) x 12 tokens; 40 x 17 x responses x 12,
        # two of the 17 on fewer problems where the settings say so
        (("add",), {}, 20 * 9 * 12, 40 * 17 * 12),
        (("add", "scale"), {"control_problems": 25}, 20 * 17 * 12, (40 * 15 + 25 * 2) * 12),
        (("add",), {"control_problems": 50, "controls": ["again", "random"]}, 20 * 9 * 12, 40 * 16 * 12),
        (("add",), {"n": 2, "seeds": (0, 1, 2), "temperature": 1.0}, 20 * 9 * 12, 40 * 17 * 6 * 12),
    ],
)
def test_every_choice_of_the_grid_and_every_response_counts(
    settings: Settings, interventions: tuple[str, ...], evaluation: dict[str, object], tune: int, evaluated: int
) -> None:
    cost = estimate(with_sections(settings, tune={"interventions": interventions}, evaluation=evaluation), "report")
    assert (cost.tokens["tune"], cost.tokens["evaluate"]) == (tune, evaluated)


def test_continued_traces_count(settings: Settings) -> None:
    assert "contrast" not in estimate(settings, "report").tokens
    continued = with_sections(settings, contrast={"recurrence": {"traces": 9, "times": 5}})
    assert estimate(continued, "report").tokens["contrast"] == 9 * 5 * 12


def test_the_first_batch_is_asked_as_the_run_asks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base model has no chat template, and solved examples are most of a prompt."""
    asked: list[Prompt] = []
    plan = module.plan_requests
    monkeypatch.setattr(module, "plan_requests", lambda *given: (asked.append(given[3]), plan(*given))[1])
    plain = with_sections(settings, prompt={"style": "plain", "template": "1 + 1 = 2\n{question} ="})
    estimate(plain, "report")
    assert asked == [plain.prompt]


def test_imported_traces_have_no_speed_rather_than_a_wrong_one(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text('{"question": "q"}\n' * 3)
    cost = estimate(with_sections(settings, traces={"path": str(path)}), "rank")
    assert (cost.tokens, cost.tokens_per_second, cost.seconds) == ({}, None, None)
    assert "time is not estimated" in str(cost)
    assert "0 s" not in str(cost)
    json.dumps(cost.to_json(), allow_nan=False)
