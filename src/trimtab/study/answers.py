"""Answers of a condition to some problems: made once whoever asks, named by what decides them, and counted as an opening."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import (
    UNSTEERED,
)
from trimtab.evaluation.runner import (
    Condition,
    ConditionJob,
    condition_job,
)
from trimtab.execution import Executor
from trimtab.gate import ALWAYS as ALWAYS_GATE
from trimtab.model import LanguageModel
from trimtab.sampling import Request, SamplingSettings, requests_of
from trimtab.sampling.prefills import Prefills
from trimtab.store import AnyPath, Entry, digest_of, openings, read_table, record_opening, write_table
from trimtab.study import gather
from trimtab.tasks import Prompt
from trimtab.traces import Problem, Split, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

logger = logging.getLogger(__name__)

VERSIONS: Mapping[str, int] = {"answers": 2}
"""Of each verb, as :data:`trimtab.study.find.VERSIONS`."""
STEERED = "steered"
"""What a file of answers calls its condition: who asks for them gives it a name of its own."""
OUTCOMES = "outcomes.parquet"


class Asked(NamedTuple):
    """One condition on some problems with one way to sample.

    Args:
        condition: what is attached; its name is only for the eye.
        problems: in order; all of one split, or some of them.
        sampling: greedy, or with a seed.
        model: None for the study's own.
        prompt: None for the study's own, where the condition has none.
    """

    condition: Condition
    problems: Sequence[Problem]
    sampling: SamplingSettings
    model: LanguageModel | None = None
    prompt: Prompt | None = None


PROMPT_SETS = 2
"""Sets of problems whose prompts are kept: an experiment goes to and fro between the validation and the test split."""


class _Kept(NamedTuple):
    """What a model has read and been asked; the requests by digest of the problems, prompt, number of samples and seed."""

    model: LanguageModel
    prefills: Prefills
    requests: dict[tuple[str, Prompt, int, int], dict[str, Request]]


class KeptPrompts:
    """The prompts of the last calls that asked for other problems: tokens and, while no model's weights change, prefills."""

    def __init__(self) -> None:
        self._sets: OrderedDict[tuple[str, int], _Kept] = OrderedDict()

    def of(self, model: LanguageModel, asked: Sequence["Asked"], batch_tokens: int) -> _Kept:
        """Those of a model on the problems that are asked together, begun where these are new or the model is another."""
        key = digest_of(sorted({gather.problems_digest(each.problems) for each in asked})), batch_tokens
        kept = self._sets.pop(key, None)
        if kept is None or kept.model is not model:
            kept = _Kept(model, Prefills(batch_tokens), {})
        self._sets[key] = kept
        while len(self._sets) > PROMPT_SETS:
            self._sets.popitem(last=False)
        return kept

    def forget(self) -> None:
        """Free their memory, before a training that needs it."""
        self._sets.clear()


def _requests(kept: _Kept, asked: Asked, prompt: Prompt) -> dict[str, Request]:
    key = gather.problems_digest(asked.problems), prompt, asked.sampling.n, asked.sampling.seed
    if key not in kept.requests:
        kept.requests[key] = requests_of(kept.model, asked.problems, asked.sampling, prompt)
    return kept.requests[key]


