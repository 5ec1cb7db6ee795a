import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.store.toml_writer import to_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALAR = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=10)


def typed(value: object) -> object:
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value).__name__, repr(value))


@given(config=st.dictionaries(TEXT, VALUE, max_size=5))
def test_the_standard_library_reads_it_back_exactly(config: dict[str, object]) -> None:
    assert typed(tomllib.loads(to_toml(config))) == typed(config)


@pytest.mark.parametrize(
    "value", ["\x7f", "\x00\x1f", '"""', "a\r\nb", "\\u0041", "😀", 1e16, 1e-5, 5e-324, -0.0, 2**70, [[], [{}]]]
)
def test_awkward_values(value: object) -> None:
    assert typed(tomllib.loads(to_toml({"a": {"b c": value}}))) == typed({"a": {"b c": value}})


def test_layout() -> None:
    config = {"train": {"k": 50, "inner": {"x": True}}, "seed": 0, "name": "a.b", "layers": (1, 2), "empty": {}}
    assert to_toml(config) == (
        'seed = 0\nname = "a.b"\nlayers = [1, 2]\n\n[train]\nk = 50\n\n[train.inner]\nx = true\n\n[empty]\n'
    )
    assert to_toml({}) == ""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"config key a\.b is None.*leave the key out"),
        ([{"c": None}], r"a\.b\[0\]\.c is None"),
        (float("nan"), r"a\.b is nan"),
        (object(), r"a\.b is of type object"),
    ],
)
def test_what_toml_cannot_hold(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_toml({"a": {"b": value}})
