"""The program as its tests see it, with a program that says what it likes."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from trimtab.tasks.grading.code_remote import (
    BrokenTestsError,
    FaultError,
    GoneError,
    HungError,
    RaisedError,
    RemoteObject,
    RemoteProgram,
)
from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import decode, encode
from trimtab.tasks.sandbox.inside.main import serve

Reply = Callable[[bytes, bytes], bytes | None]
REFERENCE = b"o" + struct.pack(">I", 2) + encode(3) + encode("Thing")


def answer(nonce: bytes, *rest: object) -> bytes:
    return encode((nonce, *rest))


def referring(nonce: bytes) -> bytes:
    """A reply whose value is a reference."""
    return b"t" + struct.pack(">I", 3) + encode(nonce) + encode("value") + REFERENCE


class Fake:
    """A program's end of a channel: a function from request to reply."""

    def __init__(self, seconds: float = 10) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.remote = RemoteProgram(self.ours.fileno(), seconds)
        self.requests: list[tuple] = []
        self.reply: Reply = lambda nonce, _: answer(nonce, "value", None)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        channel = Channel(self.theirs.fileno())
        try:
            while True:
                raw = channel.receive(20)
                request = decode(raw, lambda number, _: f"object {number}")
                self.requests.append(request)  # type: ignore[arg-type]
                reply = self.reply(request[0], raw)  # type: ignore[index]
                if reply is not None:
                    channel.send(reply)
        except EOFError:
            return

    def close(self) -> None:
        self.ours.close()
        self.thread.join()
        self.theirs.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


def test_a_call_carries_arguments_and_brings_a_value(fake: Fake) -> None:
    fake.reply = lambda nonce, _: answer(nonce, "value", {"a": (1,)})
    assert fake.remote.function("f")(1, key="x") == {"a": (1,)}
    nonce, verb, arguments = fake.requests[0]
    assert (len(nonce), verb, arguments) == (16, "call", ("f", (1,), {"key": "x"}))


def test_every_call_has_its_own_nonce(fake: Fake) -> None:
    for _ in range(20):
        fake.remote.function("f")()
    assert len({request[0] for request in fake.requests}) == 20


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (lambda nonce, raw: answer(b"0" * 16, "value", 1), "a reply to no call"),
        (lambda nonce, raw: answer(nonce, "verdict", True), "a reply to no call"),
        (lambda nonce, raw: answer(nonce, "value"), "a reply to no call"),
        (lambda nonce, raw: answer(nonce, "raised", "ValueError", "x"), "a reply to no call"),
        (lambda nonce, raw: encode(True), "a reply to no call"),
        (lambda nonce, raw: raw, "a reference where|a reply to no call"),
        (lambda nonce, raw: b"garbage", "unknown tag"),
    ],
)
def test_a_reply_out_of_the_protocol_is_a_fault_that_stays(fake: Fake, reply: Reply, message: str) -> None:
    fake.reply = reply
    with pytest.raises(FaultError, match=message):
        fake.remote.function("f")(1)
    fake.reply = lambda nonce, _: answer(nonce, "value", 1)
    with pytest.raises(FaultError, match=message):
        fake.remote.function("f")(1)


def test_a_second_reply_is_found_at_the_next_call(fake: Fake) -> None:
    channel = Channel(fake.theirs.fileno())

    def twice(nonce: bytes, _: bytes) -> bytes:
        channel.send(answer(nonce, "value", 1))
        return answer(nonce, "value", 2)

    fake.reply = twice
    assert fake.remote.function("f")() == 1
    with pytest.raises(FaultError, match="a reply to no call"):
        fake.remote.function("f")()


def test_no_except_exception_can_catch_a_fault() -> None:
    assert not issubclass(FaultError, Exception)


def test_time_is_counted_over_all_calls() -> None:
    fake = Fake(seconds=0.1)
    fake.reply = lambda nonce, _: None
    with pytest.raises(HungError):
        fake.remote.function("f")()
    fake.close()


