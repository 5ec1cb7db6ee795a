"""Where problems came from, recorded with them, so that data that changed on the way is noticed."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

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
        digest: of all problems that were read, see :func:`digest_of_problems`; ``task.digest`` pins it.
        left_out: rows that became no problem, by reason.
    """

    task: str
    origins: tuple[Origin, ...]
    digest: str
    left_out: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
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
