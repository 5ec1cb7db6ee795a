"""The second check of a mathematical answer: the same text, or the same exact number. No computer algebra."""

import re
from fractions import Fraction
from typing import NamedTuple

from trimtab.tasks.grading.plain import amount, plain

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
