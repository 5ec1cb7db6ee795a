"""The grader of yes and no, and of true and false."""

import re
from collections.abc import Sequence

from trimtab.tasks.grading.choice import AMBIGUOUS
from trimtab.tasks.grading.claims import Claim, last_claim
from trimtab.tasks.grading.exact import NO_ANSWER
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.plain import plain
from trimtab.traces import Problem, Verdict

MEANINGS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_WORD = r"(yes|no|true|false)(?![\w'-])"
_ANSWER = re.compile(
    rf"(?:(?:most )?(?:likely|probably)|definitely|indeed|simply|clearly|a|an)?,? ?{_WORD}(?! (?:one|longer|more|single)\b)"
)
_ALSO = re.compile(rf" ?(?:,|/|and|or)+ ?{_WORD}(?! [a-z])")
_SENTENCE = re.compile(rf"(?:(?:so|thus|therefore|hence|in conclusion|overall),? ?)?{_WORD}(?=[,.:;!-]|$)")


class YesNoGrader:
    """Correct when the last clear claim says what the gold answer says; true counts as yes and false as no.

    A line is a claim when it starts with the word and a comma or a full stop follows. "Yes and no" is incorrect, and so is a
    response without a claim. With a gold answer that is none of the four words the response is unscored.
    """

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order."""
        return [_judge(problem, response) for problem, response in answers]


def _judge(problem: Problem, response: str) -> Judgement:
    gold = MEANINGS.get(problem.answer.strip().casefold())
    if gold is None:
        return Judgement(Verdict.UNSCORED, f"the gold answer {problem.answer[:60]!r} is neither yes nor no")
    named = last_claim(response, _words)
    if len(named) != 1:
        return AMBIGUOUS if named else NO_ANSWER
    (word,) = named
    if word == gold:
        return Judgement(Verdict.CORRECT, "equals the gold answer", word)
    return Judgement(Verdict.INCORRECT, f"differs from the gold answer {gold}", word)


def _words(claim: Claim) -> frozenset[str]:
    text = plain(claim.text).replace("*", "").casefold()
    if claim.alone:
        text = next(filter(_SENTENCE.match, (text.rpartition(".")[2].strip(), text)), "")
    lead = (_SENTENCE if claim.alone else _ANSWER).match(text)
    if lead is None:
        return frozenset()
    named = {MEANINGS[lead[1]]}
    if also := _ALSO.match(text, lead.end()):
        named.add(MEANINGS[also[1]])
    return frozenset(named)
