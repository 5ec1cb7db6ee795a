"""Comparison of values with arrays, and the content of a folder."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np


def assert_equal(actual: object, expected: object) -> None:
    """Every field equal in type and value, arrays bit for bit, values within values alike."""
    assert type(actual) is type(expected)
    for field in fields(expected):  # type: ignore[arg-type]
        a, e = getattr(actual, field.name), getattr(expected, field.name)
        if isinstance(e, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (e.dtype, e.shape, e.tobytes()), field.name
        elif is_dataclass(e):
            assert_equal(a, e)
        else:
            assert (type(a), a) == (type(e), e), field.name


def content(folder: Path) -> dict[str, bytes]:
    """Bytes by file name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
