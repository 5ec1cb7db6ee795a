"""Plain data as bytes, with exact types: all that crosses between an untrusted program and the tests that judge it.

A decoded value is built here, in the reader's process, from exact built-in types: no class, method or ``__eq__`` of the writer
comes with it. A subclass (``class Liar(str)``, ``Counter``, ``numpy.float64``) arrives as the built-in value under it. An object
that is no plain data arrives as a reference, whose meaning the two callbacks decide. Neither pickle nor marshal is safe here:
both let the writer choose what the reader builds.

Iterators are drained by the writer and arrive as iterators, so that ``iter([1]) == [1]`` stays false; ranges, deques, dictionary
views, ``Decimal`` and ``Fraction`` keep their types for the same reason.
"""

import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

MAX_DEPTH = 100
REQUEST_DEPTH = MAX_DEPTH + 10
"""Deep enough to hand back what a reply of ``MAX_DEPTH`` brought."""
MAX_VALUES = 2_000_000
MAX_DRAINED = 100_000

Refer = Callable[[object], tuple[int, str]]
Resolve = Callable[[int, str], object]

_COUNT = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")


class CodecError(Exception):
    """A value that is no plain data, or bytes that are no value."""


def encode(value: object, refer: Refer | None = None, depth: int = MAX_DEPTH) -> bytes:
    """A value as bytes.

    Args:
        value: plain data.
        refer: gives the reference ``(number, type name)`` of an object that is no plain data. None refuses such objects.
        depth: how deep it may nest.

    Raises:
        CodecError: an object that is no plain data, or nested too deep.

    Example:
        >>> decode(encode({"a": (1, 2.5, {3})}))
        {'a': (1, 2.5, {3})}
    """
    writer = _Writer(refer)
    writer.put(value, depth)
    return bytes(writer.out)


def decode(data: bytes, resolve: Resolve | None = None, depth: int = MAX_DEPTH) -> object:
    """The value of some bytes, which may be hostile.

    Args:
        data: what :func:`encode` wrote, or anything else.
        resolve: gives the object of a reference ``(number, type name)``. None refuses references.
        depth: how deep it may nest.

    Raises:
        CodecError: the bytes are no value, hold more than ``MAX_VALUES`` values, or nest too deep.
    """
    reader = _Reader(data, resolve)
    try:
        value = reader.take(depth)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError, ValueError, ArithmeticError) as error:
        raise CodecError(f"malformed value: {error}") from error
    if reader.position != len(data):
        raise CodecError(f"{len(data) - reader.position} bytes follow the value")
    return value


class _Writer:
    def __init__(self, refer: Refer | None) -> None:
        self.out = bytearray()
        self.refer = refer

    def put(self, value: object, depth: int) -> None:
        if depth < 0:
            raise CodecError("nested too deep")
        kind = type(value)
        if kind not in _SCALARS and kind not in _CONTAINERS:
            kind = next((base for base in _BASES if issubclass(kind, base)), object)
        if kind in _SCALARS:
            self.out += _SCALARS[kind](value)
        elif kind in _CONTAINERS:
            tag, items = _CONTAINERS[kind]
            self.put_items(tag, items(value), depth)
        else:
            self.put_other(value, depth)

    def put_items(self, tag: bytes, items: Iterable[object], depth: int) -> None:
        listed = list(items)
        self.out += tag + _COUNT.pack(len(listed))
        for item in listed:
            self.put(item, depth - 1)

    def put_other(self, value: object, depth: int) -> None:
        """What is neither a built-in type nor a subclass of one."""
        kind = type(value)
        if isinstance(value, Iterator) and issubclass(kind, Iterator):
            items = list(islice(value, MAX_DRAINED + 1))
            self.put_items(b"I" if len(items) <= MAX_DRAINED else b"J", items[:MAX_DRAINED], depth)
        elif _is(kind, "decimal", "Decimal"):
            self.out += _sized(b"D", str(value).encode())
        elif _is(kind, "fractions", "Fraction"):
            self.put_items(b"R", (value.numerator, value.denominator), depth)  # type: ignore[attr-defined]
        elif _is(kind, "numpy", "generic"):
            self.put(value.item(), depth - 1)  # type: ignore[attr-defined]
        elif self.refer is None:
            raise CodecError(f"{kind.__module__}.{kind.__qualname__} is no plain data")
        else:
            self.put_items(b"o", self.refer(value), depth)


def _is(kind: type, module: str, name: str) -> bool:
    """Whether a type derives from ``module.name``, without importing what the program did not import."""
    base = getattr(sys.modules.get(module), name, None)
    return isinstance(base, type) and issubclass(kind, base)


