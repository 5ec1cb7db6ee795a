"""Prompts that one condition has read are kept for the next for as long as an experiment runs, and no longer."""

import shutil
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from tiny_testbed import forwards
from trimtab.evaluation.runner import Condition, ConditionJob
from trimtab.execution import Job, LocalExecutor
from trimtab.experiments.search import Search
from trimtab.interventions import ablate
from trimtab.model import LanguageModel
from trimtab.progress import Progress
from trimtab.sampling import sample
from trimtab.sampling.prefills import ARRIVED, Prefills
from trimtab.steering import Steering
from trimtab.study import Study
from trimtab.study.answers import PROMPT_SETS, Asked, KeptPrompts, answers
from trimtab.tasks import Prompt
from trimtab.traces import Split


def _prompts_read(study: Study, search: Search, steering: Steering) -> int:
    with forwards(study.model) as shapes:
        search.answers(Split.VALIDATION, steering, problems=search.split(Split.VALIDATION)[:10])
    return sum(rows for rows, length in shapes if length > 8)


def _steerings(search: Search, n: int) -> list[Steering]:
    return [search.always(search.neurons("adaras", 3), strength, ablate) for strength in np.linspace(0.31, 0.37, n).tolist()]


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Study:
    """On a copy, since these tests ask for more answers, and others compare the folder."""
    return Study.from_toml(shutil.copytree(finished, tmp_path / "finished"))


@pytest.fixture
def search(study: Study) -> Search:
    return Search(study, study.tuned(), frozenset({Split.VALIDATION}), "sweep")


def test_an_experiment_reads_the_prompts_of_a_split_once(study: Study, search: Search) -> None:
    first, second, third = _steerings(search, 3)
    with study._verb("sweep"):
        assert _prompts_read(study, search, first) > 0
        assert _prompts_read(study, search, second) == 0
    assert study.kept_prompts is None
    assert _prompts_read(study, search, third) > 0, "weights may change between two calls of a user"


def test_a_chat_template_renders_the_problems_of_an_experiment_once(
    study: Study, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []
    render = sample.render_prompt

    def counted(tokenizer: PreTrainedTokenizerBase, question: str, prompt: Prompt) -> tuple[int, ...]:
        rendered.append(question)
        return render(tokenizer, question, prompt)

    monkeypatch.setattr(sample, "render_prompt", counted)
    first, second = _steerings(search, 5)[3:]
    with study._verb("sweep"):
        for steering in (first, second):
            search.answers(Split.VALIDATION, steering, problems=search.split(Split.VALIDATION)[:10])
    assert len(rendered) == len(set(rendered)) == 10


class Here(LocalExecutor):
    """Runs jobs in this process and remembers what each call was given."""

    def __init__(self) -> None:
        self.calls: list[list[ConditionJob]] = []

    def run(self, model: LanguageModel, jobs: Sequence[Job], progress: Progress) -> None:
        self.calls.append([job for job in jobs if isinstance(job, ConditionJob)])
        super().run(model, jobs, progress)


@pytest.mark.parametrize(("kind", "calls"), [("processes", [["bare"], ["steered"]]), ("ray", [["bare", "steered"]])])
def test_drafts_are_waited_for_where_a_second_call_starts_no_second_pool(
    small: Callable[..., Study], search: Search, kind: str, calls: list[list[str]]
) -> None:
    study, executor = small(executor={"kind": kind}), Here()
    study.__dict__["executor"] = executor
    problems, (steering,) = study.problems().split(Split.VALIDATION), _steerings(search, 1)
    greedy = study.settings.sampling.greedy()
    bare, steered = Asked(Condition("bare"), problems, greedy), Asked(Condition("steered", steering), problems, greedy)
    answers(study, [steered, bare])
    asked = [{job.label for job in jobs} for jobs in executor.calls]
    assert asked == [{f"answers: {name}" for name in names} for names in calls]
    answers(study, [steered._replace(condition=Condition("later", steering.with_strength(0.7)))])
    (later,) = executor.calls[-1]
    assert later.drafts == next(job.parts.folder for jobs in executor.calls for job in jobs if job.label.endswith("bare"))


def test_kept_prompts_arrive_empty_in_another_process_and_are_one_there_for_all_jobs() -> None:
    sent = [Prefills(400 + i) for i in range(ARRIVED + 1)]
    first, second, again = (ForkingPickler.loads(ForkingPickler.dumps(sent[i])) for i in (0, 1, 0))
    assert again is first
    assert first is not second
    assert (len(first), first._batch_tokens) == (0, 400)
    for other in sent[1:]:
        ForkingPickler.loads(ForkingPickler.dumps(other))
    assert ForkingPickler.loads(ForkingPickler.dumps(sent[0])) is not first, "the oldest has gone"


def test_two_sets_of_problems_are_kept_for_one_model(study: Study) -> None:
    kept, model = KeptPrompts(), study.model
    problems = study.problems().split(Split.VALIDATION)
    asked = [[Asked(Condition("bare"), problems[i : i + 3], study.settings.sampling.greedy())] for i in range(PROMPT_SETS + 1)]
    first = kept.of(model, asked[0], 100)
    assert kept.of(model, asked[0], 100) is first
    assert kept.of(model, asked[0], 200) is not first
    kept = KeptPrompts()
    sets = [kept.of(model, each, 100) for each in asked]
    assert kept.of(model, asked[-1], 100) is sets[-1]
    assert kept.of(model, asked[0], 100) is not sets[0], "the oldest has gone"
    other = study.model.of(study.model.hf_model, study.model.tokenizer)
    assert kept.of(other, asked[-1], 100) is not sets[-1]
    kept.forget()
    assert kept.of(other, asked[-1], 100) is not sets[-1]
    assert len(kept._sets) == 1
