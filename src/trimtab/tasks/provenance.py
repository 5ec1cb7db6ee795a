"""Where problems came from, recorded with them, so that data that changed on the way is noticed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from trimtab.errors import InputError
from trimtab.traces import Problem


@dataclass(frozen=True, slots=True)
class Origin:
    """One file, or one split of one repository: ``revision`` is the commit that was read, empty for what is on this machine."""

    where: str
    config: str = ""
    split: str = ""
    revision: str = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the problems of a task came from.

    Args:
        task: ``task.source``.
        origins: what was read.
        digest: of all problems that were read, see :func:`digest_of_problems`.
        left_out: rows that became no problem, by reason.
    """

    task: str
    origins: tuple[Origin, ...]
    digest: str
    left_out: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain values, as :func:`refuse_changed` compares them."""
        return {
            "task": self.task,
            "origins": [asdict(origin) for origin in self.origins],
            "digest": self.digest,
            "left_out": dict(sorted(self.left_out.items())),
        }


def digest_of_problems(problems: Iterable[Problem]) -> str:
    """SHA-256 over the problems as they are read, in any order: ids, questions, answers, choices, tests and splits."""
    lines = sorted(json.dumps(asdict(problem), sort_keys=True) for problem in problems)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def refuse_changed(recorded: Mapping[str, object], now: Mapping[str, object], what: str) -> None:
    """Refuse to go on with problems that are not those that were recorded.

    The digest decides; revisions and row counts are listed to say why. Another commit with the same problems is accepted.

    Args:
        recorded: :meth:`Provenance.to_json` of before.
        now: the same of now.
        what: what would mix the two, for the message.

    Raises:
        InputError: the digests differ.
    """
    if recorded.get("digest") == now.get("digest"):
        return
    changes = [
        f"{name}: {_short(recorded.get(name))} -> {_short(now.get(name))}"
        for name in ("task", "origins", "digest", "left_out")
        if recorded.get(name) != now.get(name)
    ]
    raise InputError(
        f"{what}: the problems are not those that were recorded ({'; '.join(changes)}); "
        "pin task.revision to the recorded commit, or start again with the new problems"
    )


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(
            "@".join(str(part[key]) for key in ("where", "split", "revision", "rows") if part[key]) for part in value
        )
    return str(value)
