"""TOML text of a configuration: the standard library reads TOML and does not write it.

tomli-w would do, but its error for a value that TOML lacks does not name the key.
"""

import json
import re
from collections.abc import Mapping

from trimtab.errors import InputError
from trimtab.store.atomic import plain, sealed
from trimtab.store.remote import AnyPath
from trimtab.store.seal import place_of

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(config: Mapping[str, object]) -> str:
    """TOML that ``tomllib.loads`` turns back into the same values, in the order given.

    Args:
        config: str, int, float, bool, lists and nested tables of them.

    Raises:
        InputError: None (TOML has no null), NaN or infinity, or another type; the key is named.

    Example:
        >>> print(to_toml({"seed": 0, "train": {"k": 50}}), end="")
        seed = 0
        <BLANKLINE>
        [train]
        k = 50
    """
    lines: list[str] = []
    _table(plain(config, "config"), (), lines)  # type: ignore[arg-type]
    return "\n".join(lines) + "\n" if lines else ""


def sealed_toml(data: Mapping[str, object], path: AnyPath) -> str:
    """TOML of a mapping with its seal as the last table, see :mod:`trimtab.store.seal`."""
    return to_toml(sealed(plain(data, path.name), place_of(path), path.name))


def _table(table: Mapping[str, object], name: tuple[str, ...], lines: list[str]) -> None:
    if name:
        lines.extend([""] * bool(lines) + [f"[{'.'.join(map(_key, name))}]"])
    # a key after a [header] belongs to that table, so a table's own values come before its sub-tables
    for key, value in table.items():
        if not isinstance(value, dict):
            lines.append(f"{_key(key)} = {_value(value, '.'.join((*name, key)))}")
    for key, value in table.items():
        if isinstance(value, dict):
            _table(value, (*name, key), lines)


def _value(value: object, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(item, f'{where}[{i}]') for i, item in enumerate(value))}]"
    if isinstance(value, dict):
        pairs = [f"{_key(key)} = {_value(item, f'{where}.{key}')}" for key, item in value.items()]
        return f"{{{', '.join(pairs)}}}"
    raise InputError(f"config key {where} is None and TOML has no null; leave the key out")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    # a JSON string is a TOML basic string, but for DEL, which TOML wants escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
