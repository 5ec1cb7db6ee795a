"""The program's side of the channel: load the program, then answer calls until the channel closes.

Nothing here is trusted by the other side. The program shares this interpreter and can find, patch or imitate all of it; what it
gains is to choose its own return values, which is what it was asked for.
"""

import sys

from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import REQUEST_DEPTH, CodecError, decode, encode

MODULE = "program"
_MAX_TEXT = 1_000


class _Program:
    """The program's module, and its objects that the tests hold references to."""

    def __init__(self) -> None:
        # a real module, under a name that is not __main__: dataclasses look their module up, and demonstrations stay asleep
        self.module = type(sys)(MODULE)
        self.objects: list[object] = []

    def refer(self, value: object) -> tuple[int, str]:
        self.objects.append(value)
        return len(self.objects) - 1, type(value).__qualname__

    def resolve(self, number: int, _: str) -> object:
        return self.objects[number]

    def load(self, preamble: str, source: str, entry_point: str) -> object:
        """Run the preamble, then the program, and name what it defines. A preamble's own entry point is forgotten."""
        namespace = self.module.__dict__
        sys.modules[MODULE] = self.module
        exec(compile(preamble, "<preamble>", "exec", dont_inherit=True), namespace)
        namespace.pop(entry_point, None)
        exec(compile(source, "<program>", "exec", dont_inherit=True), namespace)
        return [name for name, value in namespace.items() if callable(value)]

    def call(self, name: str, positional: tuple, named: dict) -> object:
        return self.module.__dict__[name](*positional, **named)

    def get(self, target: object, name: str) -> object:
        return getattr(target, name)

    def set(self, target: object, name: str, value: object) -> None:
        setattr(target, name, value)


def serve(channel: Channel) -> None:
    """Answer each request ``(nonce, verb, arguments)`` with ``(nonce, "value", value)`` or ``(nonce, "raised", types, text)``."""
    program = _Program()
    verbs = {"load": program.load, "call": program.call, "get": program.get, "set": program.set}
    while True:
        try:
            request = channel.receive()
        except EOFError:
            return
        nonce, verb, arguments = decode(request, program.resolve, REQUEST_DEPTH)  # type: ignore[misc]
        try:
            reply = encode((nonce, "value", verbs[verb](*arguments)), program.refer)
        except CodecError as error:
            reply = encode((nonce, "raised", [], f"the result cannot be carried over: {error}"))
        except BaseException as error:  # noqa: BLE001 - whatever the program raises is its answer
            reply = _raised(nonce, error)
        channel.send(reply)


def _raised(nonce: bytes, error: BaseException) -> bytes:
    types = [kind.__name__ for kind in type(error).__mro__]
    try:
        text = str(error)[:_MAX_TEXT]
    except BaseException:  # noqa: BLE001 - the program's own __str__
        text = ""
    return encode((nonce, "raised", types, text))
