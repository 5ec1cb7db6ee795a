"""Outcomes: what each problem came to under each condition."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.errors import InputError
from trimtab.traces import Verdict

ChainKey = tuple[int, int]
"""(seed, sample): which of a problem's chains."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One chain for one problem under one condition.

    ``sample`` and ``seed`` number the responses of a problem; with one response each both are 0, or the one seed. ``p_fail`` and
    ``fired`` are the gate's, None where the condition reads no gate.
    """

    condition: str
    problem_id: str
    domain: str
    difficulty: int
    verdict: Verdict
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
        return self.verdict is Verdict.CORRECT

    @property
    def unscored(self) -> bool:
        return self.verdict is Verdict.UNSCORED

    @property
    def key(self) -> ChainKey:
        return self.seed, self.sample


def by_problem(outcomes: Sequence[Outcome]) -> dict[str, dict[ChainKey, Outcome]]:
    """The chains of every problem by seed and sample, problems in the order in which they first come.

    Raises:
        InputError: a response stands twice, or two problems have other chains: then their shares would not weigh the same.
    """
    table: dict[str, dict[ChainKey, Outcome]] = {}
    for outcome in outcomes:
        chains = table.setdefault(outcome.problem_id, {})
        if outcome.key in chains:
            raise InputError(
                f"condition {outcome.condition!r} holds two responses to {outcome.problem_id!r} with seed {outcome.seed} and "
                f"sample {outcome.sample}; give every response of a problem its own sample number"
            )
        chains[outcome.key] = outcome
    kinds = Counter(frozenset(chains) for chains in table.values())
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = next(problem for problem, chains in table.items() if frozenset(chains) != usual)
        raise InputError(
            f"a condition needs the same responses for every problem: {odd!r} has {len(table[odd])} (seed, sample) "
            f"{sorted(table[odd])[:4]}, most have {len(usual)}: {sorted(usual)[:4]}; finish the evaluation, or leave it out"
        )
    return table


def first_chains(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome per problem, that of its lowest seed and sample: what is shown or fitted where a problem counts once."""
    return [chains[min(chains)] for chains in by_problem(outcomes).values()]
