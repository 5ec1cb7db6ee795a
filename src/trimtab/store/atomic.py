"""Files that are either whole or not there: text and JSON written to a temporary name, synced and renamed."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from trimtab.errors import InputError, StoreError
from trimtab.store.remote import AnyPath, as_os_errors, is_partial, partial_name, read_bytes, remove, upload, upload_folder
from trimtab.store.seal import SEAL, Seal, check_seal, fix_of, in_result, place_of, seal_in

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
        raise StoreError(f"cannot write {path}: {cause}; {fix}", code="unwritable") from cause


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
            # below folders of the same names, by which a seal knows its place
            temporary = Path(scratch, *str(folder).split("/")[-3:])
            temporary.mkdir(parents=True)
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


def write_json(path: AnyPath, data: object, under: str | None = None) -> None:
    """Write JSON with sorted keys, an indent of 2 and a final newline: the same data gives the same bytes.

    Args:
        path: the file; below the folder of a result it is sealed, see :mod:`trimtab.store.seal`.
        data: JSON values; an object, where it is sealed.
        under: seal a file that lies elsewhere, with the key it was made under, or "" for none.

    Raises:
        InputError: a value that JSON cannot hold, NaN and infinity among them.
        StoreError: the file cannot be written.
    """
    value = plain(data, path.name)
    if under is not None or in_result(path):
        value = sealed(value, place_of(path, under), path.name)
    write_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sealed(value: object, place: Seal, where: str, beside: object = None) -> dict[str, object]:
    """An object with its seal, which covers ``beside`` too.

    Raises:
        InputError: anything but an object, or one that has a key of that name.
    """
    if not isinstance(value, dict) or SEAL in value:
        raise InputError(f"{where} is no JSON object without the key {SEAL!r}, so it cannot be sealed; wrap it in one")
    return {**value, SEAL: place.with_digest(digest_of([place.under, place.file, value, beside]))._asdict()}


def read_json(path: AnyPath, under: str | None = None) -> object:
    """Read what :func:`write_json` wrote, without its seal; tuples come back as lists.

    Args:
        path: the file; below the folder of a result it must be sealed.
        under: elsewhere, the key that it must have been made under; "" takes any, and None also a file without a seal.

    Raises:
        StoreError: the file is missing, truncated or not JSON, holds NaN, or is not what was written.
    """
    try:
        value = parse_json(read_text(path))
    except ValueError as cause:
        raise unreadable(path, "JSON", cause) from cause
    return unsealed(value, path, under)


def unsealed(value: object, path: AnyPath, under: str | None = None, beside: object = None) -> object:
    """The inverse of :func:`sealed`, once the seal is found to fit. Raises StoreError, see :func:`read_json`."""
    if not isinstance(value, dict) or SEAL not in value:
        if under is not None or in_result(path):
            seal_in(path, None)
        return value
    content = {key: item for key, item in value.items() if key != SEAL}
    found = seal_in(path, value[SEAL])
    try:
        digest = digest_of([found.under, found.file, content, beside])
    except InputError as cause:
        raise unreadable(path, "JSON", cause) from cause
    check_seal(path, found, digest, under or None)
    return content


DEEPEST = 100
"""Levels of lists and objects in a JSON text; no file of trimtab has twenty."""


def parse_json(text: str | bytes) -> object:
    """The value of a JSON text from anywhere.

    Raises:
        ValueError: no JSON, a key twice in one object, a number that is not finite, or lists and objects nested too deeply.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' stands twice in one object
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=unique_keys)
    except RecursionError as cause:
        raise ValueError(_TOO_DEEP) from cause
    _check_depth(value)
    return value


def parse_toml(text: str) -> dict[str, object]:
    """The value of a TOML text from anywhere.

    Raises:
        ValueError: no TOML, or tables and lists nested too deeply.
    """
    try:
        value = tomllib.loads(text)
    except RecursionError as cause:
        raise ValueError(_TOO_DEEP) from cause
    _check_depth(value)
    return value


_TOO_DEEP = f"lists and objects are nested more than {DEEPEST} deep"


def _check_depth(value: object) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(_TOO_DEEP)
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, dict | list)
        ]


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
        fix = fix_of(path) if in_result(path) else "check the path, or run the command that writes it"
        return StoreError(f"{path} is missing; {fix}")
    if not local and isinstance(cause, OSError):
        return StoreError(f"{path} cannot be read: {cause}; {_REMOTE_FIX}")
    if path.is_dir() or isinstance(cause, PermissionError):
        return StoreError(f"{path} cannot be read: {cause}; give the path of a {kind} file that you may read")
    return StoreError(f"{path} is truncated or not a {kind} file of trimtab ({one_line(cause)}); {fix_of(path)}")


def one_line(cause: object) -> str:
    """The message of another library's error, as part of one line."""
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


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


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is not finite")
    return value


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A hook of :func:`json.loads` that raises ValueError for a key that stands twice in one object."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
