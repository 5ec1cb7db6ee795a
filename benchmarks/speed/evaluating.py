"""(l) Conditions as ``evaluate`` answers them (drafts, kept prefills, shared beginnings) beside the plain way: no such thing.

Both write the same files and grade the same responses, and the benchmark stops where they answer differently.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import numpy as np

from benchmarks.speed.decoding import spread_steering
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import Spent, in_turn, timed
from benchmarks.speed.workers import ROOT
from examples.real_problems import problems as real_problems
from trimtab.evaluation.rows import ALWAYS, GATED, RANDOM, RUNNING, UNSTEERED
from trimtab.evaluation.runner import Condition, condition_job, read_response_ids
from trimtab.execution import LOCAL
from trimtab.gate import Gate
from trimtab.model import LanguageModel, open_model
from trimtab.progress import silent
from trimtab.ranking import random_like
from trimtab.sampling import TRANSFORMERS, Generation, Generator, SamplingSettings, plan_requests, prefills
from trimtab.sampling.agreement import partings
from trimtab.study import DEMO, Settings, Study, judge, load_settings
from trimtab.study.answers import Asked
from trimtab.tasks import CHAT, ExactGrader, Grader, Prompt
from trimtab.traces import Problem, Split

EXACT = ExactGrader()
NEURONS, GATE_FEATURES, RANDOM_SETS = 50, 64, 3
DEPARTS = 2e4
"""Strength at which a steering whose shifts are 1e-4 changes nearly every response; at 1 it changes next to none."""
SOLVED = (
    "Sam has 12 bags of 7 apples and eats 4 of them. 12 * 7 = 84, and 84 - 4 = 80. Answer: 80\n"
    "A train runs 23 km an hour for 4 hours. 23 * 4 = 92. It has 100 km to go, 100 - 92 = 8. Answer: 8\n"
    "Nine boxes hold 6 pens each, and 3 pens lie beside them. 9 * 6 = 54, and 54 + 3 = 57. Answer: 57\n"
)
FEW_SHOT = Prompt(style="plain", template=SOLVED + "{question}")
Responses = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Token ids by condition and trace."""


@dataclass(frozen=True, slots=True)
class Work:
    """Conditions on problems of one model.

    Args:
        model: that answers.
        asked: conditions with their problems, the bare model first.
        prompt: how a question is put.
        grader: of the responses.
        exact: whether one response that differs stops the benchmark; otherwise those that part at a near tie are counted.
    """

    model: LanguageModel
    asked: Sequence[Asked]
    prompt: Prompt = CHAT
    grader: Grader = EXACT
    exact: bool = True


def measure(endless: LanguageModel, real_model: Path | None, sizes: Sizes, workshop: Path) -> dict[str, dict[str, object] | None]:
    """Seconds of the plain way over ours, by what is evaluated; None for a real model that was not given."""
    with Study("testbed:reasoner", settings=demo_settings(sizes), path=workshop / "demo") as study:
        demo = compared(demo_work(study), sizes.pairs)
    return {
        "whole demo": demo,
        "12 x 768": compared(random_work(endless, sizes.evaluated, sizes.new_tokens), sizes.pairs),
        "few-shot prompts": compared(few_shot_work(endless, sizes), sizes.pairs),
        "real model": None if real_model is None else compared(real_work(real_model, sizes), sizes.pairs),
    }


def demo_settings(sizes: Sizes) -> Settings:
    """The demo's own, with as many problems as are asked for."""
    train, validation, test = sizes.demo
    task = DEMO.task.model_copy(update={"train": train, "validation": validation, "test": test})
    tune = DEMO.tune.model_copy(update={"strengths": sizes.demo_strengths})
    return DEMO.model_copy(update={"task": task, "tune": tune})


def demo_work(study: Study, n: int | None = None) -> Work:
    """What the demo's ``evaluate`` answers, controls and running gates included; its steering is found and tuned first.

    Of the test problems all, or the first ``n``.
    """
    tuning, problems = study.tune(), study.problems().split(Split.TEST)[:n]
    conditions = judge._conditions(study, tuning.steering, tuning)
    running = next(condition for condition in conditions if condition.name == RUNNING)
    study.answers(running, problems)  # its random control opens where it has opened
    conditions.append(judge._at_random(study, running, problems))
    (sampling,) = judge.response_settings(study)
    asked = [judge._asked(study, condition, problems, sampling) for condition in conditions]
    return Work(study.model, asked, study.settings.prompt, study.grader)


def random_work(model: LanguageModel, problems: int, tokens: int, conditions: int = 2 + RANDOM_SETS) -> Work:
    """Arithmetic on a model that knows none: one condition departs from the bare model, the others hardly do."""
    steering = spread_steering(model, NEURONS)
    asked = [Condition(UNSTEERED), Condition(ALWAYS, steering.with_strength(DEPARTS))]
    asked += [Condition(f"{RANDOM}-{i}", random_like(steering, i)) for i in range(conditions - len(asked))]
    sampling = SamplingSettings(n=1, temperature=0.0, max_new_tokens=tokens)
    return Work(model, [Asked(condition, sums(problems), sampling) for condition in asked[:conditions]])


def few_shot_work(model: LanguageModel, sizes: Sizes) -> Work:
    """Three solved examples before each question; the gate reads every prompt, so kept prefills do not serve it."""
    steering = spread_steering(model, NEURONS)
    asked = [Condition(UNSTEERED), Condition(ALWAYS, steering), Condition(GATED, steering.with_gate(open_gate(model)), "auto")]
    sampling = SamplingSettings(n=1, temperature=0.0, max_new_tokens=sizes.few_shot_tokens)
    problems = sums(sizes.evaluated)
    return Work(model, [Asked(condition, problems, sampling) for condition in asked], FEW_SHOT, exact=False)


