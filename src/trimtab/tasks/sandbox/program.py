"""One running sandboxed process, as its owner sees it."""

import logging
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from trimtab.errors import TrimtabError
from trimtab.tasks.sandbox.channel import Channel, ChannelError
from trimtab.tasks.sandbox.codec import CodecError, decode, encode
from trimtab.tasks.sandbox.command import HOME, PACKAGES, Plan, bwrap_command, clean_environment, python_command

_INSIDE = "trimtab.tasks.sandbox.inside.main"
_START_SECONDS = 30.0
_END_SECONDS = 5.0
_SHOWN = 500

logger = logging.getLogger(__name__)


class SandboxError(TrimtabError):
    """The sandbox itself failed: no verdict on a program follows from it."""

    kind = "sandbox"


class NoSandboxError(SandboxError):
    """No backend runs on this machine, or the one that was asked for does not. What the message says makes one run."""


class Program:
    """A process of its own that isolates itself and then waits on its channel. Use it in a ``with`` statement: leaving ends it.

    Args:
        plan: what it may see and use.
        packages: folders that ``import`` finds by their names.
        owner: a uid to start as, before anything is isolated; None to stay this user.
        bwrap: the program to start it with, for the backend of that name.

    Raises:
        SandboxError: no process could be started.
    """

    def __init__(self, plan: Plan, packages: Sequence[Path], owner: int | None = None, bwrap: str | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="trimtab-")) if plan["backend"] == "limits" else None
        home = HOME if self._folder is None else _prepare(self._folder, packages)
        search = PACKAGES if self._folder is None else str(self._folder / "packages")
        self.channel, theirs = socket.socketpair()
        with theirs:
            plan = {**plan, "channel": theirs.fileno(), "folder": home, "search": [search] if packages else []}
            command = python_command(_INSIDE)
            self._process = self._start(bwrap_command(bwrap, plan, command) if bwrap else command, plan, owner)
        try:
            Channel(self._process.stdin.fileno()).send(encode(dict(plan)), _START_SECONDS)  # type: ignore[union-attr]
        except (EOFError, TimeoutError) as error:
            self.stop()
            raise SandboxError(f"the sandbox's process did not start: {self._complaint()}") from error

    def _start(self, command: Sequence[str], plan: Plan, owner: int | None) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=clean_environment(plan["folder"]),
                cwd="/",
                pass_fds=(plan["channel"],),
                start_new_session=True,
                user=owner,
                group=owner,
                extra_groups=None if owner is None else [],
            )
        except OSError as error:
            self.channel.close()
            self._remove_folder()
            raise SandboxError(f"the sandbox's process could not be started: {error}") from error

    def wait_ready(self) -> tuple[str, ...]:
        """Wait until the process is isolated. Nothing untrusted runs before this returns.

        Returns:
            The layers that hold it, in words.

        Raises:
            SandboxError: it could not isolate itself, with what it said.
        """
        try:
            ready, said = decode(Channel(self.channel.fileno()).receive(self._seconds_to_start()))  # type: ignore[misc]
        except (EOFError, TimeoutError, ChannelError, CodecError) as error:
            self.stop()
            raise SandboxError(f"the sandbox's process did not isolate itself: {self._complaint() or error}") from error
        if not ready:
            raise SandboxError(f"the sandbox's process did not isolate itself: {said}")
        return said

    def _seconds_to_start(self) -> float:
        """How long a first message is worth waiting for: bubblewrap may fail and leave a process that keeps the channel open."""
        message = select.poll()
        message.register(self.channel.fileno(), select.POLLIN)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if message.poll(100):
                break
        return max(0.0, deadline - time.monotonic()) if message.poll(0) else 0.0

    def exit_code(self, seconds: float) -> int | None:
        """How the program ended by itself: its exit status, or 128 plus a signal. None when it still runs after ``seconds``."""
        deadline = time.monotonic() + seconds
        if self._process.stderr is not None and not self._process.stderr.closed:
            ended = select.poll()  # the last process of the sandbox closes the pipe; Popen.wait alone sleeps up to 50 ms too long
            ended.register(self._process.stderr.fileno(), select.POLLIN)
            ended.poll(seconds * 1000)
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        self._end_group()
        return code

    def stop(self) -> None:
        """End the program and everything that it started, and delete its folder. May be called twice."""
        self.channel.close()
        if self._process.stdin is not None:
            self._process.stdin.close()  # the lifeline: the supervisor inside ends everything
        if self.exit_code(_END_SECONDS) is None:
            logger.warning("the sandbox's supervisor %d did not end; its process group is killed", self._process.pid)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._end_group()
        self._remove_folder()

    def _end_group(self) -> None:
        """End what a supervisor leaves that was killed or failed; where this process adopts orphans, they are its zombies."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-self._process.pid, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _complaint(self) -> str:
        """The last that the process said before the program could run; a program's own output never comes here."""
        if self._process.stderr is None or self._process.stderr.closed:
            return ""
        with self._process.stderr as stream:
            lines = stream.read(2**16).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:_SHOWN] if lines else ""

    def _remove_folder(self) -> None:
        if self._folder is None or not self._folder.exists():
            return
        # the tools, because a hostile tree may be deeper than Python's recursion and its names longer than a path may be
        subprocess.run(["chmod", "-R", "u+rwx", self._folder], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", self._folder], check=False, stderr=subprocess.DEVNULL)
        if self._folder.exists():
            logger.warning("could not delete the program's folder %s", self._folder)


def _prepare(folder: Path, packages: Sequence[Path]) -> str:
    """A folder that the program may write to, beside links to the packages that it may import."""
    folder.chmod(0o711)
    (folder / "packages").mkdir()
    for package in packages:
        (folder / "packages" / package.name).symlink_to(package)
    home = folder / "home"
    home.mkdir(mode=0o700)
    return str(home)
