"""Majority vote over sampled responses (self-consistency, Wang et al. 2022, arXiv 2203.11171): the reference for a test-time
method.

A vote costs the tokens of all its responses, so it is shown twice: over all responses, and over no more of them than the budget
buys.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.errors import InputError
from trimtab.evaluation.names import MAJORITY, MAJORITY_EQUAL_COST
from trimtab.evaluation.outcomes import Outcome, by_problem
from trimtab.tasks.grading.text import normalise
from trimtab.traces import Verdict


def majority(samples: Sequence[Outcome], condition: str = MAJORITY) -> list[Outcome]:
    """One outcome per problem: the answer that most of its responses give.

    Answers are compared after :func:`trimtab.tasks.grading.text.normalise`. Of answers with equally many votes the one that
    came first wins. A chain without an answer has no vote, so an empty answer wins only where there is no other. Response and
    verdict are those of the first scored chain that gives the winning answer: a vote over verdicts would need the gold answer.
    The vote is unscored where none of these was scored, or where chains whose answer the grader could not read might turn it.

    Args:
        samples: the responses of all problems; they vote in the order of their seed and sample.
        condition: the name of the outcomes' condition.

    Returns:
        Problems in the order in which they first come. ``tokens`` is the sum over the responses, ``truncated`` whether
        all of them were.

    Raises:
        InputError: a response stands twice, or a problem has other chains than the others.
    """
    return [_vote([chains[key] for key in sorted(chains)], condition) for chains in by_problem(samples).values()]


def majority_at_cost(
    samples: Sequence[Outcome], budget_tokens: int | Mapping[str, int], condition: str = MAJORITY_EQUAL_COST
) -> list[Outcome]:
    """The vote of as many chains as the budget buys: in order while the summed tokens stay within it, at least one.

    The first response that does not fit ends the count, also where a later, shorter one would fit: picking chains by length would
    pick them by how easy they were. Where the first alone is over the budget the vote costs more; ``tokens`` says how much.

    Args:
        samples: as for :func:`majority`.
        budget_tokens: tokens for each problem, or tokens by problem id, such as those that the steered condition spent on it.
        condition: the name of the outcomes' condition.

    Raises:
        InputError: as for :func:`majority`, or a problem without a budget.

    Example:
        ``majority_at_cost(sampled, {outcome.problem_id: outcome.tokens for outcome in gated})``
    """
    votes = []
    for problem, chains in by_problem(samples).items():
        budget = budget_tokens if isinstance(budget_tokens, int) else budget_tokens.get(problem)
        if budget is None:
            raise InputError(f"problem {problem!r} has no token budget; give one for every problem that was sampled")
        votes.append(_vote(_affordable([chains[key] for key in sorted(chains)], budget), condition))
    return votes


def _affordable(chains: Sequence[Outcome], budget: int) -> list[Outcome]:
    taken, spent = [chains[0]], chains[0].tokens
    for chain in chains[1:]:
        spent += chain.tokens
        if spent > budget:
            break
        taken.append(chain)
    return taken


def _vote(chains: Sequence[Outcome], condition: str) -> Outcome:
    answers = [normalise(chain.answer) for chain in chains]
    votes = Counter(answer for answer in answers if answer).most_common()  # equal counts in the order of their first response
    winner = votes[0][0] if votes else ""
    winning = [chain for chain, answer in zip(chains, answers, strict=True) if answer == winner]
    chosen = next((chain for chain in winning if not chain.unscored), winning[0])
    unread = sum(chain.unscored and not answer for chain, answer in zip(chains, answers, strict=True))
    first, second = [*(count for _, count in votes), 0, 0][:2]
    open_vote = unread > 0 and first - second <= unread
    reason = f"{unread} chains that the grader could not read might turn the vote" if open_vote else chosen.reason
    return replace(
        chosen,
        condition=condition,
        verdict=Verdict.UNSCORED if open_vote else chosen.verdict,
        reason=f"{_tally(votes, len(chains))}: {reason}",
        tokens=sum(chain.tokens for chain in chains),
        truncated=all(chain.truncated for chain in chains),
        p_fail=None,
        fired=None,
        sample=0,
        seed=0,
    )


def _tally(votes: Sequence[tuple[str, int]], chains: int) -> str:
    if not votes:
        return f"none of {chains} chains gives an answer"
    (winner, count), *others = votes
    baseline = f", {others[0][1]} say {_short(others[0][0])}" if others else ""
    return f"{count} of {chains} chains say {_short(winner)}{baseline}"


def _short(answer: str) -> str:
    return answer if len(answer) <= 40 else f"{answer[:39]}…"
