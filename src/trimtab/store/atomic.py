"""Files that are either whole or not there: text and JSON written to a temporary name, synced and renamed."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from trimtab.errors import InputError, StoreError
from trimtab.store.remote import AnyPath, as_os_errors, is_partial, partial_name, read_bytes, remove, upload, upload_folder

_FIXES = {
    errno.ENOSPC: "free space on that disk and run the same command again",
    errno.EDQUOT: "your disk quota is full: free space and run the same command again",
    errno.EACCES: "make the folder writable or choose another one",
    errno.EPERM: "make the folder writable or choose another one",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; move it away or choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed; move it away or choose another folder",
    errno.EISDIR: "a folder stands where a file is needed; move it away or choose another folder",
}
_REMOTE_FIX = "check the URL, its credentials and the network, and run the same command again"


@contextmanager
def writing(path: AnyPath) -> Iterator[None]:
    """Turn an OSError within the block into a StoreError that names the path, the cause and the fix."""
    try:
        yield
    except OSError as cause:
        other = "choose a folder on a disk that can be written" if isinstance(path, Path) else _REMOTE_FIX
        fix = _FIXES.get(cause.errno or 0, other)
        raise StoreError(f"cannot write {path}: {cause}; {fix}") from cause


@contextmanager
def replace_file(path: AnyPath) -> Iterator[Path]:
    """Yield a temporary path in the same folder (made if missing) that takes the place of ``path`` when the block ends.

    The rename is atomic and the bytes are synced before it, so a reader, or a process killed at any moment, finds the old file or
    the new one. On an exception the temporary file is removed. One writer per file at a time. For a remote path the temporary one
    lies on this machine and is uploaded, with the same promise.

    Raises:
        StoreError: the folder cannot be written or the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with replace_file(path) as temporary:
        ...     _ = temporary.write_bytes(b"whole")
        >>> path.read_bytes()
        b'whole'
    """
    with writing(path):
        if not isinstance(path, Path):
            with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
                yield Path(scratch, path.name)
                upload(Path(scratch, path.name), path)
            return
        temporary = path.with_name(partial_name(path.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(folder: AnyPath, last: str) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``folder``, whole, when the block ends.

    An old folder is moved aside just before the rename and deleted after it, so a kill between the two renames leaves no folder
    rather than half of one. No remote file system renames a folder at once: there the old file ``last`` is deleted first and the
    new one written last, so that a folder without it is half of one. The files may not lie in folders of their own then.

    Args:
        folder: what is replaced; made if missing.
        last: the file whose presence says that the folder is whole.

    Raises:
        StoreError: the place cannot be written or the disk is full.
    """
    if not isinstance(folder, Path):
        with writing(folder), tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
            temporary = Path(scratch, folder.name)
            temporary.mkdir()
            yield temporary
            upload_folder(temporary, folder, last)
        return
    folder = folder.resolve()
    temporary = folder.with_name(partial_name(folder.name))
    previous = folder.with_name(partial_name(folder.name))
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent, folder.name)
        temporary.mkdir()
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            if folder.exists():
                folder.replace(previous)
            temporary.replace(folder)
            _sync(folder.parent)
        finally:
            if previous.exists() and not folder.exists():
                previous.replace(folder)
            for left in (temporary, previous):
                if left.exists():
                    shutil.rmtree(left)


def remove_leftovers(folder: AnyPath, name: str | None = None) -> list[AnyPath]:
    """Delete what a killed writer left in ``folder``, of one file or of all, and return the paths.

    Call it only where no other process writes: a temporary file that is still being written looks the same.
    """
    with writing(folder), as_os_errors(folder):
        found = [path for path in folder.iterdir() if is_partial(path.name, name)] if folder.is_dir() else []
        for path in found:
            remove(path)
    return sorted(found)


def write_text(path: AnyPath, text: str) -> None:
    """Write UTF-8 text, newlines as given, or leave the old file in place. Raises StoreError when it cannot be written."""
    with replace_file(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: AnyPath, data: object) -> None:
    """Write JSON with sorted keys, an indent of 2 and a final newline: the same data gives the same bytes.

    Raises:
        InputError: a value that JSON cannot hold, NaN and infinity among them.
        StoreError: the file cannot be written.
    """
    write_text(path, json.dumps(plain(data, path.name), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: AnyPath) -> object:
    """Read what :func:`write_json` wrote; tuples come back as lists.

    Raises:
        StoreError: the file is missing, truncated or not JSON, or holds NaN.
    """
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant)
    except ValueError as cause:
        raise unreadable(path, "JSON", cause) from cause


def read_text(path: AnyPath) -> str:
    """Read UTF-8 text. Raises StoreError when the file is missing or is not text."""
    try:
        return read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as cause:
        raise unreadable(path, "text", cause) from cause


def unreadable(path: AnyPath, kind: str, cause: Exception) -> StoreError:
    """The error for a file of a run that is missing, truncated or something else."""
    local = isinstance(path, Path)
    if not path.exists() if local else isinstance(cause, FileNotFoundError):
        return StoreError(f"{path} is missing; check the path, or run the command that writes it")
    if not local and isinstance(cause, OSError):
        return StoreError(f"{path} cannot be read: {cause}; {_REMOTE_FIX}")
    if path.is_dir() or isinstance(cause, PermissionError):
        return StoreError(f"{path} cannot be read: {cause}; give the path of a {kind} file that you may read")
    return StoreError(
        f"{path} is truncated or not a {kind} file of trimtab ({cause}); delete the folder of the result that it belongs to "
        "and run the same command again"
    )


def digest_of(data: object) -> str:
    """SHA-256, as hex, of the canonical JSON of ``data``: key order and tuple or list do not matter, 1 and 1.0 differ.

    Example:
        >>> digest_of({"a": 1, "b": (2,)}) == digest_of({"b": [2], "a": 1})
        True
    """
    text = json.dumps(plain(data, "data"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: object, where: str) -> object:
    """The same value from dict, list, str, int, float, bool and None only.

    ``where`` names the value in messages. Subclasses (StrEnum, np.float64) become their plain type and tuples become lists.

    Raises:
        InputError: another type, a key that is not a string, a number that is not finite, or text that is not Unicode.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where} is {value}; a stored number must be finite: leave the key out or store None")
        return float(value)
    if isinstance(value, Mapping):
        return {_plain_key(key, where): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise InputError(
        f"{where} is of type {type(value).__name__}; accepted: str, int, float, bool, None, and lists and dicts of them: "
        "convert it first, for example with float(x), str(x) or x.tolist()"
    )


def _plain_key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise InputError(f"{where} has the key {key!r} of type {type(key).__name__}; keys must be strings: use str(key)")
    return _plain_text(key, where)


def _plain_text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise InputError(f"{where} holds text that is not valid Unicode ({cause}); remove the lone surrogate") from cause
    return str.__str__(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
