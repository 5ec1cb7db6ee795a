"""The words that outcomes, tables and reports share: conditions and their order, verdicts. Imports nothing heavy."""

from typing import Literal

BreakdownBy = Literal["domain", "difficulty"]

UNSTEERED, ALWAYS, GATED, NEGATIVE, ADARAS = "unsteered", "always", "gated", "negative", "adaras"
RANDOM, RANDOM_NORM = "random", "random-norm"
PROMPT_ONLY, SFT_LORA = "prompt-only", "sft-lora"
SAMPLED, MAJORITY, MAJORITY_EQUAL_COST = "sampled", "majority", "majority-equal-cost"

CLAIMS = (ALWAYS, GATED, ADARAS, PROMPT_ONLY, SFT_LORA, SAMPLED, MAJORITY, MAJORITY_EQUAL_COST)
"""Conditions that somebody might say help, in the order of a table; conditions of other names come after these and are claims
too."""
CONTROLS = (NEGATIVE, RANDOM, RANDOM_NORM)
"""Last in a table. What they show is no claim, so they take no part in its correction for many tests."""


def is_claim(condition: str) -> bool:
    """Whether an condition is neither the unsteered model nor a control."""
    return condition != UNSTEERED and condition not in CONTROLS


def place(condition: str) -> tuple[int, int]:
    """The key that sorts conditions into the order of a table."""
    if condition in CONTROLS:
        return 2, CONTROLS.index(condition)
    return (0, 0) if condition == UNSTEERED else (1, CLAIMS.index(condition) if condition in CLAIMS else len(CLAIMS))
