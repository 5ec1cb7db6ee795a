"""Which part of a response is its mathematical answer."""

import json
import re
from itertools import islice, pairwise
from typing import NamedTuple

from trimtab.tasks.grading.math_notation import LONGEST
from trimtab.tasks.grading.text import Box, after_hashes, amount, boxes, conclusion, plain, plain_punctuation, statements

MOST_BOXES = 10
SHORT = 40

LAST_NUMBER = "last number"

_NUMBER = re.compile(
    r"(?<![\w\\^_{/.])(?<!\d:)(?:(?<![\w)\]}])[-+])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:/\d+)?(?:\s?\\?%)?"
    r"(?![\w^_{\\]|[.,/]\d)|-?\\[dt]?frac\{-?\d+\}\{\d+\}(?![\w^_{\\])"
)
_CONNECTIVE = re.compile(r"[\s$.\\()\[\]]*(?:,|and|or|\\text\{\s*(?:and|or)\s*\})+[\s$\\()\[\]]*")
_SENTENCE_END = re.compile(
    r"[.?](?=\s|$)|(?<=[A-Za-z*])!(?=\s|$)|,\s+(?=[A-Za-z]{3})|\s+(?=(?:because|since|as|so|which|where)\b)"
)
_MATH_SPAN = re.compile(r"\$(?! )([^$\n]+?)(?<! )\$|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_MARKUP = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3}")
_HEDGE = re.compile(r"\s*(?:and|or)\b")
_JOINED_BEFORE = re.compile(r"\b(?:and|or)\s+(?:[a-z]\s*=\s*)?[\s$\\*]*$")


_TAGS = re.compile(r"(?i)<(/?)(?:final[_ -]?)?answer\s*>")
_JSON = re.compile(
    r"""(?i)[{,]\s*["'](?:final[_ ]?)?(?:answer|result|solution)["']\s*:\s*"""
    r"""(?:"(?P<text>(?:[^"\\\n]|\\.)*)"|(?P<value>[^\s"'{}\[\]][^,}\n]*))\s*(?:,[^{}]*)?\}?"""
)
_UNDERLINE = re.compile(r"(?im)^[ \t*#]*((?:final |the )?answer)[ \t*:]*\n[ \t]*[-=]{3,}[ \t]*$")
_DENIED = re.compile(r"(?i)not\b")
_ASIDE = re.compile(
    r"(?<=[\w$*%}])\s*\((?:since|because|as|which|i\.e\.|that is|from|see|by|approximately|about|approx|"
    r"or)\b[^()]*(?:\([^()]*\)[^()]*)*\).*$|(?<=[\w$*%}])\s+\((?=[^()]*=)[^()]*\).*$"
)
_ABOUT = re.compile(
    r"(?<=[\w$})*%])\s*(?:,?\s*(?:or|which is|i\.e\.|that is)\s+|\(|,\s*|;\s*)?(?:about|approximately|approx\.?|roughly|"
    r"around|nearly|\u2248|\\approx)\s*[-$\\]*\d[\d.,]*\s*\\?%?\)?\$?"
)
_COUNTED = re.compile(
    r"(?:[*_$\u20ac\u00a3\s\\])*([-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|"
    r"[-+]?\d+(?:\.\d+)?(?:/\d+)?)(?:\s*\\?%)?[*_$\s]*(?=[A-Za-z\s(])"
)
_MORE_OF_IT = re.compile(
    r"(?:(?:[A-Za-z*]+\s+){0,2}(?:and|or|plus|minus|,)|\s*(?:to|by|times|over|:|/|x)(?![A-Za-z]))\s+(?:[a-z]+ ){0,1}[-\d$]", re.I
)
_NO_ANSWER_BEFORE = re.compile(
    r"(?i)\b(?:not(?: equal(?: to)?)?|step|question|problem|part|case|page|figure|fig\.|option|equation|chapter|exercise|"
    r"line|round|section|january|"
    r"february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|"
    r"nov|dec)\b\.?[\s$*\\(]*$"
)


class Stated(NamedTuple):
    """The answer that a response states, and where it was found."""

    text: str
    where: str


