"""Neurons on another model: correlations by sums, the match, and a fine-tune that gets the set by index."""

import copy
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from search_samples import changed
from tiny_testbed import open_tiny_testbed
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.experiments import Search
from trimtab.experiments.matching import (
    Addresses,
    Correlations,
    CrossMoments,
    TextPair,
    assign,
    correlate,
    halves,
    judged,
    match_neurons,
)
from trimtab.experiments.transfer_model import BY_INDEX, GATED, OWN, RANDOM, carry, shared_texts, transfer_model
from trimtab.model import LanguageModel
from trimtab.model.adapters import find_ffn
from trimtab.model.identity import identify
from trimtab.recording import batch_features
from trimtab.traces import Split, Trace

NEURONS = Addresses(np.array([1, 0, 1]), np.array([3, 17, 30]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, LanguageModel]:
    """Two random models of one shape."""
    folder = tmp_path_factory.mktemp("models")
    return open_tiny_testbed(folder / "one", 0), open_tiny_testbed(folder / "two", 1)


def chains(n: int, seed: int = 0) -> list[Trace]:
    """Random chains of several lengths, two a problem."""
    rng = np.random.default_rng(seed)
    return [
        Trace(
            f"{i // 2}/{i % 2}", str(i // 2), i % 2, tuple(rng.integers(5, 60, 4)), tuple(rng.integers(5, 60, 3 + i)), "", "stop"
        )
        for i in range(n)
    ]


def test_sums_give_the_correlation_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 4)) + 1000
    y[:, 1] += 3 * x[:, 0]
    y[:, 3] = 7.0
    sums = CrossMoments(2, 4)
    for start, stop in ((0, 7), (7, 8), (8, 60)):
        sums.add(*(torch.tensor(side[start:stop], dtype=torch.float32) for side in (x, y)))
    expected = np.corrcoef(x.T, y[:, :3].T)[:2, 2:]
    assert sums.n == 60
    np.testing.assert_allclose(sums.correlation()[:, :3], expected, atol=2e-4)
    np.testing.assert_array_equal(sums.correlation()[:, 3], 0)  # never varies


