"""A process that compares answers as mathematics: one JSON line in, one JSON line out. The math grader starts it.

It imports nothing of trimtab but the comparison, so that it starts in half a second. By itself ``math-verify`` catches its
timeouts and errors and answers "not equal"; here it has no timeout of its own, its errors are reported, and a process that ran
out of memory ends instead of answering, since computer algebra catches MemoryError too.
"""

import json
import logging
import os
import re
import signal
import sys
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, TextIO

OUT_OF_MEMORY = 77
"""Exit status of a worker that needed too much memory."""

_RECURSION = 20_000
_PERCENT = re.compile(r"\s*\\?%")
_DECIMAL = re.compile(r"\d\.\d|(?<!\d)\.\d")


def limit(memory_mb: int) -> None:
    """Bound the address space (on Linux; elsewhere the kernel does not hold the bound) and write no core dump."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


def end_when_memory_ran_short(memory_mb: int) -> None:
    """End the process when it has ever held half of what it may: a refusal may have been taken for "not equal"."""
    if sys.platform == "linux":  # getrusage would do elsewhere, but it starts from the peak of the parent
        peak = re.search(r"^VmPeak:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if peak is not None and int(peak[1]) > memory_mb << 9:
            os._exit(OUT_OF_MEMORY)


@lru_cache(maxsize=2_000)
def read(latex: str) -> list[Any]:
    """What ``math-verify`` makes of one answer: an expression and its text, or the text alone where it is no mathematics."""
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    return parse(rf"\boxed{{{latex}}}", config, extraction_mode="first_match", parsing_timeout=0, raise_on_error=True)


def is_readable(parts: list[Any]) -> bool:
    """True when there is an expression among them."""
    return not all(isinstance(part, str) for part in parts)


def compare(gold: str, answer: str) -> str:
    r"""``equal``, ``unequal``, or which of the two is no mathematics.

    A percentage is the number before its sign and its hundredth: ``18\%`` is both 18 and 0.18.
    """
    signs = [_PERCENT.search(text) is not None for text in (gold, answer)]
    if not any(signs):
        return _compare(gold, answer)
    bare = [_PERCENT.sub("", text) for text in (gold, answer)]
    result = _compare(*bare)
    if result == "unequal" and signs.count(True) == 1 and not re.search(r"[,=;]", "".join(bare)):
        of_hundred = [rf"\frac{{{text}}}{{100}}" if sign else text for text, sign in zip(bare, signs, strict=True)]
        return _compare(*of_hundred)
    return result


def _compare(gold: str, answer: str) -> str:
    from math_verify import verify

    from trimtab.tasks.grading.math_equal import same

    left, right = read(gold), read(answer)
    if not is_readable(left):
        return "gold unreadable"
    if not is_readable(right):
        return "answer unreadable"
    rounded = (_DECIMAL.search(gold) is None) != (_DECIMAL.search(answer) is None)
    decided = same(left[0], right[0], rounded)
    if decided is None:
        decided = verify(left, right, timeout_seconds=0, raise_on_error=True)  # not symmetric: gold first
    return "equal" if decided else "unequal"


def reply_to(gold: str, answer: str, memory_mb: int) -> dict[str, str]:
    """``{"result": ...}``, or ``{"error": ...}`` when ``math-verify`` broke."""
    try:
        result = compare(gold, answer)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is unscored
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    if result == "unequal":
        end_when_memory_ran_short(memory_mb)
    return {"result": result}


def serve(replies: TextIO, seconds: int, memory_mb: int) -> None:
    """Answer requests until the pipe closes."""
    for line in sys.stdin:
        signal.alarm(seconds)  # the default action ends the process, also one whose parent is gone
        gold, answer = json.loads(line)
        say(replies, reply_to(gold, answer, memory_mb))
        signal.alarm(0)


def with_large_frame(function: FunctionType) -> FunctionType:
    """The same function with a frame of half a megabyte.

    CPython maps its stack in pieces of 16 kB and unmaps one whenever recursion returns across its edge, which the parser's does a
    thousand times an answer. A large frame makes it map one large piece and stay in it; that saves a quarter of the time.
    """
    return FunctionType(function.__code__.replace(co_stacksize=1 << 16), function.__globals__)


def say(replies: TextIO, reply: dict[str, str]) -> None:
    """One line to the parent."""
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def main() -> None:
    """Arguments: the folder of trimtab, this module, seconds after which the kernel ends a hung worker, megabytes of memory."""
    seconds, memory_mb = int(sys.argv[3]), int(sys.argv[4])
    replies, sys.stdout = sys.stdout, sys.stderr
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(_RECURSION)
    try:
        limit(memory_mb)
        import math_verify

        from trimtab.tasks.grading.math_equal import same
    except (ImportError, OSError, ValueError) as error:
        say(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    say(replies, {"result": f"ready, with {math_verify.__name__} and {same.__name__}"})
    with_large_frame(serve)(replies, seconds, memory_mb)
