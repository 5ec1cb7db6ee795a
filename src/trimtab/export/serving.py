"""The verb ``verify_serving``: a steering in vLLM, in two minutes, against the transformers hooks and against vLLM without it.

Two engines run in this process on one new compile cache: first one without the plugin, whose graphs therefore lie there, then one
with it. Compared are log probabilities of the tokens that vLLM chose, because those of the whole vocabulary would take minutes.
"""

import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.export.engines import hooks_engine
from trimtab.export.record import package_versions
from trimtab.export.target import Answered
from trimtab.export.verify import TOLERANCE
from trimtab.gate import ALWAYS, RunningGate
from trimtab.gating.reading import predict
from trimtab.model import LanguageModel, attach, check_identity
from trimtab.progress import Advance, Progress, silent
from trimtab.sampling.vllm_engine import starting_vllm, vllm_environment
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import KEY, PluginConfig, Side, check_version
from trimtab.vllm_plugin.offline import courses, gate_outputs, open_llm, status

LOGPROB = {"float32": 1e-3, "bfloat16": 0.15, "float16": 0.05}
"""The largest difference of two log probabilities of one token, in nats, by dtype; and below it two tokens are a near tie."""
P_FAIL = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02}
"""The largest difference of p(fail) by dtype."""
NEW_TOKENS, PAIRS, PASS_TOKENS = 16, 7, 48
BATCHES = (1, 32)
SECONDS = 20.0
"""For all passes of one batch; fewer tokens are generated where the model is slow."""


