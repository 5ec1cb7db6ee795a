"""Paths that may lie on another machine: any URL of fsspec, in the form of a path.

The rest of trimtab takes an :data:`AnyPath` and uses what :mod:`pathlib` and :mod:`upath` share. Where they differ is told apart
by ``isinstance(path, Path)``, in this package alone: a local path keeps its renames, its locks and its memory maps.
"""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from fsspec import available_protocols
from fsspec.registry import known_implementations
from upath import UPath

from trimtab.errors import InputError, StoreError, TrimtabError

PARTIAL = "trimtab-partial"


def partial_name(name: str) -> str:
    """A name that nothing else has, until what is written may be called ``name``."""
    return f".{name}.{secrets.token_hex(4)}.{PARTIAL}"


def is_partial(name: str, of: str | None = None) -> bool:
    """Whether :func:`partial_name` made it, of one name or of any.

    Example:
        >>> is_partial(partial_name("a.txt")), is_partial(partial_name("a.txt"), of="b.txt"), is_partial("a.txt")
        (True, False, False)
    """
    return re.fullmatch(rf"\.{'.+' if of is None else re.escape(of)}\.[0-9a-f]{{8}}\.{PARTIAL}", name) is not None


AnyPath: TypeAlias = Path | UPath
"""A path on this machine, or one on any file system of fsspec."""

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
"""An object appears there when its put has ended, and whole. Everywhere else a file grows, and a rename makes it appear whole."""

_lost: set[str] = set()
"""Folders whose lock another process has taken over from this one."""


def at_home(path: str | Path) -> Path:
    """A path with the home folder of ``~`` and of ``~user``; where there is no such user, as it is, so that it is not found.

    Example:
        >>> at_home("~nobody-of-this-name/a.jsonl")
        PosixPath('~nobody-of-this-name/a.jsonl')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def any_path(place: "str | os.PathLike[str] | AnyPath") -> AnyPath:
    """The path of what a user typed: text with ``://`` is a URL, and ``file://`` is a path on this machine like any other.

    Raises:
        InputError: a scheme that fsspec does not know, or what can be no path of this machine.
        StoreError: its package is not installed, or it cannot be set up.

    Example:
        >>> any_path("runs/a"), any_path("file:///runs/a")
        (PosixPath('runs/a'), PosixPath('/runs/a'))
        >>> str(any_path("memory://runs/a") / "run.toml")
        'memory://runs/a/run.toml'
    """
    if not isinstance(place, str):
        # a remote path of the scheme file:// is an os.PathLike too, and stays remote
        return place if isinstance(place, UPath) else _local(place)
    scheme, separator, rest = place.partition("://")
    if not separator:
        return _local(place)
    if scheme not in available_protocols():
        raise InputError(
            f"{place}: there is no file system {scheme}://; give a folder, or a URL of fsspec such as s3://BUCKET/RUN, "
            "gs://BUCKET/RUN or abfs://CONTAINER/RUN",
            code="unknown-file-system",
        )
    url = f"{scheme}://{rest.rstrip('/')}"
    try:
        # a cached listing would hide the parts that other processes have written meanwhile
        path = UPath(url, use_listings_cache=False) if scheme in _OBJECT_STORES else UPath(url)
        _ = path.fs  # imports the package behind the scheme
    except ImportError as cause:
        package = str(known_implementations[scheme]["class"]).partition(".")[0]
        wanted = f"'fsspec[{scheme}]'" if package == "fsspec" else package
        raise StoreError(
            f"{place} needs a package that is not installed ({cause}); run: pip install {wanted}", code="no-client"
        ) from cause
    except Exception as cause:  # each client library has errors of its own
        raise StoreError(f"{place} cannot be opened: {cause}; check the URL and its credentials") from cause
    return _local(path.path) if path.protocol in ("file", "local") else path


def _local(place: str | os.PathLike[str]) -> Path:
    """A path of this machine. Raises InputError for a name too long, a NUL byte and links in a circle: nothing can be there."""
    path, refused = Path(place), ""
    try:
        path.stat()
    except ValueError as cause:
        refused = str(cause)
    except OSError as cause:
        refused = cause.strerror if cause.errno in (errno.ENAMETOOLONG, errno.ELOOP) else ""
    if refused:
        raise InputError(f"{str(place)[:80]!r} is no path ({refused}); give the path of a file or folder")
    return path


@contextmanager
def as_os_errors(path: AnyPath) -> Iterator[None]:
    """Raise what a remote path's client library raises as OSError, which is what a disk raises.

    Any other error, of the network or not, is a mistake of the program's and passes as it is.
    """
    try:
        yield
    except (OSError, TrimtabError):
        raise
    except Exception as cause:
        if isinstance(path, Path) or not _of_client(cause, path):
            raise
        raise OSError(f"{type(cause).__name__}: {cause}") from cause


_CLIENTS = frozenset(
    {"fsspec", "upath", "s3fs", "botocore", "aiobotocore", "gcsfs", "google", "adlfs", "azure", "aiohttp", "requests", "urllib3"}
)
"""The packages behind the URLs that are known; each has exceptions of its own."""


def _of_client(cause: Exception, path: UPath) -> bool:
    """Whether the class of an exception, or one that it derives from, belongs to a package that reads this path."""
    own = type(path.fs).__module__.partition(".")[0]
    return any(kind.__module__.partition(".")[0] in _CLIENTS | {own} for kind in type(cause).__mro__)


def read_bytes(path: AnyPath) -> bytes:
    """The content of a file. Raises OSError whatever the file system."""
    check_regular(path)
    with as_os_errors(path):
        return path.read_bytes()


def check_regular(path: AnyPath) -> None:
    """Raise OSError for a pipe, socket or device in a file's place: reading one may never end."""
    if isinstance(path, Path) and not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, and no file")


