"""The record of tokens against a naive forward each, on every family."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis_samples import model, trace
from tiny_models import FAMILIES
from trimtab.analysis.contributions import direct_path, why_not
from trimtab.analysis.passes import find_readout
from trimtab.analysis.token_record import JudgedResponse, TokenRecord, TokensJob, tokens_job
from trimtab.errors import InputError, ModelError
from trimtab.model import LanguageModel, down_weights
from trimtab.model.hook_points import decoder_blocks, residual
from trimtab.neurons import Neurons
from trimtab.steering import Steering

LAST = 2
REFUSED = ("gemma2", "gemma3_text", "olmo2", "qwen3_moe", "mixtral")


def steering_of(opened: LanguageModel, layers: tuple[int, ...] = (LAST, 0, LAST), gain: float = 0.0) -> Steering:
    n = len(layers)
    shift = np.linspace(2.0, -1.5, n).astype(np.float32)
    index = np.arange(n) * 5 + 1
    zeros = np.zeros(n, np.float32)
    neurons = Neurons(np.array(layers), index, np.arange(n, 0, -1.0), shift, zeros, "test", opened.identity)
    return Steering.of(neurons, 1.5, intervention=lambda _: (np.full(n, gain, np.float32), shift))  # type: ignore[arg-type]


def record(
    opened: LanguageModel, responses: dict[str, JudgedResponse], steering: Steering, folder: Path, **options
) -> TokenRecord:
    job = tokens_job(opened, responses, steering, folder, batch_tokens=40, **options)
    job.run(opened, job.missing(), lambda items, tokens: None)
    return TokenRecord(folder)


def logits_of(opened: LanguageModel, response: JudgedResponse, steering: Steering) -> torch.Tensor:
    """``[T, vocab]`` by one forward of one row."""
    one = response.trace
    ids = torch.tensor([[*one.prompt_ids, *one.response_ids[:-1]]])
    with torch.inference_mode():
        if response.strength == 0:
            found = opened.hf_model(input_ids=ids, use_cache=False).logits
        else:
            with steering.attach(opened, strength=response.strength, prompt_lengths=[len(one.prompt_ids)]):
                found = opened.hf_model(input_ids=ids, use_cache=False).logits
    return found[0, len(one.prompt_ids) - 1 :].float()


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_are_those_of_a_forward_of_the_response_alone(family: str, tmp_path: Path) -> None:
    opened = model(family)
    steering = steering_of(opened)
    readout = find_readout(opened)
    responses = {
        "bare": JudgedResponse(trace("a", 4, 6), 0.0),
        "steered": JudgedResponse(trace("b", 3, 5), 2.0),
        "short": JudgedResponse(trace("c", 5, 1), 2.0),
    }
    rows, _ = record(opened, responses, steering, tmp_path / "r", why_not=why_not(opened, steering, readout)).read()
    for name, response in responses.items():
        expected = torch.log_softmax(logits_of(opened, response, steering), -1)
        chosen = torch.tensor(response.trace.response_ids)
        torch.testing.assert_close(
            torch.from_numpy(rows[name].logprob), expected.gather(-1, chosen[:, None])[:, 0], rtol=1e-3, atol=1e-4
        )
        best = expected.topk(5, -1)
        torch.testing.assert_close(torch.from_numpy(rows[name].alternative_logprob), best.values, rtol=1e-3, atol=1e-4)
    # the first token comes from the prompt, which the scope leaves alone
    assert rows["steered"].acted.tolist() == [False, True, True, True, True]
    assert not rows["bare"].acted.any()
    assert not rows["bare"].total.any()


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in REFUSED])
@pytest.mark.parametrize("gain", [0.0, -1.0])
def test_contributions_of_the_last_layer_are_what_its_edits_add_with_the_norm_held(
    family: str, gain: float, tmp_path: Path
) -> None:
    """The oracle takes the residual stream of a steered and of an unsteered forward, which differ by the edits alone."""
    opened = model(family)
    steering = steering_of(opened, (LAST, LAST, LAST), gain)
    response = JudgedResponse(trace("b", 3, 6), 2.0)
    rows, _ = record(opened, {"b": response}, steering, tmp_path / "r").read()
    streams: list[torch.Tensor] = []
    hook = decoder_blocks(opened.layout)[-1].register_forward_hook(
        lambda block, given, output: streams.append(residual(output)[0, 2:])
    )
    steered = logits_of(opened, response, steering)
    logits_of(opened, JudgedResponse(response.trace, 0.0), steering)
    hook.remove()
    edit = (streams[0] - streams[1]).double().numpy()
    readout = find_readout(opened)
    path = direct_path(opened, steering, readout)
    head = opened.hf_model.get_output_embeddings()
    with torch.inference_mode():
        norm = next(m for m in opened.layout.base.modules() if "Norm" in type(m).__name__ and _is_final(opened, m))
        hidden = norm(streams[0])
        bias = norm(torch.zeros_like(streams[0]))
        given = streams[0] - streams[0].mean(-1, keepdim=True) if path.norm is not None and path.norm.centred else streams[0]
        factor = ((hidden - bias) / given).double().numpy()
    centred = edit - edit.mean(-1, keepdims=True) if path.norm is not None and path.norm.centred else edit
    towards = head.weight[list(response.trace.response_ids)].detach().double().numpy()
    expected = (towards * factor * centred).sum(-1) * readout.scale
    np.testing.assert_allclose(rows["b"].total, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(rows["b"].contribution.sum(-1), rows["b"].total, rtol=1e-4, atol=1e-5)  # three neurons are all
    assert steered.isfinite().all()


def _is_final(opened: LanguageModel, module: torch.nn.Module) -> bool:
    seen: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda m, given, output: seen.append(output))
    with torch.inference_mode():
        last = opened.layout.base(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).last_hidden_state
    hook.remove()
    return bool(seen) and torch.equal(seen[-1], last)


def test_the_dose_is_the_edit_beside_what_the_ffn_writes(tmp_path: Path) -> None:
    opened = model("qwen3")
    steering = steering_of(opened, (LAST,))
    response = JudgedResponse(trace("b", 3, 4), 2.0)
    rows, _ = record(opened, {"b": response}, steering, tmp_path / "r").read()
    outputs: list[torch.Tensor] = []
    hook = opened.layout.modules[LAST].register_forward_hook(lambda m, given, output: outputs.append(output[0, 2:]))
    logits_of(opened, JudgedResponse(response.trace, 0.0), steering)
    hook.remove()
    edit = 2.0 * steering.shift[0] * np.linalg.norm(down_weights(opened, [LAST])[LAST][:, steering.index[0]])
    written = outputs[0].norm(dim=-1).numpy()
    np.testing.assert_allclose(rows["b"].dose, [0.0, *(edit / written[1:])], rtol=1e-4)


@pytest.mark.parametrize("family", REFUSED)
def test_an_architecture_without_one_path_says_so(family: str) -> None:
    opened = model(family)
    steering = steering_of(opened)
    assert why_not(opened, steering, find_readout(opened))
    with pytest.raises(ModelError):
        direct_path(opened, steering, find_readout(opened))


def test_the_hits_are_the_tokens_of_unsteered_responses_with_the_largest_activations(tmp_path: Path) -> None:
    opened = model("qwen3")
    steering = steering_of(opened, (0,))
    responses = {name: JudgedResponse(trace(name, 4, 9, ord(name)), 0.0) for name in "abc"} | {
        "s": JudgedResponse(trace("s", 4, 9), 1.0)
    }
    _, hits = record(opened, responses, steering, tmp_path / "r").read()
    seen: list[tuple[float, str, int]] = []
    for name in "abc":
        found: list[torch.Tensor] = []
        hook = opened.layout.modules[0].register_forward_pre_hook(lambda m, given, found=found: found.append(given[0]))
        logits_of(opened, responses[name], steering)
        hook.remove()
        seen += [(abs(float(found[0][0, 4 + t, 1])), name, t) for t in range(8)]
    best = sorted(seen, reverse=True)[:12]
    assert [(hit.response, hit.token) for hit in hits[0]] == [(name, t) for _, name, t in best]
    assert all(name != "s" for name, *_ in hits[0])


def test_a_killed_job_goes_on_with_the_parts_that_are_missing(tmp_path: Path) -> None:
    opened = model("qwen3")
    steering = steering_of(opened)
    responses = {name: JudgedResponse(trace(name, 4, 6), 1.0) for name in "abcdefg"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    record(opened, responses, steering, whole)
    job = tokens_job(opened, responses, steering, cut, batch_tokens=40)
    assert isinstance(job, TokensJob)
    job.run(opened, job.missing()[:1], lambda items, tokens: None)
    record(opened, responses, steering, cut)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in cut.iterdir()}


def test_a_response_without_a_token_is_refused(tmp_path: Path) -> None:
    opened = model("qwen3")
    with pytest.raises(InputError, match="no token to record"):
        tokens_job(opened, {"a": JudgedResponse(trace("a", 4, 0), 0.0)}, steering_of(opened), tmp_path, batch_tokens=40)
