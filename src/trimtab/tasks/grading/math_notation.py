"""How mathematics is written: rewritten for ``math-verify``, and compared as text and as exact numbers."""

import re
from fractions import Fraction
from typing import NamedTuple

from trimtab.tasks.grading.text import amount, plain, untypeset

LONGEST = 1_000
"""Characters of an answer that ``math-verify`` is asked about; a longer one is compared as text only."""
DEEPEST = 12
"""The same for brackets inside brackets."""

_EDGES = re.compile(r"^(?:\s|\*\*|\\\(|\\\[|\$|`)+|(?:\s|\*\*|\\\)|\\\]|\$|`|[.,;:])+$")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?%?|[+-]?\d+(?:\.\d+)?%?")
_MIXED = re.compile(r"([+-]?\d+) (\d+)/(\d+)")
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)e([+-]?\d{1,3})")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_UNIT_TEXT = re.compile(r"(?<=.)(?:\\,|\\ |~|\s)*\\(?:text|mbox|mathrm|textrm)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?$", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]{3,}")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")
_LIST = re.compile(r"\d,\s+-?\d")
_TWO_NUMBERS = re.compile(r"\d\s+\d")
_BASE = re.compile(r"(-?[0-9A-Fa-f]+)_\{?(?:\\text\{)?(\d{1,2}|two|eight|ten|sixteen)\}?\}?")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?\s*([ap]\.?\s?m\.?)?", re.I)
_TRIGONOMETRY = re.compile(r"(?<![A-Za-z])\\?(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(
    r"(?P<value>\d+(?:\.\d+)?|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|\\(?:theta|alpha|beta|phi)|\\frac\{[^{}]*\}\{[^{}]*\})\s*"
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|(?:\\text\{\s*)?degrees?\b\}?)"
)
_ROOT = re.compile(r"(?<!\\)\b(?:sqrt|cbrt)\b|\\sqrt(?=\s*\()")
_FUNCTION = re.compile(
    r"(?<![\\A-Za-z])(arcsin|arccos|arctan|asin|acos|atan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|max|"
    r"min)(?=\s*[(\d\\{]|\s[a-z]\b)"
)
_INVERSE = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_SUPERSCRIPTS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a\u207f", "0123456789-+n")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b\u207a\u207f]+")
_LOWERED = re.compile("[\u2080-\u2089]+")
_SYMBOLS = {
    "\u221a": r"\sqrt ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u2205": r"\emptyset ",
    "\u2260": r"\neq ",
    "\u211d": r"\mathbb{R}",
    "\u2124": r"\mathbb{Z}",
    "\u2115": r"\mathbb{N}",
    "\u03b8": r"\theta ",
    "\u03b1": r"\alpha ",
    "\u03b2": r"\beta ",
    "\u03c6": r"\phi ",
    "\u03bb": r"\lambda ",
    "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ",
    "\u2153": r"\frac{1}{3}",
    "\u2154": r"\frac{2}{3}",
    "\u2155": r"\frac{1}{5}",
    "\u215b": r"\frac{1}{8}",
    "\u2248": r"\approx ",
    "\u2026": r"\ldots ",
}
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"\\(?:bigl?|bigr?|Bigl?|Bigr?|biggl?|biggr?|displaystyle|textstyle|limits|nolimits|boldsymbol|"
            r"mathbf(?=\{[^{}ijk]))(?![A-Za-z])",
            "",
        ),
        (r"\\(?:mathrm|operatorname|text|mathit|rm)\s*\{\s*([ei])\s*\}", r"\1"),
        (r"\\(?:mathrm|operatorname|text)\s*\{\s*(arcsin|arccos|arctan|sin|cos|tan|ln|log|gcd|lcm|max|min)\s*\}", r"\\\1 "),
        (r"\\[tcd]frac", r"\\frac"),
        (r"\\(?:leqslant|leqq)(?![A-Za-z])", r"\\le "),
        (r"\\(?:geqslant|geqq)(?![A-Za-z])", r"\\ge "),
        (r"\\ne(?![A-Za-z])", r"\\neq "),
        (r"<=|=<", r"\\le "),
        (r">=|=>", r"\\ge "),
        (r"!=(?!=)", r"\\neq "),
        (r"\\log_(?:e(?![A-Za-z])|\{\s*e\s*\})", r"\\ln "),
        (r"\\log_(\d)", r"\\log_{\1}"),
        (r"\\left\s*\](?=[^\[\]]*\\right\s*\[)", "("),
        (r"\\right\s*\[$", ")"),
        (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
        (r"\\lb(?![A-Za-z])", r"\\log_{2}"),
        (r"\\(?:R|reals|Reals)(?![A-Za-z])|\\mathbb\s+R|\\bf\{R\}|(?<![A-Za-z\\])R(?=\s*\\setminus)", r"\\mathbb{R}"),
        (r"\\(?:varnothing|O)(?![A-Za-z])", r"\\emptyset "),
        (r"\\left\s*\\langle|\\langle", "("),
        (r"\\right\s*\\rangle|\\rangle", ")"),
        (r"^<([^<>=]*,[^<>=]*)>$", r"(\1)"),
        (r"^\]([^\[\]]*,[^\[\]]*)\[$", r"(\1)"),
        (r"\*\*", "^"),
        (r"\^\s*\(([^()]*)\)", r"^{\1}"),
        (r"\^\s*(-?\d+(?:\.\d+)?)", r"^{\1}"),
        (r"\s*\*\s*", r" \\cdot "),
        (r"(?<![A-Za-z\\])[Pp][Ii](?![A-Za-z])|(?<=\d)pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(?:inf|infinity|oo|Infinity|infty)(?![A-Za-z])", r"\\infty "),
        (r"\+\s*-", "- "),
        (r"-\s*-(?=\s*[\d\\a-z(])", "+ "),
        (r"(?<![\d.])1(?:\.0+)?\s*(?:\\cdot)?\s*i(?![A-Za-z])", "i"),
        (r"\\(?:iota|imath)(?![A-Za-z])", "i"),
        (r"(?<=\d)\s*I(?![A-Za-z])", " i"),
        (r"(?:,\s*)?\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}", ", "),
        (r"\s*(?<![A-Za-z\\])(?:,\s*)?(?:and|or)(?![A-Za-z])\s*", ", "),
        (r"\\(?:lor|vee)(?![A-Za-z])", ", "),
        (r"\u222a|(?<![A-Za-z\\])[Uu](?=\s*[\[(])(?<=[\])]\s[Uu])|(?<=[\])])U(?=[\[(])", r"\\cup "),
        (r"(?<!\\)\\(?:,|;|:|!|quad|qquad|thinspace|medspace| )(?![A-Za-z])", " "),
    )
)
_NUMBER_WORDS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
} | {
    word: 10 * value
    for value, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
}
_NUMBER_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_PARTS_OF_ONE = {
    "half": Fraction(1, 2),
    "third": Fraction(1, 3),
    "quarter": Fraction(1, 4),
    "fourth": Fraction(1, 4),
    "fifth": Fraction(1, 5),
}
_AND_A_PART = re.compile(r"(\d+) and (?:an? |(?:(one|two|three|four) ))?(hal(?:f|ve)|third|quarter|fourth|fifth)s?")
_KNOWN_WORDS = re.compile(r"(?i)\b(?:pi|sqrt|cbrt|infinity|inf|infty|sin|cos|tan|ln|log|exp)\b|(?<![a-z])(?:and|or)(?![a-z])")


