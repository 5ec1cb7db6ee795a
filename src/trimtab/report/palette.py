"""Colours that the figures, the SVG and the page share."""

from trimtab.evaluation.names import (
    ALWAYS,
    GATED,
    MAJORITY,
    MAJORITY_EQUAL_COST,
    NEGATIVE,
    PROMPT_ONLY,
    SAMPLED,
    SFT_LORA,
    UNSTEERED,
)

# Okabe and Ito (2008), told apart with every common colour blindness
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
INK, GREY, FAINT, GRID = "#1f2328", "#6e7681", "#BDBDBD", "#E6E8EA"

_BASELINES = (PROMPT_ONLY, SFT_LORA, SAMPLED, MAJORITY, MAJORITY_EQUAL_COST)
_CONDITION_COLOURS = {UNSTEERED: BLACK, ALWAYS: SKY, GATED: BLUE, NEGATIVE: VERMILLION, **dict.fromkeys(_BASELINES, GREEN)}


def condition_colour(condition: str, random: bool) -> str:
    """The colour of a condition, the same in every picture; random sets are grey."""
    return GREY if random else _CONDITION_COLOURS.get(condition, ORANGE)
