"""Conditions: the same problems under different interventions, controls included."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trimtab.errors import InputError
from trimtab.evaluation.names import ALWAYS, GATED, NEGATIVE, PROMPT_ONLY, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.ranking import norm_matched, random_like
from trimtab.steering import Steering
from trimtab.tasks import Prompt


@dataclass(frozen=True, slots=True)
class Condition:
    """A name, what to attach and how the gate is set. ``steering`` None is the bare model, ``prompt`` None the task's own."""

    name: str
    steering: Steering | None = None
    gate: Literal["auto", "on", "off"] = "on"
    prompt: Prompt | None = None


def standard_conditions(
    steering: Steering, down: Mapping[int, NDArray[np.float32]], random_sets: int, seed: int
) -> list[Condition]:
    """The conditions of a verdict.

    Unsteered, always, gated, negative strength, and ``random_sets`` sets of random neurons twice: the same shifts permuted with
    random signs, and those scaled to the found set's norm of ``W[:, S] @ shift`` in each layer. Random sets are always on, like
    ``always``.

    Args:
        steering: the found steering, with its gate.
        down: down projection weights ``[d_model, d_ff]`` of the steered layers.
        random_sets: how many random sets of each kind.
        seed: of the random sets.
    """
    conditions = [
        Condition(UNSTEERED, None),
        Condition(ALWAYS, steering),
        Condition(GATED, steering, "auto"),
        Condition(NEGATIVE, steering.with_strength(-steering.strength)),
    ]
    for i in range(random_sets):
        drawn = random_like(steering, seed=seed + i)
        conditions.append(Condition(f"{RANDOM}-{i}", drawn))
        conditions.append(Condition(f"{RANDOM_NORM}-{i}", norm_matched(drawn, steering, down)))
    return conditions


def prompt_only(prompt: Prompt, instruction: str, tokenizer: PreTrainedTokenizerBase) -> Condition:
    """The cheapest baseline: the bare model, asked with an instruction such as ``{question}\\nCheck each step.``

    Raises:
        InputError: the tokenizer does not know a word of the instruction, so the model would not be asked what was meant.
    """
    words = instruction.replace("{question}", "")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in tokenizer.encode(words, add_special_tokens=False):
        raise InputError(
            f"this model's tokenizer does not know all words of the instruction {words.strip()!r}; set evaluation.instruction to "
            "words that it knows, or leave 'prompt-only' out of evaluation.baselines"
        )
    return Condition(
        PROMPT_ONLY, prompt=prompt.model_copy(update={"template": prompt.template.replace("{question}", instruction)})
    )