def stated_answer(response: str) -> Stated | None:
    r"""The answer that a response states, by the first rule that holds for what follows its last ``</think>`` (all, if none).

    1. The last ``\boxed{}`` that is not empty, with those joined to it by a comma, "and" or "or", so that naming two answers is
       not naming the right one. When it never closes there is no answer.
    2. What follows the last ``####``, when it is no heading in words.
    3. The last "the answer is ..." or "Answer: ...": its formula, or the only number of the sentence, or the sentence.
    4. The whole text, when it is one line with a formula, a number with its unit, or a few words without a number.
    5. The last number of the last line, when it stands alone (no part of ``x^2`` or ``\sqrt{2}``, not joined to another number
       by "and" or "or"). This is a guess, as in other harnesses, and ``where`` says so.

    Returns None when no rule finds anything.

    Example:
        >>> stated_answer(r"2 or \boxed{3}?</think>So \boxed{3} and \boxed{4}")
        Stated(text='3, 4', where='box')
        >>> stated_answer("She sells 9 eggs and makes $18 every day.")
        Stated(text='18', where='last number')
    """
    text = _ready(conclusion(response))
    found = [box for box in islice(boxes(text), MOST_BOXES) if box.content != ""]
    if found:
        return None if found[0].content is None else Stated(_joined(text, found), "box")
    hashes = after_hashes(text)
    if hashes and (_is_formula(hashes) or (len(hashes) <= SHORT and text.endswith(hashes))):
        return Stated(hashes, "####")
    said = [statement for statement in statements(text) if not _DENIED.match(statement.text)]
    if said:
        return Stated(_of_statement(said[-1].text[: 4 * LONGEST]), "statement")
    line = text.rpartition("\n")[2].strip()
    if line == text and (_is_formula(line) or (0 < len(line) <= 40 and not re.search(r"\d", line))):
        return Stated(_without_exclamation(line).lstrip("=: "), "whole text")
    last = _without_approximation(line[-4 * LONGEST :])
    number = _only_formula(last) or _last_number(last)
    return None if number is None else Stated(number, LAST_NUMBER)


def _ready(text: str) -> str:
    """Answer tags, the answer of a JSON object, headings and Chinese punctuation in the form of ``Answer: ...``."""
    text = plain_punctuation(text)
    text = _TAGS.sub(lambda tag: "\n" if tag[1] else "\nAnswer: ", text)
    text = _JSON.sub(_json_answer, text)
    return _UNDERLINE.sub(r"\1:", text).strip()


def gold_text(answer: str) -> str:
    r"""The gold answer; where it is a whole solution, with a ``\boxed{}`` or a ``####``, the answer that the solution states.

    Example:
        >>> gold_text("She has 2 + 2 = 4.\n#### 4"), gold_text("4")
        ('4', '4')
    """
    stated = stated_answer(answer) if r"\boxed" in answer or "####" in answer else None
    return answer if stated is None else stated.text


def _joined(text: str, found: list[Box]) -> str:
    parts = [found[0].content or ""]
    for later, earlier in pairwise(found):
        between = text[earlier.stop : later.start]
        if earlier.content is None or len(between) > 40 or not _CONNECTIVE.fullmatch(between):
            break
        parts.append(earlier.content)
    return ", ".join(dict.fromkeys(reversed(parts)))


def _of_statement(line: str) -> str:
    line = _without_approximation(_ASIDE.sub("", line))
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
    spans = [*_MATH_SPAN.finditer(sentence)]
    if len(spans) == 1 and not _HEDGE.match(sentence, spans[0].end()):
        return next(group for group in spans[0].groups() if group).strip()
    sentence = _without_exclamation(sentence)
    if _is_formula(sentence):
        return sentence
    numbers = {match[0] for match in _NUMBER.finditer(sentence)}
    if len(numbers) == 1:
        return numbers.pop()
    counted = _COUNTED.match(sentence)
    return counted[1] if counted and not _MORE_OF_IT.match(sentence, counted.end()) else sentence


def _without_exclamation(text: str) -> str:
    """ "The answer is 42!" is no factorial; inside of a formula's own marks it is one."""
    return re.sub(r"(?<=[\w%)\]])!+[\s*_]*$", "", text)


def _without_approximation(line: str) -> str:
    r"""Without the decimals that follow an exact answer: "1/6 or about 16.7%", ``\pi \approx 3.14``."""
    return _ABOUT.sub(lambda about: "$" * (about[0].count("$") % 2), line)


def _is_formula(text: str) -> bool:
    if not text or len(text) > LONGEST:
        return False
    return not _WORD.search(_MARKUP.sub("", text)) or amount(plain(text)) is not None


def _json_answer(found: re.Match[str]) -> str:
    """The answer of a JSON object; a text with LaTeX's backslashes written once, which JSON would eat, stays as it is."""
    text = found["value"] if found["text"] is None else found["text"]
    if found["text"] is not None:
        try:
            decoded = str(json.loads(f'"{text}"'))
        except ValueError:
            decoded = text
        text = decoded if decoded.isprintable() else text
    return f"\nAnswer: {text}\n"


def _only_formula(line: str) -> str | None:
    """The formula of a line that has one, and no number beside it."""
    spans = [*_MATH_SPAN.finditer(line)]
    if len(spans) != 1 or re.search(r"\d", line[: spans[0].start()] + line[spans[0].end() :]):
        return None
    formula = next(group for group in spans[0].groups() if group).strip()
    return formula if re.search(r"\d|\\pi", formula) and not _NO_ANSWER_BEFORE.search(line, 0, spans[0].start()) else None


def _last_number(line: str) -> str | None:
    numbers = [*_NUMBER.finditer(line)]
    if not numbers or re.search(r"\d", line[numbers[-1].end() :]):
        return None
    is_one_of_several = len(numbers) > 1 and _JOINED_BEFORE.search(line, 0, numbers[-1].start())
    is_no_answer = _NO_ANSWER_BEFORE.search(line, max(0, numbers[-1].start() - 40), numbers[-1].start())
    return None if is_one_of_several or is_no_answer else numbers[-1][0]
