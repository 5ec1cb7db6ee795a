"""Outcomes as JSON that others can read: one object a problem, condition and sample, in a file that names its format.

    {"format": "trimtab-outcomes/1",
     "facts": {"task": "gsm8k", ...},
     "outcomes": [{"condition": "gated", "problem_id": "test-7", "verdict": "correct", "answer": "72", ...}, ...]}

``facts`` are the caller's (task, model, prompt, sampling). The keys of an outcome are the fields of
:class:`~trimtab.evaluation.outcomes.Outcome`; ``null`` means that the condition has no such value. Within format 1 keys may be
added, never renamed or dropped, so ``pandas.DataFrame(json.load(file)["outcomes"])`` goes on working.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from trimtab.errors import StoreError
from trimtab.evaluation.outcomes import Outcome
from trimtab.store import Record, read_text, write_json

FORMAT = "trimtab-outcomes/1"


class OutcomesFile(Record):
    """The whole file."""

    format: Literal["trimtab-outcomes/1"]
    facts: dict[str, object]
    outcomes: list[Outcome]


def write_outcomes_json(outcomes: Sequence[Outcome], path: Path, facts: Mapping[str, object]) -> None:
    """Write outcomes, of one condition or of all, in their order; the same outcomes and facts give the same bytes.

    Raises:
        InputError: a value that JSON cannot hold, NaN among them.
        StoreError: the file cannot be written.
    """
    write_json(path, {"format": FORMAT, "facts": facts, "outcomes": [asdict(outcome) for outcome in outcomes]})


def read_outcomes_json(path: Path) -> tuple[list[Outcome], dict[str, object]]:
    """The outcomes and facts that :func:`write_outcomes_json` wrote; tuples within the facts come back as lists.

    A key that an older file lacks takes the default of its field.

    Raises:
        StoreError: the file is missing, of another format, or holds an unknown key or a value of the wrong type.
    """
    try:
        file = OutcomesFile.model_validate_json(read_text(path))
    except ValidationError as cause:
        first = cause.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StoreError(
            f"{path} does not hold outcomes in the format {FORMAT!r}: {where}: {first['msg']} "
            f"(problem 1 of {cause.error_count()}); export it again"
        ) from cause
    return file.outcomes, file.facts