def for_math_verify(answer: str) -> str | None:
    r"""The answer as ``math-verify`` reads it right, or None where it cannot be asked.

    It takes ``18 dollars`` for a product of letters, ``1 1/2`` for (1 + 1)/2, ``100 000`` for 0, ``5 6`` for 11 and ``east`` for
    the same product as ``seat``, and drops all that follows the first of two ``\text``. So units, mixed numbers, spaced
    thousands, ``2e3``, ``0.\overline{3}`` and bare words are rewritten, and two numbers side by side are left to the comparison
    of texts. So are answers of more than 1,000 characters, brackets nested more than 12 deep, control characters, dots that stand
    for what is left out, and times of the day. What programs write (``sqrt(2)/2``, ``x**2``, ``2*pi``) is rewritten too.

    Example:
        >>> for_math_verify("$18 dollars."), for_math_verify("1 1/2"), for_math_verify("east"), for_math_verify("5 6")
        ('18', '1\\frac{1}{2}', '\\text{east}', None)
        >>> for_math_verify("-2*pi"), for_math_verify("sqrt(2)/2"), for_math_verify("12:00")
        ('-2 \\cdot \\pi', '\\sqrt{2}/2', None)
    """
    if len(answer) > LONGEST or _nesting(answer) > DEEPEST or answer.count("{") != answer.count("}"):
        return None
    text = _EDGES.sub("", untypeset(_symbols(answer)))
    if not text or not text.replace("\n", " ").replace("\t", " ").isprintable():
        return None
    flat = plain(text)
    if _CLOCK.fullmatch(flat) or re.search(r"\\[lcd]?dots|\.\.\.", text) or flat.count(":") > 1:
        return None
    if _GROUPED.fullmatch(flat):
        return flat.replace(" ", "")
    if match := _MIXED.fullmatch(flat):
        return rf"{match[1]}\frac{{{match[2]}}}{{{match[3]}}}"
    if match := _SCIENTIFIC.fullmatch(flat):
        return rf"{match[1]}\times10^{{{match[2]}}}"
    if match := _REPEATING.fullmatch(flat):
        return _fraction(match)
    if (number := number_of_words(flat)) is not None:
        return str(number) if number.denominator == 1 else rf"\frac{{{number.numerator}}}{{{number.denominator}}}"
    if match := _AND_A_PART.fullmatch(flat.casefold()):
        part = (number_of_words(match[2] or "a") or 1) * _PARTS_OF_ONE[match[3].replace("halve", "half")]
        return rf"{match[1]}\frac{{{part.numerator}}}{{{part.denominator}}}"
    if _WORDS.fullmatch(text) and not _KNOWN_WORDS.search(text):
        return rf"\text{{{text}}}"
    text = amount(flat) or _rewritten(_UNIT_TEXT.sub("", text))
    return None if _TWO_NUMBERS.search(text) else text


