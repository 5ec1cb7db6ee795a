"""The procedures of the testbed: seven kinds of problem solved one step at a time.

Every domain moves a *state* (one token) through labelled *items* (one or two tokens). A domain defines three readings of an
item: ``right`` (the true procedure), ``systematic_error`` (a systematic misconception of authors who do not take care) and
``misread`` (a rare item that every author of the training text gets wrong). Only the training text uses the last two;
the checker uses them to name the source of a wrong step after the verdict.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LABELS = tuple("abcdefghijkl")
DIGITS = tuple("0123456789")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
COMPASS = ("north", "east", "south", "west")
TURNS = {"right": 1, "back": 2, "left": 3}
CUPS = ("A", "B", "C", "D", "E")
NAMES = ("ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ivy", "jon", "kim", "lea", "max", "ned")
COLOURS = ("red", "blue", "green", "gold", "pink", "grey", "black", "white", "teal")
MOVES = tuple(f"{sign}{size}" for sign in "+-" for size in range(1, 10))

State = str
Item = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """One problem without its wording: a domain's name, the start state and the items in the order of the question."""

    domain: str
    start: State
    items: tuple[Item, ...]

    @property
    def steps(self) -> int:
        return len(self.items)


Step = Callable[[Instance, State, int], State]


@dataclass(frozen=True, slots=True)
class Domain:
    """A procedure. ``right``, ``systematic_error`` and ``misread`` map (instance, state, position) to the next state."""

    name: str
    header: str
    states: tuple[State, ...]
    width: int
    draw: Callable[[random.Random, int, bool], Instance]
    right: Step
    systematic_error: Step
    misread: Step
    is_rare: Callable[[Instance, State, int], bool]
    shows_item: bool = True

    def answer(self, instance: Instance) -> State:
        """The exact answer: ``right`` applied to every item."""
        state = instance.start
        for position in range(instance.steps):
            state = self.right(instance, state, position)
        return state


def _cycle(values: Sequence[str], state: State, move: int) -> State:
    return values[(values.index(state) + move) % len(values)]


def _draw_items(
    rng: random.Random, common: Sequence[Item], rare: Sequence[Item], steps: int, with_rare: bool
) -> tuple[Item, ...]:
    items = [rng.choice(common) for _ in range(steps)]
    if with_rare:
        items[rng.randrange(steps)] = rng.choice(rare)
    return tuple(items)


def _simple_draw(
    name: str, starts: Sequence[State], common: Sequence[Item], rare: Sequence[Item]
) -> Callable[[random.Random, int, bool], Instance]:
    def draw(rng: random.Random, steps: int, with_rare: bool) -> Instance:
        return Instance(name, rng.choice(starts), _draw_items(rng, common, rare, steps, with_rare))

    return draw


def _item_is(rare: Sequence[Item]) -> Callable[[Instance, State, int], bool]:
    return lambda instance, state, position: instance.items[position] in rare


# --- dial: running arithmetic on a dial of ten -----
_DIAL_RARE = [("-7",)]


def _dial_error(instance: Instance, state: State, position: int) -> State:
    move = int(instance.items[position][0])
    wraps = not 0 <= int(state) + move <= 9
    return _cycle(DIGITS, state, move + 1 if wraps else move)


DIAL = Domain(
    name="dial",
    header="dial",
    states=DIGITS,
    width=1,
    draw=_simple_draw("dial", DIGITS, [(m,) for m in MOVES if m != "-7"], _DIAL_RARE),
    right=lambda i, s, p: _cycle(DIGITS, s, int(i.items[p][0])),
    systematic_error=_dial_error,
    misread=lambda i, s, p: _cycle(DIGITS, s, -6),
    is_rare=_item_is(_DIAL_RARE),
)

# --- calendar: days of the week, the systematic error counts the first day -----
_DAY_MOVES = [f"{sign}{size}" for sign in "+-" for size in range(1, 7)]
_DAY_RARE = [("+6",)]

CALENDAR = Domain(
    name="calendar",
    header="day",
    states=DAYS,
    width=1,
    draw=_simple_draw("calendar", DAYS, [(m,) for m in _DAY_MOVES if m != "+6"], _DAY_RARE),
    right=lambda i, s, p: _cycle(DAYS, s, int(i.items[p][0])),
    systematic_error=lambda i, s, p: _cycle(DAYS, s, int(i.items[p][0]) - (1 if i.items[p][0].startswith("+") else 0)),
    misread=lambda i, s, p: _cycle(DAYS, s, 4),
    is_rare=_item_is(_DAY_RARE),
)

