"""The program under test as its tests see it: functions whose calls cross to the sandbox and bring plain data back.

The program can choose what it returns, nothing else: expected values never leave this process, values are rebuilt here from exact
built-in types, and every call carries a new nonce that its reply must repeat, so that no reply can be given in advance or twice.
"""

import builtins
import os
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from trimtab.tasks.sandbox.channel import Channel, ChannelError
from trimtab.tasks.sandbox.codec import REQUEST_DEPTH, CodecError, decode, encode

_NONCE_BYTES = 16
_FUNCTIONS = frozenset({"function", "builtin_function_or_method", "method", "partial", "_lru_cache_wrapper"})
"""Types of what tests may call when a call returned it."""
# raised inside an iterator these would end it quietly, and with it the tests
_NEVER_RAISED = (StopIteration, StopAsyncIteration)


class FaultError(BaseException):
    """The program hung, ended or broke the protocol. No ``except Exception`` of a test can catch it."""


class HungError(FaultError):
    """The program's time is over."""


class GoneError(FaultError):
    """The program's end of the channel is closed."""


class RaisedError(Exception):
    """The program raised an exception that is none of Python's own; the text names it."""


class BrokenTestsError(Exception):
    """The tests did something that no program can be blamed for."""


class RemoteProgram:
    """A program behind a channel.

    Args:
        descriptor: the channel to a sandbox that is ready.
        seconds: the program's time, over all requests; the tests' own time between them does not count.
    """

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._channel = Channel(descriptor)
        self._seconds_left = seconds
        self._verb = ""
        self.calls = 0
        self.arguments: tuple[object, ...] = ()
        self.last: tuple[str, object] = ("", None)
        """How the last call ended, ``("gave", value)`` or ``("raised", exception)``."""
        self.fault: FaultError | None = None
        self.raised: Exception | None = None

    def load(self, preamble: str, source: str, entry_point: str) -> list[str]:
        """Run the program and return the names of the callables that it says it defines."""
        names = self.ask("load", preamble, source, entry_point)
        if type(names) is not list or any(type(name) is not str for name in names):
            self._fail(FaultError("broke the protocol: no list of names"))
        return names

    def function(self, name: str) -> Callable[..., object]:
        """A function of the program."""

        def remote(*positional: object, **named: object) -> object:
            return self.call(name, positional, named)

        remote.__name__ = name
        return remote

    def call(self, function: object, positional: tuple, named: dict[str, object]) -> object:
        """Call a function of the program by its name, or one that it returned.

        What a function that works in place did to its arguments is done to ours: one that returns nothing, or an argument.
        """
        self.calls += 1
        self.arguments = positional
        value = self.ask("call", function, positional, named)
        kinds = {type(given) for given in positional if _is_container(given)}
        if kinds and (value is None or type(value) in kinds):
            value = self._after_changes(value, positional)
        self.last = ("gave", value)
        return value

    def _after_changes(self, value: object, positional: tuple) -> object:
        """The value of the last call, which is one of our arguments where it is theirs, and with what was done to them done.

        Arguments that are now too deep or too large to be carried over stay as they are.
        """
        try:
            reply = self.ask("changes")
        except Exception:  # noqa: BLE001 - whatever the program's side raises
            self.raised = None
            return value
        match reply:
            case (int(place), tuple(changed)) if place < len(positional) and len(changed) in (0, len(positional)):
                for ours, theirs in zip(positional, changed, strict=False):
                    _write_back(ours, theirs)
                return positional[place] if place >= 0 else value
        return self._fail(FaultError("broke the protocol: no changes of a call"))

    def ask(self, verb: str, *arguments: object) -> object:
        """Send one request and wait for its reply.

        Raises:
            FaultError: hung, gone, or a reply that breaks the protocol; every later request raises it again.
            BrokenTestsError: the arguments are no plain data.
            Exception: what the program raised, as the nearest of Python's own exceptions.
        """
        if self.fault is not None:
            raise self.fault
        nonce = os.urandom(_NONCE_BYTES)
        self._verb = verb
        try:
            request = encode((nonce, verb, arguments), self._refer, REQUEST_DEPTH)
        except CodecError as error:
            raise BrokenTestsError(f"the tests pass what is no plain data: {error}") from error
        start = time.monotonic()
        try:
            self._channel.send(request, self._seconds_left)
            answer = self._channel.receive(self._seconds_left - (time.monotonic() - start))
            self._seconds_left -= time.monotonic() - start
            reply = decode(answer, self._resolve)
        except TimeoutError:
            self._fail(HungError("timed out"))
        except EOFError:
            self._fail(GoneError("is gone"))
        except (ChannelError, CodecError, MemoryError) as error:
            self._fail(FaultError(f"broke the protocol: {error or 'a reply larger than memory'}"))
        match reply:
            case (bytes(given), "value", value) if given == nonce:
                return value
            case (bytes(given), "raised", list(types), str(text)) if given == nonce:
                self._raise(types, text)
        return self._fail(FaultError("broke the protocol: a reply to no call"))

    def _fail(self, fault: FaultError) -> NoReturn:
        self.fault = fault
        raise fault

    def _raise(self, types: list[object], text: str) -> NoReturn:
        self.raised = _exception(types, text)
        self.last = ("raised", self.raised)
        raise self.raised

    def _refer(self, value: object) -> tuple[int, str]:
        if isinstance(value, RemoteObject):
            return object.__getattribute__(value, "_number"), ""
        raise CodecError(f"{type(value).__name__} {value!r}")

    def _resolve(self, number: int, name: str) -> object:
        kind = RemoteFunction if name in _FUNCTIONS and self._verb == "call" else RemoteObject
        return kind(self, number, name)


