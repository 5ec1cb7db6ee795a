"""Outcomes: the score of each problem under each condition, also as JSON that others can read.

The JSON file names its format and holds one object a problem, condition and sample::

    {"format": "trimtab-outcomes/1",
     "facts": {"task": "gsm8k", ...},
     "outcomes": [{"condition": "gated", "problem_id": "test-7", "score": "correct", "answer": "72", ...}, ...]}

``facts`` are the caller's (task, model, prompt, sampling). The keys of an outcome are the fields of :class:`Outcome`; ``null``
means that the condition has no such value. Within format 1 keys may be added, never renamed or dropped, so
``pandas.DataFrame(json.load(file)["outcomes"])`` goes on working.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trimtab.errors import InputError
from trimtab.store import write_json
from trimtab.traces import Score

ResponseKey = tuple[int, int]
"""(seed, sample): which of a problem's responses."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One response for one problem under one condition.

    ``sample`` and ``seed`` number the responses of a problem; with one response each both are 0, or the one seed. ``p_fail`` and
    ``fired`` are the gate's, None where the condition reads no gate.
    """

    condition: str
    problem_id: str
    domain: str
    difficulty: int
    score: Score
    reason: str
    answer: str
    response: str
    tokens: int
    truncated: bool
    steps_right: bool | None = None
    p_fail: float | None = None
    fired: bool | None = None
    sample: int = 0
    seed: int = 0

    @property
    def correct(self) -> bool:
        return self.score is Score.CORRECT

    @property
    def unscored(self) -> bool:
        return self.score is Score.UNSCORED

    @property
    def key(self) -> ResponseKey:
        return self.seed, self.sample


def by_problem(outcomes: Sequence[Outcome]) -> dict[str, dict[ResponseKey, Outcome]]:
    """The responses of every problem by seed and sample, problems in the order in which they first come.

    Raises:
        InputError: a response stands twice, or two problems have other responses: then their shares would not weigh the same.
    """
    table: dict[str, dict[ResponseKey, Outcome]] = {}
    for outcome in outcomes:
        responses = table.setdefault(outcome.problem_id, {})
        if outcome.key in responses:
            raise InputError(
                f"condition {outcome.condition!r} holds two responses to {outcome.problem_id!r} with seed {outcome.seed} and "
                f"sample {outcome.sample}; give every response of a problem its own sample number"
            )
        responses[outcome.key] = outcome
    kinds = Counter(frozenset(responses) for responses in table.values())
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = next(problem for problem, responses in table.items() if frozenset(responses) != usual)
        raise InputError(
            f"a condition needs the same responses for every problem: {odd!r} has {len(table[odd])} (seed, sample) "
            f"{sorted(table[odd])[:4]}, most have {len(usual)}: {sorted(usual)[:4]}; finish the evaluation, or leave it out"
        )
    return table


def first_responses(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome per problem, that of its lowest seed and sample: what is shown or fitted where a problem counts once."""
    return [responses[min(responses)] for responses in by_problem(outcomes).values()]


FORMAT = "trimtab-outcomes/1"


def write_outcomes_json(outcomes: Sequence[Outcome], path: Path, facts: Mapping[str, object]) -> None:
    """Write outcomes, of one condition or of all, in their order; the same outcomes and facts give the same bytes.

    Raises:
        InputError: a value that JSON cannot hold, NaN among them.
        StoreError: the file cannot be written.
    """
    write_json(path, {"format": FORMAT, "facts": facts, "outcomes": [asdict(outcome) for outcome in outcomes]})
