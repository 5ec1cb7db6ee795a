"""Messages over one end of a socket pair: a length, then the bytes. Either end may be hostile, stuck or gone."""

import os
import select
import struct
import time

MAX_MESSAGE = 64 * 2**20
_LENGTH = struct.Struct(">I")
_CHUNK = 2**20


class ChannelError(Exception):
    """A message longer than the limit."""


class Channel:
    """Sends and receives whole messages, each within a time.

    Args:
        descriptor: a connected stream socket; it becomes non-blocking, and stays the caller's to close.
        limit: the longest message that is received, in bytes. Reading stops at the length, before memory is spent.
    """

    def __init__(self, descriptor: int, limit: int = MAX_MESSAGE) -> None:
        self.descriptor = descriptor
        self.limit = limit
        os.set_blocking(descriptor, False)

    def send(self, message: bytes, seconds: float | None = None) -> None:
        """Send one message.

        Raises:
            EOFError: the other end is closed.
            TimeoutError: the other end did not read all of it in time.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        rest = memoryview(_LENGTH.pack(len(message)) + message)
        while rest:
            self._wait(select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self.descriptor, rest[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError) as error:
                raise EOFError("the channel is closed") from error

    def receive(self, seconds: float | None = None) -> bytes:
        """Receive one message.

        Raises:
            EOFError: the other end is closed.
            TimeoutError: no whole message came in time.
            ChannelError: the message is longer than the limit.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        size = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))[0]
        if size > self.limit:
            raise ChannelError(f"a message of {size} bytes; the limit is {self.limit}")
        return self._exactly(size, deadline)

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(select.POLLIN, deadline)
            try:
                chunk = os.read(self.descriptor, min(size - len(data), _CHUNK))
            except BlockingIOError:
                continue
            except ConnectionResetError as error:
                raise EOFError("the channel is closed") from error
            if not chunk:
                raise EOFError("the channel is closed")
            data += chunk
        return bytes(data)

    def _wait(self, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self.descriptor, event)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not poll.poll(None if left is None else left * 1000) and left is not None:
            raise TimeoutError("the other end of the channel did not answer in time")
