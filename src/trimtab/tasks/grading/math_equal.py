"""Whether two answers are the same mathematics, decided on what ``math-verify`` reads of them. Runs in its worker processes.

Exact inequality is final: whole numbers, fractions, powers, roots and factorials are compared exactly, or to all their digits.
A decimal is its own exact value beside another decimal; beside an exact number that has no end as a decimal it counts as rounded,
and is equal to within :data:`ROUNDED`. Expressions with variables are compared at points.
"""

# sympy's annotations say Basic where it gives expressions, and take less than its functions do
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false
# pyright: reportAssignmentType=false, reportOptionalMemberAccess=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import sympy
from sympy import Basic, Eq, Expr, Float, Interval, MatrixBase, Ne, Rational, Set, Symbol, Tuple, Union
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.logic.boolalg import And
from sympy.sets.sets import EmptySet, FiniteSet

ROUNDED = Rational(1, 200_000)
"""Relative error of a number rounded to six significant digits."""
NOISE = Rational(1, 10**12)
"""Relative error of a number that a computer's floats left behind."""
DIGITS = 40
MOST_DIGITS = 20_000
_POINTS = (
    ("7/5", "11/13", "17/7", "23/19", "5/3", "31/29"),
    ("3/11", "19/17", "13/8", "2/7", "29/23", "9/10"),
    ("41/37", "1/3", "47/43", "15/11", "8/9", "26/25"),
    ("53/20", "33/14", "3/2", "61/50", "21/16", "12/5"),
)
_NEGATIVE = (("-7/5", "11/13", "-17/7", "23/19", "-5/3", "31/29"), ("3/11", "-19/17", "-13/8", "-2/7", "29/23", "-9/10"))


def same(gold: object, answer: object, rounded: bool = False) -> bool | None:
    """Whether two expressions are equal; None when this cannot tell.

    Args:
        gold: an expression of sympy.
        answer: another one.
        rounded: one of the two was written with decimals and the other without.
    """
    if not isinstance(gold, Basic | MatrixBase) or not isinstance(answer, Basic | MatrixBase):
        return None
    if _is_equation(gold) or _is_equation(answer):
        return _same_equations(gold, answer, rounded)
    if _is_region(gold) and _is_region(answer):
        decided = _same_regions(gold, answer, rounded)
        if decided is not None:
            return decided
    left, right = _sequence(gold), _sequence(answer)
    if left is not None and right is not None:
        return _same_sequences(left, right, rounded)
    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        if gold.shape != answer.shape:
            return False
        return _all(same(one, two, rounded) for one, two in zip(gold.flat(), answer.flat(), strict=True))
    if left is not None and right is None and isinstance(answer, Expr) and len(left[1]) > 1:
        return False
    if isinstance(gold, Expr) and isinstance(answer, Expr):
        return _same_expressions(_exact(gold), _exact(answer), rounded)
    return None


def _all(parts: Iterator[bool | None]) -> bool | None:
    """False when a part is False, None when one is unknown, else True."""
    known: bool | None = True
    for part in parts:
        if part is False:
            return False
        known = None if part is None else known
    return known


def _exact(expression: Expr) -> Expr:
    """Decimals as the fractions that they are; the letters ``i`` and ``e`` as the numbers, where no vector uses them."""
    names = {symbol.name for symbol in expression.free_symbols}
    swaps: dict[Basic, Basic] = {number: Rational(str(number)) for number in expression.atoms(Float)}
    for symbol in expression.free_symbols:
        if symbol.name == "i" and "j" not in names:
            swaps[symbol] = sympy.I
        if symbol.name == "e":
            swaps[symbol] = sympy.E
    return expression.xreplace(swaps) if swaps else expression


# numbers and expressions


def _same_expressions(gold: Expr, answer: Expr, rounded: bool) -> bool | None:
    if gold == answer:
        return None if _undefined(gold) else True
    if _undefined(gold) or _undefined(answer):
        return False
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=lambda symbol: symbol.name)
    if not symbols:
        return _same_numbers(gold, answer, rounded)
    if isinstance(gold, Symbol) and isinstance(answer, Symbol):
        return gold.name == answer.name
    if (isinstance(gold, Symbol) and len(gold.name) > 2) or (isinstance(answer, Symbol) and len(answer.name) > 2):
        return None  # words
    if len(symbols) > len(_POINTS[0]):
        return None
    return _same_at_points(gold, answer, symbols, rounded)


