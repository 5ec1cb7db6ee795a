"""Compare a GGUF file as trimtab opens it, dequantised in transformers, with the same file in llama.cpp.

    python benchmarks/gguf_parity.py MODEL.gguf [--prompts 50]

Token ids have to be equal, the beginning of the sequence among them. At every position of every prompt the most likely token is
compared: at least 98 % have to be equal, and where they differ, the two tokens have to be nearly tied: llama.cpp quantises
activations too, so two that are closer than its rounding may change places. Differences are listed. The last line has the
figures; the exit code is 1 when something differs that should not.
"""

import argparse
import ctypes
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.export.gguf import LlamaEngine, llama_engine
from trimtab.export.target import Answered
from trimtab.model import LanguageModel, open_model
from trimtab.tasks import Prompt, render_prompt

EQUAL, GAP = 0.98, 0.1
"""Least share of equal top tokens; largest gap in logits between the two tokens where they differ."""
TOPICS = (
    "the boiling point of water on a mountain",
    "why leaves are green",
    "how a bill becomes law",
    "what a prime number is",
    "the causes of the French Revolution",
)
FORMS = (
    "Write one sentence about {}.",
    "Explain {} to a child of seven.",
    "def answer():\n    # {}\n    return",
    "Question: tell me about {}\nAnswer:",
    "1. {}\n2.",
)


class Difference(NamedTuple):
    """A position at which the most likely tokens differ; ``gap`` is the smaller of the two engines' gaps between them."""

    prompt: int
    position: int
    here: int
    there: int
    gap: float


def texts(prompts: int) -> list[str]:
    """Half of them plain text of several kinds, half sums and products."""
    plain = [form.format(topic) for topic in TOPICS for form in FORMS]
    numbers = np.random.default_rng(0).integers(2, 60, (prompts, 2)).tolist()
    asked = [f"What is {a} {'times' if i % 2 else 'plus'} {b}?" for i, (a, b) in enumerate(numbers)]
    return [text for pair in zip(plain * (prompts // len(plain) + 1), asked, strict=False) for text in pair][:prompts]


def tokens_there(llama: Any, engine: LlamaEngine, text: str, *, special: bool) -> tuple[int, ...]:
    """What llama.cpp makes of a text: with the beginning of a sequence where the file wants one."""
    said = text.encode()
    room = (ctypes.c_int32 * (len(said) + 8))()
    n = llama.llama_tokenize(engine.vocabulary, said, len(said), room, len(room), not special, special)
    if n < 0:
        raise RuntimeError(f"llama.cpp could not tokenise {text!r} (code {n})")
    return tuple(room[:n])


def differences(number: int, here: NDArray[np.float32], there: NDArray[np.float32]) -> list[Difference]:
    """Positions of one prompt at which the two disagree, from logits ``[position, vocab]``."""
    ours, theirs = here.argmax(-1), there.argmax(-1)
    found = []
    for place in np.nonzero(ours != theirs)[0].tolist():
        a, b = int(ours[place]), int(theirs[place])
        gap = min(abs(float(logits[place, a] - logits[place, b])) for logits in (here, there))
        found.append(Difference(number, place, a, b, gap))
    return found


def compare(model: LanguageModel, path: Path, prompts: int) -> int:
    """Print the differences and the line of figures; 1 when something differs that should not."""
    import llama_cpp as llama

    unequal_ids, found, positions = [], [], 0
    zeros = {1: np.zeros(model.identity.d_model, np.float32)}
    with llama_engine(path, zeros, model.n_layers) as engine:
        for number, text in enumerate(texts(prompts)):
            chat = bool(model.tokenizer.chat_template) and number % 2 == 1
            ids = render_prompt(model.tokenizer, text, Prompt(style="chat" if chat else "plain"))
            said = text
            if chat:
                said = model.tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
                )
            if (theirs := tokens_there(llama, engine, str(said), special=chat)) != ids:
                unequal_ids.append(number)
                print(f"prompt {number}: ids here {ids[:8]} ..., there {theirs[:8]} ...")
                continue
            with torch.inference_mode():
                here = model.hf_model(input_ids=torch.tensor([ids])).logits[0].float().numpy()
            there = engine.bare(Answered(torch.tensor(ids), 0)).numpy()
            found += differences(number, here, there)
            positions += len(ids)
    share = 1 - len(found) / max(positions, 1)
    far = [each for each in found if each.gap > GAP]
    for each in found:
        here, there = model.tokenizer.convert_ids_to_tokens([each.here, each.there])
        print(f"prompt {each.prompt}, position {each.position}: {here!r} here, {there!r} there, {each.gap:.3f} apart")
    passed = not unequal_ids and share >= EQUAL and not far
    print(
        f"{path.name} {'ok' if passed else 'FAILED'}: ids equal in {prompts - len(unequal_ids)} of {prompts} prompts, "
        f"top token in {share:.2%} of {positions} positions; {len(found)} differ, {len(far)} of them by more than {GAP}"
    )
    return 0 if passed else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--prompts", type=int, default=50)
    given = parser.parse_args()
    return compare(open_model(str(given.path), dtype="float32", device="cpu"), given.path, given.prompts)


if __name__ == "__main__":
    sys.exit(main())