def pair_for_math_verify(gold: str, answer: str) -> tuple[str | None, str | None]:
    r"""Both as ``math-verify`` reads them right; ``107,112`` is a list where the other is one, ``112, 107``, else a number.

    Degrees are turned into radians inside of sines and their like, and where only the other side has a ``\pi``; elsewhere the
    sign counts as a unit.

    Example:
        >>> pair_for_math_verify("107,112", "112, 107")
        ('107, 112', '112, 107')
        >>> pair_for_math_verify(r"90^\circ", r"\frac{\pi}{2}")[0]
        '(90\\cdot\\frac{\\pi}{180})'
    """
    gold, answer = _radians(gold, answer), _radians(answer, gold)
    left, right = for_math_verify(gold), for_math_verify(answer)
    if left is None or right is None:
        return left, right
    return _as_list(left, right), _as_list(right, left)


def _radians(text: str, other: str) -> str:
    text, other = untypeset(text), untypeset(other)
    has_pi = re.search(r"(?i)\\?(?<![a-z])pi(?![a-z])", other) is not None and _DEGREES.search(other) is None
    if len(text) > LONGEST or not (_TRIGONOMETRY.search(text) or has_pi):
        return text
    return _DEGREES.sub(lambda match: rf"({match['value']}\cdot\frac{{\pi}}{{180}})", text)


def _as_list(text: str, other: str) -> str:
    return text.replace(",", ", ") if _THOUSANDS.fullmatch(text) and _LIST.search(other) else text


