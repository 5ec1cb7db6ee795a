"""Random numbers and tokens against oracles in plain Python."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from trimtab.sampling.decoding import draw_tokens, row_seed, uniforms

MASK = 2**64 - 1
SEEDS = st.integers(0, 2**63 - 1)


def _splitmix64(seed: int, step: int) -> float:
    """Output number ``step`` of splitmix64 started at ``seed``, as Vigna's reference code writes it."""
    state = (seed + 0x9E3779B97F4A7C15 * (step + 1)) & MASK
    mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


@settings(max_examples=200, deadline=None)
@given(st.lists(SEEDS, min_size=1, max_size=5), st.integers(0, 40_000))
def test_uniforms_equal_splitmix64_whatever_the_batch(seeds: list[int], step: int) -> None:
    drawn = uniforms(torch.tensor(seeds), step).tolist()
    assert drawn == [_splitmix64(seed, step) for seed in seeds]
    assert all(0.0 <= u < 1.0 for u in drawn)
    assert drawn == [uniforms(torch.tensor([seed]), step).item() for seed in seeds]


def test_a_published_value() -> None:
    """The first output of splitmix64 from seed 1234567 is 6457827717110365317."""
    assert uniforms(torch.tensor([1234567]), 0).item() == (6457827717110365317 >> 11) / 2**53


def test_uniforms_differ_by_seed_and_step_and_are_uniform() -> None:
    seeds = torch.tensor([row_seed(0, f"p{i}", s) for i in range(50) for s in range(4)])
    table = torch.stack([uniforms(seeds, step) for step in range(50)])
    assert len(set(table.flatten().tolist())) == table.numel()
    counts = torch.histc(table.float(), 20, 0.0, 1.0).tolist()
    assert chisquare(counts).pvalue > 1e-3


def test_row_seed_depends_on_each_of_its_parts() -> None:
    seeds = {row_seed(run, problem, sample) for run in range(3) for problem in ("a", "b", "a/1") for sample in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert row_seed(0, "a", 0) == row_seed(0, "a", 0)


def _naive_draw(logits: list[float], uniform: float, temperature: float, top_p: float) -> int:
    weights = [math.exp((x - max(logits)) / temperature) for x in logits]
    probabilities = [w / sum(weights) for w in weights]
    order = list(range(len(logits)))
    if top_p < 1.0:
        order.sort(key=lambda i: (-probabilities[i], i))
        kept, reached = [], 0.0
        for i in order:
            if reached >= top_p:
                break
            kept.append(i)
            reached += probabilities[i]
        order = kept
    target, reached = uniform * sum(probabilities[i] for i in order), 0.0
    for i in order:
        reached += probabilities[i]
        if reached > target:
            return i
    return order[-1]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.9), (0.6, 0.5), (2.0, 0.05)])
def test_draw_tokens_equals_the_naive_loop(temperature: float, top_p: float) -> None:
    rng = random.Random(0)
    logits = [[rng.gauss(0, 2) for _ in range(11)] for _ in range(300)]
    uniform = [rng.random() for _ in logits]
    drawn = draw_tokens(torch.tensor(logits), torch.tensor(uniform, dtype=torch.float64), temperature, top_p).tolist()
    expected = [_naive_draw(torch.tensor(row).tolist(), u, temperature, top_p) for row, u in zip(logits, uniform, strict=True)]
    assert drawn == expected


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.15, 0.25])).expand(4000, 4)
    uniform = uniforms(torch.arange(4000), 0)
    assert set(draw_tokens(logits, uniform, 1.0, 0.5).tolist()) == {1}
    assert set(draw_tokens(logits, uniform, 1.0, 0.7).tolist()) == {1, 3}
    assert set(draw_tokens(logits, uniform, 1.0, 0.8).tolist()) == {1, 2, 3}
    assert set(draw_tokens(logits, uniform, 1.0, 1.0).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_are_those_of_the_softmax(temperature: float) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.1])
    n = 20_000
    drawn = draw_tokens(logits.expand(n, 5), uniforms(torch.arange(n), 7), temperature, 1.0)
    expected = torch.softmax(logits.double() / temperature, -1) * n
    assert chisquare(torch.bincount(drawn, minlength=5).numpy(), expected.numpy()).pvalue > 1e-3


def test_the_ends_of_the_unit_interval() -> None:
    """0 and the largest uniform pick tokens that have a probability."""
    logits = torch.tensor([[-1e9, 0.0, 1.0, -1e9]]).expand(2, 4)
    ends = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert draw_tokens(logits, ends, 1.0, 1.0).tolist() == [1, 2]
    assert draw_tokens(logits, ends, 1.0, 0.99).tolist() == [2, 1]


def test_temperature_zero_is_greedy() -> None:
    logits = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_tokens(logits, torch.rand(20, dtype=torch.float64), 0.0, 0.3), logits.argmax(-1))
