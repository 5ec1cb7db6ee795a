"""Where a response claims an answer: boxes, sentences that announce it, and lines of their own."""

import re
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from trimtab.tasks.grading.answers import boxes, conclusion, statements

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
