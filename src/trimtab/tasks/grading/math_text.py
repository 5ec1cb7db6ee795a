"""Mathematics as text: which part of a response is its answer, how ``math-verify`` reads it, and when two texts are equal."""

import re
from fractions import Fraction
from itertools import islice, pairwise
from typing import NamedTuple

from trimtab.tasks.grading.text import Box, after_hashes, amount, boxes, conclusion, plain, statements, untypeset

LONGEST = 1_000
"""Characters of an answer that ``math-verify`` is asked about; a longer one is compared as text only."""
DEEPEST = 12
"""The same for brackets inside brackets."""
MOST_BOXES = 10

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
_MARKUP = re.compile(r"\\[A-Za-z]+|\\text\{[^{}]*\}")
_WORD = re.compile(r"[A-Za-z]{3}")
_HEDGE = re.compile(r"\s*(?:and|or)\b")
_JOINED_BEFORE = re.compile(r"\b(?:and|or)\s+(?:[a-z]\s*=\s*)?[\s$\\*]*$")

_EDGES = re.compile(r"^(?:\s|\*\*|\\\(|\\\[|\$)+|(?:\s|\*\*|\\\)|\\\]|\$|[.,;:])+$")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?%?|[+-]?\d+(?:\.\d+)?%?")
_MIXED = re.compile(r"([+-]?\d+) (\d+)/(\d+)")
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)e([+-]?\d{1,3})")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_UNIT_TEXT = re.compile(r"(?<=.)\\(?:text|mbox|mathrm)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?$", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]{3,}")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")
_LIST = re.compile(r"\d,\s+-?\d")
_TWO_NUMBERS = re.compile(r"\d\s+\d")


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
    text = conclusion(response)
    found = [box for box in islice(boxes(text), MOST_BOXES) if box.content != ""]
    if found:
        return None if found[0].content is None else Stated(_joined(text, found), "box")
    hashes = after_hashes(text)
    if hashes and _is_formula(hashes):
        return Stated(hashes, "####")
    said = statements(text)
    if said:
        return Stated(_of_statement(said[-1].text[: 4 * LONGEST]), "statement")
    line = text.rpartition("\n")[2].strip()
    if line == text and (_is_formula(line) or (0 < len(line) <= 40 and not re.search(r"\d", line))):
        return Stated(line, "whole text")
    number = _last_number(line[-4 * LONGEST :])
    return None if number is None else Stated(number, LAST_NUMBER)


def gold_text(answer: str) -> str:
    r"""The gold answer; where it is a whole solution, with a ``\boxed{}`` or a ``####``, the answer that the solution states.

    Example:
        >>> gold_text("She has 2 + 2 = 4.\n#### 4"), gold_text("4")
        ('4', '4')
    """
    stated = stated_answer(answer) if r"\boxed" in answer or "####" in answer else None
    return answer if stated is None else stated.text


def for_math_verify(answer: str) -> str | None:
    r"""The answer as ``math-verify`` reads it right, or None where it cannot be asked.

    It takes ``18 dollars`` for a product of letters, ``1 1/2`` for (1 + 1)/2, ``100 000`` for 0, ``5 6`` for 11 and ``east`` for
    the same product as ``seat``, and drops all that follows the first of two ``\text``. So units, mixed numbers, spaced
    thousands, ``2e3``, ``0.\overline{3}`` and bare words are rewritten, and two numbers side by side are left to the comparison
    of texts. So are answers of more than 1,000 characters, brackets nested more than 12 deep, and control characters.

    Example:
        >>> for_math_verify("$18 dollars."), for_math_verify("1 1/2"), for_math_verify("east"), for_math_verify("5 6")
        ('18', '1\\frac{1}{2}', '\\text{east}', None)
    """
    if len(answer) > LONGEST or _nesting(answer) > DEEPEST or answer.count("{") != answer.count("}"):
        return None
    text = _EDGES.sub("", untypeset(answer))
    if not text or not text.replace("\n", " ").replace("\t", " ").isprintable():
        return None
    flat = plain(text)
    if _GROUPED.fullmatch(flat):
        return flat.replace(" ", "")
    if match := _MIXED.fullmatch(flat):
        return rf"{match[1]}\frac{{{match[2]}}}{{{match[3]}}}"
    if match := _SCIENTIFIC.fullmatch(flat):
        return rf"{match[1]}\times10^{{{match[2]}}}"
    if match := _REPEATING.fullmatch(flat):
        return _fraction(match)
    if _WORDS.fullmatch(text):
        return rf"\text{{{text}}}"
    text = amount(flat) or _UNIT_TEXT.sub("", text)
    return None if _TWO_NUMBERS.search(text) else text


def pair_for_math_verify(gold: str, answer: str) -> tuple[str | None, str | None]:
    """Both as ``math-verify`` reads them right; ``107,112`` is a list where the other is one, ``112, 107``, else a number.

    Example:
        >>> pair_for_math_verify("107,112", "112, 107")
        ('107, 112', '112, 107')
    """
    left, right = for_math_verify(gold), for_math_verify(answer)
    if left is None or right is None:
        return left, right
    return _as_list(left, right), _as_list(right, left)