def real_work(path: Path, sizes: Sizes) -> Work:
    """The sums of ``make demo-real`` behind their solved examples."""
    settings = load_settings(ROOT / "examples" / "real.toml")
    model = open_model(path, dtype="float32")
    rows = [row for row in real_problems() if row["split"] == "validation"][: sizes.real_problems]
    problems = [Problem(str(row["id"]), str(row["question"]), str(row["answer"]), Split.VALIDATION) for row in rows]
    work = random_work(model, 0, 1)
    asked = [each._replace(problems=problems, sampling=settings.sampling.greedy()) for each in work.asked]
    return Work(model, asked, settings.prompt, exact=False)


def sums(n: int) -> list[Problem]:
    """Problems of one form and length, so that a batch has little padding."""
    return [Problem(f"p{i}", f"What is {100 + i} + {200 + 7 * i}?", str(300 + 8 * i), Split.VALIDATION) for i in range(n)]


def open_gate(model: LanguageModel) -> Gate:
    """Reads neurons of all layers after every prompt, and opens on all of them."""
    read = np.linspace(0, model.n_layers * model.d_ff - 1, GATE_FEATURES).astype(np.int64)
    weight = np.full(len(read), 1e-6, np.float32)
    return Gate("logistic", "hard", read // model.d_ff, read % model.d_ff, weight, bias=5.0, threshold=0.5)


def compared(work: Work, pairs: int) -> dict[str, object]:
    """Both ways once for their responses, then in turn for their seconds.

    Raises:
        ClickException: they answer differently, see :class:`Work`.
    """
    plain, ours = responses(work, plainly=True), responses(work, plainly=False)
    ties = near_ties(work, plain, ours)
    bare = ours[UNSTEERED]
    steered = [
        (bare.get(name), ids) for each in work.asked if each.condition.steering for name, ids in ours[each.condition.name].items()
    ]
    first = work.asked[0]
    requests, _ = plan_requests(work.model, first.problems, first.sampling, work.prompt)
    measured = in_turn(lambda: spent(work, plainly=True), lambda: spent(work, plainly=False), pairs, warm_up=False)
    return {
        "what": "seconds of the plain way over those with drafts, kept prefills and shared beginnings",
        "conditions": len(work.asked),
        "responses": sum(map(len, ours.values())),
        "shared_tokens": prefills.shared_tokens(work.model, list(requests.values()), first.sampling.max_new_tokens),
        "unchanged_responses": round(sum(one == other for one, other in steered) / len(steered), 3),
        "near_ties": ties,
        **measured.to_json(),
    }


def responses(work: Work, *, plainly: bool) -> Responses:
    """What was answered under every condition."""
    with tempfile.TemporaryDirectory() as folder:
        evaluate(work, Path(folder), plainly=plainly)
        found = {each.condition.name: read_response_ids(Path(folder, each.condition.name)) for each in work.asked}
    return {name: ids for name, ids in found.items() if ids is not None}


def spent(work: Work, *, plainly: bool) -> Spent:
    """What evaluating all conditions takes, grades and files included."""
    with tempfile.TemporaryDirectory() as folder:
        return timed(lambda: evaluate(work, Path(folder), plainly=plainly))


def evaluate(work: Work, folder: Path, *, plainly: bool, generator: Generator = TRANSFORMERS) -> None:
    """Every condition into a folder of its name.

    ``plainly`` neither keeps prefills nor follows drafts, and reads every prompt from its first token on. Otherwise it does as
    :func:`trimtab.study.answers.answers`, which answers by the bare model first. Another generator does without all of that.
    """
    bare = work.asked[0]
    kept = None if plainly else prefills.Prefills(bare.sampling.batch_tokens)
    with whole_prompts() if plainly else nullcontext():
        for each in sorted(work.asked, key=lambda each: each.condition.steering is not None):
            steered = each.condition.steering is not None and each.problems == bare.problems
            job = condition_job(
                work.model,
                each.condition,
                each.problems,
                each.sampling,
                work.grader,
                folder / each.condition.name,
                prompt=work.prompt,
                generator=generator,
                prefills=kept,
                drafts=folder / bare.condition.name if steered and not plainly else None,
            )
            LOCAL.run(work.model, [job], silent)


@contextmanager
def whole_prompts() -> Iterator[None]:
    """Within, nothing is read once for all prompts. No setting of the library asks for that, since the tokens are the same."""
    with mock.patch.object(prefills, "SHARED", sys.maxsize):
        yield


def near_ties(work: Work, plain: Responses, ours: Responses) -> int:
    """How many responses part at a near tie.

    Raises:
        ClickException: one parts elsewhere, or any does where the work is exact.
    """
    found = 0
    for each in work.asked:
        name, steering = each.condition.name, each.condition.steering
        requests, _ = plan_requests(work.model, each.problems, each.sampling, each.condition.prompt or work.prompt)
        differing = [request for id_, request in requests.items() if plain[name][id_] != ours[name][id_]]
        if differing and work.exact:
            raise click.ClickException(
                f"{len(differing)} responses of {name} differ from the plain way's, so no time is measured"
            )
        theirs, own = ([Generation(r.id, way[name][r.id], "stop") for r in differing] for way in (plain, ours))
        apart = partings(work.model, differing, theirs, own, steering, each.condition.gate)
        if far := [one for one in apart if not one.near_tie]:
            raise click.ClickException(
                f"{far[0].id} of {name} differs at token {far[0].step}, where two logits differ by {far[0].gap}"
            )
        found += len(apart)
    return found
