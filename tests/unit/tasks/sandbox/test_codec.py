"""Plain data crosses with exact types; nothing else crosses, and hostile bytes are refused."""

import contextlib
import doctest
import enum
import math
import struct
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.sandbox import codec
from trimtab.tasks.sandbox.codec import MAX_DEPTH, MAX_DRAINED, MAX_VALUES, REQUEST_DEPTH, CodecError, decode, encode

KEYS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(blacklist_categories=()), max_size=20)
    | st.binary(max_size=20)
    | st.fractions()
    | st.decimals(allow_nan=False)
)
HASHABLE = KEYS | st.tuples(KEYS, KEYS) | st.frozensets(KEYS, max_size=4)
VALUES = st.recursive(
    HASHABLE
    | st.binary(max_size=20).map(bytearray)
    | st.dictionaries(HASHABLE, KEYS, max_size=4)
    | st.sets(HASHABLE, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.lists(inner, max_size=5).map(deque)
    ),
    max_leaves=12,
)


def same(one: object, other: object) -> bool:
    """Equal in value and, at every depth, in exact type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))  # type: ignore[attr-defined]
    return one == other and (not isinstance(one, float) or math.copysign(1, one) == math.copysign(1, other))  # type: ignore[arg-type]


@given(VALUES)
def test_plain_data_comes_back_exactly(value: object) -> None:
    assert same(value, decode(encode(value)))


def test_the_docstring_is_true() -> None:
    assert doctest.testmod(codec).failed == 0


def test_nan_and_signed_zero_cross() -> None:
    assert math.isnan(decode(encode(math.nan)))  # type: ignore[arg-type]
    assert same(-0.0, decode(encode(-0.0)))
    assert not same(0.0, decode(encode(-0.0)))


class Liar(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__

    def __str__(self) -> str:
        return "a lie"

    def encode(self, *_: str) -> bytes:  # type: ignore[override]
        return b"a lie"


class Big(int):
    def __index__(self) -> int:
        return 999

    def __add__(self, other: int) -> int:
        return 999


class Short(list):
    def __iter__(self):
        return iter(())

    def __len__(self) -> int:
        return 0


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Liar("truth"), "truth"),
        (Big(5), 5),
        (Short([1, 2]), [1, 2]),
        (Colour.RED, 3),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (namedtuple("Point", "x y")(1, 2), (1, 2)),
        (np.float64(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
    ],
)
def test_subclasses_arrive_as_the_built_in_type_under_them(value: object, plain: object) -> None:
    assert same(plain, decode(encode(value)))


def test_iterators_arrive_as_iterators() -> None:
    arrived = decode(encode(x * x for x in range(3)))
    assert arrived != [0, 1, 4]
    assert list(arrived) == [0, 1, 4]  # type: ignore[call-overload]


def test_an_endless_iterator_is_cut_and_says_so() -> None:
    def count():
        n = 0
        while True:
            yield n
            n += 1

    arrived = decode(encode(count()))
    assert [next(arrived) for _ in range(3)] == [0, 1, 2]  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match=f"more than {MAX_DRAINED} items"):
        list(arrived)  # type: ignore[call-overload]


def test_ranges_and_views_keep_their_types() -> None:
    assert decode(encode(range(1, 9, 3))) == range(1, 9, 3)
    table = {"a": 1, "b": 2}
    keys, values, items = (decode(encode(view)) for view in (table.keys(), table.values(), table.items()))
    assert keys == {"a", "b"}
    assert keys != ["a", "b"]
    assert list(values) == [1, 2]  # type: ignore[call-overload]
    assert values != [1, 2]
    assert items == table.items()


def test_other_objects_are_refused_or_referred_to() -> None:
    thing = object()
    with pytest.raises(CodecError, match=r"builtins\.object is no plain data"):
        encode([thing])
    data = encode([thing], lambda value: (4, type(value).__name__))
    assert decode(data, lambda number, name: f"{name} {number}") == ["object 4"]
    with pytest.raises(CodecError, match="a reference where none is expected"):
        decode(data)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_both_ways() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(CodecError, match="nested too deep"):
        encode(nested(MAX_DEPTH + 1))
    deep = encode(nested(MAX_DEPTH + 1), depth=REQUEST_DEPTH)
    with pytest.raises(CodecError, match="nested too deep"):
        decode(deep)
    assert decode(deep, depth=REQUEST_DEPTH) == nested(MAX_DEPTH + 1)
    loop: list = []
    loop.append(loop)
    with pytest.raises(CodecError, match="nested too deep"):
        encode(loop)


def test_the_number_of_values_is_bounded() -> None:
    with pytest.raises(CodecError, match=f"more than {MAX_VALUES} values"):
        decode(b"l" + struct.pack(">I", 2**32 - 1) + b"N" * MAX_VALUES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"s\x00\x00\x00\x05abc",
        b"s\xff\xff\xff\xff",
        b"s\x00\x00\x00\x01\xff",
        b"f\x00",
        b"NN",
        b"l\x00\x00\x00\x02N",
        b"d\x00\x00\x00\x01N",
        b"d\x00\x00\x00\x02" + encode([]) + b"N",
        b"S\x00\x00\x00\x01" + encode([]),
        b"r\x00\x00\x00\x03NNN",
        b"r\x00\x00\x00\x03" + encode(0) * 3,
        b"R\x00\x00\x00\x02" + encode(1) + encode(0),
        b"D\x00\x00\x00\x01x",
        b"m\x00\x00\x00\x01N",
        b"o\x00\x00\x00\x01N",
    ],
)
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except CodecError:
        return
    assert type(value).__module__ in ("builtins", "collections", "decimal", "fractions")


@given(VALUES, st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_never_crashes(value: object, place: int, byte: int) -> None:
    data = bytearray(encode(value))
    data[place % len(data)] = byte
    with contextlib.suppress(CodecError):
        decode(bytes(data))


def test_decimal_and_fraction_keep_their_types() -> None:
    assert same(Decimal("1.10"), decode(encode(Decimal("1.10"))))
    assert same(Fraction(1, 3), decode(encode(Fraction(1, 3))))
