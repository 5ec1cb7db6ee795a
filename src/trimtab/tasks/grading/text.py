"""Answers as text: where a response states its final answer, two texts made comparable, and the exact grader."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from trimtab.tasks.grading.grader import Judgement
from trimtab.traces import Problem, Score

MOST_STATEMENTS = 20
_CJK_ANSWERS = r"\u7b54\u6848|\u7b54\u3048|\u6b63\u89e3|\u89e3\u7b54|\u56de\u7b54|\u7b54|\uc815\ub2f5|\ub2f5"
ANSWER_WORDS = (
    r"answers?|ans|antwort|l\u00f6sung|r\u00e9ponse|respuesta|resposta|risposta|antwoord|svar|odpowied\u017a|cevap|"
    r"\u0111\u00e1p \u00e1n|"
    r"\u043e\u0442\u0432\u0435\u0442|\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u0909\u0924\u094d\u0924\u0930|"
) + _CJK_ANSWERS
"""The word for an answer in the languages that models of today answer in, for a regular expression."""

_THINK_END = re.compile(
    r"(?i)</(?:think(?:ing)?|thought|reasoning|reflection)>|\[/THINK\]|\u25c1/think\u25b7|<\|end_of_thought\|>|"
    r"<\|channel\|>final<\|message\|>"
)
_THINK_START = re.compile(
    r"(?i)<(?:think(?:ing)?|thought|reasoning|reflection)>|\[THINK\]|\u25c1think\u25b7|<\|begin_of_thought\|>|"
    r"<\|channel\|>analysis<\|message\|>"
)
_SPECIAL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|<eos>|<pad>|<bos>|<(?:start|end)_of_turn>|\[/?INST\]|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"[{}]")
_HASHES = re.compile(r"####[ \t]*(\S.*)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_STATED = re.compile(
    rf"(?i)(?<!to )(?:\b(?:{ANSWER_WORDS})\b|(?:{_CJK_ANSWERS}))[^\n.,:=?!]{{0,60}}?"
    r"(?:\s(?:is|are|would be|should be|must be|ist|est|es|\u00e9)\b(?! not\b)|[:=]|(?:\u5e94\u8be5|\u5e94)?[\u662f\u4e3a]:?|"
    r"\s(?:->|\u2192|-|\u2014|\u2013)\s|[*_# ]{0,8}\n)"
    r"[:*_\s]{0,12}(?:(?:\$\$|\\\[)\s{0,4})?"
)


class Box(NamedTuple):
    r"""One ``\boxed{}``: where it starts and stops, and what it holds; None when it never closes."""

    start: int
    stop: int
    content: str | None


class Statement(NamedTuple):
    """Where a response says what its answer is, and the rest of that line."""

    start: int
    text: str


def final_answer(text: str) -> str | None:
    r"""The answer of a response: the last ``\boxed{}``, else what follows ``####``, else the text after ``</think>``.

    Where thinking is closed, boxes and ``####`` before its end are no answer. Returns None when nothing follows it, and when the
    response has neither an end of thinking nor a box nor ``####``.

    Example:
        >>> final_answer("a 5 -9 gives 6 . </think> 6")
        '6'
    """
    tail = conclusion(text)
    box = next(boxes(tail), None)
    if box is not None and box.content is not None:
        return box.content
    hashes = after_hashes(tail)
    return hashes if hashes is not None or not _THINK_END.search(text) else tail or None


def conclusion(text: str) -> str:
    """:func:`after_thinking` without white space around it.

    Example:
        >>> conclusion("<think>maybe 3</think> It is 4.<|im_end|>"), conclusion("<think>maybe 3")
        ('It is 4.', '')
    """
    return after_thinking(text).strip()


def after_thinking(text: str) -> str:
    """What follows the last end of thinking, ``</think>`` or another model's mark, and precedes a thinking that never ends.

    Special tokens (``<|im_end|>``) are taken out. The whole text where there is no mark.
    """
    ends = deque(_THINK_END.finditer(text), maxlen=1)
    tail = text[ends[0].end() :] if ends else text
    start = _THINK_START.search(tail)
    return _SPECIAL.sub("", tail[: start.start()] if start else tail)


def boxes(text: str) -> Iterator[Box]:
    r"""Every ``\boxed{}`` and ``\fbox{}``, the last one first; one that would reach into the next is never closed."""
    stop = len(text)
    for head in reversed([*_BOXED.finditer(text)]):
        yield _box(text, head, stop)
        stop = head.start()


def after_hashes(text: str) -> str | None:
    """What follows the last ``####`` on its line."""
    found = _HASHES.findall(text)
    return found[-1].strip() if found else None


