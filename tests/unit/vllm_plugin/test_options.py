import math
from dataclasses import replace

import pytest

from trimtab.dose import Dose
from trimtab.errors import InputError
from trimtab.vllm_plugin.config import OverDose
from trimtab.vllm_plugin.options import KEYS, UNSTEERED, Adapter, DoseGuard, RequestOptions, ResolvedOptions, resolve

LOADED = {
    "plain": Adapter("plain", 1, "a", "d1", 0.7, "generated", False, "always", 5),
    "gated": Adapter("gated", 2, "b", "d2", 1.5, "generated", True, "logistic, last prompt token", 5),
}
RUNNING = LOADED | {"running": Adapter("running", 3, "c", "d3", 1.0, "generated", True, "running, mean so far", 5, runs=True)}


def test_nothing_asked_is_the_default() -> None:
    assert RequestOptions.parse(None, LOADED) == RequestOptions()
    assert resolve(RequestOptions(), None, LOADED) == UNSTEERED
    assert resolve(RequestOptions(), "plain", LOADED) == ResolvedOptions(1, "d1", 0.7, "generated", 1)
    assert resolve(RequestOptions(steering="none"), "plain", LOADED) == UNSTEERED


@pytest.mark.parametrize(
    "options",
    [
        RequestOptions(),
        RequestOptions("plain", -0.5, "on", "all", True),
        RequestOptions("gated", gate="off"),
        RequestOptions("none"),
        RequestOptions("plain", first_token=3),
    ],
)
def test_what_is_written_is_read_back(options: RequestOptions) -> None:
    assert RequestOptions.parse(options.extra_args(), LOADED) == options


def test_what_workers_are_told_is_read_back() -> None:
    told = ResolvedOptions(2, "d2", -1.25, "all", 2, True, 4)
    assert ResolvedOptions.of(told.entries() | {"other": 1}) == told
    assert ResolvedOptions.of({"other": 1}) == UNSTEERED
    assert UNSTEERED.entries() == {}


