"""What each neuron writes relative to its FFN, against loops over tokens and the published definition with hooks of its own."""

import numpy as np
import pytest
import torch

import expert_oracle
from tiny_models import D_FF, FAMILIES, MIXTURES, N_LAYERS, VOCABULARY, tiny, word_tokenizer
from trimtab.errors import InputError
from trimtab.model import LanguageModel, down_weights, find_ffn, identify
from trimtab.moments import ALL_MOMENTS, CONTRIBUTION, MOMENTS
from trimtab.ranking import column_norms
from trimtab.recording import record_batch
from trimtab.recording.forward import ContributionSums
from trimtab.traces import Trace

SCOPES = ("all", "response", "last-prompt")
DENSE = [family for family in FAMILIES if family not in MIXTURES]


def opened(family: str) -> LanguageModel:
    model = tiny(family)
    layout = find_ffn(model)
    tokenizer = word_tokenizer(pad_token="w0", eos_token="w1")
    return LanguageModel(model, tokenizer, layout, identify(model, "tiny", None, layout=layout))


def trace(name: str, prompt: int, response: int, seed: int) -> Trace:
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, prompt + response).tolist()
    return Trace(name, name, 0, tuple(ids[:prompt]), tuple(ids[prompt:]), "", "stop")


TRACES = [trace("a", 5, 6, 0), trace("b", 1, 2, 1), trace("c", 8, 4, 2)]


def tokens(one: Trace, scope: str) -> range:
    prompt, end = len(one.prompt_ids), len(one.prompt_ids) + len(one.response_ids) - 1
    return {"all": range(end), "response": range(prompt, end), "last-prompt": range(prompt - 1, prompt)}[scope]


def alone(model: LanguageModel, one: Trace) -> np.ndarray:
    """``|w a| / ||o||`` of every token, layer and neuron of a trace run by itself, ``[token, layer, d_ff]``."""
    seen: list[np.ndarray] = []

    def dense(module, args, output) -> None:
        activation, written = args[0].flatten(0, -2), output.flatten(0, -2)
        seen.append(np.array([a.abs().numpy() / np.linalg.norm(o.numpy()) for a, o in zip(activation, written, strict=True)]))

    def experts(module, args, output) -> None:
        wide = np.zeros((len(args[0]), D_FF))
        written = expert_oracle.output(module, args, lambda visit: visit.activation).numpy()
        for visit in expert_oracle.visits(module, *args):
            columns = slice(visit.expert * expert_oracle.D_EXPERT, (visit.expert + 1) * expert_oracle.D_EXPERT)
            wide[visit.token, columns] = (visit.weight * visit.activation).abs().numpy() / np.linalg.norm(written[visit.token])
        seen.append(wide)

    hook = experts if model.layout.mixture else dense
    handles = [module.register_forward_hook(hook) for module in model.layout.modules]
    with torch.no_grad():
        model.hf_model(torch.tensor([[*one.prompt_ids, *one.response_ids[:-1]]]))
    for handle in handles:
        handle.remove()
    return np.stack(seen, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_the_naive_loop_in_every_family(family: str) -> None:
    model = opened(family)
    recorded = record_batch(model, TRACES, SCOPES, ("sum", CONTRIBUTION))
    for row, one in enumerate(TRACES):
        kept = alone(model, one)
        for scope, moments in recorded.items():
            expected = np.zeros((N_LAYERS, D_FF))
            for token in tokens(one, scope):
                expected += kept[token]
            assert moments.contribution is not None
            assert moments.contribution.dtype == np.float32
            np.testing.assert_allclose(moments.contribution[row], expected, rtol=2e-4, atol=1e-6)
            mean = expected / len(tokens(one, scope))
            np.testing.assert_allclose(moments.mean_contribution()[row], mean, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("family", DENSE)
def test_times_the_column_norm_it_is_the_published_cett(family: str) -> None:
    model, one = opened(family), TRACES[0]
    inputs, norms, columns = [], [], []

    def hook(module, args, output) -> None:
        inputs.append(args[0].reshape(-1, args[0].shape[-1]))
        norms.append(output.reshape(-1, output.shape[-1]).norm(dim=-1, keepdim=True))
        weight = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        columns.append(weight.norm(dim=0))

    handles = [module.register_forward_hook(hook) for module in model.layout.modules]
    with torch.no_grad():
        model.hf_model(torch.tensor([[*one.prompt_ids, *one.response_ids[:-1]]]))
    for handle in handles:
        handle.remove()
    # arXiv 2512.01797: |z_jt| * ||W[:, j]|| / (||h_t|| + 1e-8), mean over the tokens of the span
    cett = torch.stack([z.abs() * c / (h + 1e-8) for z, h, c in zip(inputs, norms, columns, strict=True)])
    published = cett[:, len(one.prompt_ids) :].mean(1).numpy()
    moments = record_batch(model, [one], ("response",), ("sum", CONTRIBUTION))["response"]
    ours = moments.mean_contribution()[0] * column_norms(down_weights(model, range(N_LAYERS)))
    np.testing.assert_allclose(ours, published, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["qwen3", "mixtral"])
def test_the_other_moments_are_the_same_bits_with_it(family: str) -> None:
    model = opened(family)
    without, beside = (record_batch(model, TRACES, SCOPES, moments) for moments in (MOMENTS, ALL_MOMENTS))
    for scope in SCOPES:
        assert without[scope].contribution is None
        for name in ("count", *MOMENTS):
            assert np.array_equal(getattr(without[scope], name), getattr(beside[scope], name))


def test_a_token_whose_ffn_writes_nothing_adds_nothing() -> None:
    model = opened("qwen3")
    summed = ContributionSums([[(0, 3)]], model.layout, torch.device("cpu"))
    output = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]])
    activation = torch.full((1, 3, D_FF), -10.0)
    for layer in range(N_LAYERS):
        summed.output_hook(layer)(torch.nn.Identity(), (activation,), output)
    np.testing.assert_allclose(summed.collect(0)[CONTRIBUTION], np.full((1, N_LAYERS, D_FF), 10 / 5 + 10 / 2), rtol=1e-6)


def test_merging_and_taking_keep_it() -> None:
    moments = record_batch(opened("qwen3"), TRACES, ("all",), ("sum", CONTRIBUTION))["all"]
    assert moments.contribution is not None
    both = moments.merge(moments).take([2, 0])
    assert both.contribution is not None
    np.testing.assert_array_equal(both.contribution, 2 * moments.contribution[[2, 0]])
    without = record_batch(opened("qwen3"), TRACES, ("all",), ("sum",))["all"]
    with pytest.raises(InputError, match="moment 'contribution' was not recorded"):
        without.mean_contribution()
