"""Right answers worked by hand, and misreadings that differ from them."""

import random

import pytest

from trimtab.testbed.domains import DOMAINS, Instance
from trimtab.testbed.problems import MAX_STEPS


def _items(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(item.split()) for item in text.split(","))


@pytest.mark.parametrize(
    ("domain", "start", "items", "states"),
    [
        ("dial", "5", "-9,+6,-6", "6 2 6"),
        ("dial", "0", "-7,-1,+9", "3 2 1"),
        ("calendar", "sat", "+2,-3,+6,-6", "mon fri thu fri"),
        ("turns", "north", "left,left,right,back", "west south west east"),
        ("cups", "A", "B A,C D,B D,E D", "B B D E"),
        ("cups", "C", "A B,C E,D E", "C E D"),
        ("links", "ann", "bob max,ann bob,max bob", "bob max bob"),
        ("links", "kim", "lea kim,kim lea", "lea kim"),
        ("largest", "3", "1,7,8,2,9", "3 7 8 8 9"),
        ("kinds", "0", "red,red,blue,teal,blue", "1 1 2 3 3"),
    ],
)
def test_right_answers_by_hand(domain: str, start: str, items: str, states: str) -> None:
    instance = Instance(domain, start, _items(items))
    state, seen = start, []
    for position in range(instance.steps):
        state = DOMAINS[domain].right(instance, state, position)
        seen.append(state)
    assert " ".join(seen) == states
    assert DOMAINS[domain].answer(instance) == states.split()[-1]


@pytest.mark.parametrize(
    ("domain", "start", "item", "error"),
    [
        ("dial", "5", "+6", "2"),  # adds one when it wraps
        ("dial", "5", "+3", "8"),
        ("dial", "2", "-4", "9"),
        ("calendar", "mon", "+3", "wed"),  # counts the first day
        ("calendar", "mon", "-3", "fri"),
        ("turns", "south", "left", "west"),  # mirrors
        ("turns", "north", "left", "west"),
        ("cups", "B", "A B", "B"),  # swaps one way only
        ("cups", "A", "A B", "B"),
        ("links", "ann", "bob max", "max"),  # reads down the list
        ("largest", "7", "2", "2"),  # the latest is the largest
        ("kinds", "4", "red", "5"),
    ],
)
def test_systematic_errors_by_hand(domain: str, start: str, item: str, error: str) -> None:
    assert DOMAINS[domain].systematic_error(Instance(domain, start, _items(item)), start, 0) == error


@pytest.mark.parametrize("name", DOMAINS)
def test_systematic_error_and_misreading_differ_from_right_and_stay_among_the_states(name: str) -> None:
    domain, rng = DOMAINS[name], random.Random(0)
    errors = misreads = 0
    for _ in range(300):
        instance = domain.draw(rng, rng.randint(2, MAX_STEPS), rng.random() < 0.5)
        state = instance.start
        assert state in domain.states
        for position in range(instance.steps):
            right, error = domain.right(instance, state, position), domain.systematic_error(instance, state, position)
            assert {right, error} <= set(domain.states)
            errors += right != error
            if domain.is_rare(instance, state, position):
                misread = domain.misread(instance, state, position)
                assert misread in domain.states
                misreads += misread != right
            state = right
    assert errors > 50
    assert misreads > 20


@pytest.mark.parametrize("name", DOMAINS)
def test_a_problem_has_a_rare_item_when_asked_and_only_then(name: str) -> None:
    domain, rng = DOMAINS[name], random.Random(1)

    def rare(with_rare: bool) -> int:
        instance = domain.draw(rng, 5, with_rare)
        state, found = instance.start, 0
        for position in range(5):
            found += domain.is_rare(instance, state, position)
            state = domain.right(instance, state, position)
        return found

    assert all(rare(False) == 0 for _ in range(50))
    assert all(rare(True) >= 1 for _ in range(50))


def test_links_never_end_freely() -> None:
    rng = random.Random(2)
    for steps in range(2, MAX_STEPS + 1):
        instance = DOMAINS["links"].draw(rng, steps, False)
        sources = {source for source, _ in instance.items}
        assert {target for _, target in instance.items} <= sources
        assert len(sources) == steps
