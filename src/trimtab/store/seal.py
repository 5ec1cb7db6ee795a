"""The seal: what every file of a result carries beside its content, so that no other content is ever read in its place.

A seal holds the key that the file was made under, the file's name below it, and a checksum over both and the content. JSON files
have it as their key ``seal``, Parquet files in the key-value metadata of their footer, safetensors files in their header. So a
flipped bit, a truncation, an edit and a file that was copied from another result are told apart from what was written, wherever
the file lies, and also while a killed run has not yet written ``key.json``.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from trimtab.errors import StoreError
from trimtab.store.remote import AnyPath, is_partial

SEAL = "seal"
KEY_DIGITS = 26
"""Of a key: no common id (git, UUID, MD5, ObjectId) has as many, so the folder of a result is known by its name."""
_PARTIAL = re.compile(r"^\.(.+)\.[0-9a-f]{8}\.[a-z-]+$")


class Seal(NamedTuple):
    """Where a file was made, and its checksum.

    Args:
        under: ``VERB/KEY`` of the result, or "" for a file that belongs to none.
        file: its name below that folder; "" elsewhere, where the same content has the same bytes under every name.
        sha256: over these two and the content; what of the content, the format says.
    """

    under: str
    file: str
    sha256: str = ""

    def with_digest(self, sha256: str) -> "Seal":
        return self._replace(sha256=sha256)


def is_key(name: str) -> bool:
    """Whether a folder has the name of a key."""
    return len(name) == KEY_DIGITS and all(digit in "0123456789abcdef" for digit in name)


def place_of(path: AnyPath, under: str | None = None) -> Seal:
    """The seal of a file at this path, yet without a checksum.

    Args:
        path: of the file, which says all below the folder of a result.
        under: the key of a file that lies elsewhere.

    Example:
        >>> from pathlib import Path
        >>> place_of(Path("run/gate") / ("0" * 26) / "gate.json")[:2]
        ('gate/00000000000000000000000000', 'gate.json')
    """
    parts = str(path).replace("\\", "/").split("/")
    for i in range(len(parts) - 2, 0, -1):
        if is_key(parts[i]):
            return Seal(f"{parts[i - 1]}/{parts[i]}", "/".join(map(_final, parts[i + 1 :])))
    return Seal(under or "", "")


def in_result(path: AnyPath) -> bool:
    """Whether a file lies below the folder of a result, where every file is sealed."""
    return bool(place_of(path).file)


def seal_in(path: AnyPath, found: object) -> Seal:
    """The seal that a file holds.

    Raises:
        StoreError: it holds none.
    """
    if (
        not isinstance(found, Mapping)
        or set(found) != {"under", "file", "sha256"}
        or not all(isinstance(value, str) for value in found.values())
    ):
        raise unsealed_file(path)
    return Seal(**found)


def unsealed_file(path: AnyPath) -> StoreError:
    """The error for a file without a seal."""
    return StoreError(
        f"{path} carries no checksum: another program or version of trimtab wrote it, or it was edited; {fix_of(path)}"
    )


def check_seal(path: AnyPath, found: Seal, sha256: str, under: str | None = None) -> None:
    """Hold a file's seal against its content and its place.

    Args:
        path: the file.
        found: its seal.
        sha256: of the content as it is read now.
        under: the key that a file which lies in no result's folder must have been made under, if it names one; None is any.

    Raises:
        StoreError: another content, or a file of another result.
    """
    if found.sha256 != sha256:
        raise damaged(path)
    place = place_of(path, under)
    other = (found.under, found.file) != place[:2] if in_result(path) else under is not None and found.under not in ("", under)
    if other:
        made = "/".join(filter(None, (found.under, found.file)))
        raise StoreError(
            f"{path} belongs to another result: it was made as {made}, here {place.under} is needed; {fix_of(path)}",
            code="other-result",
        )


def damaged(path: AnyPath) -> StoreError:
    """The error for a file whose content is not the one that was written."""
    return StoreError(f"{path} is damaged or was edited: its content does not fit its checksum; {fix_of(path)}")


def fix_of(path: AnyPath) -> str:
    """What to do about a file that cannot be used."""
    place = place_of(path)
    if not place.file:
        return "delete it and run the command that writes it again, or fetch an unchanged copy"
    end = str(path).rindex(place.under) + len(place.under)
    return f"delete the folder {str(path)[:end]} and run the same command again"


def _final(name: str) -> str:
    """The name that a file or folder gets when it is whole."""
    partial = _PARTIAL.match(name) if is_partial(name) else None
    return partial.group(1) if partial else name