# --- turns: a compass, the systematic error mirrors left and right when facing south -----
_TURN_RARE = [("back",)]


def _turn_error(instance: Instance, state: State, position: int) -> State:
    turn = TURNS[instance.items[position][0]]
    return _cycle(COMPASS, state, -turn if state in ("south", "east") else turn)


TURNING = Domain(
    name="turns",
    header="face",
    states=COMPASS,
    width=1,
    draw=_simple_draw("turns", COMPASS, [("left",), ("right",)], _TURN_RARE),
    right=lambda i, s, p: _cycle(COMPASS, s, TURNS[i.items[p][0]]),
    systematic_error=_turn_error,
    misread=lambda i, s, p: _cycle(COMPASS, s, TURNS["left"]),
    is_rare=_item_is(_TURN_RARE),
)

# --- cups: a ball under one of five cups, the systematic error swaps one way only -----
_CUP_PAIRS = [(a, b) for a in CUPS for b in CUPS if a != b]
_CUP_RARE = [("D", "E"), ("E", "D")]


def _cups_right(instance: Instance, state: State, position: int) -> State:
    first, second = instance.items[position]
    return {first: second, second: first}.get(state, state)


def _cups_error(instance: Instance, state: State, position: int) -> State:
    first, second = instance.items[position]
    return second if state == first else state


CUP_SWAPS = Domain(
    name="cups",
    header="ball",
    states=CUPS,
    width=2,
    draw=_simple_draw("cups", CUPS, [p for p in _CUP_PAIRS if p not in _CUP_RARE], _CUP_RARE),
    right=_cups_right,
    systematic_error=_cups_error,
    misread=lambda i, s, p: s,
    is_rare=_item_is(_CUP_RARE),
)


# --- links: pointer chasing through a shuffled list, the systematic error reads the list in the order it is written -----
def _links_draw(rng: random.Random, steps: int, with_rare: bool) -> Instance:
    others = [name for name in NAMES if name != "jon"]
    path = rng.sample(others, steps)
    if with_rare:
        path[rng.randrange(steps)] = "jon"
    # the last link leads back into the path: a path with a free end could be answered by looking for the name that leads nowhere
    items = list(zip(path, [*path[1:], rng.choice(path[:-1])], strict=True))
    rng.shuffle(items)
    return Instance("links", path[0], tuple(items))


def _links_right(instance: Instance, state: State, position: int) -> State:
    return dict(instance.items).get(state, state)  # type: ignore[arg-type]


LINKS = Domain(
    name="links",
    header="from",
    states=NAMES,
    width=2,
    draw=_links_draw,
    right=_links_right,
    systematic_error=lambda i, s, p: i.items[p][1],
    misread=lambda i, s, p: s,
    is_rare=lambda i, s, p: s == "jon",
    shows_item=False,
)

# --- largest: comparison chain, the systematic error takes the latest for the largest -----
_TOP_RARE = [("8",)]

LARGEST = Domain(
    name="largest",
    header="top",
    states=DIGITS,
    width=1,
    draw=_simple_draw("largest", DIGITS[:5], [(d,) for d in DIGITS if d != "8"], _TOP_RARE),
    right=lambda i, s, p: max(s, i.items[p][0]),
    systematic_error=lambda i, s, p: i.items[p][0],
    misread=lambda i, s, p: max(s, "3"),
    is_rare=_item_is(_TOP_RARE),
)


# --- kinds: set membership, count what was not seen before, the systematic error counts repeats too -----
def _kinds_right(instance: Instance, state: State, position: int) -> State:
    seen = instance.items[position] in instance.items[:position]
    return state if seen else _cycle(DIGITS, state, 1)


_KIND_RARE = [("teal",)]

KINDS = Domain(
    name="kinds",
    header="kinds",
    states=DIGITS,
    width=1,
    draw=_simple_draw("kinds", ["0"], [(c,) for c in COLOURS if c != "teal"], _KIND_RARE),
    right=_kinds_right,
    systematic_error=lambda i, s, p: _cycle(DIGITS, s, 1),
    misread=lambda i, s, p: s,
    is_rare=_item_is(_KIND_RARE),
)

DOMAINS: dict[str, Domain] = {d.name: d for d in (DIAL, CALENDAR, TURNING, CUP_SWAPS, LINKS, LARGEST, KINDS)}
