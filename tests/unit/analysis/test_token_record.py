"""The record of tokens against a naive forward each, on every family."""

from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis_samples import model, trace
from expert_oracle import D_EXPERT, visits
from tiny_models import FAMILIES, MIXTURES
from trimtab.analysis.contributions import direct_path, why_no_dose, why_not
from trimtab.analysis.passes import find_readout
from trimtab.analysis.token_record import (
    Hit,
    JudgedResponse,
    TokenRecord,
    TokenRows,
    TokensJob,
    mean_doses,
    pass_tokens,
    tokens_job,
)
from trimtab.directions import Directions
from trimtab.errors import InputError, ModelError
from trimtab.gating.running import RunningProbe
from trimtab.model import LanguageModel, down_weights
from trimtab.model.hook_points import watch_neurons
from trimtab.neurons import Neurons
from trimtab.sampling import prefills
from trimtab.sampling.ways import gaps_hold
from trimtab.steering import Steering

LAST = 2
REFUSED = ("gemma2", "gemma3_text", "olmo2")


def steering_of(opened: LanguageModel, layers: tuple[int, ...] = (LAST, 0, LAST), gain: float = 0.0) -> Steering:
    n = len(layers)
    shift = np.linspace(2.0, -1.5, n).astype(np.float32)
    index = np.arange(n) * 5 + 1
    zeros = np.zeros(n, np.float32)
    neurons = Neurons(np.array(layers), index, np.arange(n, 0, -1.0), shift, zeros, "test", opened.identity)
    return Steering.of(neurons, 1.5, intervention=lambda _: (np.full(n, gain, np.float32), shift))  # type: ignore[arg-type]


def along(opened: LanguageModel, layers: tuple[int, ...] = (LAST,), neurons: Steering | None = None) -> Steering:
    """A direction after each of some layers, beside neurons where they are given."""
    vectors = np.random.default_rng(5).normal(0, 1, (len(layers), opened.identity.d_model)).astype(np.float32)
    added = Directions(np.array(layers), vectors, "test", opened.identity).steering(1.5)
    return added if neurons is None else neurons + added


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


def streams_of(opened: LanguageModel, response: JudgedResponse, steering: Steering) -> tuple[torch.Tensor, torch.Tensor]:
    """What the final norm is given in a steered forward and in an unsteered one, ``[T, d_model]``: they differ by the edits."""
    streams: list[torch.Tensor] = []
    norm = next(m for m in opened.layout.base.modules() if "Norm" in type(m).__name__ and _is_final(opened, m))
    hook = norm.register_forward_pre_hook(lambda module, given: streams.append(given[0][0, 2:]))
    assert logits_of(opened, response, steering).isfinite().all()
    logits_of(opened, JudgedResponse(response.trace, 0.0), steering)
    hook.remove()
    return streams[0], streams[1]


@pytest.mark.parametrize(
    ("family", "kind"),
    [(family, kind) for family in FAMILIES if family not in REFUSED for kind in ("adds", "ablates", "both")]
    + [(family, "direction") for family in FAMILIES],
)
def test_contributions_of_the_last_layer_are_what_its_edits_add_with_the_norm_held(
    family: str, kind: str, tmp_path: Path
) -> None:
    """The oracle takes the residual stream of a steered and of an unsteered forward, which differ by the edits alone."""
    opened = model(family)
    neurons = steering_of(opened, (LAST, LAST, LAST), -1.0 if kind == "ablates" else 0.0)
    steering = {"direction": along(opened), "both": along(opened, neurons=neurons)}.get(kind, neurons)
    response = JudgedResponse(trace("b", 3, 6), 2.0)
    rows, _ = record(opened, {"b": response}, steering, tmp_path / "r").read()
    streams = streams_of(opened, response, steering)
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
    assert np.abs(rows["b"].total).max() > 0
    if len(steering) <= 3:
        np.testing.assert_allclose(rows["b"].contribution.sum(-1), rows["b"].total, rtol=1e-4, atol=1e-5)  # three are all


