"""What a program could do in a sandbox that it should not: by the layers that hold it, and by trying it."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trimtab.tasks.sandbox.channel import Channel, ChannelError
from trimtab.tasks.sandbox.codec import CodecError, decode, encode
from trimtab.tasks.sandbox.inside import attempts
from trimtab.tasks.sandbox.inside.attempts import ATTRIBUTES, FILES, NETWORK, SIGNALS
from trimtab.tasks.sandbox.program import Program, SandboxError

_SECONDS = 20.0
_LONGEST_ADDRESS = 100
_CONTENT = "not for programs"


def gaps(layers: Sequence[str]) -> list[str]:
    """What these layers, named as :meth:`trimtab.tasks.sandbox.Program.wait_ready` names them, do not stop."""
    held = " ".join(layer for layer in layers if not layer.startswith("without"))
    found = []
    if "own root" not in held and "Landlock" not in held:
        found.append(FILES)
    if "own root" not in held and "seccomp" not in held:
        found.append(ATTRIBUTES)
    if "own root" not in held:
        found.append("filling the disk with many files until the time is over")
    elif "number of files" not in held:
        found.append("making empty files until the time is over")
    if "network" not in held and "seccomp" not in held:
        found.append(NETWORK)
    if "seccomp" not in held:
        found.append("starting processes, each with a memory limit of its own")
    if "pid" not in held and "seccomp" not in held:
        found.append("leaving processes behind")
    if "pid" not in held and "seccomp" not in held and "unprivileged user" not in held:
        found.append(SIGNALS)
    return found


def what_works(running: Program) -> list[str]:
    """Try in a sandbox that is ready what no program may do, and name what worked.

    Raises:
        SandboxError: the program of the test did not answer.
    """
    with _targets() as (folder, port, sockets, traces):
        worked = _ask(running, str(folder), os.getpid(), port, sockets)
        return list(dict.fromkeys([*worked, *traces()]))


def _ask(running: Program, *arguments: object) -> list[str]:
    channel = Channel(running.channel.fileno())
    source = Path(attempts.__file__).read_text(encoding="utf-8")
    try:
        for verb, given in (("load", ("", source, "attempts")), ("call", ("attempts", arguments, {}))):
            channel.send(encode((b"", verb, given)), _SECONDS)
            reply = decode(channel.receive(_SECONDS))
            if reply[1] != "value":  # type: ignore[index]
                raise SandboxError(f"the sandbox's self-test failed: {reply}")
    except (EOFError, TimeoutError, ChannelError, CodecError) as error:
        raise SandboxError(f"the sandbox's self-test did not answer: {error}") from error
    return reply[2]  # type: ignore[index]


@contextmanager
def _targets() -> Iterator[tuple]:
    """Files and servers of ours that are open to everybody, and a look at what was done to them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-", ignore_cleanup_errors=True)))
        folder.chmod(0o777)
        for name in ("file", "other"):
            (folder / name).write_text(_CONTENT)
            (folder / name).chmod(0o666)
        before = _state(folder)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses = [f"\0{folder}"] * (sys.platform == "linux")  # not a file, but a name in the network namespace
        addresses += [f"{folder}.socket"] * (len(f"{folder}.socket") < _LONGEST_ADDRESS)
        servers = [tcp, *(stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in addresses)]
        for server, address in zip(servers[1:], addresses, strict=True):
            server.bind(address)
            server.listen()
        stack.callback(Path(f"{folder}.socket").unlink, missing_ok=True)

        def traces() -> list[str]:
            touched = _state(folder) != before
            return [FILES] * touched + [NETWORK] * any(_was_reached(server) for server in servers)

        yield folder, tcp.getsockname()[1], addresses, traces


def _state(folder: Path) -> list[tuple]:
    found = ((path.name, path.stat(), path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file())
    return [(name, stat.st_mode, stat.st_uid, stat.st_mtime_ns, stat.st_ctime_ns, content) for name, stat, content in found]


def _was_reached(server: socket.socket) -> bool:
    server.setblocking(False)
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True
