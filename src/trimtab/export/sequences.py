"""Token sequences on which an export is compared: prompts with the responses that the hooks give them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from trimtab.errors import InputError
from trimtab.export.target import Answered
from trimtab.model import LanguageModel
from trimtab.sampling import Request, SamplingSettings, generate_batch
from trimtab.steering import Steering
from trimtab.tasks import render_prompt

QUESTIONS = (
    "A train leaves at 9:40 and arrives at 13:15. How long does it travel?",
    "What is 17 times 23?",
    "If all bloops are razzies and some razzies are lazzies, are some bloops lazzies?",
    "A shop sells pens at 3 for 2 dollars. What do 12 pens cost?",
    "Write a Python function that reverses a list.",
    "Which is larger, 5/8 or 7/11?",
    "How many days are there from March 3 to May 1?",
    "The sum of two numbers is 41 and their difference 7. What are they?",
)
"""Eight questions of no benchmark, for a model without problems of its own."""


def questions_of(file: Path) -> list[str]:
    """One question a line. Raises InputError when there is none."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"cannot read {file}: {cause}; give a text file with one prompt a line") from cause
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{file} holds no prompt; give one a line")
    return found


def answered(model: LanguageModel, steering: Steering, questions: Sequence[str], max_new_tokens: int) -> list[Answered]:
    """Each question with the greedy response that the steered model gives it, as far as the model's context reaches.

    Raises:
        InputError: a question that is no token, or one that fills the context.
    """
    requests = [Request(f"q/{i}", _rendered(model, question)) for i, question in enumerate(questions)]
    longest = max(len(request.prompt_ids) for request in requests)
    room = model.hf_model.config.get_text_config().max_position_embeddings - longest
    if room < 1:
        raise InputError(f"a prompt of {longest} tokens fills this model's context; give shorter ones")
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=min(room, max_new_tokens))
    size = 32
    found: list[Answered] = []
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        for request, generation in zip(batch, generate_batch(model, batch, settings, steering), strict=True):
            tokens = torch.tensor([*request.prompt_ids, *generation.response_ids], dtype=torch.int64)
            found.append(Answered(tokens, len(request.prompt_ids)))
    return found


def _rendered(model: LanguageModel, question: str) -> tuple[int, ...]:
    if model.tokenizer.chat_template:
        return render_prompt(model.tokenizer, question)
    tokens = tuple(model.tokenizer.encode(question))
    if not tokens:
        raise InputError(f"the model's tokenizer makes no token of the prompt {question!r}; give other prompts")
    return tokens
