"""Every family that trimtab names, in attach, generate, gate, recording and sampler, against plain hooks and a slow mixture.

What is known of a family stands in :data:`EXPECTED`; the hooks know nothing of trimtab's layouts.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.testing import assert_close
from transformers import PreTrainedModel

from causal_families import NAMED, VOCABULARY, named_model
from tiny_models import word_tokenizer
from trimtab.gate import ALWAYS, Gate
from trimtab.model import LanguageModel, attach, check_model
from trimtab.recording.forward import record_batch
from trimtab.sampling import SamplingSettings, way_of
from trimtab.sampling.batch import Request
from trimtab.sampling.generate import generate_batch
from trimtab.steering import PositionScope, Steering
from trimtab.traces import Trace

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
SCOPES: tuple[PositionScope, ...] = ("generated", "last-and-generated", "all")
PROMPTS = (tuple(range(5, 13)), tuple(range(40, 44)), tuple(range(90, 101)))
NEW = 4
DENSE, EXPERTS = 112, 4 * 48


@dataclass(frozen=True)
class Layers:
    """What a family's layers are: widths, and where their neurons are in a block."""

    widths: tuple[int, ...]
    dense: str = "mlp.down_proj"
    experts: str = "mlp.experts"
    sparse: tuple[bool, ...] = (False,) * 4
    unseen: tuple[str, ...] = ()


def dense(path: str = "mlp.down_proj", widths: tuple[int, ...] = (DENSE,) * 4) -> Layers:
    return Layers(widths, dense=path)


def mixture(
    width: int = EXPERTS,
    experts: str = "mlp.experts",
    dense_layers: tuple[int, ...] = (),
    unseen: str = "",
    down: str = "mlp.down_proj",
) -> Layers:
    sparse = tuple(layer not in dense_layers for layer in range(4))
    widths = tuple(width if one else DENSE for one in sparse)
    return Layers(widths, down, experts, sparse, (f"{unseen} of {sum(sparse)} layers",) if unseen else ())


WIDE = 4 * DENSE
EXPECTED: dict[str, Layers] = {
    "qwen3_5_text": dense(),
    "qwen3_5_moe_text": mixture(unseen="mlp.shared_expert"),
    "qwen3_next": mixture(unseen="mlp.shared_expert"),
    "qwen2_moe": mixture(unseen="mlp.shared_expert"),
    "olmoe": mixture(WIDE),
    "minimax": mixture(WIDE),
    "minimax_m2": mixture(WIDE),
    "deepseek_v2": mixture(dense_layers=(0,), unseen="mlp.shared_experts"),
    "deepseek_v3": mixture(dense_layers=(0,), unseen="mlp.shared_experts"),
    "glm4": dense(),
    "glm4_moe": mixture(dense_layers=(0,), unseen="mlp.shared_experts"),
    "kimi_linear": mixture(dense_layers=(0,), unseen="mlp.shared_experts"),
    "hunyuan_v1_dense": dense(),
    "hunyuan_v1_moe": mixture(WIDE, unseen="mlp.shared_mlp"),
    "ernie4_5": dense(),
    "ernie4_5_moe": mixture(dense_layers=(0,), unseen="mlp.shared_experts"),
    "gpt_oss": mixture(WIDE),
    "llama4_text": mixture(WIDE, "feed_forward.experts", unseen="feed_forward.shared_expert"),
    "gemma3n_text": dense(),
    "gemma4_text": dense(),
    "granite": dense(),
    "granitemoehybrid": mixture(WIDE, "block_sparse_moe.experts", unseen="shared_mlp"),
    "smollm3": dense(),
    "olmo3": dense(),
    "falcon_h1": dense("feed_forward.down_proj"),
    "lfm2": dense("feed_forward.w2", (256,) * 4),
    "lfm2_moe": mixture(experts="feed_forward.experts", dense_layers=(0,), down="feed_forward.w2"),
    "nemotron_h": dense("mixer.down_proj", (0, DENSE, 0, DENSE)),
    "ministral3": dense(),
    "phimoe": mixture(WIDE),
    "qwen3_next, dense": dense(),
    "qwen3_moe, one dense": mixture(dense_layers=(1,)),
    "deepseek_v3, dense": dense(),
    "llama4_text, every other dense": mixture(
        WIDE, "feed_forward.experts", (0, 2), "feed_forward.shared_expert", "feed_forward.down_proj"
    ),
    "gemma4_text, double wide": dense(widths=(DENSE, DENSE, 2 * DENSE, 2 * DENSE)),
    "gemma4_text, mixture": mixture(experts="experts", unseen="mlp"),
    "granitemoehybrid, dense": dense("shared_mlp.output_linear"),
    "nemotron_h, mixture": Layers(
        (0, EXPERTS, 0, EXPERTS), "", "mixer.experts", (False, True, False, True), ("mixer.shared_experts of 2 layers",)
    ),
}
QUICK = ("gpt_oss", "llama4_text, every other dense", "nemotron_h, mixture")
"""One family of each form: the others are compared with plain hooks by the slow tests."""