def _undefined(expression: Basic) -> bool:
    return expression.has(sympy.nan, sympy.zoo)


def _same_numbers(gold: Expr, answer: Expr, rounded: bool) -> bool | None:
    left, right = _value(gold, DIGITS), _value(answer, DIGITS)
    if left is None or right is None:
        return None
    error = _error(left, right)
    if error > Rational(1, 10 ** (DIGITS - 10)):
        return rounded and _same_rounded(gold, answer, error)
    one, two = gold.doit(), answer.doit()
    if isinstance(one, Rational) and isinstance(two, Rational):
        return one == two
    if one == two:
        return True
    digits = min(MOST_DIGITS, 3 * DIGITS + _magnitude(left))
    left, right = _value(one, digits), _value(two, digits)
    return None if left is None or right is None else _error(left, right) < Rational(1, 10 ** (digits - 2 * DIGITS))


def _same_rounded(gold: Expr, answer: Expr, error: Expr) -> bool:
    """A decimal beside a number with an end as a decimal has to be that number; beside any other it may be rounded."""
    numbers = [number.doit() for number in (gold, answer)]
    both_end = all(isinstance(number, Rational) and _ends(number) for number in numbers)
    return bool(error < (NOISE if both_end else ROUNDED))


def _ends(number: Rational) -> bool:
    rest = int(number.q)
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _value(expression: Expr, digits: int) -> Expr | None:
    """A number to a number of digits; None when it has no value."""
    try:
        value = sympy.N(expression, digits, maxn=max(100, 2 * digits))
    except (ArithmeticError, TypeError, ValueError, NotImplementedError, AttributeError):
        return None
    parts = value.as_real_imag()
    if all(part.is_Float or part.is_Rational for part in parts):
        return value
    return value if value in (sympy.oo, -sympy.oo) else None


def _error(left: Expr, right: Expr) -> Expr:
    """Relative difference; 1 for infinities that differ, 0 where both vanish."""
    if left == right:
        return sympy.Integer(0)
    if left.is_infinite or right.is_infinite:
        return sympy.Integer(1)
    size = max(abs(left), abs(right))
    if size < Rational(1, 10**90):  # what is left of a zero that was computed
        return sympy.Integer(0) if left.is_Float and right.is_Float and min(abs(left), abs(right)) != 0 else sympy.Integer(1)
    return abs(left - right) / size


def _magnitude(value: Expr) -> int:
    """Digits before the decimal point."""
    size = abs(value)
    return max(0, int(sympy.log(size, 10).evalf(10))) if size > 1 and not size.is_infinite else 0


def _same_at_points(gold: Expr, answer: Expr, symbols: Sequence[Symbol], rounded: bool) -> bool | None:
    """Equal at every point; None when only points with negative values tell them apart, or none could be computed."""
    compared = 0
    bound = ROUNDED if rounded else NOISE
    for points in (_POINTS, _NEGATIVE):
        for point in points:
            values = dict(zip(symbols, map(Rational, point), strict=False))
            left, right = _at(gold, values), _at(answer, values)
            if left is None or right is None:
                if (left is None) != (right is None) and points is _POINTS:
                    return None
                continue
            if _error(left, right) > bound:
                return False if points is _POINTS else None
            compared += 1
    return True if compared >= len(_POINTS) else None


def _at(expression: Expr, values: dict[Symbol, Rational]) -> Expr | None:
    try:
        here = expression.subs(values)
    except (ArithmeticError, TypeError, ValueError, NotImplementedError, AttributeError):
        return None
    return None if here.free_symbols else _value(here, 30)


# sequences: tuples, vectors, lists

Sequence_ = tuple[bool, list[Any]]


def _sequence(expression: object) -> Sequence_ | None:
    """Whether the order counts, and the elements."""
    match expression:
        case Tuple():
            return True, list(expression.args)
        case Interval() if expression.left_open and expression.right_open and not expression.has(sympy.oo, -sympy.oo):
            return True, [expression.start, expression.end]
        case MatrixBase() if 1 in expression.shape:
            return True, list(expression.flat())
        case FiniteSet():
            return False, list(getattr(expression, "_unsorted_args", expression.args))
    return None


def _same_sequences(left: Sequence_, right: Sequence_, rounded: bool) -> bool | None:
    (left_ordered, golds), (right_ordered, answers) = left, right
    if (left_ordered and right_ordered) or left_ordered != right_ordered:
        if len(golds) != len(answers):
            return False
        return _all(same(one, two, rounded) for one, two in zip(golds, answers, strict=True))
    return _same_unordered(_distinct(golds), _distinct(answers), rounded)


