"""The program under test as its tests see it: functions whose calls cross to the sandbox and bring plain data back.

The program can choose what it returns, nothing else: expected values never leave this process, values are rebuilt here from exact
built-in types, and every call carries a new nonce that its reply must repeat, so that no reply can be given in advance or twice.
"""

import builtins
import os
import time
from collections.abc import Callable
from typing import NoReturn

from trimtab.tasks.sandbox.channel import Channel, ChannelError
from trimtab.tasks.sandbox.codec import REQUEST_DEPTH, CodecError, decode, encode

_NONCE_BYTES = 16
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
            self.calls += 1
            self.arguments = positional
            value = self.ask("call", name, positional, named)
            self.last = ("gave", value)
            return value

        remote.__name__ = name
        return remote

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
        if type(value) is RemoteObject:
            return object.__getattribute__(value, "_number"), ""
        raise CodecError(f"{type(value).__name__} {value!r}")

    def _resolve(self, number: int, name: str) -> object:
        return RemoteObject(self, number, name)


class RemoteObject:
    """An object of the program that is no plain data, such as an instance of MBPP's ``Pair``.

    It is true, it can be passed back, and attributes can be set and asked for. It equals nothing, and it cannot be called: a
    method would carry what a test expects to the program and let the program answer. Names that begin with an underscore are
    refused: ``__array_interface__`` would let a program name an address to read.
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