@dataclass(frozen=True)
class Subject:
    """A family's model, opened, and the modules of its layers found by their names."""

    lm: LanguageModel
    layers: Layers
    modules: tuple[nn.Module | None, ...]

    @property
    def hf(self) -> PreTrainedModel:
        return self.lm.hf_model


def opened(name: str) -> Subject:
    model, layers = named_model(name), EXPECTED[name]
    blocks = model.model.layers
    paths = [
        layers.experts if sparse else layers.dense if width else None
        for width, sparse in zip(layers.widths, layers.sparse, strict=True)
    ]
    modules = tuple(None if path is None else block.get_submodule(path) for block, path in zip(blocks, paths, strict=True))
    return Subject(LanguageModel.of(model, word_tokenizer(VOCABULARY, pad_token="w0", eos_token="w2"), name), layers, modules)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMED],
)
def subject(request) -> Subject:
    return opened(request.param)


Edit = Callable[[int, Tensor, Tensor], Tensor]
"""Layer, number of each token ``[token]``, and activations ``[token, width]`` of those tokens with NaN in experts not routed to;
returns what they become."""


@contextmanager
def plain_hooks(subject: Subject, edit: Edit) -> Iterator[None]:
    """Edit the activations of every layer, with hooks that go by names and shapes alone."""
    with ExitStack() as stack:
        for layer, module in enumerate(subject.modules):
            if module is None:
                continue
            if subject.layers.sparse[layer]:
                stack.callback(module.register_forward_hook(partial(_experts_hook, layer, edit)).remove)
            else:
                stack.callback(module.register_forward_pre_hook(partial(_dense_hook, layer, edit)).remove)
        yield