class Row(NamedTuple):
    """One response.

    Args:
        tokens: int64 ``[T]``.
        logprob: float64 ``[T]``, nats, of each.
        gap: float64 ``[T]``, lead of the best token over the second.
    """

    tokens: NDArray[np.int64]
    logprob: NDArray[np.float64]
    gap: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """One check: its name, whether it passed, and what was seen."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Throughput over that of an engine without the plugin, pair by pair on the same requests: quartiles and median.

    Args:
        batch: requests at once.
        what: ``idle``, unsteered requests in an engine with the plugin; or ``steered``, all of them steered.
        low, median, high: ratios; 1 is no cost.
    """

    batch: int
    what: Literal["idle", "steered"]
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class ServingProof:
    """The results of the checks.

    Args:
        facts: versions, machine, engine and steering, as text.
        lines: the checks.
        costs: figures, which pass no judgement.
        pairs: how many pairs of passes each ratio is of.
    """

    facts: dict[str, str]
    lines: tuple[Line, ...]
    costs: tuple[Cost, ...]
    pairs: int = PAIRS

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that did not pass."""
        return tuple(line.name for line in self.lines if not line.ok)

    def text(self) -> str:
        """A block to paste into an issue."""
        rows = [f"{name:<14}{value}" for name, value in self.facts.items()]
        rows += [f"{'ok' if line.ok else 'FAILED':<14}{line.name}: {line.text}" for line in self.lines]
        rows += [
            f"{'decode':<14}batch {cost.batch}, {cost.what}: {cost.median:.3f} of the throughput without the plugin "
            f"({cost.low:.3f} to {cost.high:.3f}), {self.pairs} pairs"
            for cost in self.costs
        ]
        rows.append(f"{'result':<14}{'FAILED: ' + ', '.join(self.failed) if self.failed else 'ok'}")
        return "\n".join(rows)


def compare(name: str, said: str, seen: Sequence[Row], expected: Sequence[Row], tolerance: float, forced: bool = False) -> Line:
    """Compare responses with those that they should be.

    Args:
        said: what is compared, for the line.
        tolerance: in nats; two tokens with a smaller gap are a near tie, after which two responses may part.
        forced: whether the expected tokens were each chosen after the seen ones, so that all are compared, also after a near tie.
    """
    differing, ties, largest = 0, 0, 0.0
    for one, other in zip(seen, expected, strict=True):
        apart = np.flatnonzero(one.tokens != other.tokens)
        near = other.gap[apart] < 2 * tolerance
        end = len(one.tokens) if forced or not len(apart) else int(apart[0])
        differing += int((~near).any() if forced else len(apart) > 0 and not near[0])
        ties += int(near.any() if forced else len(apart) > 0 and near[0])
        largest = max(largest, float(np.abs(one.logprob[:end] - other.logprob[:end]).max(initial=0.0)))
    parted = f", {ties} from a near tie on" if ties else ""
    return Line(
        name,
        not differing and largest <= tolerance,
        f"{said}: {len(seen) - differing} of {len(seen)} responses have the same tokens{parted}; log probabilities within "
        f"{largest:.1e}, accepted {tolerance:g}",
    )


def effect_line(seen: Sequence[NDArray[np.float64]], expected: Sequence[NDArray[np.float64]], tolerance: float) -> Line:
    """Compare effects, steered minus unsteered log probabilities of the tokens of steered responses."""
    engine, hooks = np.concatenate(seen), np.concatenate(expected)
    size, acts = float(np.linalg.norm(hooks)), float(np.abs(engine).max(initial=0.0))
    difference = float(np.linalg.norm(engine - hooks)) / size if size else float("inf")
    if not size or not acts:
        return Line("steering", False, "it changes no log probability " + ("in vLLM" if size else "under the hooks"))
    return Line(
        "steering",
        difference <= tolerance,
        f"changes log probabilities by up to {acts:.3g}; its effect differs from the hooks' by {difference:.1e} of it, accepted "
        f"{tolerance:g}",
    )


def gate_line(
    label: str, seen: Sequence[float | None], fired: Sequence[bool], expected: Sequence[float], cutoff: float, tolerance: float
) -> Line:
    """Compare p(fail) and the decisions."""
    if None in seen:
        return Line("gate", False, f"{label}: {seen.count(None)} of {len(seen)} prompts were not read")
    engine, hooks = np.array(seen, float), np.array(expected)
    clear = np.abs(hooks - cutoff) > tolerance
    wrong = int((np.array(fired) != (hooks >= cutoff))[clear].sum())
    largest = float(np.abs(engine - hooks).max())
    return Line(
        "gate",
        largest <= tolerance and not wrong,
        f"{label}: p(fail) of {len(seen)} prompts within {largest:.1e} of the hooks', accepted {tolerance:g}; {sum(fired)} fire, "
        f"{wrong} otherwise than in the hooks",
    )


def course_line(
    label: str,
    seen: Sequence[NDArray[np.float32] | None],
    expected: Sequence[NDArray[np.float32]],
    levels: Sequence[float],
    tolerance: float,
) -> Line:
    """Compare what a running gate has read and decided in each response, up to the first token that is near one of its levels.

    Args:
        seen, expected: p(fail) and g, float32 ``[token, 2]`` a response; those of an engine may have one token more.
        levels: thresholds of p(fail).
    """
    if any(one is None for one in seen):
        return Line("gate", False, f"{label}: {sum(one is None for one in seen)} of {len(seen)} responses were not read")
    tokens = wrong = steered = 0
    largest = 0.0
    for one, other in zip((one for one in seen if one is not None), expected, strict=True):
        near = np.flatnonzero(np.abs(other[:, :1] - np.array(levels)).min(1) <= tolerance)
        end = int(near[0]) + 1 if len(near) else len(other)
        p, g = np.abs(one[:end] - other[:end]).T
        tokens, steered, wrong = tokens + end, steered + int((other[:end, 1] > 0).sum()), wrong + int((g > 2 * tolerance).sum())
        largest = max(largest, float(p.max(initial=0.0)))
    return Line(
        "gate",
        largest <= tolerance and not wrong,
        f"{label}: p(fail) after {tokens} tokens of {len(seen)} responses within {largest:.1e} of the hooks', accepted "
        f"{tolerance:g}; {steered} are steered, {wrong} otherwise than by the hooks",
    )


def verify_serving(
    model: LanguageModel,
    artifact: str | os.PathLike[str],
    steering: Steering,
    prompts: Sequence[tuple[int, ...]],
    *,
    side: Side = "input",
    enforce_eager: bool = False,
    progress: Progress = silent,
) -> ServingProof:
    """Start vLLM without the plugin and then with it, on one compile cache, and compare.

    Args:
        model: in transformers, in the dtype to serve in.
        artifact: folder or hub id of the steering, as a server is given it.
        steering: the same, read.
        prompts: token ids.
        side: of the down projection that is edited.
        enforce_eager: compile nothing.

    Raises:
        MismatchError: the steering was made for other weights.
        InputError: no prompt.
        ModelError: vLLM is not installed, of a version that was not tested, or cannot run or steer this model.
    """
    if not prompts:
        raise InputError("serving is verified on at least one prompt; none was given")
    check_identity(steering.model, model.identity)
    check_version()
    config = PluginConfig(steerings={"s": str(artifact)}, side=side)
    with progress("verify serving", 4, 0) as advance, _engines(model, config, prompts, enforce_eager, advance) as engines:
        bare, plugin, graphs = engines
        lines = [_graph(plugin, graphs, enforce_eager), *_answers(model, steering, prompts, bare, plugin)]
        advance(1, 0)
        costs = _costs(bare, plugin, prompts[0])
        facts = _facts(model, steering, plugin)
        advance(1, 0)
    return ServingProof(facts, tuple(lines), tuple(costs))


@contextmanager
def _engines(
    model: LanguageModel, config: PluginConfig, prompts: Sequence[tuple[int, ...]], enforce_eager: bool, advance: Advance
) -> Iterator[tuple[Any, Any, tuple[int, int]]]:
    """Engines without and with the plugin, and the graphs of each in the cache; they share vLLM's groups, and so end together."""
    longest = max(map(len, prompts)) + max(2 * NEW_TOKENS, PASS_TOKENS) + 1
    given: dict[str, Any] = {
        "revision": model.identity.revision,
        "dtype": _dtype(model),
        "max_model_len": min(longest, model.hf_model.config.get_text_config().max_position_embeddings),
        "max_num_seqs": max(BATCHES),
        "max_logprobs": 2,
        "kv_cache_memory_bytes": 2**30,
        "enable_prefix_caching": False,
        "enforce_eager": enforce_eager,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
    }
    source = str(model.hf_model.name_or_path)
    with vllm_environment(), TemporaryDirectory(prefix="trimtab-") as cache, _variable("VLLM_CACHE_ROOT", cache), starting_vllm():
        from vllm import LLM  # pyright: ignore[reportMissingImports]

        bare = LLM(source, additional_config={KEY: False}, **given)
        before = _graphs(cache)
        advance(1, 0)
        plugin = open_llm(source, config, **given)
        advance(1, 0)
        try:
            yield bare, plugin, (before, _graphs(cache) - before)
        finally:
            for each in (plugin, bare):
                each.llm_engine.engine_core.shutdown()


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _graphs(cache: str) -> int:
    return sum(folder.is_dir() for folder in Path(cache, "torch_compile_cache").glob("*/*"))