def _distinct(items: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for item in items:
        if not any(same(item, other) is True for other in kept):
            kept.append(item)
    return kept


def _same_unordered(golds: list[Any], answers: list[Any], rounded: bool) -> bool | None:
    if len(golds) != len(answers):
        return False
    left = list(answers)
    unknown = False
    for gold in golds:
        found = [same(gold, answer, rounded) for answer in left]
        if True in found:
            left.pop(found.index(True))
        elif None in found:
            unknown = True
        else:
            return False
    return None if unknown else True


# equations


def _is_equation(expression: object) -> bool:
    if isinstance(expression, And):
        return all(isinstance(part, Eq) for part in _parts(expression))
    return isinstance(expression, Eq)


def _parts(expression: Basic) -> list[Any]:
    return list(getattr(expression, "_unsorted_args", expression.args))


def _sides(expression: Basic) -> tuple[Any, Any]:
    """The first and the last side of an equation, or of a series of them."""
    if isinstance(expression, And):
        parts = _parts(expression)
        return parts[0].lhs, parts[-1].rhs
    return expression.lhs, expression.rhs  # type: ignore[attr-defined]


def _is_name(side: object) -> bool:
    return isinstance(side, Symbol | AppliedUndef) or (isinstance(side, Tuple) and all(isinstance(one, Symbol) for one in side))


def _same_equations(gold: Basic, answer: Basic, rounded: bool) -> bool | None:
    if not _is_equation(answer):
        name, value = _sides(gold)
        return same(value, answer, rounded) if _is_name(name) or not getattr(name, "free_symbols", True) else None
    if not _is_equation(gold):
        return same(gold, _sides(answer)[1], rounded)
    (left_name, left), (right_name, right) = _sides(gold), _sides(answer)
    if _is_name(left_name) and _is_name(right_name):
        if left_name == right_name or isinstance(left_name, AppliedUndef) != isinstance(right_name, AppliedUndef):
            return same(left, right, rounded)
        if not getattr(left, "free_symbols", True) and not getattr(right, "free_symbols", True):
            return False
    return _same_curves(gold, answer)


def _same_curves(gold: Basic, answer: Basic) -> bool | None:
    """Equal when one difference of sides is a constant times the other; different when a point of one is not on the other."""
    (a, b), (c, d) = _sides(gold), _sides(answer)
    if not all(isinstance(side, Expr) for side in (a, b, c, d)):
        return None
    one, two = (_exact(side).subs({symbol: Symbol(symbol.name) for symbol in side.free_symbols}) for side in (a - b, c - d))
    symbols = sorted(one.free_symbols | two.free_symbols, key=lambda symbol: symbol.name)
    if one.free_symbols != two.free_symbols or not 0 < len(symbols) <= len(_POINTS[0]):
        return False
    ratios = []
    for point in (*_POINTS, *_NEGATIVE):
        values = dict(zip(symbols, map(Rational, point), strict=False))
        left, right = _at(one, values), _at(two, values)
        if left is None or right is None or right == 0 or left == 0:
            continue
        ratios.append(left / right)
    if len(ratios) >= 4 and all(_error(first, second) < NOISE for first, second in pairwise(ratios)):
        return True
    return False if _leaves(one, two, symbols) or _leaves(two, one, symbols) else None


def _leaves(one: Expr, two: Expr, symbols: Sequence[Symbol]) -> bool:
    """Whether the curve ``one = 0`` has a point that is not on ``two = 0``."""
    for symbol in symbols:
        others = {other: Rational(value) for other, value in zip(symbols, _POINTS[0], strict=False) if other != symbol}
        try:
            roots = sympy.solve(one.subs(others), symbol)
        except (NotImplementedError, ValueError, TypeError):
            continue
        for root in roots:
            value = _at(two, {**others, symbol: root})
            if value is not None and abs(value) > Rational(1, 10**9):
                return True
        if roots:
            return False
    return False


# regions: inequalities, intervals and their unions


def _is_region(expression: object) -> bool:
    if isinstance(expression, And):
        return all(isinstance(part, Relational) for part in _parts(expression))
    if isinstance(expression, FiniteSet):
        return bool(expression.args) and all(
            isinstance(part, Relational) and not isinstance(part, Eq) for part in expression.args
        )
    return isinstance(expression, Relational | Set)


def _same_regions(gold: Basic, answer: Basic, rounded: bool) -> bool | None:
    names = [_variables(side) for side in (gold, answer)]
    if all(names) and names[0] != names[1]:
        return False
    if all(isinstance(side, Relational) for side in (gold, answer)) and len(names[0]) > 1:
        return _same_half_spaces(gold, answer)
    left, right = _region(gold), _region(answer)
    if left is None or right is None:
        return None
    one, two = _pieces(left), _pieces(right)
    if one is None or two is None:
        return True if left == right else None
    if len(one) != len(two):
        return False
    return _all(
        _all(iter([a[2:] == b[2:], same(a[0], b[0], rounded), same(a[1], b[1], rounded)])) for a, b in zip(one, two, strict=True)
    )


def _variables(expression: Basic) -> set[str]:
    if isinstance(expression, Set) and not isinstance(expression, FiniteSet):
        return set()
    return {symbol.name for symbol in expression.free_symbols}


def _same_half_spaces(gold: Any, answer: Any) -> bool | None:
    """Inequalities of several variables: the same when their differences of sides have a constant positive ratio."""
    if isinstance(gold, Ne) or isinstance(answer, Ne):
        return None
    turned = {">": "<", ">=": "<="}
    one, two = (_exact(side.rhs - side.lhs) if side.rel_op in turned else _exact(side.lhs - side.rhs) for side in (gold, answer))
    if turned.get(gold.rel_op, gold.rel_op) != turned.get(answer.rel_op, answer.rel_op):
        return False
    ratio = sympy.simplify(one / two)
    return bool(ratio > 0) if ratio.is_number else None


def _region(expression: Basic) -> Set | None:
    """The set of real numbers that an expression describes."""
    if isinstance(expression, FiniteSet) and all(isinstance(part, Relational) for part in expression.args):
        parts = [_region(part) for part in expression.args]
        return None if None in parts else Union(*parts)
    if isinstance(expression, Set):
        return expression
    if isinstance(expression, And):
        parts = [_region(part) for part in _parts(expression)]
        return None if None in parts else sympy.Intersection(*parts)
    if isinstance(expression, Relational) and len(expression.free_symbols) == 1:
        try:
            return _rational(expression).as_set()
        except (NotImplementedError, ValueError, TypeError, AttributeError):
            return None
    return None


def _rational(expression: Any) -> Any:
    symbol = next(iter(expression.free_symbols))
    swaps = {number: Rational(str(number)) for number in expression.atoms(Float)}
    return expression.xreplace({**swaps, symbol: Symbol(symbol.name, real=True)})


Piece = tuple[Expr, Expr, bool, bool]


def _pieces(region: Set) -> list[Piece] | None:
    """Intervals in order, as (start, end, open at the start, open at the end); None for another kind of set."""
    if isinstance(region, EmptySet):
        return []
    if region == sympy.S.Reals:
        region = Interval(-sympy.oo, sympy.oo)
    found: list[Piece] = []
    parts = [region] if not isinstance(region, Union) else list(region.args)
    for part in parts:
        if isinstance(part, Interval):
            found.append((part.start, part.end, bool(part.left_open), bool(part.right_open)))
        elif isinstance(part, FiniteSet) and all(not item.free_symbols for item in part.args if isinstance(item, Basic)):
            if not all(isinstance(item, Expr) for item in part.args):
                return None
            found += [(item, item, False, False) for item in part.args]
        elif isinstance(part, sympy.Complement) and len(parts) == 1:
            return _pieces_of_complement(part)
        else:
            return None
    if len(found) > 1:
        starts = [_value(piece[0], 30) for piece in found]
        if any(start is None for start in starts):
            return None
        order = sorted(range(len(found)), key=lambda place: float(starts[place]))  # type: ignore[arg-type]
        found = [found[place] for place in order]
    return found


def _pieces_of_complement(part: sympy.Complement) -> list[Piece] | None:
    whole, holes = _pieces(part.args[0]), part.args[1]
    if whole is None or len(whole) != 1 or not isinstance(holes, FiniteSet) or holes.free_symbols:
        return None
    start, end, left_open, right_open = whole[0]
    cuts: Callable[[Any], float] = lambda item: float(item.evalf())  # noqa: E731
    edges = sorted(holes.args, key=cuts)
    found: list[Piece] = []
    for edge in edges:
        found.append((start, edge, left_open, True))
        start, left_open = edge, True
    return [*found, (start, end, left_open, right_open)]