def test_a_closed_channel_is_a_program_that_is_gone(fake: Fake) -> None:
    fake.theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(GoneError):
        fake.remote.function("f")()


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        (["ZeroDivisionError", "ArithmeticError", "Exception"], ZeroDivisionError),
        (["MyError", "KeyError", "LookupError", "Exception"], KeyError),
        (["UnicodeDecodeError", "UnicodeError", "ValueError", "Exception"], UnicodeError),
        (["MyError", "Exception", "BaseException"], RaisedError),
        (["SystemExit", "BaseException"], RaisedError),
        (["KeyboardInterrupt", "BaseException"], RaisedError),
        (["StopIteration", "Exception"], RaisedError),
        (["GeneratorExit", "BaseException"], RaisedError),
        ([3, None, "open", "__import__"], RaisedError),
        ([], RaisedError),
    ],
)
def test_what_the_program_raises_is_raised_here(fake: Fake, types: list, kind: type) -> None:
    fake.reply = lambda nonce, _: answer(nonce, "raised", types, "why")
    with pytest.raises(Exception, match="why") as caught:
        fake.remote.function("f")()
    assert type(caught.value) is kind
    assert caught.value is fake.remote.raised


def test_a_stop_cannot_end_a_loop_of_tests_quietly(fake: Fake) -> None:
    fake.reply = lambda nonce, _: answer(nonce, "raised", ["StopIteration", "Exception"], "")
    with pytest.raises(RaisedError):
        list(map(fake.remote.function("f"), [1, 2]))


def test_tests_that_pass_a_function_are_broken_themselves(fake: Fake) -> None:
    with pytest.raises(BrokenTestsError, match="function"):
        fake.remote.function("f")(lambda x: x)


class TestObjects:
    @pytest.fixture
    def thing(self, fake: Fake) -> RemoteObject:
        fake.reply = lambda nonce, _: referring(nonce)
        made = fake.remote.function("f")()
        assert type(made) is RemoteObject
        fake.reply = lambda nonce, _: answer(nonce, "value", 7)
        return made

    def test_it_equals_nothing_and_is_true(self, fake: Fake, thing: RemoteObject) -> None:
        fake.reply = lambda nonce, _: referring(nonce)
        again = fake.remote.function("f")()
        assert thing
        assert thing != 7
        assert thing is not again
        assert [thing] != [again]
        assert thing != thing

    def test_attributes_are_asked_for_and_set(self, fake: Fake, thing: RemoteObject) -> None:
        assert thing.value == 7
        thing.left = 5
        assert [request[1:] for request in fake.requests[1:]] == [
            ("get", ("object 3", "value")),
            ("set", ("object 3", "left", 5)),
        ]

    def test_it_can_be_passed_back(self, fake: Fake, thing: RemoteObject) -> None:
        fake.remote.function("g")([thing])
        assert fake.requests[-1][2] == ("g", (["object 3"],), {})

    def test_it_cannot_be_called_or_asked_for_an_interface(self, fake: Fake, thing: RemoteObject) -> None:
        asked = len(fake.requests)
        for name in ("__array_interface__", "__array__", "__float__", "_private"):
            with pytest.raises(AttributeError):
                getattr(thing, name)
        with pytest.raises(TypeError):
            thing(1)  # type: ignore[intervention]
        with pytest.raises(TypeError):
            len(thing)  # type: ignore[arg-type]
        assert np.asarray(thing).dtype == object
        assert len(fake.requests) == asked


def test_the_program_s_side_answers_as_the_remote_asks() -> None:
    ours, theirs = socket.socketpair()
    end = threading.Thread(target=serve, args=(Channel(theirs.fileno()),), daemon=True)
    end.start()
    remote = RemoteProgram(ours.fileno(), 10)
    source = (
        "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v + n.left.v\ndef boom(): raise KeyError('k')\n"
    )
    assert set(remote.load("import os\ndef f(x): pass\n", source, "f")) == {"Node", "f", "boom"}
    node = remote.function("Node")
    root, left = node(1), node(10)
    root.left = left  # type: ignore[attr-defined]
    assert remote.function("f")(root) == 11
    assert root.left.v == 10  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="k"):
        remote.function("boom")()
    deep: list = []
    for _ in range(98):
        deep = [deep]
    remote.load("", "def same(x): return x", "same")
    assert remote.function("same")(remote.function("same")(deep)) == deep
    ours.close()
    end.join()
    os.close(theirs.detach())
