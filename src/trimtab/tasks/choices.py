"""Questions with choices, and gold answers that are a letter or yes and no."""

from collections.abc import Sequence
from string import ascii_uppercase

from trimtab.errors import InputError


def lettered(question: str, choices: Sequence[str]) -> str:
    r"""The question with one line per choice.

    Example:
        >>> lettered("Which is even?", ["3", "4"])
        'Which is even?\nA. 3\nB. 4'
    """
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise InputError(f"a choice problem needs 2 to {len(ascii_uppercase)} choices, got {len(choices)}")
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, choices, strict=False))])


def letter_of(answer: str, choices: Sequence[str]) -> str:
    """The gold letter, checked against the number of choices. Raises InputError when it names none of them."""
    letter = answer.strip().upper()
    letters = ascii_uppercase[: len(choices)]
    if len(letter) != 1 or letter not in letters:
        raise InputError(f"the gold answer {answer[:60]!r} names no choice; accepted: one letter of {', '.join(letters)}")
    return letter


def yes_or_no(answer: object) -> str:
    """``yes`` or ``no`` from a boolean or a word. Raises InputError for anything else."""
    word = {"true": "yes", "yes": "yes", "false": "no", "no": "no"}.get(str(answer).strip().lower())
    if word is None:
        raise InputError(f"the gold answer {str(answer)[:60]!r} is neither yes nor no; accepted: true, false, yes, no")
    return word
