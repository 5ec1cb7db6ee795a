"""Majority vote over sampled responses (self-consistency, Wang et al. 2022, arXiv 2203.11171): the reference for a test-time
method.

A vote costs the tokens of all its responses, so it is shown twice: over all responses, and over no more of them than the budget
buys.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome, by_problem
from trimtab.evaluation.rows import MAJORITY, MAJORITY_EQUAL_COST
from trimtab.tasks.grading.text import normalise
from trimtab.traces import Score


def majority(samples: Sequence[Outcome], condition: str = MAJORITY) -> list[Outcome]:
    """One outcome per problem: the answer that most of its responses give.

    Answers are compared after :func:`trimtab.tasks.grading.text.normalise`. Of answers with equally many votes the one that
    came first wins. A response without an answer has no vote, so an empty answer wins only where there is no other. Response and
    verdict are those of the first scored response that gives the winning answer: a vote over verdicts would need the gold answer.
    The vote is unscored where none of these was scored, or where responses whose answer the grader could not read might turn it.

    Args:
        samples: the responses of all problems; they vote in the order of their seed and sample.
        condition: the name of the outcomes' condition.

    Returns:
        Problems in the order in which they first come. ``tokens`` is the sum over the responses, ``truncated`` whether
        all of them were.

    Raises:
        InputError: a response stands twice, or a problem has other responses than the others.
    """
    return [_vote([responses[key] for key in sorted(responses)], condition) for responses in by_problem(samples).values()]


def majority_at_cost(
    samples: Sequence[Outcome], budget_tokens: int | Mapping[str, int], condition: str = MAJORITY_EQUAL_COST
) -> list[Outcome]:
    """The vote of as many responses as the budget buys: in order while the summed tokens stay within it, at least one.

    The first response that does not fit ends the count, also where a later, shorter one would fit: picking them by length would
    pick by how easy they were. Where the first alone is over the budget the vote costs more; ``tokens`` says how much.

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
    for problem, responses in by_problem(samples).items():
        budget = budget_tokens if isinstance(budget_tokens, int) else budget_tokens.get(problem)
        if budget is None:
            raise InputError(f"problem {problem!r} has no token budget; give one for every problem that was sampled")
        votes.append(_vote(_affordable([responses[key] for key in sorted(responses)], budget), condition))
    return votes


def _affordable(responses: Sequence[Outcome], budget: int) -> list[Outcome]:
    taken, spent = [responses[0]], responses[0].tokens
    for response in responses[1:]:
        spent += response.tokens
        if spent > budget:
            break
        taken.append(response)
    return taken


def _vote(responses: Sequence[Outcome], condition: str) -> Outcome:
    answers = [normalise(response.answer) for response in responses]
    votes = Counter(answer for answer in answers if answer).most_common()  # equal counts in the order of their first response
    winner = votes[0][0] if votes else ""
    winning = [response for response, answer in zip(responses, answers, strict=True) if answer == winner]
    chosen = next((response for response in winning if not response.unscored), winning[0])
    unread = sum(response.unscored and not answer for response, answer in zip(responses, answers, strict=True))
    first, second = [*(count for _, count in votes), 0, 0][:2]
    open_vote = unread > 0 and first - second <= unread
    reason = f"{unread} responses that the grader could not read might turn the vote" if open_vote else chosen.reason
    return replace(
        chosen,
        condition=condition,
        score=Score.UNSCORED if open_vote else chosen.score,
        reason=f"{_tally(votes, len(responses))}: {reason}",
        tokens=sum(response.tokens for response in responses),
        truncated=all(response.truncated for response in responses),
        p_fail=None,
        fired=None,
        sample=0,
        seed=0,
    )


def _tally(votes: Sequence[tuple[str, int]], responses: int) -> str:
    if not votes:
        return f"none of {responses} responses gives an answer"
    (winner, count), *others = votes
    baseline = f", {others[0][1]} say {_short(others[0][0])}" if others else ""
    return f"{count} of {responses} responses say {_short(winner)}{baseline}"


def _short(answer: str) -> str:
    return answer if len(answer) <= 40 else f"{answer[:39]}…"