def upload(file: Path, path: UPath) -> None:
    """Put a local file to ``path``, whole or not at all.

    Raises:
        OSError: it cannot be written.
        StoreError: this process has lost the lock of the folder.
    """
    _refuse_lost(path)
    with as_os_errors(path):
        if path.protocol in _OBJECT_STORES:
            path.fs.put_file(str(file), path.path)
            return
        make_folder(path.parent)
        partial = path.with_name(partial_name(path.name))
        try:
            path.fs.put_file(str(file), partial.path)
            path.fs.mv(partial.path, path.path)
        finally:
            partial.unlink(missing_ok=True)


def upload_folder(files: Path, folder: UPath, last: str) -> None:
    """Make a folder hold the files of a local one and no others; see :func:`trimtab.store.atomic.replace_folder`.

    The first thing written and the last one deleted has the name of a leftover, so that half a folder can be told from a strange
    one.
    """
    names = sorted((path.name for path in files.iterdir()), key=lambda name: (name == last, name))
    marker = files / partial_name(last)
    marker.write_bytes(b"incomplete")
    with as_os_errors(folder):
        before = {path.name for path in folder.iterdir()} if folder.exists() else set()
        upload(marker, folder / marker.name)
        (folder / last).unlink(missing_ok=True)
        for name in sorted(before - {*names, last}):
            remove(folder / name)
        for name in names:
            upload(files / name, folder / name)
        (folder / marker.name).unlink()


def make_folder(folder: UPath) -> None:
    """Make a folder and those above it, where there are folders: an object store knows names only."""
    if folder.protocol not in _OBJECT_STORES:
        folder.mkdir(parents=True, exist_ok=True)


def remove(path: AnyPath) -> None:
    """Delete a file, a link, or a folder with all that is in it."""
    if not isinstance(path, Path):
        path.fs.rm(path.path, recursive=path.is_dir())
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def hold(folder: UPath) -> None:
    """Writing to this folder is allowed: its lock was taken."""
    _lost.discard(str(folder))


def lose(folder: UPath) -> None:
    """Whatever this process would still write below this folder is refused."""
    _lost.add(str(folder))


def _refuse_lost(path: UPath) -> None:
    if not _lost.isdisjoint(map(str, (path, *path.parents))):
        raise StoreError(
            f"nothing more is written to {path}: another process took over the run, because this one had not been heard of for "
            "too long (was the machine asleep, or the network gone?); wait until it ends and resume",
            code="taken-over",
        )
