"""The grader's end of a tester process (:mod:`trimtab.tasks.grading.code_tester`)."""

import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

from trimtab.errors import TrimtabError
from trimtab.tasks.sandbox.channel import Channel, ChannelError
from trimtab.tasks.sandbox.codec import CodecError, decode, encode
from trimtab.tasks.sandbox.command import clean_environment, python_command

_MODULE = "trimtab.tasks.grading.code_tester"
_SPARE_SECONDS = 30.0


class TrustedTesterError(TrimtabError):
    """The tester itself failed: no verdict on a program follows from it."""


class TrustedTester:
    """A tester process, started when it is first asked and again after it failed. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._prepared: set[str] = set()

    def prepare(self, module: str) -> None:
        """Import a module once, for all later jobs."""
        if module not in self._prepared:
            self._send(("prepare", 0, ((), (module,))), None)
            self._prepared.add(module)

    def ask(self, verb: str, seconds: int, arguments: tuple, descriptor: int | None = None) -> tuple[str, str]:
        """Run one job in a fork that ends after ``seconds``.

        Returns:
            The job's status and its text; ``("died", signal name)`` when its fork did not live to answer.

        Raises:
            TrustedTesterError: the process failed or does not answer.
        """
        try:
            self._send((verb, seconds, arguments), descriptor)
            return decode(Channel(self._connected().fileno()).receive(seconds + _SPARE_SECONDS))  # type: ignore[return-value]
        except (EOFError, TimeoutError, OSError, ChannelError, CodecError) as error:
            self.close()
            raise TrustedTesterError(f"the tester failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the process."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None
        self._prepared.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    python_command(_MODULE),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=clean_environment("/"),
                    cwd="/",
                    start_new_session=True,
                )
            self._send(("prepare", 0, (tuple(path for path in sys.path if path), ())), None)
        return self._control

    def _send(self, message: tuple, descriptor: int | None) -> None:
        control = self._connected()
        control.setblocking(True)
        socket.send_fds(control, [b"j"], [] if descriptor is None else [descriptor])
        Channel(control.fileno()).send(encode(message), _SPARE_SECONDS)