@pytest.mark.parametrize("family", MIXTURES)
def test_a_neuron_of_an_expert_adds_what_the_routing_lets_through(family: str) -> None:
    """By the experts done one token after the other; nothing where the token is not routed to the neuron's expert."""
    opened = model(family)
    neurons = np.arange(3) * (D_EXPERT + 1)
    steering = replace(steering_of(opened, (LAST, LAST, LAST)), index=neurons)
    response = JudgedResponse(trace("b", 3, 8), 1.0)
    experts = opened.layout.modules[LAST]
    assert experts is not None
    given: list[tuple[torch.Tensor, ...]] = []
    hook = experts.register_forward_pre_hook(lambda module, args: given.append(args))
    logits_of(opened, response, steering)
    hook.remove()
    path = direct_path(opened, steering, find_readout(opened))
    watched = pass_tokens(opened, [response], steering, path).watch
    delta = watched.delta(torch.zeros(8, dtype=torch.int64), torch.arange(2, 10))
    routed = {(visit.token, visit.expert): float(visit.weight) for visit in visits(experts, *given[0])}
    let_through = [[routed.get((position, index // D_EXPERT), 0.0) for index in steering.index] for position in range(3, 10)]
    np.testing.assert_allclose(delta[1:], steering.shift * np.array(let_through), rtol=1e-4, atol=1e-6)
    assert not delta[0].any()
    assert 0 < np.count_nonzero(let_through) < np.size(let_through)


def test_directions_and_mixtures_have_contributions_and_no_dose(tmp_path: Path) -> None:
    opened, mixture = model("qwen3"), model("mixtral")
    found = record(opened, {"b": JudgedResponse(trace("b", 3, 4), 1.0)}, along(opened, (0, LAST)), tmp_path / "d")
    rows, hits = found.read()
    assert found.why_not == ""
    assert "residual stream" in found.why_no_dose
    assert rows["b"].contribution.shape == (4, 2)
    assert not rows["b"].dose.any()
    assert hits == []
    assert "routing weight" in why_no_dose(mixture, steering_of(mixture))
    for one, refused in ((opened, along(opened)), (mixture, steering_of(mixture))):
        with pytest.raises(ModelError, match="cannot be read"):
            mean_doses(one, {}, refused)


@pytest.mark.parametrize("memory", [0, 3])
def test_running_p_fail_is_that_of_a_probe_reading_the_response(memory: int, tmp_path: Path) -> None:
    opened = model("qwen3")
    rng = np.random.default_rng(2)
    layer, index = np.array([2, 0, 1, 0]), np.array([7, 3, 9, 1])
    probe = RunningProbe(layer, index, rng.normal(0, 3, 4), -0.4, memory)
    responses = {f"{n}": JudgedResponse(trace(f"{n}", 4, n, n), 0.0) for n in (2, 5, 9)}
    steered, one = JudgedResponse(trace("s", 3, 7), 2.0), JudgedResponse(trace("o", 3, 1), 0.0)
    steering, gate = steering_of(opened, (0, 1)), probe.gate().with_threshold(0.5)
    rows, _ = record(opened, {**responses, "s": steered, "o": one}, steering, tmp_path / "r", probe=gate).read()
    scores = probe.read(opened, [response.trace for response in responses.values()])
    for name, score in zip(responses, scores, strict=True):
        p = 1 / (1 + np.exp(-score))
        np.testing.assert_allclose(rows[name].p_fail, [*p, p[-1]], rtol=1e-4)  # type: ignore[arg-type]
    np.testing.assert_allclose(rows["o"].p_fail, [1 / (1 + np.exp(0.4))], rtol=1e-5)  # type: ignore[arg-type]
    # of a steered response it is what the model under steering shows, before each layer's own edit
    seen = np.zeros((6, 4), np.float32)
    with ExitStack() as hooks:
        for row, (at, neuron) in enumerate(zip(layer.tolist(), index.tolist(), strict=True)):
            keep = lambda a, row=row: seen.__setitem__((slice(None), row), a[0, 3:, 0])  # noqa: E731
            hooks.callback(watch_neurons(opened.layout, at, torch.tensor([neuron]), keep).remove)
        logits_of(opened, steered, steering)
    p = 1 / (1 + np.exp(-probe.scores(seen)))
    np.testing.assert_allclose(rows["s"].p_fail, [*p, p[-1]], rtol=1e-4)  # type: ignore[arg-type]
    other, _ = record(opened, responses, steering, tmp_path / "without").read()
    assert all(row.p_fail is None for row in other.values())


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


@pytest.mark.parametrize("scope", ["generated", "last-and-generated", "all"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in REFUSED])
def test_a_common_beginning_is_read_once_and_nothing_is_recorded_otherwise(
    family: str, scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = model(family)
    rng = np.random.default_rng(2)
    probe = RunningProbe(np.array([2, 0, 1, 0]), np.array([7, 3, 9, 1]), rng.normal(0, 3, 4), -0.4, 0)
    gate = probe.gate().with_threshold(0.5) if family not in MIXTURES else None
    beginning = tuple(rng.integers(2, 90, 11).tolist())
    responses = {}
    for n in range(6):
        own = trace(f"{n}", 3 + n % 2, 4 + n)
        responses[f"{n}"] = JudgedResponse(replace(own, prompt_ids=(*beginning, n + 2, *own.prompt_ids)), 2.0 * (n % 2))
    steering = replace(steering_of(opened, (0, 1)), scope=scope)  # type: ignore[arg-type]

    def recorded(saved: int) -> tuple[dict[str, TokenRows], list[list[Hit]], list[tuple[int, ...]]]:
        monkeypatch.setattr(prefills, "SAVED", saved)
        shapes: list[tuple[int, ...]] = []
        hook = opened.layout.base.register_forward_hook(
            lambda _, given, output: shapes.append(tuple(output.last_hidden_state.shape[:2]))
        )
        job = tokens_job(opened, responses, steering, tmp_path / str(saved), batch_tokens=1000, probe=gate)
        job.run(opened, job.missing(), lambda items, tokens: None)
        hook.remove()
        return *TokenRecord(tmp_path / str(saved)).read(), shapes

    (found, hits, shapes), (whole, expected, _) = recorded(1), recorded(10**9)
    assert ((1, len(beginning)) in shapes) is (gaps_hold(opened) and scope != "all")
    assert found.keys() == whole.keys()
    for name, row in whole.items():
        for field in fields(row):
            one, other = getattr(found[name], field.name), getattr(row, field.name)
            if other is not None:
                np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4, err_msg=f"{name} {field.name}")
    assert [[(hit.response, hit.token) for hit in each] for each in hits] == [
        [(hit.response, hit.token) for hit in e] for e in expected
    ]
