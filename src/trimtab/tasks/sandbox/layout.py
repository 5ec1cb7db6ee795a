"""What of this machine a program may see: the interpreter's libraries and the allowed packages, and nothing else."""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trimtab.errors import ConfigError

PACKAGES = "/packages"
"""Where a program with a root of its own finds the allowed packages."""

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_INSTALLED = ("python*/site-packages", "python*/dist-packages")


class Layout(NamedTuple):
    """Folders and files as pairs (here, where the program finds it), and the folders under them that are hidden."""

    readable: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]


@cache
def interpreter_layout() -> Layout:
    """The standard library and the shared libraries, without any installed package."""
    prefixes = {Path(sys.base_prefix), Path(sys.base_exec_prefix)}
    roots = {prefix / folder for prefix in prefixes for folder in ("lib", sys.platlibdir)}
    roots |= {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")} | {Path(path) for path in _LIBRARIES}
    present = sorted(root for root in roots if root.exists())
    covered = {path for path in present if any(parent in present for parent in path.parents)}
    readable = [path for path in present if path not in covered]
    hidden = {found for path in readable for pattern in _INSTALLED for found in path.glob(pattern)}
    hidden |= {found for path in readable for found in (path / "site-packages", path / "dist-packages") if found.is_dir()}
    return Layout(
        tuple((os.path.realpath(path), str(path)) for path in readable),
        tuple(sorted(str(path) for path in hidden if path.is_dir())),
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