class RemoteObject:
    """An object of the program that is no plain data, such as an instance of MBPP's ``Pair``.

    It is true, it can be passed back, and attributes can be set and asked for. It equals nothing, and it cannot be called, unless
    it is a function that a call returned: a method would carry what a test expects to the program and let the program answer.
    Names that begin with an underscore are refused: ``__array_interface__`` would let a program name an address to read.
    """

    __slots__ = ("_name", "_number", "_program")
    _name: str
    _number: int
    _program: RemoteProgram

    def __init__(self, program: RemoteProgram, number: int, name: str) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_name", name)

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        return self._program.ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._program.ask("set", self, name, value)

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<an object of type {self._name[:80]}>"


class RemoteFunction(RemoteObject):
    """A function that a call returned, such as a counter's ``make_counter()``; calling it is a call like any other."""

    __slots__ = ()

    def __call__(self, *positional: object, **named: object) -> object:
        program: RemoteProgram = object.__getattribute__(self, "_program")
        return program.call(self, positional, named)


def _write_back(ours: object, theirs: object) -> None:
    """Make a container of ours what the program made of its copy, in place, so that other names of it see the change."""
    if isinstance(ours, list) and isinstance(theirs, list):
        for place, (old, new) in enumerate(zip(ours, theirs, strict=False)):
            if _is_container(old) and type(old) is type(new):
                _write_back(old, new)
            else:
                ours[place] = new
        ours[len(theirs) :] = theirs[len(ours) :]
    elif isinstance(ours, dict) and isinstance(theirs, dict):
        kept = {key: old for key, old in ours.items() if key in theirs and _is_container(old) and type(old) is type(theirs[key])}
        for key, old in kept.items():
            _write_back(old, theirs[key])
        ours.clear()
        ours.update({key: kept.get(key, new) for key, new in theirs.items()})
    elif isinstance(ours, set) and isinstance(theirs, set):
        ours.clear()
        ours.update(theirs)
    elif isinstance(ours, deque) and isinstance(theirs, deque):
        ours.clear()
        ours.extend(theirs)
    elif isinstance(ours, bytearray) and isinstance(theirs, bytearray):
        ours[:] = theirs


def _is_container(value: object) -> bool:
    return isinstance(value, list | dict | set | deque | bytearray)


def _exception(types: list[object], text: str) -> Exception:
    """The first of the types that is one of Python's own exceptions and takes a text."""
    for name in types:
        kind = getattr(builtins, name, None) if type(name) is str else None
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NEVER_RAISED):
            if kind is Exception:
                break
            try:
                return kind(text)
            except TypeError:  # UnicodeDecodeError and the exception groups want more than a text; their bases do not
                continue
    return RaisedError(": ".join(str(part) for part in (*types[:1], text) if part))
