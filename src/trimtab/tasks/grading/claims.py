"""Where a response claims a choice, or yes or no: forms of sentences that assert one, reject one, or take one back.

The last assertion counts. Sentences of another form, which explain or ask, count for nothing whatever letters they hold.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from trimtab.tasks.grading.text import ANSWER_WORDS, boxes, conclusion, plain_punctuation

LONGEST_TEXT = 20_000
"""Characters at the end of a response in which claims are looked for."""
LONGEST_CLAIM = 400
MOST_BOXES = 20


class Claim(NamedTuple):
    """The claim at a place of the text: ``named`` is asserted, or with ``rejects`` denied; both empty takes everything back."""

    start: int
    named: frozenset[str]
    rejects: bool = False


class Read(NamedTuple):
    """The letters or words named at the beginning of a text, and their end; ``negated`` after "not"."""

    named: frozenset[str]
    stop: int
    negated: bool = False


Reader = Callable[[str], Read | None]
"""Reads what a text names at its beginning; None where it names nothing."""

_TAGS = re.compile(r"(?i)<(/?)(?:final[_ -]?)?answer\s*>")
_OTHER_TAGS = re.compile(
    r"(?i)</?(?:b|i|u|p|em|strong|span|div|br|mark|code|output|response|choice|option|result|conclusion)\s*/?>"
)
_TYPESET = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|bb)|mbox|operatorname|boxed|fbox|underline)\s*\{([^{}]*)\}"
)
_MARKS = re.compile(
    r"\\(?:left|right|displaystyle|large|Large|bf|rm)(?![A-Za-z])|\\[()\[\],;:! ]|\\?\$|\*|`|~~|\\quad|(?<![A-Za-z0-9])_+|"
    r"_+(?![A-Za-z0-9])"
    r"|[\"\u201c\u201d\u2018\u201e\u201a\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f\u201f]|(?<!\w)['\u2019]|['\u2019](?!\w)"
)
_HASHES = re.compile(r"(?m)^[ \t]*#{4,}[ \t]*(?=\S)")
_HEADING = re.compile(r"(?m)^[ \t>]*#{1,6}[ \t]+")
_BULLET = re.compile(r"(?m)^[ \t]*(?:>[ \t]*|[-+\u2022][ \t]+)+")
_RULE = re.compile(r"(?m)^[ \t]*[-=\u2014_]{3,}[ \t]*$")

_SUBJECT = (
    r"(?:(?:final|correct|right|best|true|only|proper|appropriate|suitable|chosen|selected|likely|my|closest|clear|valid|actual|"
    r"accurate|most \w+)\s+){1,3}"
    r"(?:answer|option|choice|letter|pick|selection|guess|bet|fit|one|match|alternative|response|statement|solution|verdict|"
    r"decision)"
)
_NOTION = r"(?:conclusion|verdict|decision|judge?ment|ruling|result)"
_IS = (
    r"(?:is|was|are|['\u2019]s|would be|should be|must be|has to be|have to be|will be|seems to be|appears to be|becomes|"
    r"remains|ist|est|es|\u00e9|\u00e8|\u00e4r|jest|\u044d\u0442\u043e)"
)
_SIGNS = (
    r"(?:\s*(?:\u5e94\u8be5|\u5e94\u5f53|\u5e94)?(?:[\u662f\u4e3a\u70ba\u9009\u306f\uc740\ub294]\s?[:=]?|"
    r"[:=~\u2192>\u21d2\u2014\u2013-]+)|\s*\n)"
)
_NOISE = (
    r"(?:[\s:*=>,\u2192\u21d2-]|\b(?:that|rather(?! than)|instead(?! of)|indeed|therefore|then|thus|hence|so|clearly|"
    r"definitely|certainly|simply|surely|probably|most likely|"
    r"likely|obviously|undoubtedly|just|only|again|still|now|actually|really|in fact|indeed|of course|without (?:a |any )?doubt|"
    r"beyond (?:a |any )?doubt|no doubt|no question|i(?: would|['\u2019]d)? (?:think|believe|say|guess|suppose)|"
    r"in my (?:opinion|view)|it (?:is|must be|should be|has to be)|it['\u2019]s|to be|as follows|given by|a (?:clear|"
    r"definite|firm|resounding|simple|big)|"
    r"(?:a )?solid|absolutely|totally|quite|very)\b,?)*"
)
_ANNOUNCED = re.compile(
    rf"(?i)(?:\b(?:{ANSWER_WORDS})\b|(?:{ANSWER_WORDS})|\b{_SUBJECT}\b|\b{_NOTION}\b)(?P<about>[^\n.,:=?!;~]{{0,60}}?)"
    rf"(?:\s*\b{_IS}\b|{_SIGNS}|(?=\s*[(\[]))"
)
_CHOSEN = re.compile(
    r"(?i)\b(?:i|we|let['\u2019]?s|let us|you should|one should)\s*(?:['\u2019](?:d|ll|m|re|ve)|would|will|shall|am|are|must|"
    r"should|can|could|have to|"
    r"do|to|finally|therefore|now|have|definitely|rather|safely|confidently|thus|hence|also|still|\s)*\s*"
    r"(?:choose|chose|chosen|choosing|pick|picked|picking|select|selected|selecting|go(?:ing)? (?:with|for)|went (?:with|"
    r"for)|opt(?:ing)? for|settle (?:on|for)|say|vote for|"
    r"answer(?:ing)?(?: with)?|conclude|concluding|lean(?:ing)? towards?|mark|submit|stick(?:ing)? with|bet on|think|believe|"
    r"vote|"
    r"take|guess|call it|mean)(?: that| on| is)?(?=\W)"
)
_FOLLOWS = re.compile(
    r"(?i)(?:\b(?:so|hence|thus|therefore|consequently|accordingly|in conclusion|in summary|to conclude|overall|finally|ergo|"
    r"(?:which|that|this)(?: only)? leaves(?: us)?(?: only)?(?: with)?|leaving(?: us)?(?: only)?(?: with)?|(?:we(?: are|"
    r"['\u2019]re)? left|left) with|conclusion|verdict|result|"
    r"in short|all in all|ultimately|it follows(?: that)?|we (?:get|have|find|arrive at|obtain)|final)\b|\u2234|\u21d2|=>|->|"
    r"\u2192)[\s,:;-]*"
)
_IT_IS = re.compile(
    r"(?i)\b(?:it|this|that)(?:\s*['\u2019]s|\s+(?:is|must be|should be|has to be|will be|would be|can only be|is clearly|"
    r"is definitely))\b"
)
_TURNS = re.compile(
    r"(?i)(?:[,;.!?\n\u2014-]\s*(?:but(?! also)|no,?|nope,?|rather,?|instead,?|actually,?|correction[:,]?|i mean,?|"
    r"make (?:that|it)|and not|it['\u2019]s)"
    r"|\bnot [^.;,\n]{1,30}? but(?: rather)?|\bchange(?:d)? (?:it|my (?:answer|mind|choice))(?: [^.\n]{0,20}?)?\bto|"
    r"\bswitch(?:ing)? to)\s+"
)
_CJK = re.compile(
    r"(?:\u6545|\u6240\u4ee5|\u56e0\u6b64|\u5e94\u8be5?|\u5e94\u5f53|\u6211)?(?:\u9009\u62e9|\u9009|"
    r"\u9078)(?:\u9879)?(?:\u662f|\u4e3a|:)?\s*"
)
_OF_OTHERS = re.compile(
    r"(?i)\b(?:if|unless|suppose|supposing|assum\w+|whether|pretend|imagine|had|why|when)\b[^.;\n]{0,60}$"
    r"|\b(?:people|students|some|many|others?|they|you|one|someone|everyone|readers?|beginners)\b[^.;\n]{0,30}"
    r"\b(?:think|thinks|say|says|guess|believe|believes|claim|claims|choose|pick|expect|argue|argues|assume|"
    r"conclude)\b[^.,;\n]{0,40}$"
    r"|\b(?:i hope|hopefully|at first|initially|tempted|none of|neither|not sure (?:if|that|whether)|unclear|"
    r"don['\u2019]t think|do not think|"
    r"doubt that|not the case that|"
    r"can(?:no|['\u2019])t (?:say|tell)|cannot (?:say|tell)|would be wrong to say|wrong to say|not say|isn['\u2019]t that|"
    r"not that)\b[^.,;\n]{0,40}$"
)
_TAKEN_BACK = re.compile(
    r"(?i)\bscratch that\b|\bnever ?mind\b|\bi (?:was|am) (?:wrong|mistaken)\b|\bi made (?:a|an) (?:mistake|error)\b"
    r"|\b(?:that|this|it)(?:['\u2019]s| is| was)(?: not (?:right|correct)|n['\u2019]t (?:right|correct)| wrong| incorrect|"
    r" a mistake)(?=\s*(?:[.!\n]|$))"
    r"|\b(?:that|this) (?:can['\u2019]?t|cannot|can not) be (?:right|correct)\b"
)
_DOUBTFUL = re.compile(r"(?i)\b(?:could|might|may|can|cannot|not|never|neither|if)\b|n['\u2019]t\b")
_TWO_BOXES = re.compile(r"\n(?=\s*,?\s*(?:and|or|,|/)?\s*\nAnswer: )\s*(?:,?\s*(?:and|or)|,|/)\s*\nAnswer: ")
_CLAUSE_END = re.compile(
    r"\s*(?:[.!,;\n)\]}|\u2014]|\s-\s|$|\((?!\?)|(?:because|since|as|due to|given|for|which|where|while|whereas|although|"
    r"though|but|so|and not|not|rather than|instead of|"
    r"over|with|based on|according to|is (?:the )?(?:only |most |best )?(?:correct|right|best|answer|true|final)|here|"
    r"instead|after all|without|by elimination|in this case|indeed|for sure|then|overall|again|"
    r"it is|i (?:think|believe|guess)|in the end|too|only|alone)\b)",
    re.I,
)


def prepared(response: str) -> str:
    r"""The end of a response without typesetting: what stands in boxes and answer tags as a line ``Answer: ...``.

    Example:
        >>> prepared(r"<think>A?</think>**So** $\\boxed{\\text{B}}$")
        'So \nAnswer: B\n'
    """
    text = conclusion(response)[-LONGEST_TEXT:]
    for box in islice(boxes(text), MOST_BOXES):
        if box.content is not None and len(box.content) <= LONGEST_CLAIM:
            text = f"{text[: box.start]}\nAnswer: {box.content}\n{text[box.stop :]}"
    text = _TWO_BOXES.sub(" or ", text)
    text = _TAGS.sub(lambda tag: "\n" if tag[1] else "\nAnswer: ", plain_punctuation(text))
    text = _OTHER_TAGS.sub("", text)
    for _ in range(3):  # \text inside \textbf
        text = _TYPESET.sub(r"\1", text)
    text = _HASHES.sub("Answer: ", text.replace("\r", ""))
    text = _BULLET.sub("", _HEADING.sub("", text))
    text = _RULE.sub("", _MARKS.sub("", text))
    return re.sub(r"[ \t]+", " ", re.sub(r"(?i)(\banswer\s*)\n{2,}", r"\1\n", text)).strip()


def last_claim(claims: Iterable[Claim]) -> frozenset[str]:
    """What stands after all claims in their order: the last assertion, unless it was rejected or taken back afterwards."""
    standing: frozenset[str] = frozenset()
    for claim in sorted(claims, key=lambda claim: claim.start):
        if not claim.rejects:
            standing = claim.named
        elif standing & claim.named:
            standing = frozenset()
    return standing


def claims_of(text: str, read: Reader) -> Iterator[Claim]:
    """Every claim of a prepared text that announces its answer: "the answer is ...", "I choose ...", "So ...", "but it's ..."."""
    for pattern, strict in (
        (_ANNOUNCED, False),
        (_CHOSEN, False),
        (_FOLLOWS, True),
        (_IT_IS, True),
        (_TURNS, True),
        (_CJK, True),
    ):
        for match in pattern.finditer(text):
            if pattern is _ANNOUNCED and _DOUBTFUL.search(match["about"]):
                continue
            yield from _claim(text, match.start(), match.end(), read, strict)
    for match in _TAKEN_BACK.finditer(text):
        yield Claim(match.start(), frozenset())


def said_by_others(text: str, start: int) -> bool:
    """Whether the sentence before a place makes it a condition, a question or the opinion of others."""
    return _OF_OTHERS.search(text, max(0, start - 120), start) is not None


def ends_clause(text: str, position: int) -> bool:
    """Whether a clause ends here, or goes on with a reason."""
    return _CLAUSE_END.match(text, position) is not None and not is_question(text, position)


def is_question(text: str, position: int) -> bool:
    """Whether the sentence around a place ends with a question mark."""
    end = re.compile(r"[.!?\n]|$").search(text, position)
    return end is not None and end[0] == "?"


def _claim(text: str, start: int, stop: int, read: Reader, strict: bool) -> Iterator[Claim]:
    noise = re.compile(_NOISE, re.I).match(text, stop)
    assert noise is not None
    for place in dict.fromkeys((noise.end(), stop)):
        window = text[place : place + LONGEST_CLAIM]
        lead = len(window) - len(window.lstrip())
        found = read(window[lead:])
        if found is None:
            continue
        end = place + lead + found.stop
        if is_question(text, end) or said_by_others(text, start) or (strict and not ends_clause(text, end)):
            return
        yield Claim(start, found.named, found.negated)
        return