def statements(text: str) -> list[Statement]:
    """The last twenty of "the answer is ..." and "Answer: ...", in order, with the rest of the line each stands on or announces.

    Example:
        >>> statements("The answer is not 3. So the final answer is 5.")
        [Statement(start=34, text='5.')]
    """
    last = deque(_STATED.finditer(text), maxlen=MOST_STATEMENTS)
    found = [Statement(match.start(), _line_from(text, match.end())) for match in last]
    return [statement for statement in found if statement.text]


def normalise(answer: str) -> str:
    """A comparable form: case, outer white space, dollar signs and thousands separators removed, ``5.0`` as ``5``."""
    plain = " ".join(answer.replace("$", "").strip().rstrip(".").lower().split())
    if _NUMBER.fullmatch(plain):
        plain = plain.replace(",", "")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain


def _line_from(text: str, start: int) -> str:
    stop = text.find("\n", start)
    return text[start : stop if stop >= 0 else None].strip()


def _box(text: str, head: re.Match[str], stop: int) -> Box:
    depth = 1
    for brace in _BRACE.finditer(text, head.end(), stop):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return Box(head.start(), brace.end(), text[head.end() : brace.start()].strip())
    return Box(head.start(), stop, None)


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
_FULL_WIDTH = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, "\u3002\uff61"), "."),
    **dict.fromkeys(map(ord, "\u3001\uff64"), ","),
    **dict.fromkeys(map(ord, "\u3010\u3014\u3016"), "["),
    **dict.fromkeys(map(ord, "\u3011\u3015\u3017"), "]"),
    ord("\u3000"): " ",
    **{0x24B6 + number: chr(65 + number) for number in range(26)},
    **{0x1D400 + number: chr(65 + number) for number in range(26)},
}
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|operatorname|boxed)\s*\{([^{}]*)\}")
_MARKS = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[!,;:]|\\?\$|(?<![\w)\]}])\*\*|\*\*(?![\w(\[{\\])|\\[()\[\]]")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree(?![A-Za-z])")
_ANGLE_COUNTS = re.compile(r"(?<![A-Za-z])\\?(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DOTS = re.compile(r"\\[lcd]?dots(?![A-Za-z])|\u2026")
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
    r"\b(?:and|or|nor|but|not|than|plus|minus|over|under|mod|choose|squared|cubed|factorial|sqrt|pi|infinity|if|when|where|"
    r"unless|"
    r"hal(?:f|ves)|thirds?|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|hundredths)\b"
)


def plain_punctuation(text: str) -> str:
    """Full-width letters, digits and punctuation as ASCII, and Chinese full stops and commas as ours.

    Example:
        >>> plain_punctuation("\u7b54\u6848\uff1a\uff08\uff23\uff09\u3002")
        '\u7b54\u6848:(C).'
    """
    return text.translate(_FULL_WIDTH)


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
    text = _DEGREE.sub("\u00b0" if _ANGLE_COUNTS.search(text) else "", text)
    text = _DOTS.sub("...", _MARKS.sub("", text)).replace("{,}", ",")
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


NO_ANSWER = Judgement(Score.INCORRECT, "no answer found")


class ExactGrader:
    """Correct when the final answer equals the gold answer after :func:`trimtab.tasks.grading.text.normalise`."""

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response)."""
        return [_judge_exact(problem, response) for problem, response in answers]


def _judge_exact(problem: Problem, response: str) -> Judgement:
    answer = final_answer(response)
    if answer is None:
        return NO_ANSWER
    if normalise(answer) == normalise(problem.answer):
        return Judgement(Score.CORRECT, "equals the gold answer", answer)
    return Judgement(Score.INCORRECT, f"differs from the gold answer {problem.answer}", answer)
