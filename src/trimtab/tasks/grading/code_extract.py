"""Finding the program in a response. Runs in the tester's process: a response can be built to crash Python's parser."""

import ast
import re
import symtable
import textwrap

THINK_END = "</think>"
_MARKS = ("`", "~")
_SHORTEST_FENCE = 3
_PYTHON = ("", "py", "python", "python3")


class NoProgramError(Exception):
    """The response holds no program to run; the message says why, for a person."""


def extract_program(response: str, entry_point: str, preamble: str) -> str:
    """The program of a response, after ``</think>`` where there is one.

    The last fenced Python block that defines the entry point; else the last block, if it continues the preamble's function;
    without any fence, the whole text under the same two rules.

    Raises:
        NoProgramError: no code, a syntax error, or the entry point is not defined.
    """
    tail = response.rpartition(THINK_END)[2]
    blocks = [code for language, code in _fenced_blocks(tail) if language.lower() in _PYTHON]
    last = blocks[-1] if blocks else tail
    for block in reversed(blocks or [tail]):
        if _error(block) is None and _defines(block, entry_point):
            return block
    continued = _continue(preamble, last) if preamble else None
    if continued is not None and _defines(continued, entry_point):
        return continued
    error = _error(last)
    prose = not blocks and error is not None and not re.search(rf"^def {entry_point}\b", tail, re.MULTILINE)
    if prose or not tail.strip():
        raise NoProgramError("no code found")
    raise NoProgramError(f"does not define {entry_point}" if error is None else f"syntax error: {error}")


def _fenced_blocks(text: str) -> list[tuple[str, str]]:
    """Every fenced block as (language, code), in order; one that is never closed runs to the end.

    Line by line: a regular expression would take a time that grows with the square of a hostile line.
    """
    found: list[tuple[str, list[str]]] = []
    fence, indent = "", 0
    for line in text.split("\n"):
        bare = line.strip()
        marks = bare[: len(bare) - len(bare.lstrip(bare[0]))] if bare[:1] in _MARKS else ""
        if fence and bare == marks and marks.startswith(fence):
            fence = ""
        elif fence:
            found[-1][1].append(_without_indent(line, indent))
        elif len(marks) >= _SHORTEST_FENCE and marks[0] not in bare[len(marks) :]:
            fence, indent = marks, len(line) - len(line.lstrip())
            found.append((bare[len(marks) :].strip().partition(" ")[0], []))
    return [(language, "\n".join(lines).rstrip("\n") + "\n") for language, lines in found]


def _without_indent(line: str, width: int) -> str:
    """A line without its fence's own indentation, which stands in a list."""
    return line[min(width, len(line) - len(line.lstrip())) :]


def _error(source: str) -> str | None:
    """Why a text is no Python module, or None if it is one."""
    try:
        compile(source, "<program>", "exec")
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"{error}" or type(error).__name__
    return None


def _defines(source: str, name: str) -> bool:
    """Whether a module binds a name at its top level."""
    try:
        symbol = symtable.symtable(source, "<program>", "exec").lookup(name)
    except KeyError:
        return False
    return symbol.is_assigned() or symbol.is_imported()


def _continue(preamble: str, text: str) -> str | None:
    """The preamble with a function's body behind it, if the text is such a body."""
    stem = preamble.rstrip() + "\n"
    if text.lstrip("\n")[:1] in (" ", "\t") and _error(stem + text) is None:
        return stem + text
    body = textwrap.dedent(text)
    try:
        ast.parse(body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if _error(body) is None:  # a module of its own; a body has a return that no module can have
        return None
    indented = stem + textwrap.indent(body, "    ")
    return indented if _error(indented) is None else None
