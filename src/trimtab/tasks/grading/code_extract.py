"""Finding the program in a response. Runs in the tester's process: a response can be built to crash Python's parser."""

import ast
import re
import symtable
import textwrap

THINK_END = "</think>"
_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\2[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
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
    found = _FENCE.findall(tail)
    blocks = [_outdent(code, len(indent)) for indent, _, language, code in found if language.lower() in _PYTHON]
    fenced = bool(blocks)
    blocks = blocks or [tail]
    whole = [block for block in blocks if _error(block) is None]
    defining = [block for block in whole if _defines(block, entry_point)]
    if defining:
        return defining[-1]
    continued = _continue(preamble, blocks[-1]) if preamble else None
    if continued is not None and _defines(continued, entry_point):
        return continued
    if not fenced and (not whole or not tail.strip()) and not re.search(rf"^def {entry_point}\b", tail, re.MULTILINE):
        raise NoProgramError("no code found")
    error = _error(blocks[-1])
    raise NoProgramError(f"does not define {entry_point}" if error is None else f"syntax error: {error}")


def _outdent(code: str, width: int) -> str:
    """A block without the indentation of its fence, which stands in a list; not by ``dedent``, which empties blank lines."""
    return re.sub(rf"^[ \t]{{1,{width}}}", "", code, flags=re.MULTILINE) if width else code


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