def answers(
    study: "Study", asked: Sequence[Asked], executor: Executor | None = None, what: str = "answers"
) -> list[list[Outcome]]:
    """Outcomes of every condition asked for, in order; those that any verb has made before are read.

    A result is named by what was attached and to which problems, so ``tune``, ``evaluate`` and every experiment share it. New
    answers to test problems are an opening of that split, noted in the ledger before the first of them.
    """
    asked = [each._replace(condition=plain(each.condition)) for each in asked]
    entries = [answers_entry(study, each) for each in asked]
    study.note_keys({entry.name: entry for entry in entries})
    by_name = dict(zip((entry.name for entry in entries), asked, strict=True))
    with study.cache.claim_all(entries) as missing:
        jobs: list[tuple[LanguageModel, ConditionJob]] = []
        opened = [p for entry in missing for p in by_name[entry.name].problems if p.split is Split.TEST]
        if missing and study.settings.executor.kind != "ray":
            gather.check_grading(study, [p for entry in missing for p in by_name[entry.name].problems])
        if opened:
            study.open_test(what, list({problem.id: problem for problem in opened}.values()))
        prompts, kept = study.kept_prompts or KeptPrompts(), dict[int, _Kept]()
        for entry in missing:
            each = by_name[entry.name]
            model = each.model or study.model
            if id(model) not in kept:
                kept[id(model)] = prompts.of(model, [by_name[entry.name] for entry in missing], each.sampling.batch_tokens)
            prompt = each.prompt or study.settings.prompt
            job = condition_job(
                model,
                replace(each.condition, name=UNSTEERED if each.condition.steering is None else STEERED),
                each.problems,
                each.sampling,
                study.grader,
                entry.folder,
                prompt=prompt,
                checker=study.checker,
                generator=study.generator,
                label=f"{what}: {each.condition.name}",
                requests=_requests(kept[id(model)], each, each.condition.prompt or prompt),
                prefills=kept[id(model)].prefills,
                drafts=_drafts(study, each, missing),
            )
            jobs.append((model, job))
        written = {job.parts.folder for _, job in jobs}
        for model in {id(model): model for model, _ in jobs}.values():
            # the bare model first: its responses are the drafts of the others
            for drafted in (False, True):
                study.run([job for other, job in jobs if other is model and (job.drafts in written) is drafted], model, executor)
        for _, job in jobs:
            write_table(job.parts.folder / OUTCOMES, job.outcomes(), Outcome)
    stored = [study.remember(entry, lambda entry=entry: read_table(entry.folder / OUTCOMES, Outcome)) for entry in entries]
    return [[replace(o, condition=each.condition.name) for o in rows] for each, rows in zip(asked, stored, strict=True)]


def _drafts(study: "Study", asked: Asked, missing: Sequence[Entry]) -> AnyPath | None:
    """Where the bare model's answers to the same requests are, or will be before these are asked for.

    On Ray they are not waited for: every call starts a pool of its own.
    """
    if asked.condition.steering is None or asked.sampling.temperature:
        return None
    bare = replace(asked.condition, name=UNSTEERED, steering=None, gate="on", first_tokens=0)
    entry = answers_entry(study, asked._replace(condition=bare))
    awaited = study.settings.executor.kind != "ray" and entry.name in {each.name for each in missing}
    return entry.folder if entry.done or awaited else None


def plain(condition: Condition) -> Condition:
    """The same answers in one form: without a steering there is no gate to ask, and a gate held open does not count."""
    if condition.steering is None:
        return replace(condition, gate="on")
    if condition.gate == "on":
        return replace(condition, steering=condition.steering.with_gate(ALWAYS_GATE))
    return condition


def answers_entry(study: "Study", asked: Asked) -> Entry:
    steering, prompt = asked.condition.steering, asked.condition.prompt or asked.prompt or study.settings.prompt
    model = asked.model or study.model
    facts = {
        "steering": steering.digest if steering else None,
        "gate": asked.condition.gate,
        "problems": gather.problems_digest(asked.problems),
        "sampling": asked.sampling.model_dump(mode="json"),
        "prompt": prompt.model_dump(mode="json"),
        "tokenizer": model.tokenizer_fingerprint,
        **beginning_facts(asked.condition),
        **study.grader_facts,
    }
    return study.entry("answers", {**facts, **study.engine_facts()}, model)


def beginning_facts(condition: Condition) -> dict[str, object]:
    """What a key says of a beginning alone; nothing of whole responses, whose keys are older."""
    return {"first_tokens": condition.first_tokens} if condition.first_tokens else {}


def correct_traces(study: "Study") -> list[Trace]:
    """The correct side of the contrast: what found the neurons, and what fine-tuning may learn from."""
    rows, _, _ = gather.contrast(study)
    wanted = {row.trace_id for row in rows if row.correct}
    return [trace for trace in study.traces().traces if trace.id in wanted]


def open_test(study: "Study", what: str, problems: Sequence[Problem]) -> None:
    """Note in the ledger that a verb opens test problems, once for each key of its results."""
    record_opening(
        study.cache.ledger, what, f"{len(problems)} problems of {test_digest(study)}", study.model.identity.fingerprint
    )


def test_digest(study: "Study") -> str:
    """The digest that the ledger counts by, of the test problems and the model's weights."""
    return f"{study.problems().digests[Split.TEST][:16]}-{study.model.identity.fingerprint[:16]}"


def ledger_openings(study: "Study") -> int:
    """How often these test problems were opened with this model."""
    return openings(study.cache.ledger, test_digest(study))
