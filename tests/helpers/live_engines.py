"""vLLM engines of the bundled reasoner in this process, and what their answers are compared with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from running_gates import running_gates
from sentinels import QUESTIONS, half_open, sentinel
from trimtab.errors import TrimtabError
from trimtab.gate import ALWAYS, AnyGate
from trimtab.model import LanguageModel
from trimtab.model.attach import attach
from trimtab.steering import Steering
from trimtab.testbed.models import resolve
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.offline import open_llm

MODEL = "testbed:reasoner"
Figures = Callable[[str], None]
"""Adds a figure to the line that the suite ends with."""
BLOCK = 32
_ALIVE: list[Any] = []


def start(config: PluginConfig | None, model: str = MODEL, **engine: Any) -> Any:
    """An engine in this process, eager unless told otherwise; without the plugin where there is no configuration.

    It is kept until the process ends: vLLM takes the distributed groups from all other engines when one of them goes.
    """
    from vllm import LLM

    given: dict[str, Any] = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 512,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 512,
        "block_size": BLOCK,
        "max_logprobs": -1,
        "kv_cache_memory_bytes": 2**26,
        "disable_log_stats": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        model = str(resolve(model))
        if config is None:
            _ALIVE.append(LLM(model=model, additional_config={"trimtab": False}, **given | engine))
        else:
            _ALIVE.append(open_llm(model, config, **given | engine))
    return _ALIVE[-1]


def refusals(attempts: Sequence[tuple[PluginConfig, dict[str, Any]]]) -> list[str]:
    """What each of these engines says in place of starting; in a process of its own, since they leave nothing whole behind."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return [pool.submit(_refusal, config, engine).result() for config, engine in attempts]


def _refusal(config: PluginConfig, engine: dict[str, Any]) -> str:
    try:
        start(config, **engine)
    except TrimtabError as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return "it started"


def prompts(model: LanguageModel) -> list[list[int]]:
    """The questions as tokens."""
    return [model.tokenizer(question)["input_ids"] for question in QUESTIONS[:6]]


def mild(model: LanguageModel, gate: AnyGate, seed: int = 0) -> Steering:
    """Gains and shifts on neurons of all layers that change every logit a little."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(model.identity.n_neurons, 40, replace=False)
    gains, shifts = (rng.normal(0, 0.5, 40).astype(np.float32) for _ in range(2))
    return Steering(flat // model.d_ff, flat % model.d_ff, gains, shifts, 1.0, "generated", gate, model.identity)


def artifacts(model: LanguageModel, folder: Path) -> dict[str, str]:
    """One folder for each steering of the tests: mild ones, some of them gated, and sentinels, one of them gated."""
    gate = half_open(model, prompts(model))
    made = {
        "mild": mild(model, ALWAYS),
        "other": mild(model, ALWAYS, seed=1),
        "mild-gated": mild(model, gate, seed=2),
        "six": sentinel(model, "six"),
        "sun": sentinel(model, "sun"),
        "ivy": sentinel(model, "ivy"),
        "gated": sentinel(model, "minus", gate=gate),
    }
    for seed, (name, own) in enumerate(running_gates(model, prompts(model), gate).items()):
        made[name] = mild(model, own, seed=10 + seed)
    return {name: str(steering.save_pretrained(folder / name)) for name, steering in made.items()}


def sampling(tokens: int, logprobs: int | None = None, **xargs: Any) -> Any:
    """Greedy, to the full length."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=logprobs, extra_args=xargs or None)


def answer(llm: Any, asked: Sequence[list[int]], params: Sequence[Any]) -> list[Any]:
    """The answers to prompts in one batch, each with its parameters."""
    return llm.generate([{"prompt_token_ids": prompt} for prompt in asked], list(params), use_tqdm=False)


def tokens(output: Any) -> list[int]:
    """The tokens of an answer."""
    return list(output.outputs[0].token_ids)


def table(rows: Sequence[Mapping[int, Any]], vocab: int) -> NDArray[np.float64]:
    """Log probabilities of all tokens, ``[position, vocab]``."""
    return np.array([[row[token].logprob for token in range(vocab)] for row in rows])


def effect_here(llm: Any, prompt: list[int], output: Any, vocab: int) -> NDArray[np.float64]:
    """Log probabilities of a steered answer minus those of the same tokens unsteered, both of this engine."""
    from vllm import SamplingParams

    own = tokens(output)
    bare = llm.generate(
        [{"prompt_token_ids": prompt + own}],
        SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=vocab, extra_args={"steering": "none"}),
        use_tqdm=False,
    )[0]
    return table(output.outputs[0].logprobs, vocab) - table(bare.prompt_logprobs[len(prompt) :], vocab)


def effect_of_hooks(
    model: LanguageModel, steering: Steering, prompt: list[int], own: list[int], **options: Any
) -> NDArray[np.float64]:
    """The same by transformers' hooks, with the answer scored in one forward."""
    ids = torch.tensor([prompt + own])

    def scored() -> torch.Tensor:
        return model.hf_model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)

    with torch.no_grad():
        bare = scored()
        known = {"layout": model.layout, "identity": model.identity, "prompt_lengths": [len(prompt)]}
        with attach(model.hf_model, steering, **known | options):
            return (scored() - bare).double().numpy()


@contextmanager
def preemptions(llm: Any) -> Iterator[list[str]]:
    """The ids of requests that the scheduler takes out meanwhile."""
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    preempted: list[str] = []
    original = scheduler._preempt_request

    def noted(request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_preempt_request", noted)
        yield preempted
