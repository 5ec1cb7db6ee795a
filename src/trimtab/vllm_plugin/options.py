"""The options of one request, as the caller writes them and as they go to the workers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from trimtab.dose import Dose
from trimtab.errors import InputError
from trimtab.gate import RunningGate
from trimtab.steering import PositionScope, Steering
from trimtab.vllm_plugin.config import NONE, OverDose


@dataclass(frozen=True, slots=True)
class Adapter:
    """A steering in a slot of the engine.

    Args:
        name: what requests call it.
        slot: its row in the tables, from 1.
        path: where it was read from.
        digest: of the steering.
        strength, scope: the artifact's own.
        reads: whether its gate reads the prompt.
        gate: what a person calls its gate.
        neurons: how many it steers.
        dose: at unit strength, None where the artifact does not tell.
        runs: whether its gate decides again at each token.
    """

    name: str
    slot: int
    path: str
    digest: str
    strength: float
    scope: PositionScope
    reads: bool
    gate: str
    neurons: int
    dose: Dose | None = None
    runs: bool = False

    @classmethod
    def of(cls, name: str, slot: int, path: str, steering: Steering) -> "Adapter":
        """Describe a steering in a slot."""
        return cls(
            name,
            slot,
            path,
            steering.digest,
            float(steering.strength),
            steering.scope,
            steering.gate.reads,
            steering.gate.label,
            len(steering),
            Dose.of(steering.facts),
            isinstance(steering.gate, RunningGate),
        )


@dataclass(frozen=True, slots=True)
class DoseGuard:
    """What happens to a request whose strength is too large a dose of its steering.

    Args:
        limit: see :class:`trimtab.dose.Dose`; None accepts every strength.
        action: ``warn`` leaves the strength as it is, ``clamp`` lowers it to the limit, ``reject`` refuses the request.

    Example:
        >>> DoseGuard(0.5, "clamp").exceeds(Dose((3,), (0.25,), 800), 4.0)
        True
    """

    limit: float | None = None
    action: OverDose = "warn"

    def exceeds(self, dose: Dose | None, strength: float) -> bool:
        """Tell whether a strength is too large a dose; a dose that was not measured is none."""
        return self.limit is not None and dose is not None and dose.at(strength) > self.limit * (1 + 1e-6)

    def check(self, adapter: Adapter) -> None:
        """Refuse a steering that cannot be guarded, or whose own strength is too much.

        Raises:
            InputError: the artifact does not tell its dose, or its own strength would be rejected.
        """
        if self.limit is None or self.action == "warn":
            return
        if adapter.dose is None:
            raise InputError(
                f"the dose of {adapter.name!r} was not measured and cannot be held to max_dose {self.limit:g}; "
                "measure it once: trimtab show ARTIFACT --model MODEL --save, or use over_dose 'warn'"
            )
        if self.action == "reject" and self.exceeds(adapter.dose, adapter.strength):
            raise InputError(self._refusal(adapter, adapter.strength))

    def strength(self, adapter: Adapter, strength: float) -> float:
        """Return the strength that a request gets.

        Raises:
            InputError: too large a dose, where those are rejected.
        """
        if adapter.dose is None or not self.exceeds(adapter.dose, strength) or self.action == "warn":
            return strength
        if self.action == "reject":
            raise InputError(self._refusal(adapter, strength))
        assert self.limit is not None
        return math.copysign(adapter.dose.most(self.limit), strength)

    def _refusal(self, adapter: Adapter, strength: float) -> str:
        assert self.limit is not None
        assert adapter.dose is not None
        most = adapter.dose.most(self.limit)
        return (
            f"strength {strength:g} of {adapter.name!r} is a dose of {adapter.dose.at(strength):.3g}, the norm of its edit over "
            f"what the layer writes, above the limit {self.limit:g}; accepted: strengths between {-most:.4g} and {most:.4g}"
        )


GateOverride = Literal["auto", "on", "off"]

KEYS = ("steering", "strength", "gate", "scope", "first_token", "record")
INTERNAL = "trimtab_"
"""What the names of our own entries begin with, which no caller may send."""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The options that a caller gives; None means the engine's default.

    Args:
        steering: name of a loaded steering, ``none``, or None for the engine's default.
        strength: factor on the map; None takes the artifact's.
        gate: ``auto`` asks the steering's gate, ``on`` steers, ``off`` does not.
        scope: which tokens are steered; None takes the artifact's.
        record: sum up the moments of this request's activations.
        first_token: number of the first token of the response that is steered, from 1; None steers from the first.
    """

    steering: str | None = None
    strength: float | None = None
    gate: GateOverride = "auto"
    scope: PositionScope | None = None
    record: bool = False
    first_token: int | None = None

    @classmethod
    def parse(cls, xargs: Mapping[str, object] | None, loaded: Mapping[str, Adapter]) -> "RequestOptions":
        """Parse ``extra_args`` (``vllm_xargs`` over HTTP). Other keys are ignored.

        Args:
            xargs: flat scalars by name.
            loaded: the steerings that can be named.

        Raises:
            InputError: naming the key, the value and what is accepted.
        """
        given = dict(xargs or {})
        if forged := sorted(key for key in given if isinstance(key, str) and key.startswith(INTERNAL)):
            raise InputError(f"{forged[0]!r} is set by the engine itself; accepted keys: {', '.join(KEYS)}")
        steering = given.get("steering")
        if steering is not None and (not isinstance(steering, str) or (steering != NONE and steering not in loaded)):
            raise _refused("steering", steering, ", ".join((NONE, *loaded)))
        return cls(
            steering=steering,
            strength=_strength(given.get("strength")),
            gate=cast("GateOverride", _one_of("gate", given.get("gate", "auto"), get_args(GateOverride))),
            scope=cast("PositionScope | None", _scope(given.get("scope"))),
            record=_flag("record", given.get("record", False)),
            first_token=_number("first_token", given.get("first_token")),
        )

    def extra_args(self) -> dict[str, object]:
        """Return the ``extra_args`` that :meth:`parse` reads back as these options."""
        entries: dict[str, object] = {"steering": self.steering, "strength": self.strength, "scope": self.scope}
        entries["first_token"] = self.first_token
        if self.gate != "auto":
            entries["gate"] = self.gate
        if self.record:
            entries["record"] = 1
        return {key: value for key, value in entries.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ResolvedOptions:
    """The options as the workers get them: workers know slots, not names.

    Args:
        slot: row of the tables, 0 for an unsteered request.
        digest: of the steering in that slot, compared by the worker; empty for slot 0.
        strength: factor on the map.
        scope: which tokens are steered.
        gate: 1 asks the gate, 2 steers, 0 does not.
        record: as of :class:`RequestOptions`.
        first_token: the first one of the response that the scope ``generated`` holds, from 1.
    """

    slot: int = 0
    digest: str = ""
    strength: float = 0.0
    scope: PositionScope = "generated"
    gate: int = 0
    record: bool = False
    first_token: int = 1

    @property
    def steers(self) -> bool:
        """Whether the request has a steering, even if its gate stays closed."""
        return self.slot > 0

    @property
    def edits(self) -> bool:
        """Whether its response can be another than that of an unsteered request."""
        return self.steers and self.gate != GATE_CODE["off"]

    @property
    def asks(self) -> bool:
        """Whether its gate decides."""
        return self.steers and self.gate == GATE_CODE["auto"]

    def value(self, reads: bool, constant: float) -> float:
        """Return g before a gate has read the prompt.

        Args:
            reads: whether one will.
            constant: g where none does.
        """
        if not self.asks:
            return float(self.gate == GATE_CODE["on"])
        return 0.0 if reads else constant

    def first_position(self, prompt_length: int) -> int:
        """Return the first steered position."""
        generated = prompt_length + self.first_token - 1
        return {"generated": generated, "last-and-generated": prompt_length - 1, "all": 0}[self.scope]

    def entries(self) -> dict[str, object]:
        """Return these options as entries of ``extra_args``; none for an unsteered request that records nothing."""
        if not self.steers and not self.record:
            return {}
        return {INTERNAL + name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, extra_args: Mapping[str, object] | None) -> "ResolvedOptions":
        """Read back the entries that :meth:`entries` wrote; none of them means an unsteered request."""
        if not extra_args or INTERNAL + "slot" not in extra_args:
            return UNSTEERED
        return cls(*(extra_args[INTERNAL + name] for name in cls.__slots__))  # type: ignore[arg-type]  # written by entries


UNSTEERED = ResolvedOptions()
UNGUARDED = DoseGuard()
GATE_CODE: Mapping[GateOverride, int] = {"off": 0, "auto": 1, "on": 2}


def resolve(
    options: RequestOptions,
    default: str | None,
    loaded: Mapping[str, Adapter],
    guard: DoseGuard = UNGUARDED,
    watch: str | None = None,
) -> ResolvedOptions:
    """Resolve a request's options against the loaded steerings.

    Args:
        options: of the request.
        default: name of the steering of a request that names none.
        loaded: by name.
        guard: of the dose.
        watch: name of the steering whose running gate reads unsteered requests.

    Raises:
        InputError: options without a steering, a scope that the gate cannot decide, or too large a dose.
    """
    name = default if options.steering is None else options.steering
    if name is None or name == NONE:
        given = [key for key in ("strength", "scope", "first_token") if getattr(options, key) is not None]
        given += ["gate"] if options.gate != "auto" else []
        if given:
            raise InputError(
                f"{given[0]} has no effect on an unsteered request; name a steering too, one of {', '.join(loaded) or 'none'}"
            )
        if watch is None:
            return ResolvedOptions(record=options.record)
        reader = loaded[watch]
        return ResolvedOptions(reader.slot, reader.digest, gate=GATE_CODE["off"], record=options.record)
    adapter = loaded[name]
    scope = adapter.scope if options.scope is None else options.scope
    if adapter.reads and options.gate == "auto" and scope != "generated":
        raise InputError(
            f"scope {scope!r} cannot wait for the gate of {name!r}, which decides after the prompt was read; "
            "accepted: scope 'generated', or gate 'on'"
        )
    first = _first_token(options, adapter, scope)
    strength = adapter.strength if options.strength is None else options.strength
    if options.gate != "off":
        strength = guard.strength(adapter, strength)
    return ResolvedOptions(adapter.slot, adapter.digest, strength, scope, GATE_CODE[options.gate], options.record, first)


def _first_token(options: RequestOptions, adapter: Adapter, scope: PositionScope) -> int:
    if options.first_token is None:
        return 1
    if scope != "generated" or (adapter.runs and options.gate == "auto"):
        why = "whose gate decides from which token on" if adapter.runs and options.gate == "auto" else f"with scope {scope!r}"
        raise InputError(
            f"first_token {options.first_token} cannot be used for {adapter.name!r} {why}; accepted: scope 'generated', and a "
            "gate of the question, 'on' or 'off'"
        )
    return options.first_token


def _refused(key: str, value: object, accepted: str) -> InputError:
    return InputError(f"{key} {value!r} cannot be used; accepted: {accepted}")


def _strength(value: object) -> float | None:
    if value is None:
        return None
    # the size comes first: an integer of hundreds of digits is no float
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e6 or not math.isfinite(value):
        raise _refused("strength", value, "a finite number between -1e6 and 1e6, or nothing for the steering's own")
    return float(value)


def _number(key: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**9:
        raise _refused(key, value, "a whole number from 1 to 1e9, or nothing")
    return value


def _scope(value: object) -> object:
    return None if value is None else _one_of("scope", value, get_args(PositionScope))


def _one_of(key: str, value: object, accepted: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in accepted:
        raise _refused(key, value, ", ".join(accepted))
    return value


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        raise _refused(key, value, "0, 1")
    return bool(value)