def test_keys_of_others_are_left_alone() -> None:
    assert RequestOptions.parse({"kv_transfer_params": {"a": 1}, "steer": 3}, LOADED) == RequestOptions()


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"steering": "nope"}, "steering 'nope' cannot be used; accepted: none, plain, gated"),
        ({"steering": 3}, "steering 3 cannot be used"),
        ({"strength": "0.3"}, "strength '0.3' cannot be used; accepted: a finite number"),
        ({"strength": math.inf}, "strength inf cannot be used"),
        ({"strength": True}, "strength True cannot be used"),
        ({"strength": [1.0]}, r"strength \[1.0\] cannot be used"),
        ({"strength": 1e9}, "strength 1000000000.0 cannot be used"),
        ({"gate": "maybe"}, "gate 'maybe' cannot be used; accepted: auto, on, off"),
        ({"gate": None}, "gate None cannot be used"),
        ({"scope": "prompt"}, "scope 'prompt' cannot be used; accepted: generated, last-and-generated, all"),
        ({"first_token": 0}, "first_token 0 cannot be used; accepted: a whole number from 1 to 1e9, or nothing"),
        ({"first_token": 2.0}, "first_token 2.0 cannot be used"),
        ({"first_token": True}, "first_token True cannot be used"),
        ({"first_token": 10**400}, "first_token 1000.* cannot be used"),
        ({"record": 2}, "record 2 cannot be used; accepted: 0, 1"),
        ({"record": "1"}, "record '1' cannot be used; accepted: 0, 1"),
        ({"trimtab_slot": 1}, "'trimtab_slot' is set by the engine itself; accepted keys: " + ", ".join(KEYS)),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(xargs: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RequestOptions.parse(xargs, LOADED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            RequestOptions(strength=1.0),
            "strength has no effect on an unsteered request; name a steering too, one of plain, gated, running",
        ),
        (RequestOptions("none", gate="on"), "gate has no effect"),
        (RequestOptions("gated", scope="all"), "cannot wait for the gate of 'gated'"),
        (RequestOptions("gated", scope="last-and-generated"), "accepted: scope 'generated', or gate 'on'"),
        (RequestOptions(first_token=2), "first_token has no effect on an unsteered request"),
        (RequestOptions("plain", scope="all", first_token=2), "first_token 2 cannot be used for 'plain' with scope 'all'"),
        (RequestOptions("running", first_token=2), "first_token 2 cannot be used for 'running' whose gate decides"),
        (RequestOptions("running", scope="all"), "cannot wait for the gate of 'running'"),
    ],
)
def test_options_that_contradict_each_other(options: RequestOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(options, None, RUNNING)


def test_an_unsteered_request_is_watched_where_a_steering_watches() -> None:
    watched = ResolvedOptions(3, "d3", gate=0)
    assert resolve(RequestOptions(), None, RUNNING, watch="running") == watched
    assert resolve(RequestOptions("none"), "plain", RUNNING, watch="running") == watched
    assert (watched.steers, watched.edits, watched.asks) == (True, False, False)
    assert resolve(RequestOptions(), "plain", RUNNING, watch="running").slot == 1
    with pytest.raises(InputError, match="strength has no effect on an unsteered request"):
        resolve(RequestOptions(strength=1.0), None, RUNNING, watch="running")


def test_an_open_gate_allows_any_scope() -> None:
    assert resolve(RequestOptions("gated", gate="on", scope="all"), None, LOADED).scope == "all"


def test_a_response_may_be_steered_from_a_later_token_on() -> None:
    resolved = resolve(RequestOptions("running", gate="on", first_token=5), None, RUNNING)
    assert resolved.first_position(7) == 11


@pytest.mark.parametrize(("scope", "first"), [("generated", 7), ("last-and-generated", 6), ("all", 0)])
def test_first_steered_position(scope: str, first: int) -> None:
    assert ResolvedOptions(1, "d", 1.0, scope, 1).first_position(7) == first  # type: ignore[arg-type]


DOSED = {name: replace(adapter, dose=Dose((0, 1), (0.125, 0.25), 100)) for name, adapter in LOADED.items()}


@pytest.mark.parametrize(
    ("action", "strength", "given"),
    [
        ("warn", 4.0, 4.0),
        ("clamp", 4.0, 2.0),
        ("clamp", -4.0, -2.0),
        ("clamp", 2.0, 2.0),
        ("clamp", 0.0, 0.0),
        ("reject", 2.0, 2.0),
        ("reject", -1.9, -1.9),
    ],
)
def test_a_dose_is_held_to_its_limit(action: OverDose, strength: float, given: float) -> None:
    guard = DoseGuard(0.5, action)
    assert resolve(RequestOptions("plain", strength), None, DOSED, guard).strength == given
    assert resolve(RequestOptions("plain", strength, gate="off"), None, DOSED, guard).strength == strength
    assert resolve(RequestOptions("plain", strength), None, DOSED).strength == strength
    assert resolve(RequestOptions("plain", strength), None, LOADED, guard).strength == strength


@pytest.mark.parametrize("strength", [2.001, -2.001, 1e6])
def test_too_large_a_dose_is_rejected_with_what_is_accepted(strength: float) -> None:
    with pytest.raises(
        InputError, match=r"of 'plain' is a dose of .* above the limit 0.5; accepted: strengths between -2 and 2$"
    ):
        resolve(RequestOptions("plain", strength), None, DOSED, DoseGuard(0.5, "reject"))


def test_a_steering_that_cannot_be_guarded_is_refused_when_it_is_loaded() -> None:
    for action in ("clamp", "reject"):
        with pytest.raises(
            InputError, match=r"the dose of 'plain' was not measured .*trimtab show ARTIFACT --model MODEL --save"
        ):
            DoseGuard(0.5, action).check(LOADED["plain"])
        DoseGuard(None, action).check(LOADED["plain"])
    DoseGuard(0.5, "warn").check(LOADED["plain"])
    DoseGuard(0.1, "clamp").check(DOSED["gated"])
    with pytest.raises(InputError, match=r"strength 1.5 of 'gated' is a dose of 0.375"):
        DoseGuard(0.3, "reject").check(DOSED["gated"])
