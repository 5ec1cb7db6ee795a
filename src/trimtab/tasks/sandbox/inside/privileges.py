"""Giving up everything that the program does not need, in the program's own process and before it is loaded."""

# this interpreter starts once for every program, and pathlib would cost it a tenth of that
# ruff: noqa: PTH109

from __future__ import annotations

import os
import resource
import sys

from trimtab.tasks.sandbox.inside import kernel
from trimtab.tasks.sandbox.inside.landlock import confine_files
from trimtab.tasks.sandbox.inside.seccomp import apply_filter

TYPE_CHECKING = False  # typing would cost the program's process a tenth of its start
if TYPE_CHECKING:
    from collections.abc import Callable

    from trimtab.tasks.sandbox.plan import Plan

_CHANNEL = 3
_HIGHEST_OPENED_HERE = 256
"""This process began with its standard descriptors and the channel, and the kernel gives out the lowest free number."""


def give_up(plan: Plan) -> tuple[str, ...]:
    """Limit, drop, confine and filter this process.

    Returns:
        The layers that took effect, in words.

    Raises:
        OSError: a layer failed that is never optional.
    """
    layers = [_limit(plan)]
    if plan["user"] is not None:
        layers.append(_become(plan["user"]))
    if sys.platform == "linux":
        layers += _confine(plan)
    return tuple(layers)


def keep_only(channel: int) -> int:
    """Descriptors 0 to 2 become /dev/null, so that what the program prints is dropped; all others but the channel are closed.

    Returns:
        The channel's new descriptor.
    """
    os.dup2(channel, _CHANNEL)
    if channel != _CHANNEL:
        os.close(channel)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(_CHANNEL):
        os.dup2(null, descriptor)
    os.closerange(_CHANNEL + 1, _HIGHEST_OPENED_HERE)
    return _CHANNEL


def _limit(plan: Plan) -> str:
    wanted = {
        "RLIMIT_CPU": (plan["seconds"] + 1, plan["seconds"] + 2),
        "RLIMIT_AS": (plan["memory"],) * 2,
        "RLIMIT_FSIZE": (plan["file_size"],) * 2,
        "RLIMIT_NOFILE": (plan["open_files"],) * 2,
        "RLIMIT_NPROC": (plan["tasks"],) * 2,
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
    }
    known = {name: value for name, value in wanted.items() if name in resource.__dict__}
    refused = []
    for name, (soft, hard) in known.items():
        number = resource.__dict__[name]
        present = resource.getrlimit(number)[1]
        ceiling = hard if present == resource.RLIM_INFINITY else min(hard, present)
        try:
            resource.setrlimit(number, (min(soft, ceiling), ceiling))
        except (ValueError, OSError):  # macOS knows names that it does not enforce
            refused.append(name)
    names = ", ".join(name.removeprefix("RLIMIT_").lower() for name in known if name not in refused)
    return f"limits ({names})"


def _become(user: int) -> str:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    return "unprivileged user"


def _confine(plan: Plan) -> list[str]:
    kernel.drop_capabilities()
    kernel.not_dumpable()
    kernel.no_new_privileges()
    layers = ["no capabilities", "no new privileges"]

    def files() -> str:
        readable = [*(source for source, _ in plan["readable"]), *plan["search"]]
        return f"Landlock {confine_files(readable, plan['hidden'], [os.getcwd()])}"

    def calls() -> str:
        apply_filter()
        return "seccomp"

    optional: dict[str, Callable[[], str]] = {"Landlock": files} if plan["backend"] == "limits" else {}
    for name, layer in {**optional, "seccomp": calls}.items():
        try:
            layers.append(layer())
        except OSError as error:
            layers.append(f"without {name} ({error})")
    return layers
