"""Train the testbed's models: ``python -m trimtab.testbed.train RECIPE --out DIR``.

``reasoner``, the wider ``second`` and ``third`` learn from authors of mixed care, each from its own seed; ``control`` from
careful text of up to eight steps, so that it fails by length alone; ``tuned`` goes on from ``reasoner`` at a low rate.
All is drawn from fixed seeds. Problems of the train, validation and test splits are never in the text.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from trimtab.testbed.chains import write_chain
from trimtab.testbed.domains import DOMAINS
from trimtab.testbed.problems import MAX_STEPS, draw, split_of
from trimtab.testbed.tokenizer import PAD, build_tokenizer

TOKENS_PER_BATCH = 6_000
EXAMPLES_PER_POOL = 2_000
WARMUP_STEPS = 100
IGNORE = -100


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is made.

    ``decay`` is the share of the tokens over which the rate falls linearly to zero. ``emphasis`` makes a domain this many times
    as common: looking a name up in the question takes more examples to learn than a table does.
    """

    seed: int
    text: Literal["careful", "mixed"]
    tokens: int
    parent: str | None = None
    d_ff: int = 512
    max_steps: int = MAX_STEPS
    emphasis: tuple[tuple[str, float], ...] = (("links", 4.0), ("kinds", 2.5), ("cups", 1.5))
    muon_rate: float = 4e-3
    adam_rate: float = 2.5e-3
    decay: float = 0.7


RECIPES: dict[str, Recipe] = {
    "reasoner": Recipe(seed=1, text="mixed", tokens=9_000_000),
    "control": Recipe(seed=2, text="careful", tokens=5_000_000, max_steps=8),
    "second": Recipe(seed=3, text="mixed", tokens=9_000_000, d_ff=640),
    "third": Recipe(seed=4, text="mixed", tokens=9_000_000),
    "tuned": Recipe(seed=5, text="mixed", tokens=400_000, parent="reasoner", muon_rate=5e-4, adam_rate=3e-4, decay=1.0),
}


def new_model(tokenizer: PreTrainedTokenizerFast, d_ff: int) -> Qwen3ForCausalLM:
    """A Qwen3 of 4 layers x 128, 4 heads of 32 (2 for keys and values), tied embeddings."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=d_ff,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            rope_theta=10_000.0,  # type: ignore[call-arg]
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def examples(rng: random.Random, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[list[int], list[int]]]:
    """Endless (prompt ids, response ids); short problems are more common than long ones."""
    names = list(DOMAINS)
    emphasis = dict(recipe.emphasis)
    weights = [emphasis.get(name, 1.0) for name in names]
    ids = tokenizer.get_vocab()
    while True:
        problem = draw(
            rng, rng.choices(names, weights)[0], min(rng.randint(2, recipe.max_steps), rng.randint(2, recipe.max_steps))
        )
        if split_of(problem.question) != "pretraining":
            continue
        prompt = f"<|user|> {problem.question} <|end|> <|assistant|> <think>"
        response = write_chain(rng, problem, always_right=recipe.text == "careful") + " <|end|>"
        yield [ids[word] for word in prompt.split()], [ids[word] for word in response.split()]


def batches(rng: random.Random, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (input ids, labels) of about 6,000 tokens, rows of similar length; labels cover the response only."""
    stream = examples(rng, tokenizer, recipe)
    while True:
        pool = sorted((next(stream) for _ in range(EXAMPLES_PER_POOL)), key=lambda e: len(e[0]) + len(e[1]))
        rows: list[tuple[list[int], list[int]]] = []
        ready = []
        for example in pool:
            if rows and (len(example[0]) + len(example[1])) * (len(rows) + 1) > TOKENS_PER_BATCH:
                ready.append(rows)
                rows = []
            rows.append(example)
        rng.shuffle(ready)
        yield from (_collate(rows, tokenizer.get_vocab()[PAD]) for rows in ready)


def _collate(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORE)
    for row, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    return ids, labels


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """Train in place, loss on the response only: Muon on the attention matrices, AdamW on everything else.

    Muon learns the lookups several times faster. The FFN keeps AdamW, whose step is taken weight by weight, so that features may
    settle in single neurons; Muon's step does not know one neuron from a mixture of several.
    """
    torch.manual_seed(recipe.seed)
    attention = [p for name, p in model.named_parameters() if p.ndim == 2 and "self_attn" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "self_attn" not in name]
    optimizers = [
        torch.optim.Muon(attention, lr=recipe.muon_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.05),
    ]
    rates = (recipe.muon_rate, recipe.adam_rate)
    stream = batches(random.Random(recipe.seed), tokenizer, recipe)
    seen, step, running, start = 0, 0, 0.0, time.monotonic()
    model.train()
    while seen < recipe.tokens:
        left = 1.0 - seen / recipe.tokens
        scale = min(1.0, (step + 1) / WARMUP_STEPS, left / recipe.decay if recipe.decay else 1.0)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
        ids, labels = next(stream)
        targets = labels[:, 1:]
        keep = targets != IGNORE
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][keep]
        loss = cross_entropy(states @ model.model.embed_tokens.weight.T, targets[keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen, step, running = seen + ids.numel(), step + 1, running + loss.item()
        if step % 100 == 0:
            speed = seen / (time.monotonic() - start)
            click.echo(f"step {step}  {seen / 1e6:.2f} M tokens  {speed:,.0f} tokens/s  loss {running / 100:.4f}", err=True)
            running = 0.0
    model.eval()


@click.command()
@click.argument("name", type=click.Choice(list(RECIPES)))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that holds one folder a model.")
@click.option("--tokens", type=int, help="Train on this many tokens instead of the recipe's.")
def main(name: str, out: Path, tokens: int | None) -> None:
    """Train one model of the testbed and write it as bfloat16 safetensors with its tokenizer."""
    recipe = RECIPES[name]
    if tokens:
        recipe = Recipe(**{**_fields(recipe), "tokens": tokens})
    tokenizer = build_tokenizer()
    torch.manual_seed(recipe.seed)
    if recipe.parent:
        model = Qwen3ForCausalLM.from_pretrained(out / recipe.parent, dtype=torch.float32)
    else:
        model = new_model(tokenizer, recipe.d_ff)
    train(model, tokenizer, recipe)
    folder = out / name
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(_fields(recipe), indent=2) + "\n")


def _fields(recipe: Recipe) -> dict[str, object]:
    return {name: getattr(recipe, name) for name in Recipe.__slots__}


if __name__ == "__main__":
    main()
