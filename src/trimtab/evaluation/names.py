"""The words that outcomes, tables and reports share: arms and their order, verdicts. Imports nothing heavy."""

from typing import Literal

BreakdownBy = Literal["domain", "difficulty"]

UNSTEERED, ALWAYS, GATED, NEGATIVE, ADARAS = "unsteered", "always", "gated", "negative", "adaras"
RANDOM, RANDOM_NORM = "random", "random-norm"
PROMPT_ONLY, SFT_LORA = "prompt-only", "sft-lora"
SAMPLED, MAJORITY, MAJORITY_EQUAL_COST = "sampled", "majority", "majority-equal-cost"

CLAIMS = (ALWAYS, GATED, ADARAS, PROMPT_ONLY, SFT_LORA, SAMPLED, MAJORITY, MAJORITY_EQUAL_COST)
"""Arms that somebody might say help, in the order of a table; arms of other names come after these and are claims too."""
CONTROLS = (NEGATIVE, RANDOM, RANDOM_NORM)
"""Last in a table. What they show is no claim, so they take no part in its correction for many tests."""


def is_claim(arm: str) -> bool:
    """Whether an arm is neither the unsteered model nor a control."""
    return arm != UNSTEERED and arm not in CONTROLS


def place(arm: str) -> tuple[int, int]:
    """The key that sorts arms into the order of a table."""
    if arm in CONTROLS:
        return 2, CONTROLS.index(arm)
    return (0, 0) if arm == UNSTEERED else (1, CLAIMS.index(arm) if arm in CLAIMS else len(CLAIMS))
