"""The graders of choices and of yes and no: what the last clear claim of a response names."""

import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from string import ascii_uppercase
from typing import NamedTuple

from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.text import NO_ANSWER, boxes, conclusion, plain, statements
from trimtab.traces import Problem, Verdict

MOST = 20
LONGEST_CLAIM = 1_000
_ANNOUNCED = re.compile(
    r"(?i)\b(?:(?:correct|best|right) (?:option|choice|letter) (?:is|would be)|(?:I|we) (?:choose|pick|select)):?[* ]*"
)


class Claim(NamedTuple):
    """A place where an answer may stand; ``alone`` when it is a line, which is a claim only if it holds little else."""

    start: int
    text: str
    alone: bool


def last_claim(response: str, read: Callable[[Claim], frozenset[str]]) -> frozenset[str]:
    r"""The answers that the last clear claim after the last ``</think>`` names: none, one, or several when it hedges.

    Claims are ``\boxed{}``, "the answer is ...", "Answer: ...", "the correct option is ...", "I choose ...", the last line, and
    the first line where a blank line follows it. ``read`` gives what a claim names, nothing when it is not clear.
    """
    text = conclusion(response)
    claims = [Claim(box.start, box.content, False) for box in islice(boxes(text), MOST) if box.content]
    claims += [Claim(said.start, said.text, False) for said in statements(text)]
    for match in deque(_ANNOUNCED.finditer(text), maxlen=MOST):
        claims.append(Claim(match.start(), text[match.end() : match.end() + LONGEST_CLAIM].partition("\n")[0], False))
    claims.append(Claim(0, re.split(r"\n\s*\n", text, maxsplit=1)[0].strip(), True))
    claims.append(Claim(text.rfind("\n") + 1, text.rpartition("\n")[2].strip(), True))
    readable = (claim for claim in sorted(claims, reverse=True) if len(claim.text) <= LONGEST_CLAIM)
    return next(filter(None, map(read, readable)), frozenset())


AMBIGUOUS = Judgement(Verdict.INCORRECT, "no single answer found")
LETTERS_WHEN_UNKNOWN = 10

_QUOTES = re.compile(r"[*`\"\u201c\u201d\u2018\u2019]|(?<!\w)'|'(?!\w)")
_LEAD = re.compile(
    r"(?:both |either )?(?:(?:the )?(?:option|choice|letter|answer) ?)?(?P<open>[(\[]?)(?P<letter>[A-Z])(?![\w'])[)\]]?"
)
_ALSO = re.compile(r"(?: ?(?:,|/|&|and|or) ?)+(?:option |choice )?[(\[]?([A-Z])(?![\w']| (?!and\b|or\b)[a-z])[)\]]?")
_LOWER = re.compile(r"[(\[]?([a-z])[)\].]?")
_WORD_AFTER = re.compile(r" (?!(?:because|since|as|is|which|for|due|given|and|or)\b)[a-z]")
_DELIMITER = re.compile(r"[).:,\-\] ]*")


class ChoiceGrader:
    """Correct when the last clear claim names the gold option, by its letter or by its whole text.

    Letters go from A to the number of the problem's choices, to J where it has none. A hedge ("A or B") is incorrect, and so is a
    response without a claim. An "A" or an "I" before a word is no letter. The gold answer is a letter, an option's number from 0
    where the problem has choices, or an option's text; with any other one the response is unscored.
    """

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order."""
        return [_judge_choice(problem, response) for problem, response in answers]


def _judge_choice(problem: Problem, response: str) -> Judgement:
    gold = _gold_letter(problem)
    if gold is None:
        reason = f"the gold answer {problem.answer[:60]!r} names none of the {len(problem.choices)} choices"
        return Judgement(Verdict.UNSCORED, reason)
    named = last_claim(response, partial(_letters, letters=_letters_of(problem), options=_options(problem)))
    if len(named) != 1:
        return AMBIGUOUS if named else NO_ANSWER
    (letter,) = named
    if letter == gold:
        return Judgement(Verdict.CORRECT, "names the gold choice", letter)
    return Judgement(Verdict.INCORRECT, f"differs from the gold choice {gold}", letter)


def _letters_of(problem: Problem) -> str:
    return ascii_uppercase[: len(problem.choices) or LETTERS_WHEN_UNKNOWN]


def _options(problem: Problem) -> list[str]:
    return [plain(option).casefold() for option in problem.choices]


def _gold_letter(problem: Problem) -> str | None:
    letters, gold = _letters_of(problem), problem.answer.strip()
    if len(gold) == 1 and gold.upper() in letters:
        return gold.upper()
    if gold.isdecimal() and int(gold) < len(problem.choices):
        return letters[int(gold)]
    named = _by_text(plain(gold), letters, _options(problem))
    return next(iter(named)) if len(named) == 1 else None


def _letters(claim: Claim, letters: str, options: Sequence[str]) -> frozenset[str]:
    """The letters that a claim names: the one that it starts with and those joined to it, or that of the option's whole text."""
    text = _QUOTES.sub("", plain(claim.text)).strip()
    lower = _LOWER.fullmatch(text)
    lead = _LEAD.match(lower[1].upper() if lower else text)
    if lead is None or lead["letter"] not in letters:
        return _by_text(text, letters, options) or _by_text(text.partition(". ")[0], letters, options)
    if lower:
        return frozenset(lead["letter"])
    named, rest = {lead["letter"]}, text[lead.end() :]
    while also := _ALSO.match(rest):
        named.add(also[1])
        rest = rest[also.end() :]
    only_letters = not rest.strip(" .!")
    with_its_text = _by_text(_DELIMITER.sub("", rest, count=1), letters, options) == named
    if claim.alone and not (only_letters or with_its_text):
        return _by_text(text, letters, options)
    is_word = lead["letter"] in "AI" and not lead["open"] and _WORD_AFTER.match(rest) and not with_its_text
    return _by_text(text, letters, options) if is_word else frozenset(named)


def _by_text(text: str, letters: str, options: Sequence[str]) -> frozenset[str]:
    wanted = plain(text).casefold()
    same = [letter for letter, option in zip(letters, options, strict=False) if option == wanted and option]
    return frozenset(same if len(same) == 1 else ())


MEANINGS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_YES_OR_NO = r"(yes|no|true|false)(?![\w'-])"
_ANSWER = re.compile(
    rf"(?:(?:most )?(?:likely|probably)|definitely|indeed|simply|clearly|a|an)?,? ?{_YES_OR_NO}(?! (?:one|longer|more|single)\b)"
)
_ALSO_WORD = re.compile(rf" ?(?:,|/|and|or)+ ?{_YES_OR_NO}(?! [a-z])")
_SENTENCE = re.compile(rf"(?:(?:so|thus|therefore|hence|in conclusion|overall),? ?)?{_YES_OR_NO}(?=[,.:;!-]|$)")


class YesNoGrader:
    """Correct when the last clear claim says what the gold answer says; true counts as yes and false as no.

    A line is a claim when it starts with the word and a comma or a full stop follows. "Yes and no" is incorrect, and so is a
    response without a claim. With a gold answer that is none of the four words the response is unscored.
    """

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order."""
        return [_judge_yes_no(problem, response) for problem, response in answers]


def _judge_yes_no(problem: Problem, response: str) -> Judgement:
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
    if also := _ALSO_WORD.match(text, lead.end()):
        named.add(MEANINGS[also[1]])
    return frozenset(named)
