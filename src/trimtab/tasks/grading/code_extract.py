"""Finding the program in a response. Runs in the tester's process: a response can be built to crash Python's parser."""

import ast
import builtins
import re
import symtable
import textwrap
from typing import NamedTuple

from trimtab.tasks.grading.text import after_thinking

_MARKS = ("`", "~")
_SHORTEST_FENCE = 3
_MOST_CUTS = 200
_PYTHON = re.compile(r"(?i)(?:(?:i?python|py|sage|pycon|python-repl)[\d.]*|code|)")
_TAG = re.compile(r"(?im)^[ \t]*(?:\[(?:PYTHON|BEGIN|CODE|ANSWER|SOLUTION)\]|<(?:code|python|answer|solution)>)[ \t]*\n?")
_TAG_END = re.compile(r"(?im)^[ \t]*(?:\[/?(?:PYTHON|DONE|END|CODE|ANSWER|SOLUTION)\]|</(?:code|python|answer|solution)>)[ \t]*$")
_QUOTE = re.compile(r"(?m)^[ \t]*>[ ]?")
_QUOTED_FENCE = re.compile(r"(?m)^[ \t]*>[ \t]*(?:```|~~~)")
_FENCE_IN_LINE = re.compile(r"(?mi)(?<=\S)[ \t]*(?=```(?:python|py)[\d.]*[ \t]*$)")
_CLOSED_IN_LINE = re.compile(r"(?m)(?<=[^\s`])[ \t]*```[ \t]*$")
_STARTS = re.compile(r"(?:async def|def|class|import|from|@|[A-Za-z_]\w*\s*(?::[^=\n]+)?=(?!=))")
_PROMPT = re.compile(r"(?m)^(?:>>>|\.\.\.) ?")
_STRINGS = re.compile(r"\"\"\"|'''|#|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_INVISIBLE = str.maketrans({"\ufeff": "", "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\u00a0": " ", "\r": ""})


class NoProgramError(Exception):
    """The response holds no program to run; the message says why, for a person."""


class _Block(NamedTuple):
    """A fenced block: its language as written, and its code."""

    language: str
    code: str


def extract_program(response: str, entry_point: str, preamble: str) -> str:
    """The program of a response, after its thinking where there is one.

    The first of these that there is:

    1. The last fenced Python block that defines the entry point, behind the other blocks that define names which it misses.
    2. The last block, or the whole text, where it continues the preamble's function.
    3. The longest beginning of a block, or of the text from its first line of code on, that Python can parse and that defines
       the entry point or continues the preamble: prose, or code that was cut off, follows it.

    Tags around code (``[PYTHON]``), quotation marks of whole lines, prompts of the interactive interpreter, special tokens and
    characters that nobody sees are taken away first.

    Raises:
        NoProgramError: no code, a syntax error, or the entry point is not defined.
    """
    tail = _ready(after_thinking(response))
    fenced = _fenced_blocks(tail)
    blocks = [_without_prompts(code) for language, code in fenced if _PYTHON.fullmatch(language)]
    if not any(_defines(block, entry_point) for block in blocks):
        others = [code for language, code in fenced if not _PYTHON.fullmatch(language)]
        blocks = [*blocks, *(code for code in others if _defines(code, entry_point))]
    texts = blocks or [_without_prompts(tail)]
    for binds in (_defines, _imports):
        for place in reversed(range(len(texts))):
            if binds(texts[place], entry_point):
                return _with_missing_names(texts, place, preamble)
    last = texts[-1]
    if (continued := _continue(preamble, last, entry_point)) is not None:
        return continued
    if (cut := _longest_beginning(texts, preamble, entry_point)) is not None:
        return cut
    error = _error(last)
    prose = not blocks and error is not None and not re.search(rf"^def {entry_point}\b", tail, re.MULTILINE)
    if prose or not tail.strip():
        raise NoProgramError("no code found")
    raise NoProgramError(f"does not define {entry_point}" if error is None else f"syntax error: {error}")


def _ready(text: str) -> str:
    text = text.translate(_INVISIBLE)
    if _QUOTED_FENCE.search(text):
        text = _QUOTE.sub("", text)
    tag = _TAG.search(text)
    if tag is not None:
        end = _TAG_END.search(text, tag.end())
        inner = text[tag.end() : end.start() if end else None]
        text = inner if "```" in inner else f"```python\n{inner}\n```\n"
    if text.count("```") <= 2:
        text = _CLOSED_IN_LINE.sub("\n```", text)
    return _FENCE_IN_LINE.sub("\n", text)


def _fenced_blocks(text: str) -> list[_Block]:
    """Every fenced block in order; one that is never closed runs to the end, or to the next that opens with Python.

    A fence inside of a docstring belongs to the code, unless the docstring never ends. Line by line: a regular expression would
    take a time that grows with the square of a hostile line.
    """
    blocks, open_string = _scan(text.split("\n"), mind_strings=True)
    return _scan(text.split("\n"), mind_strings=False)[0] if open_string else blocks


def _scan(lines: list[str], mind_strings: bool) -> tuple[list[_Block], bool]:
    found: list[tuple[str, list[str]]] = []
    fence, indent, inside = "", 0, ""
    for line in lines:
        bare = line.strip()
        marks = bare[: len(bare) - len(bare.lstrip(bare[0]))] if bare[:1] in _MARKS else ""
        info = bare[len(marks) :]
        language = _language(info) if len(marks) >= _SHORTEST_FENCE and marks[0] not in info else None
        if fence and bare == marks and marks.startswith(fence) and not inside:
            fence = ""
        elif fence and (inside or not language or not _PYTHON.fullmatch(language)):
            found[-1][1].append(_without_indent(line, indent))
            inside = _string_after(line, inside) if mind_strings else ""
        elif language is not None:
            fence, indent, inside = marks, len(line) - len(line.lstrip()), ""
            found.append((language, []))
    return [_Block(language, "\n".join(code).rstrip("\n") + "\n") for language, code in found], bool(inside)


def _language(info: str) -> str:
    """The language of a fence: ``python`` of ``python title="x"``, ``{.python}`` and ``python:main.py``."""
    return re.split(r"[\s:,{}]", info.strip().lstrip("{.").strip(), maxsplit=1)[0]


def _string_after(line: str, inside: str) -> str:
    """The triple quote that is open after a line."""
    position = 0
    while True:
        if inside:
            stop = line.find(inside, position)
            if stop < 0:
                return inside
            position, inside = stop + 3, ""
        match = _STRINGS.search(line, position)
        if match is None or match[0] == "#":
            return ""
        inside = match[0] if match[0] in ('"""', "'''") else ""
        position = match.end()


def _without_indent(line: str, width: int) -> str:
    """A line without its fence's own indentation, which stands in a list."""
    return line[min(width, len(line) - len(line.lstrip())) :]


def _without_prompts(code: str) -> str:
    """The input of an interactive session, without its output."""
    if not re.match(r"\s*>>> ", code):
        return code
    return "\n".join(_PROMPT.sub("", line) for line in code.split("\n") if line.startswith((">>>", "..."))) + "\n"


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
    """Whether a text is a module that defines a name at its top level; importing it from elsewhere does not."""
    if _error(source) is not None:
        return False
    try:
        return symtable.symtable(source, "<program>", "exec").lookup(name).is_assigned()
    except KeyError:
        return False


def _imports(source: str, name: str) -> bool:
    """Whether a text is a module that imports a name, as ``from math import floor as f`` does."""
    return _error(source) is None and name in _names(source)


def _with_missing_names(texts: list[str], place: int, preamble: str) -> str:
    """A block behind those of the other blocks that define names which it uses and does not define."""
    chosen = [place]
    others = [number for number, text in enumerate(texts) if number != place and _error(text) is None]
    missing = _missing_names([texts[place]], preamble)
    while missing:
        found = next((number for number in reversed(others) if number not in chosen and _names(texts[number]) & missing), None)
        if found is None:
            break
        chosen.append(found)
        missing = _missing_names([texts[number] for number in chosen], preamble)
    return "\n".join(texts[number] for number in sorted(chosen, key=lambda number: (number == place, number)))


def _names(source: str) -> set[str]:
    table = symtable.symtable(source, "<program>", "exec")
    return {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def _missing_names(sources: list[str], preamble: str) -> set[str]:
    """Names that modules use together and none of them, nor the preamble, nor Python defines."""
    known = set(dir(builtins)).union(*map(_names, sources))
    known |= _names(preamble) if _error(preamble) is None else set()
    used: set[str] = set()
    tables = [symtable.symtable(source, "<program>", "exec") for source in sources]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        used |= {one.get_name() for one in table.get_symbols() if one.is_referenced() and (top or one.is_global())}
    return used - known


def _continue(preamble: str, text: str, entry_point: str) -> str | None:
    """The preamble with a function's body behind it, if the text is such a body."""
    if not preamble:
        return None
    stem = preamble.rstrip() + "\n"
    if text.lstrip("\n")[:1] in (" ", "\t") and _defines(stem + text, entry_point):
        return stem + text
    body = textwrap.dedent(text)
    try:
        ast.parse(body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if _error(body) is None:  # a module of its own; a body has a return that no module can have
        return None
    indented = stem + textwrap.indent(body, "    ")
    return indented if _defines(indented, entry_point) else None


def _longest_beginning(texts: list[str], preamble: str, entry_point: str) -> str | None:
    """The longest beginning of a text that is a program, from its first line of code on, or the body of one."""
    stem = preamble.rstrip() + "\n" if preamble else ""
    for text in reversed(texts):
        for start in _code_starts(text):
            head = stem if text[start:].lstrip("\n")[:1] in (" ", "\t") else ""
            cut = _parsable(head, text[start:])
            if cut is not None and _defines(head + cut, entry_point):
                return head + cut
        if stem and re.search(r"^\s*return\b", text, re.MULTILINE):
            cut = _parsable(stem, textwrap.indent(textwrap.dedent(text), "    "))
            if cut is not None and re.search(r"^\s*return\b", cut, re.MULTILINE):
                return stem + cut
    return None


def _code_starts(text: str) -> list[int]:
    """Where code may begin: the text, its first line at the left edge that looks like code, or an indented line before that."""
    position = 0
    indented: list[int] = []
    for line in text.split("\n"):
        if _STARTS.match(line):
            return list(dict.fromkeys((0, position, *indented)))
        if not indented and line[:1] in (" ", "\t") and line.strip():
            indented = [position]
        position += len(line) + 1
    return list(dict.fromkeys((0, *indented)))


def _parsable(stem: str, text: str) -> str | None:
    """The longest beginning of a text, in whole lines, that Python parses behind a stem; None when nothing is left."""
    lines = text.split("\n")
    head = stem.count("\n")
    for _ in range(_MOST_CUTS):
        source = "\n".join(lines) + "\n"
        if not source.strip():
            return None
        try:
            compile(stem + source, "<program>", "exec")
        except SyntaxError as error:
            number = (error.lineno or 1) - head - 1
            lines = lines[: max(0, min(number, len(lines) - 1))]
        except (ValueError, RecursionError, MemoryError, OverflowError):
            return None
        else:
            return source
    return None
