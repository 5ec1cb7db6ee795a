from dataclasses import dataclass, replace

import pytest

from trimtab.errors import InputError
from trimtab.vllm_plugin.options import UNSTEERED, ResolvedOptions
from trimtab.vllm_plugin.salts import salted, with_own_blocks

STEERED = ResolvedOptions(1, "digest", 1.0, "generated", 1)


@dataclass
class Params:
    extra_args: dict[str, object] | None


@dataclass
class Request:
    request_id: str
    num_prompt_tokens: int
    sampling_params: Params | None


def test_an_unsteered_request_keeps_its_own_salt() -> None:
    assert salted(None, UNSTEERED) is None
    assert salted("mine", UNSTEERED) == "mine"


def test_every_part_of_a_steering_makes_another_salt() -> None:
    others = [
        replace(STEERED, digest="other"),
        replace(STEERED, strength=0.5),
        replace(STEERED, scope="all"),
        replace(STEERED, gate=2),
    ]
    salts = [salted(own, options) for own in (None, "", "mine") for options in (STEERED, *others)]
    assert len(set(salts)) == len(salts)
    assert salted("mine", STEERED) == salted("mine", replace(STEERED, slot=5))


def test_a_salt_of_ours_cannot_be_sent() -> None:
    salt = salted(None, STEERED)
    with pytest.raises(InputError, match="cannot be used; accepted: one that does not begin with 'trimtab:'"):
        salted(salt, UNSTEERED)


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        (UNSTEERED, [False, False, False]),
        (STEERED, [False, True, True]),
        (replace(STEERED, scope="last-and-generated"), [False, True, True]),
        (replace(STEERED, scope="all"), [False, False, False]),
    ],
)
def test_blocks_that_reach_into_steered_positions_are_the_requests_own(options: ResolvedOptions, blocks: list[bool]) -> None:
    generate = with_own_blocks(lambda request, start, end, mm: (None if start else (("cache_salt", "s"),), mm + 1))
    request = Request("r-1", 20, Params(options.entries()))
    for number, own in enumerate(blocks):
        keys, following = generate(request, number * 16, number * 16 + 16, 3)
        assert following == 4
        assert (("trimtab_request", "r-1") in (keys or ())) == own
        assert (("cache_salt", "s") in (keys or ())) == (number == 0)
    assert generate(Request("p", 20, None), 16, 32, 0) == (None, 1)


def test_a_block_that_ends_with_the_prompt_is_shared() -> None:
    generate = with_own_blocks(lambda request, start, end, mm: (None, mm))
    request = Request("r", 32, Params(STEERED.entries()))
    assert generate(request, 16, 32, 0)[0] is None
    assert generate(request, 32, 48, 0)[0] == (("trimtab_request", "r"),)
    last = Request("r", 32, Params(replace(STEERED, scope="last-and-generated").entries()))
    assert generate(last, 16, 32, 0)[0] == (("trimtab_request", "r"),)
