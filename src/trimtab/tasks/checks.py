"""What every problem from a file must be before anything is spent on it."""

from trimtab.errors import InputError
from trimtab.traces import Problem

MAX_ANSWER = 20_000
MAX_QUESTION = 200_000


def checked(problem: Problem) -> Problem:
    """The problem itself.

    Raises:
        InputError: an empty question or answer, or one that is too long to be real.
    """
    for name, text, most in (("question", problem.question, MAX_QUESTION), ("answer", problem.answer, MAX_ANSWER)):
        if not text.strip():
            raise InputError(f"the {name} of problem {problem.id!r} is empty; give it one, or remove the row")
        if len(text) > most:
            raise InputError(
                f"the {name} of problem {problem.id!r} has {len(text):,} characters, at most {most:,} are accepted; "
                "take the right column, or remove the row"
            )
    return problem
