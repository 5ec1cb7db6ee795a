"""Tiny random models that speak the testbed's language: whole runs in milliseconds, answers worth nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from trimtab.model import LanguageModel, open_model
from trimtab.sampling import SamplingSettings
from trimtab.testbed.problems import unique_problems
from trimtab.testbed.tokenizer import build_tokenizer
from trimtab.traces import Problem, Split

N_LAYERS, D_FF = 2, 40
ENDING_WORDS = 20
"""So many words end a response, so that random chains end at different lengths."""


def save_tiny_testbed(folder: Path, seed: int = 0) -> Path:
    """A random Qwen3 with the testbed's tokenizer; every response ends soon, none is right."""
    tokenizer = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=D_FF,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(len(tokenizer) - ENDING_WORDS, len(tokenizer))]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def open_tiny_testbed(folder: Path, seed: int = 0) -> LanguageModel:
    """Save and open it."""
    return open_model(save_tiny_testbed(folder, seed))


def some_problems(n: int, split: Split = Split.TRAIN, seed: int = 0) -> list[Problem]:
    """Problems of the testbed."""
    return [
        Problem(f"{split}-{i}", p.question, p.answer, split, p.instance.domain, p.instance.steps)
        for i, p in enumerate(unique_problems(split, n, seed))
    ]


def settings(**changes: object) -> SamplingSettings:
    """Short greedy batches, several of them."""
    return SamplingSettings.model_validate({"n": 1, "temperature": 0.0, "max_new_tokens": 12, "batch_tokens": 400, **changes})


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def forwards(model: LanguageModel) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the token ids of every forward."""
    shapes: list[tuple[int, ...]] = []
    hook = model.hf_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()
