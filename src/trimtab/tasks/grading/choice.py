"""The grader of choices: the letter, or the text of the option, that a response ends on."""

import re
from collections.abc import Sequence
from functools import partial
from string import ascii_uppercase

from trimtab.tasks.grading.claims import Claim, last_claim
from trimtab.tasks.grading.exact import NO_ANSWER
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.plain import plain
from trimtab.traces import Problem, Verdict

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
        return [_judge(problem, response) for problem, response in answers]


def _judge(problem: Problem, response: str) -> Judgement:
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
