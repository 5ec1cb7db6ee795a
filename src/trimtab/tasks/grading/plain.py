"""Answers as plain text: LaTeX wrapping, typography and units taken away."""

import re
from decimal import Decimal

_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00a0\u2009\u200a\u202f\u2007\u2002\u2003", " "),
        **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2061", ""),
        "\u00d7": r"\times ",
        "\u00b7": r"\cdot ",
        "\u22c5": r"\cdot ",
        "\u00f7": "/",
        "\u2044": "/",
        "\u03c0": r"\pi ",
        "\u221e": r"\infty ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u00b1": r"\pm ",
        "\u00b0": r"^\circ ",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u00bc": r"\frac{1}{4}",
        "\u00bd": r"\frac{1}{2}",
        "\u00be": r"\frac{3}{4}",
        "\uff05": "%",
        "\uff0c": ",",
    }
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|operatorname|boxed)\s*\{([^{}]*)\}")
_MARKS = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[!,;:]|\\?\$|\*\*|\\[()\[\]]|\^\s*\{?\\circ\s*\}?")
_SPACES = re.compile(r"\\ |~|\\q?quad(?![A-Za-z])|\s+")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))")
_PERCENT = re.compile(r"\\%|\s*\b(?:percentage|percent|per cent)\b")
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}")
_LOOSE = re.compile(r"\s*([^\w\s])\s*")

_AMOUNT = re.compile(
    r"[€£¥]?([+-]?)[€£¥]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+) ?([a-z][a-z .,'/-]*(?:\^?\{?[23]\}?)?)", re.I
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SHORT_UNITS = re.compile("am|cc|c[lmtu]|d[bm]|ft|g[bm]|h[prz]|in|k[bgmw]|lb|m[bgilmw]|nm|oz|pm|qt|rs|sq|tb|yd|yr")
_NO_UNITS = re.compile(
    r"\b(?:and|or|nor|but|not|than|plus|minus|over|under|mod|choose|squared|cubed|factorial|sqrt|pi|infinity|if|when|where|unless|"
    r"hal(?:f|ves)|thirds?|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths)\b"
)


def untypeset(answer: str) -> str:
    """Typographic characters as the ASCII or LaTeX that says the same: a minus is ``-``, a thin space is a space."""
    return answer.translate(_TYPOGRAPHY)


def plain(answer: str) -> str:
    r"""A comparable text: no dollar signs, no ``\text``, no ``\left``, one space at most, words in lower case.

    Single letters keep their case, since ``x`` and ``X`` are two variables.

    Example:
        >>> plain(r"$\dfrac{1}{2}\text{ Dollars}$."), plain(r"\left( 1,\, 2 \right)"), plain("18\\%")
        ('\\frac{1}{2}dollars', '(1,2)', '18%')
    """
    text = untypeset(answer)
    for _ in range(3):  # \text inside \textbf
        text = _TEXT.sub(r"\1", text)
    text = _MARKS.sub("", text).replace("{,}", ",")
    text = _FRACTION.sub(lambda m: rf"\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text)
    text = _WORD.sub(lambda word: word[0].lower(), _SPACES.sub(" ", text))
    return _LOOSE.sub(r"\1", _PERCENT.sub("%", text)).strip().rstrip(".,;:").strip()


def amount(text: str) -> str | None:
    """The number of a plain text that is a number and words for what is counted; None for any other text.

    ``thousand`` to ``trillion`` multiply. Words that could belong to the mathematics (``and``, ``squared``, ``half``) and
    single letters, which could be variables, are no units.

    Example:
        >>> amount("18 dollars per day"), amount("2.5 million people"), amount("5x"), amount("3 and a half"), amount("18")
        ('18', '2500000', None, None, None)
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        return None
    words = match[3].lower()
    first = re.split(r"[^a-z]", words, maxsplit=1)[0]
    if _NO_UNITS.search(words) or (len(first) < 3 and not _SHORT_UNITS.fullmatch(first)):
        return None
    scale = _SCALES.get(first.removesuffix("s"), 0)
    return match[1].replace("+", "") + f"{Decimal(match[2].replace(',', '')).scaleb(scale):f}"
