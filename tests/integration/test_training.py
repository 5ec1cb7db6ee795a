"""The training script still runs; the bundled weights come from it."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trimtab.model import check_model, open_model
from trimtab.sampling import Request, SamplingSettings, generate_batch
from trimtab.tasks import render_prompt
from trimtab.testbed.tokenizer import build_tokenizer
from trimtab.testbed.train import IGNORE, RECIPES, TOKENS_PER_BATCH, batches, new_model


@pytest.mark.slow
def test_a_few_steps_give_a_model_that_opens(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "trimtab.testbed.train"]
    for name in ("reasoner", "tuned"):
        subprocess.run([*command, name, "--tokens", "20000", "--out", str(tmp_path)], check=True, env=environment, timeout=600)
    for name in ("reasoner", "tuned"):
        model = open_model(tmp_path / name)
        assert check_model(model).ok
        prompt = render_prompt(model.tokenizer, "now dial 5 : a +1 b +2 as ever ?")
        settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=8)
        assert generate_batch(model, [Request("p/0", prompt)], settings)[0].response_ids
        assert (tmp_path / name / "recipe.json").exists()


def test_batches_are_the_same_twice_and_label_the_response_only() -> None:
    tokenizer = build_tokenizer()
    first, again = (batches(random.Random(1), tokenizer, RECIPES["reasoner"]) for _ in range(2))
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "<|end|>"])
    for _ in range(3):
        ids, labels = next(first)
        for mine, theirs in zip((ids, labels), next(again), strict=True):
            assert torch.equal(mine, theirs)
        assert ids.numel() <= TOKENS_PER_BATCH
        for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
            start = row.index(think) + 1
            stop = len(row) - row[::-1].index(end)
            assert label[:start] == [IGNORE] * start
            assert label[start:stop] == row[start:stop]
            assert set(label[stop:]) <= {IGNORE}


def test_the_recipes_build_models_that_serving_engines_accept() -> None:
    tokenizer = build_tokenizer()
    for name, recipe in RECIPES.items():
        with torch.random.fork_rng(devices=[]):
            model = new_model(tokenizer, recipe.d_ff)
        assert model.config.head_dim in (32, 64, 128), name
        assert model.config.vocab_size == len(tokenizer)
        size = 2 * sum(parameter.numel() for parameter in model.parameters())
        assert size <= 8e6, name
