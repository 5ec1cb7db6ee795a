"""What ``export.json`` says of the files beside it: the SHA-256 of each, held against them wherever one is read again."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from trimtab.errors import StoreError
from trimtab.store.atomic import read_json, unreadable

EXPORT, CARD = "export.json", "README.md"
_AGAIN = "export the steering again, with --force"


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256, as hex, of every file below a folder, by its path in it.

    Left out are export.json, which carries a seal of its own, and the card: people edit it, and nothing reads it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: _sha256(path) for name, path in names.items() if name not in (EXPORT, CARD)}


def check_files(folder: Path, sha256: Mapping[str, str], names: Collection[str] | None = None) -> None:
    """Hold files of an export against the digests that export.json names.

    Args:
        folder: of the export.
        sha256: of each of its files, by :func:`digests_of`.
        names: the files to look at; None is all of them.

    Raises:
        StoreError: a file is missing, cannot be read or has other bytes; it is named.
    """
    for name in sha256 if names is None else names:
        if not _is_inside(name):
            raise StoreError(f"{folder / EXPORT} names {name[:80]!r}, which is no file of that folder; {_AGAIN}")
        path = folder / name
        if not path.is_file():
            raise StoreError(f"{path} is missing or no file, which {EXPORT} names; {_AGAIN}")
        if _sha256(path) != sha256[name]:
            raise StoreError(f"{path} is damaged or was edited: its SHA-256 is not the one in {EXPORT}; {_AGAIN}")


def check_listed(path: Path) -> None:
    """Hold one file against the export.json beside it; where none is, or none that names the file, nothing is promised of it.

    Raises:
        StoreError: the file has other bytes than were exported, or the export.json is damaged.
    """
    if not (path.parent / EXPORT).is_file():
        return
    record = read_json(path.parent / EXPORT)
    listed = record.get("files") if isinstance(record, dict) else None
    if isinstance(listed, dict) and path.name in listed:
        check_files(path.parent, {path.name: str(listed[path.name])})


def _is_inside(name: str) -> bool:
    """Whether it is the name of a file below a folder, as :func:`digests_of` writes it."""
    parts = name.split("/")
    return "\0" not in name and not {"", ".", ".."} & set(parts) and max(map(len, parts)) <= 255


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise unreadable(path, "plain", cause) from cause
