"""Whole messages, each within a time, whatever the other end does."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from trimtab.tasks.sandbox.channel import Channel, ChannelError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    long = os.urandom(3 * 2**20)
    ours, theirs = Channel(pair[0].fileno()), Channel(pair[1].fileno())
    sender = threading.Thread(target=lambda: [ours.send(message, 10) for message in (b"", b"a", long)])
    sender.start()
    assert [theirs.receive(10) for _ in range(3)] == [b"", b"a", long]
    sender.join()


def test_a_closed_end_is_an_end_of_file(pair: Pair) -> None:
    pair[1].close()
    channel = Channel(pair[0].fileno())
    with pytest.raises(EOFError):
        channel.receive(1)
    with pytest.raises(EOFError):
        channel.send(b"x" * 2**22, 1)


def test_an_end_inside_a_message_is_an_end_of_file(pair: Pair) -> None:
    pair[1].send(struct.pack(">I", 10) + b"half")
    pair[1].close()
    with pytest.raises(EOFError):
        Channel(pair[0].fileno()).receive(1)


def test_silence_and_a_trickle_both_time_out(pair: Pair) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        Channel(pair[0].fileno()).receive(0.05)
    pair[1].send(struct.pack(">I", 10) + b"half")
    with pytest.raises(TimeoutError):
        Channel(pair[0].fileno()).receive(0.05)
    assert time.monotonic() - start < 5


def test_an_end_that_never_reads_times_out(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        Channel(pair[0].fileno()).send(b"x" * 2**24, 0.05)


def test_a_message_is_refused_by_its_length_alone(pair: Pair) -> None:
    pair[1].send(struct.pack(">I", 2**32 - 1))
    with pytest.raises(ChannelError, match="a message of 4294967295 bytes; the limit is 100"):
        Channel(pair[0].fileno(), limit=100).receive(1)