def _graph(plugin: Any, graphs: tuple[int, int], enforce_eager: bool) -> Line:
    """That the hooks are in the graph, although the cache held one without them."""
    test = status(plugin)["self_test"]
    assert isinstance(test, dict)
    acts = bool(test["identical"] and test["counted"])
    cached = f"{graphs[0]} in the cache without the plugin, {graphs[1]} more with it"
    how = "eager, so there is none" if enforce_eager else cached
    return Line(
        "graph", acts and (enforce_eager or min(graphs) > 0), f"{how}; a shift acts in each of {len(test['layers'])} layers"
    )


def _answers(model: LanguageModel, steering: Steering, prompts: Sequence[tuple[int, ...]], bare: Any, plugin: Any) -> list[Line]:
    """The checks of one batch in which unsteered, steered and strength-0 requests alternate, and of the gate."""
    dtype = _dtype(model)
    tolerance, on = LOGPROB[dtype], {"steering": "s", "gate": "on"}
    plain = _generate(bare, [prompt for prompt in prompts for _ in range(3)], [{}])
    mixed = _generate(plugin, [prompt for prompt in prompts for _ in range(3)], [{}, on, {**on, "strength": 0.0}])
    steered = mixed[1::3]
    alone = [_generate(plugin, [prompt], [on])[0] for prompt in prompts]
    hooks = hooks_engine(model, steering.with_gate(ALWAYS))
    answered = [_answered(prompt, row) for prompt, row in zip(prompts, steered, strict=True)]
    unsteered = [_answered(prompt, row) for prompt, row in zip(prompts, mixed[0::3], strict=True)]
    expected = [_scored(hooks.steered(one), one) for one in answered]
    scored_bare = _score(bare, answered)
    effects = [row.logprob - other for row, other in zip(steered, scored_bare, strict=True)]
    of_hooks = [row.logprob - _scored(hooks.bare(one), one).logprob for row, one in zip(expected, answered, strict=True)]
    return [
        effect_line(effects, of_hooks, TOLERANCE[dtype]),
        compare("steered", "against the hooks", steered, expected, tolerance, forced=True),
        compare("unsteered", "beside steered ones, against vLLM without the plugin", mixed[0::3], plain[0::3], tolerance),
        compare("strength 0", "against the same", mixed[2::3], plain[2::3], tolerance),
        compare(
            "transformers",
            "unsteered, against transformers",
            mixed[0::3],
            [_scored(hooks.bare(o), o) for o in unsteered],
            tolerance,
            forced=True,
        ),
        compare("neighbours", "steered beside others, against each alone", steered, alone, tolerance),
        _gate(model, steering, prompts, plugin),
    ]