@pytest.mark.parametrize("pooled", [False, True])
def test_correlations_of_two_models_are_those_of_their_activations(
    models: tuple[LanguageModel, LanguageModel], pooled: bool
) -> None:
    one, two = models
    traces = chains(8)
    found = correlate(one, two, [TextPair(t, t) for t in traces], NEURONS, "response", pooled=pooled, batch_tokens=40)
    everywhere = np.arange(two.identity.n_neurons)

    def rows(model: LanguageModel, layer: np.ndarray, index: np.ndarray) -> np.ndarray:
        values = batch_features(model, traces, layer, index, "response")
        return np.stack([v.mean(axis=0) for v in values]) if pooled else np.concatenate(values)

    x, y = rows(one, NEURONS.layer, NEURONS.index), rows(two, everywhere // two.d_ff, everywhere % two.d_ff)
    expected = np.corrcoef(x.T, y.T)[:3, 3:]
    assert found.n == len(x)
    np.testing.assert_allclose(found.paired, expected, atol=1e-4)
    assert np.abs(found.paired - found.shuffled).max() > 0.05


def test_a_model_is_its_own_match(models: tuple[LanguageModel, LanguageModel]) -> None:
    one, _ = models
    match = match_neurons(one, one, NEURONS, [TextPair(t, t) for t in chains(12)], "response")
    assert np.array_equal(match.neurons.layer, NEURONS.layer)
    assert np.array_equal(match.neurons.index, NEURONS.index)
    np.testing.assert_allclose(match.correlation, 1, atol=1e-5)
    assert match.is_fine_tune
    assert match.at_same_index == 3


def test_another_model_of_the_same_shape_is_no_fine_tune(models: tuple[LanguageModel, LanguageModel]) -> None:
    match = match_neurons(*models, NEURONS, [TextPair(t, t) for t in chains(12)], "response")
    assert match.same_index is not None
    assert not match.is_fine_tune


def test_one_text_is_too_little(models: tuple[LanguageModel, LanguageModel]) -> None:
    with pytest.raises(NotEnoughDataError, match="three observations"):
        correlate(*models, [TextPair(t, t) for t in chains(2)], NEURONS, "response", pooled=True)


def test_partners_have_the_largest_sum_of_absolute_correlations() -> None:
    correlation = np.random.default_rng(3).uniform(-1, 1, (3, 5))
    best = max(permutations(range(5), 3), key=lambda columns: sum(abs(correlation[i, c]) for i, c in enumerate(columns)))
    assert tuple(assign(correlation)) == best
    with pytest.raises(InputError, match="carry fewer"):
        assign(correlation.T)


def test_a_match_is_judged_by_correlations_that_did_not_choose_it() -> None:
    chosen_on = Correlations(10, np.array([[0.1, -0.9, 0.2, 0.3], [0.8, 0.7, 0.0, 0.1]]), np.full((2, 4), 0.05))
    held_out = Correlations(12, np.array([[0.0, -0.6, 0.1, 0.2], [-0.3, 0.9, 0.4, 0.5]]), np.zeros((2, 4)))
    match = judged(chosen_on, held_out, d_ff=2, own=np.array([1, 2]))
    assert (match.neurons.layer.tolist(), match.neurons.index.tolist()) == ([0, 0], [1, 0])
    assert match.sign.tolist() == [-1, 1]
    np.testing.assert_allclose(match.correlation, [0.6, -0.3])
    np.testing.assert_allclose(match.same_index, [-0.6, 0.4])
    np.testing.assert_allclose(match.shuffled, 0.05)
    assert match.at_same_index == 1
    assert (match.n_chosen_on, match.n_held_out) == (10, 12)


def test_no_problem_is_in_both_halves() -> None:
    first, second = halves([TextPair(t, t) for t in chains(10)])
    sides = [{pair.source.problem_id for pair in side} for side in (first, second)]
    assert not sides[0] & sides[1]
    assert len(first) + len(second) == 10


def test_other_tokenizers_read_the_text_again(search: Search) -> None:
    other = replace(search.model, tokenizer=copy.deepcopy(search.model.tokenizer))
    other.tokenizer.add_tokens(["a-word-of-its-own"])
    pairs, same = shared_texts(search, other), shared_texts(search, search.model)
    assert all(pair.source is pair.target for pair in same)
    by_id = {pair.source.id: pair.source for pair in same}
    assert all(pair.source is by_id[pair.target.id] for pair in pairs)
    assert all(pair.target.prompt_ids == pair.source.prompt_ids for pair in pairs)  # this one differs in an unused word only
    words = other.tokenizer.decode(list(pairs[0].target.response_ids))
    assert words.split() == pairs[0].source.text.split()


def test_a_turned_sign_is_found_and_steered_the_other_way(search: Search) -> None:
    model = copy.deepcopy(search.model.hf_model)
    with torch.no_grad():
        for block in model.model.layers:  # the same function, each neuron with its sign turned
            block.mlp.up_proj.weight.neg_()
            block.mlp.down_proj.weight.neg_()
    turned = replace(search.model, hf_model=model, layout=find_ffn(model), identity=identify(model, "turned", None))
    carried = carry(search, turned)
    assert (carried.match.sign == -1).all()
    assert carried.by_index is None
    assert carried.same_direction == 1
    found = search.class_moments.mean_difference[search.steering.layer, search.steering.index]
    np.testing.assert_allclose(carried.matched.mean_difference, -found, rtol=1e-3, atol=1e-4)


def test_the_fine_tuned_reasoner_gets_the_set_by_index(search: Search) -> None:
    settings = search.settings.model_copy(update={"other_models": ("testbed:tuned",)})
    fewer = {split: problems[:16] for split, problems in search.problems.items()} | {Split.TRAIN: search.split(Split.TRAIN)}
    found = transfer_model(changed(search, settings=settings, problems=fewer))
    gains = found["testbed-tuned"].rows
    assert list(dict.fromkeys(row["label"] for row in gains))[1:] == [
        BY_INDEX,
        OWN,
        GATED,
        RANDOM,
    ]  # partners are the same neurons
    assert all(row["n"] == 16 for row in gains)
    match = {row["label"].removeprefix("testbed:tuned, "): row for row in found["match"].rows}
    assert match["matched"]["n"] == search.k
    assert match["matched"]["value"] > 0.9
    assert match["matched"]["value"] > match["random partners"]["value"]
    assert "fine-tune" in found.sentences[0]


def test_without_another_model_it_says_so(search: Search) -> None:
    found = transfer_model(search)
    assert not found.frames
    assert "other_models" in found.sentences[0]