def _as_list(text: str, other: str) -> str:
    return text.replace(",", ", ") if _THOUSANDS.fullmatch(text) and _LIST.search(other) else text


def _joined(text: str, found: list[Box]) -> str:
    parts = [found[0].content or ""]
    for later, earlier in pairwise(found):
        between = text[earlier.stop : later.start]
        if earlier.content is None or len(between) > 40 or not _CONNECTIVE.fullmatch(between):
            break
        parts.append(earlier.content)
    return ", ".join(dict.fromkeys(reversed(parts)))


def _of_statement(line: str) -> str:
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
    spans = [*_MATH_SPAN.finditer(sentence)]
    if len(spans) == 1 and not _HEDGE.match(sentence, spans[0].end()):
        return next(group for group in spans[0].groups() if group).strip()
    if _is_formula(sentence):
        return sentence
    numbers = {match[0] for match in _NUMBER.finditer(sentence)}
    return numbers.pop() if len(numbers) == 1 else sentence


def _is_formula(text: str) -> bool:
    if not text or len(text) > LONGEST:
        return False
    return not _WORD.search(_MARKUP.sub("", text)) or amount(plain(text)) is not None


def _last_number(line: str) -> str | None:
    numbers = [*_NUMBER.finditer(line)]
    if not numbers or re.search(r"\d", line[numbers[-1].end() :]):
        return None
    is_one_of_several = len(numbers) > 1 and _JOINED_BEFORE.search(line, 0, numbers[-1].start())
    return None if is_one_of_several else numbers[-1][0]


def _nesting(text: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r"[([{}\])]", text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest


def _fraction(match: re.Match[str]) -> str:
    """``0.1\\overline{6}`` is (16 - 1) / 90."""
    sign, whole, fixed, repeated = match.groups()
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed + repeated) - int(whole + fixed or 0), scale * (10 ** len(repeated) - 1))
    return rf"{sign}\frac{{{value.numerator}}}{{{value.denominator}}}"


LONGEST_NUMBER = 1_000
_UNSIGNED = r"(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_DECIMAL = re.compile(rf"(?P<sign>[+-]?)[€£¥]?(?P<value>{_UNSIGNED})(?:e(?P<power>[+-]?\d{{1,3}}))?")
_RATIO = re.compile(
    rf"(?P<sign>[+-]?)(?:(?:(?P<whole>\d+) )?(?P<top>{_UNSIGNED})/(?P<bottom>{_UNSIGNED})"
    rf"|(?P<whole2>\d+)?\\frac\{{(?P<minus>-?)(?P<top2>{_UNSIGNED})\}}\{{(?P<bottom2>{_UNSIGNED})\}})"
)
_NAMED = re.compile(r"[A-Za-z]=(?=[^=]+$)")


class ExactNumber(NamedTuple):
    """A rational number, and whether a percent sign followed it; the value is what stands before the sign."""

    value: Fraction
    percent: bool


def same_text(gold: str, answer: str) -> bool:
    r"""True when both are the same exact number, or the same text once typesetting is taken away.

    A percentage equals the number before its sign and its hundredth: ``18%`` is both 18 and 0.18. ``x=5`` is 5 where the other
    names no variable. True proves the answer right; False proves nothing, since two expressions can be equal without looking so.

    Example:
        >>> same_text("1000", r"\$1{,}000.00"), same_text(r"\frac{1}{2}", "0.5"), same_text("x+1", "1+x")
        (True, True, False)
    """
    left, right = exact_number(gold), exact_number(answer)
    if left is not None and right is not None:
        if left.percent == right.percent:
            return left.value == right.value
        percentage, other = (left, right) if left.percent else (right, left)
        return other.value in (percentage.value, percentage.value / 100)
    texts = plain(gold), plain(answer)
    if "" in texts:
        return False
    unnamed = tuple(_NAMED.sub("", text) for text in texts)
    return texts[0] == texts[1] or (sum(map(str.__ne__, texts, unnamed)) == 1 and same_text(*unnamed))


def exact_number(answer: str) -> ExactNumber | None:
    r"""The number that a text is: whole, decimal, ``3/4``, ``1 1/2``, ``\frac{1}{2}``, ``2e3``, with units or a percent sign.

    Returns None for anything else, and for texts of more than 1,000 characters.

    Example:
        >>> exact_number("1 1/2 hours"), exact_number(r"12.5\%"), exact_number("x")
        (None, ExactNumber(value=Fraction(25, 2), percent=True), None)
    """
    if len(answer) > LONGEST_NUMBER:
        return None
    text = plain(answer)
    text = amount(text) or text
    value = _value(text.removesuffix("%"))
    return None if value is None else ExactNumber(value, text.endswith("%"))


def _value(text: str) -> Fraction | None:
    if match := _DECIMAL.fullmatch(text):
        size = _unsigned(match["value"]) * Fraction(10) ** int(match["power"] or 0)
    elif match := _RATIO.fullmatch(text):
        bottom = _unsigned(match["bottom"] or match["bottom2"])
        if bottom == 0:
            return None
        part = _unsigned(match["top"] or match["top2"]) / bottom
        size = int(match["whole"] or match["whole2"] or 0) + (-part if match["minus"] else part)
    else:
        return None
    return -size if match["sign"] == "-" else size


def _unsigned(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits))