def _dense_hook(layer: int, edit: Edit, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
    flat = args[0].flatten(0, -2)
    return (edit(layer, torch.arange(len(flat)), flat.clone()).view(args[0].shape),)


def _experts_hook(layer: int, edit: Edit, experts: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """One token after the other through one expert after the other; what a loop says has to be what the library said."""
    if len(args) == 1:  # Llama 4: every expert gets all tokens, scaled
        by_expert = args[0].view(experts.num_experts, -1, args[0].shape[-1])
        routes = [
            [(e, 1.0, by_expert[e, t]) for e in range(len(by_expert)) if by_expert[e, t].any()] for t in range(by_expert.shape[1])
        ]
    else:
        hidden, chosen, weights = args
        routes = [[(int(e), weights[t, slot], hidden[t]) for slot, e in enumerate(chosen[t])] for t in range(len(hidden))]
    d_expert = _d_expert(experts)
    plain, edited = [], []
    for token, route in enumerate(routes):
        wide = torch.full((d_expert * experts.num_experts,), torch.nan)
        for expert, _, given in route:
            wide[expert * d_expert : (expert + 1) * d_expert] = _activation(experts, expert, given)
        after = edit(layer, torch.tensor([token]), wide[None].clone())[0]
        for total, values in ((plain, wide), (edited, after)):
            parts = [
                weight * _down(experts, expert, values[expert * d_expert : (expert + 1) * d_expert])
                for expert, weight, _ in route
            ]
            total.append(sum(parts))
    plain, edited = torch.stack(plain), torch.stack(edited)
    if len(args) == 1:
        assert_close(output.view(by_expert.shape).sum(0), plain, rtol=1e-4, atol=1e-4)
        return torch.cat((edited[None], torch.zeros_like(by_expert[1:]))).view(output.shape)
    assert_close(output, plain, rtol=1e-4, atol=1e-4)
    return edited


def _is_transposed(experts: nn.Module) -> bool:
    return type(experts).__name__ in ("GptOssExperts", "Llama4TextExperts")


def _d_expert(experts: nn.Module) -> int:
    return experts.down_proj.shape[1 if _is_transposed(experts) else 2]


def _activation(experts: nn.Module, expert: int, given: Tensor) -> Tensor:
    if type(experts).__name__ == "GptOssExperts":
        both = given @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
        gate, up = both[::2].clamp(max=experts.limit), both[1::2].clamp(-experts.limit, experts.limit)
        return (up + 1) * gate * torch.sigmoid(gate * experts.alpha)
    if type(experts).__name__ == "NemotronHExperts":
        return torch.relu(linear(given, experts.up_proj[expert])) ** 2
    both = given @ experts.gate_up_proj[expert] if _is_transposed(experts) else linear(given, experts.gate_up_proj[expert])
    half = len(both) // 2
    return experts.act_fn(both[:half]) * both[half:]


def _down(experts: nn.Module, expert: int, values: Tensor) -> Tensor:
    if not _is_transposed(experts):
        return linear(values, experts.down_proj[expert])
    bias = experts.down_proj_bias[expert] if type(experts).__name__ == "GptOssExperts" else 0
    return values @ experts.down_proj[expert] + bias


def steering_of(subject: Subject, scope: PositionScope) -> Steering:
    """Neurons at both ends of every layer that has some, with gains and shifts that turn tokens."""
    places = [
        (layer, index) for layer, width in enumerate(subject.layers.widths) if width for index in (3, width // 2, width - 1)
    ]
    layer, index = np.array(places).T
    gain, shift = np.resize([0.5, -1.0, 0.0], len(layer)), np.resize([2.0, -3.0, 1.5, 2.5], len(layer))
    return Steering(layer, index, gain.astype(np.float32), shift.astype(np.float32), 1.5, scope, ALWAYS, subject.lm.identity)


@torch.no_grad()
def expected_logits(subject: Subject, steering: Steering, ids: tuple[int, ...], prompt: int, scope: PositionScope) -> Tensor:
    """Logits of one row alone in one forward without a cache, steered by plain hooks, float32 ``[seq, vocabulary]``."""
    first = {"generated": prompt, "last-and-generated": prompt - 1, "all": 0}[scope]

    def edit(layer: int, token: Tensor, values: Tensor) -> Tensor:
        for k in np.flatnonzero(steering.layer == layer):
            old = values[:, steering.index[k]]
            new = old + steering.strength * (float(steering.gain[k]) * old + float(steering.shift[k]))
            values[:, steering.index[k]] = torch.where(token >= first, new, old)
        return values

    with plain_hooks(subject, edit):
        return subject.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def generated(
    subject: Subject, prompts: tuple[tuple[int, ...], ...], use_cache: bool = True
) -> tuple[list[tuple[int, ...]], Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    output = subject.hf.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        pad_token_id=0,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return [tuple(row) for row in output.sequences[:, width:].tolist()], torch.stack(output.logits, 1)


def test_the_table_names_every_family():
    assert set(EXPECTED) == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_a_family_that_passed_still_passes(name):
    one = opened(name)
    layout = one.lm.layout
    assert tuple(layer.width for layer in layout.layers) == one.layers.widths
    assert tuple(layer.sparse for layer in layout.layers) == one.layers.sparse
    assert layout.modules == one.modules
    assert layout.unseen == one.layers.unseen
    diagnosis = check_model(one.lm)
    assert diagnosis.ok, diagnosis.summary()
    assert way_of(one.lm).by_generate == (name == "minimax"), "MiniMax takes a cache of its own class alone"


@pytest.mark.parametrize("scope", SCOPES)
def test_attach_does_what_plain_hooks_do(subject, scope):
    steering = steering_of(subject, scope)
    width = max(map(len, PROMPTS))
    rows = [(*prompt, *range(20, 20 + NEW)) for prompt in PROMPTS]
    ids = torch.tensor([[*row, *[0] * (width + NEW - len(row))] for row in rows])
    mask = torch.tensor([[*[1] * len(row), *[0] * (width + NEW - len(row))] for row in rows])
    with attach(subject.lm, steering, prompt_lengths=[len(prompt) for prompt in PROMPTS]), torch.no_grad():
        together = subject.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
    for number, (prompt, row) in enumerate(zip(PROMPTS, rows, strict=True)):
        expected = expected_logits(subject, steering, row, len(prompt), scope)
        plain = subject.hf(input_ids=torch.tensor([row]), use_cache=False).logits[0]
        assert not torch.allclose(expected, plain, rtol=1e-2, atol=1e-2)
        assert_close(together[number, : len(row)], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("padded", "use_cache"), [(True, True), (False, True), (False, False)])
def test_generate_does_what_plain_hooks_do(subject, scope, padded, use_cache):
    steering = steering_of(subject, scope)
    prompts = PROMPTS if padded else PROMPTS[:1]
    with attach(subject.lm, steering):
        tokens, logits = generated(subject, prompts, use_cache)
    for row, prompt in enumerate(prompts):
        ids = (*prompt, *tokens[row][:-1])
        expected = expected_logits(subject, steering, ids, len(prompt), scope)[len(prompt) - 1 :]
        assert_close(logits[row], expected, rtol=1e-3, atol=1e-3)


def test_the_gate_reads_what_plain_hooks_see(subject):
    seen: dict[int, Tensor] = {}

    def look(layer: int, token: Tensor, values: Tensor) -> Tensor:
        if layer not in seen or token[0] >= len(seen[layer]):  # experts come token by token
            seen[layer] = torch.cat((seen[layer], values)) if layer in seen else values.clone()
        return values

    steering = steering_of(subject, "generated")
    weight = np.resize([0.8, -1.1, 0.6], len(steering)).astype(np.float32)
    gate = Gate("logistic", layer=steering.layer, index=steering.index, weight=weight, bias=0.1, threshold=0.5)
    with attach(subject.lm, steering.with_gate(gate)) as attachment:
        generated(subject, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        seen.clear()
        with plain_hooks(subject, look), torch.no_grad():
            subject.hf(input_ids=torch.tensor([prompt]), use_cache=False)
        features = [
            seen[layer][-1, index].nan_to_num().item() for layer, index in zip(steering.layer, steering.index, strict=True)
        ]
        expected = gate.probability(np.array([features], np.float32))[0]
        assert attachment.probability[row].item() == pytest.approx(expected, abs=1e-4)


def test_a_recording_is_what_plain_hooks_sum_up(subject):
    traces = [Trace(str(n), "p", n, prompt, (20, 21, 22, 23), "", "stop") for n, prompt in enumerate(PROMPTS)]
    moments = record_batch(subject.lm, traces, ("response", "prompt"), ("sum", "magnitude", "square"))
    for row, prompt in enumerate(PROMPTS):
        ids, seen = (*prompt, 20, 21, 22), {}

        def look(layer: int, token: Tensor, values: Tensor, seen: dict[int, list[Tensor]] = seen) -> Tensor:
            seen.setdefault(layer, []).append(values.clone())
            return values

        with plain_hooks(subject, look), torch.no_grad():
            subject.hf(input_ids=torch.tensor([ids]), use_cache=False)
        for scope, span in (("response", slice(len(prompt), None)), ("prompt", slice(len(prompt)))):
            found = moments[scope]
            mean = found.mean()[row]
            for layer, width in enumerate(subject.layers.widths):
                values = torch.cat(seen[layer])[span] if width else torch.empty(len(ids), 0)
                assert_close(found.sum[row, layer, :width], values.nansum(0).numpy(), rtol=1e-4, atol=1e-4)
                assert_close(found.magnitude[row, layer, :width], values.abs().nansum(0).numpy(), rtol=1e-4, atol=1e-4)
                assert_close(found.square[row, layer, :width], values.square().nansum(0).numpy(), rtol=1e-4, atol=1e-4)
                assert_close(mean[layer, :width], values.nanmean(0).numpy(), rtol=1e-4, atol=1e-4, equal_nan=True)
                assert np.isnan(mean[layer, width:]).all(), "a neuron that a layer has not has no mean"


def test_the_sampler_does_what_plain_hooks_do(subject):
    steering = steering_of(subject, "last-and-generated")
    requests = [Request(str(n), prompt) for n, prompt in enumerate(PROMPTS)]
    subject.hf.generation_config.eos_token_id = list(range(0, VOCABULARY, 4))  # rows end at different steps and are dropped
    settings = SamplingSettings(temperature=0.0, max_new_tokens=6)
    results = generate_batch(subject.lm, requests, settings, steering)
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = (*prompt, *result.response_ids[:-1])
        logits = expected_logits(subject, steering, ids, len(prompt), "last-and-generated")[len(prompt) - 1 :]
        margin = logits.max(-1).values - logits.gather(1, torch.tensor(result.response_ids)[:, None])[:, 0]
        assert margin.max() < 1e-3


def test_the_page_of_models_calls_every_named_family_proved():
    lines = PAGE.read_text().splitlines()
    proved = {line.split("`")[1] for line in lines if line.startswith("| `") and line.split(" | ")[1] == "proved"}
    assert set(NAMED) <= proved


@pytest.mark.slow
def test_whatever_the_page_of_models_calls_proved_still_is():
    """Some ten minutes: every architecture of the installed transformers."""
    script = PAGE.with_name("make_models.py")
    run = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