def _symbols(text: str) -> str:
    """Mathematical characters as LaTeX."""
    text = _RAISED.sub(lambda raised: "^{" + raised[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _LOWERED.sub(lambda low: "_{" + "".join(chr(ord(one) - 0x2080 + 48) for one in low[0]) + "}", text)
    for character, latex in _SYMBOLS.items():
        text = text.replace(character, latex)
    return text


def _rewritten(text: str) -> str:
    """What people and programs write, as the LaTeX that ``math-verify`` knows."""
    text = re.sub(r"^(?:\\approx|\\sim|~|approximately|approx\.?|about|roughly|around|exactly)\s*", "", text)
    text = re.sub(r"^(?:\\text\{[^{}]*\}|[A-Za-z][A-Za-z ]{2,40})\s*(?:=|\bis\b)\s*(?=\S)", "", text)
    text = (
        re.sub(r"(?<=[\w})\]])\s*(?:\\approx|\\simeq)\s*[-+]?[\d.,]+\s*$", "", text)
        if not re.match(r"\s*[A-Za-z]\s*\\approx", text)
        else text
    )
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _with_braces(text, _ROOT)
    text = _FUNCTION.sub(lambda match: "\\" + _INVERSE.get(match[1], match[1]), text)
    return _exponentials(text).strip()


def _with_braces(text: str, pattern: re.Pattern[str]) -> str:
    r"""``sqrt(x)`` and ``\sqrt(x)`` as ``\sqrt{x}``, brackets matched; ``sqrt2`` and ``sqrt 2`` too."""
    position = 0
    while (match := pattern.search(text, position)) is not None:
        head = r"\sqrt[3]" if "cbrt" in match[0] else r"\sqrt"
        inner, stop = _argument(text, match.end())
        if inner is None:
            position = match.end()
            continue
        text = f"{text[: match.start()]}{head}{{{inner}}}{text[stop:]}"
        position = match.start() + len(head)
    return text


def _argument(text: str, start: int) -> tuple[str | None, int]:
    """What a function is applied to, in brackets or a bare number or letter, and where it ends."""
    start += len(text[start:]) - len(text[start:].lstrip())
    if text[start : start + 1] not in "({" or start >= len(text):
        bare = re.compile(r"\d+(?:\.\d+)?|[A-Za-z]").match(text, start)
        return (bare[0], bare.end()) if bare else (None, start)
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + 1 : position], position + 1
    return None, start


def _exponentials(text: str) -> str:
    position = 0
    while (found := text.find(r"\exp", position)) >= 0:
        inner, stop = _argument(text, found + 4) if text[found + 4 : found + 5] in "({ " else (None, found)
        if inner is None:
            position = found + 4
            continue
        text = f"{text[:found]}e^{{{inner}}}{text[stop:]}"
        position = found + 3
    return text


def number_of_words(text: str) -> Fraction | None:
    """A number in English words.

    Example:
        >>> number_of_words("forty-two"), number_of_words("one hundred and five"), number_of_words("two thirds")
        (Fraction(42, 1), Fraction(105, 1), Fraction(2, 3))
    """
    words = [word for word in re.split(r"[\s-]+", text.strip().casefold()) if word != "and"]
    if not 0 < len(words) <= 12 or not all(word.isalpha() for word in words):
        return None
    sign = -1 if words[0] in ("minus", "negative") else 1
    words = words[1:] if sign < 0 else words
    part = _PARTS_OF_ONE.get(words[-1].removesuffix("s").replace("halve", "half")) if words else None
    if part is not None:
        top = 1 if len(words) == 1 or words[:-1] in (["a"], ["one"]) else _whole_of_words(words[:-1])
        return None if top is None else sign * top * part
    whole = _whole_of_words(words)
    return None if whole is None else Fraction(sign * whole)


def _whole_of_words(words: list[str]) -> int | None:
    total = current = 0
    for word in words:
        if word in _NUMBER_WORDS:
            current += _NUMBER_WORDS[word]
        elif word == "hundred" or word in _NUMBER_SCALES:
            current = max(1, current) * _NUMBER_SCALES[word]
            if word != "hundred":
                total, current = total + current, 0
        else:
            return None
    return total + current if words else None


def clock_time(text: str) -> str | None:
    """A time of the day in one form; None for any other text.

    Example:
        >>> clock_time("6:30 p.m."), clock_time("06:30 PM"), clock_time("3:2")
        ('6:30pm', '6:30pm', None)
    """
    match = _CLOCK.fullmatch(plain(text).strip())
    if match is None or int(match[1]) > 24 or int(match[2]) > 59:
        return None
    half = re.sub(r"[^apm]", "", (match[4] or "").casefold())
    return f"{int(match[1])}:{match[2]}" + (f":{match[3]}" if match[3] else "") + half


def decided_as_text(gold: str, answer: str) -> bool | None:
    r"""Whether two answers are equal where text and exact numbers decide alone; None where mathematics has to be asked.

    Two exact numbers (whole, decimal, fraction, with a percent sign or a unit), two times of the day, numbers with a base and two
    words are decided here. A decimal beside a fraction that has no end as a decimal is left to mathematics.

    Example:
        >>> decided_as_text("0.0000001", "0.0000002"), decided_as_text("1/3", "0.3333333"), decided_as_text("1011_2", "1101_2")
        (False, None, False)
    """
    if same_text(gold, answer):
        return True
    if len(gold) > LONGEST or len(answer) > LONGEST:
        return False if max(len(gold), len(answer)) > 4 * min(len(gold), len(answer)) else None
    bases = _BASE.fullmatch(plain(gold)), _BASE.fullmatch(plain(answer))
    if bases[0] or bases[1]:
        written = [
            (base[1].casefold(), base[2]) if base else (plain(text).casefold(), None)
            for base, text in zip(bases, (gold, answer), strict=True)
        ]
        return written[0][0] == written[1][0] and (None in (written[0][1], written[1][1]) or written[0][1] == written[1][1])
    times = clock_time(gold), clock_time(answer)
    if None not in times:
        return times[0] == times[1]
    left, right = exact_number(gold), exact_number(answer)
    if (_LIST.search(gold) is None) != (_LIST.search(answer) is None):
        return None
    if left is not None and right is not None:
        return None if _is_periodic(left.value) != _is_periodic(right.value) else False
    if all(_WORDS.fullmatch(plain(text)) for text in (gold, answer)) and not any(
        _TRIGONOMETRY.search(text) for text in (gold, answer)
    ):
        return False
    return None


def _is_periodic(value: Fraction) -> bool:
    """Whether a number has no end as a decimal."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest != 1


def _fraction(match: re.Match[str]) -> str:
    """``0.1\\overline{6}`` is (16 - 1) / 90."""
    sign, whole, fixed, repeated = match.groups()
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed + repeated) - int(whole + fixed or 0), scale * (10 ** len(repeated) - 1))
    return rf"{sign}\frac{{{value.numerator}}}{{{value.denominator}}}"


def _nesting(text: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r"[([{}\])]", text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest


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