def _sized(tag: bytes, data: bytes | bytearray) -> bytes:
    return b"".join((tag, _COUNT.pack(len(data)), data))


def _integer(value: int) -> bytes:
    exact = int.__add__(value, 0)
    return _sized(b"i", exact.to_bytes(exact.bit_length() // 8 + 1, "big", signed=True))


# methods of the built-in types, not of the value, whose class may lie
_SCALARS: dict[type, Callable[..., bytes]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: _integer,
    float: lambda value: b"f" + _FLOAT.pack(value),
    complex: lambda value: b"c" + _COMPLEX.pack(value.real, value.imag),
    str: lambda value: _sized(b"s", str.encode(value, "utf-8", "surrogatepass")),
    bytes: lambda value: _sized(b"b", bytes.__add__(value, b"")),
    bytearray: lambda value: _sized(b"B", bytearray.__add__(value, b"")),
}
_CONTAINERS: dict[type, tuple[bytes, Callable[..., Iterable[object]]]] = {
    list: (b"l", list.__iter__),
    tuple: (b"t", tuple.__iter__),
    set: (b"S", set.__iter__),
    frozenset: (b"Z", frozenset.__iter__),
    dict: (b"d", lambda value: chain.from_iterable(dict.items(value))),
    deque: (b"q", deque.__iter__),
    range: (b"r", lambda value: (value.start, value.stop, value.step)),
    type({}.keys()): (b"k", iter),
    type({}.values()): (b"v", iter),
    type({}.items()): (b"m", iter),
}
_BASES = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, deque)


class _Reader:
    def __init__(self, data: bytes, resolve: Resolve | None) -> None:
        self.data = data
        self.position = 0
        self.values = 0
        self.resolve = resolve

    def take(self, depth: int) -> object:
        self.values += 1
        if self.values > MAX_VALUES or depth < 0:
            raise CodecError("nested too deep" if depth < 0 else f"more than {MAX_VALUES} values")
        tag = self.raw(1)
        if tag in _SCALAR_OF:
            return _SCALAR_OF[tag](self)
        if tag not in _CONTAINER_OF and tag != b"o":
            raise CodecError(f"unknown tag {tag!r}")
        items = [self.take(depth - 1) for _ in range(self.count())]
        return self.reference(*items) if tag == b"o" else _CONTAINER_OF[tag](items)

    def raw(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > len(self.data):
            raise CodecError("the value is cut off")
        return self.data[start : self.position]

    def count(self) -> int:
        return _COUNT.unpack(self.raw(_COUNT.size))[0]

    def sized(self) -> bytes:
        return self.raw(self.count())

    def reference(self, number: object, name: object) -> object:
        if self.resolve is None or type(number) is not int or type(name) is not str:
            raise CodecError("a reference where none is expected")
        return self.resolve(number, name)


def _integers(items: list[object]) -> list[int]:
    if any(type(item) is not int for item in items):
        raise CodecError("expected integers")
    return items  # type: ignore[return-value]


def _cut(items: list[object]) -> Iterator[object]:
    yield from items
    raise RuntimeError(f"the iterator gave more than {MAX_DRAINED} items")


def _decimal(reader: _Reader) -> object:
    from decimal import Decimal

    return Decimal(reader.sized().decode("ascii"))


def _fraction(items: list[object]) -> object:
    from fractions import Fraction

    return Fraction(*_integers(items))


_SCALAR_OF: dict[bytes, Callable[[_Reader], object]] = {
    b"N": lambda _: None,
    b"T": lambda _: True,
    b"F": lambda _: False,
    b"i": lambda reader: int.from_bytes(reader.sized(), "big", signed=True),
    b"f": lambda reader: _FLOAT.unpack(reader.raw(_FLOAT.size))[0],
    b"c": lambda reader: complex(*_COMPLEX.unpack(reader.raw(_COMPLEX.size))),
    b"s": lambda reader: reader.sized().decode("utf-8", "surrogatepass"),
    b"b": lambda reader: reader.sized(),
    b"B": lambda reader: bytearray(reader.sized()),
    b"D": _decimal,
}
_CONTAINER_OF: dict[bytes, Callable[..., object]] = {
    b"l": list,
    b"t": tuple,
    b"S": set,
    b"Z": frozenset,
    b"d": lambda items: dict(zip(items[::2], items[1::2], strict=True)),
    b"q": deque,
    b"r": lambda items: range(*_integers(items)),
    b"I": iter,
    b"J": _cut,
    b"k": lambda items: dict.fromkeys(items).keys(),
    b"v": lambda items: dict(enumerate(items)).values(),
    b"m": lambda items: dict(items).items(),
    b"R": _fraction,
}