def _gate(model: LanguageModel, steering: Steering, prompts: Sequence[tuple[int, ...]], plugin: Any) -> Line:
    gate = steering.gate
    if not gate.reads:
        return Line("gate", True, f"{gate.label}: it reads nothing")
    if isinstance(gate, RunningGate):
        answers = _run(plugin, prompts, [{"steering": "s"}], max_tokens=NEW_TOKENS)
        told = courses(plugin, [answer.request_id for answer in answers])
        by_hooks = [
            _course(model, steering, prompt, answer.outputs[0].token_ids) for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return course_line(gate.label, told, by_hooks, gate.levels, P_FAIL[_dtype(model)])
    answers = _run(plugin, prompts, [{"steering": "s"}], max_tokens=2)
    told = gate_outputs(plugin, [answer.request_id for answer in answers])
    seen = [None if one is None else one["p_fail"] for one in told]
    fired = [one is not None and bool(one["fired"]) for one in told]
    expected = list(predict(model, gate, {str(i): prompt for i, prompt in enumerate(prompts)}).values())
    return gate_line(gate.label, seen, fired, expected, gate.cutoff, P_FAIL[_dtype(model)])  # type: ignore[arg-type]


def _course(model: LanguageModel, steering: Steering, prompt: tuple[int, ...], response: Sequence[int]) -> NDArray[np.float32]:
    """p(fail) after each token of a response and g at it by the hooks, float32 ``[token, 2]``; its last token is not read."""
    ids = torch.tensor([[*prompt, *response[:-1]]], device=model.device)
    known = {"layout": model.layout, "identity": model.identity, "prompt_lengths": [len(prompt)]}
    with torch.inference_mode(), attach(model.hf_model, steering, **known) as attachment:  # type: ignore[arg-type]
        model.hf_model(ids)
    return torch.stack(attachment.courses[0], 1).numpy()


def _run(llm: Any, prompts: Sequence[tuple[int, ...]], options: Sequence[Mapping[str, object]], **sampling: Any) -> list[Any]:
    """Greedy answers to their full length in one batch, the options in turn."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    settings = {"temperature": 0.0, "ignore_eos": True, "detokenize": False} | sampling
    asked = [SamplingParams(**settings, extra_args=dict(options[i % len(options)]) or None) for i in range(len(prompts))]
    return llm.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], asked, use_tqdm=False)


def _generate(llm: Any, prompts: Sequence[tuple[int, ...]], options: Sequence[Mapping[str, object]]) -> list[Row]:
    return [_row(answer.outputs[0]) for answer in _run(llm, prompts, options, max_tokens=NEW_TOKENS, logprobs=2)]


def _row(output: Any) -> Row:
    tokens = np.array(output.token_ids, np.int64)
    chosen = [each[token].logprob for token, each in zip(output.token_ids, output.logprobs, strict=True)]
    best = [sorted((entry.logprob for entry in each.values()), reverse=True)[:2] for each in output.logprobs]
    return Row(tokens, np.array(chosen), np.array([first - second for first, second in best]))


def _score(llm: Any, answered: Sequence[Answered]) -> list[NDArray[np.float64]]:
    """Log probabilities of the responses' tokens, read as prompts."""
    sequences = [tuple(one.tokens.tolist()) for one in answered]
    answers = _run(llm, sequences, [{}], max_tokens=1, prompt_logprobs=0)
    return [
        np.array([answer.prompt_logprobs[i][sequence[i]].logprob for i in range(one.prompt, len(sequence))])
        for answer, sequence, one in zip(answers, sequences, answered, strict=True)
    ]


def _answered(prompt: tuple[int, ...], row: Row) -> Answered:
    return Answered(torch.tensor([*prompt, *row.tokens.tolist()], dtype=torch.int64), len(prompt))


def _scored(logits: Tensor, sequence: Answered) -> Row:
    """The model's own choices at the positions of a response, and the log probabilities of the response's tokens."""
    rows = logits[sequence.prompt - 1 : -1].double().log_softmax(-1)
    best = rows.topk(2, dim=-1)
    chosen = rows.gather(-1, sequence.tokens[sequence.prompt :, None])[:, 0]
    return Row(best.indices[:, 0].numpy(), chosen.numpy(), (best.values[:, 0] - best.values[:, 1]).numpy())


def _costs(bare: Any, plugin: Any, prompt: tuple[int, ...]) -> list[Cost]:
    """Ratios of passes that follow each other, in alternating order; the first of each kind warms up."""
    kinds: dict[str, tuple[Any, dict[str, object]]] = {
        "bare": (bare, {}),
        "idle": (plugin, {}),
        "steered": (plugin, {"steering": "s", "gate": "on"}),
    }
    found: list[Cost] = []
    for batch in BATCHES:
        slowest = max(_seconds(*kinds[name], [prompt] * batch, PASS_TOKENS) for name in kinds)
        tokens = max(4, min(PASS_TOKENS, int(PASS_TOKENS * SECONDS / (slowest * len(kinds) * PAIRS))))
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for repeat in range(PAIRS):
            for name in list(kinds)[:: 1 if repeat % 2 else -1]:
                seconds[name].append(_seconds(*kinds[name], [prompt] * batch, tokens))
        for what in ("idle", "steered"):
            ratios = [one / other for one, other in zip(seconds["bare"], seconds[what], strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
            found.append(Cost(batch, what, low, median, high))
    return found


def _seconds(llm: Any, options: Mapping[str, object], prompts: Sequence[tuple[int, ...]], tokens: int) -> float:
    began = time.perf_counter()
    _run(llm, prompts, [options], max_tokens=tokens)
    return time.perf_counter() - began


def _facts(model: LanguageModel, steering: Steering, plugin: Any) -> dict[str, str]:
    told, compilation = status(plugin), plugin.llm_engine.vllm_config.compilation_config
    versions = {"vllm": check_version(), **package_versions()}
    layers = len(np.unique(steering.layer))
    return {
        **{name: versions[name] for name in ("trimtab", "vllm", "torch", "transformers")},
        "machine": f"Python {platform.python_version()}, {platform.platform()}, {model.device}, {_dtype(model)}",
        "runner": f"{told['runner']}, {told['runner_status']}",
        "graph": f"{_name(compilation.mode)}, cudagraphs {_name(compilation.cudagraph_mode)}, side {told['side']}",
        "model": f"{model.identity.name}, {model.identity.architecture}, fingerprint {model.identity.fingerprint}",
        "steering": f"{len(steering)} neurons in {layers} layers, strength {steering.strength:g}, {steering.gate.label}, "
        f"digest {steering.digest}",
    }


def _name(value: object) -> str:
    return value.name if isinstance(value, Enum) else str(value)


def _dtype(model: LanguageModel) -> str:
    return str(model.hf_model.dtype).removeprefix("torch.")
