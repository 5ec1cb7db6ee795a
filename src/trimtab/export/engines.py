"""Logits of transformers models, bare and steered, and of vLLM, which loads an export as it serves it."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.errors import InputError, StoreError
from trimtab.export.target import ADAPTER_CONFIG, Answered, Engine, EngineOptions
from trimtab.model import LanguageModel, attach
from trimtab.sampling.vllm_engine import starting_vllm, vllm_environment
from trimtab.steering import Steering
from trimtab.store import read_json
from trimtab.vllm_plugin.config import KEY, check_version

Switch = Callable[[Answered], AbstractContextManager[object]]


def _nothing(_: Answered) -> AbstractContextManager[object]:
    return nullcontext()


@torch.no_grad()
def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Float32 ``[seq, vocab]`` on the CPU, of int64 ``[seq]``, in one forward without a cache."""
    device = next(model.parameters()).device
    row = tokens[None].to(device)
    return model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0].float().cpu()


class TransformersEngine:
    """Two models, or one with a switch.

    Args:
        name: program and version.
        steered: the model with the export.
        bare: the base; None for the same model.
        on, off: entered around every steered and every bare forward.
    """

    def __init__(
        self, name: str, steered: nn.Module, bare: nn.Module | None = None, *, on: Switch = _nothing, off: Switch = _nothing
    ) -> None:
        self.name = name
        self._steered, self._bare, self._on, self._off = steered, bare or steered, on, off

    def bare(self, sequence: Answered) -> Tensor:
        """Unsteered logits."""
        with self._off(sequence):
            return logits_of(self._bare, sequence.tokens)

    def steered(self, sequence: Answered) -> Tensor:
        """Logits with the export."""
        with self._on(sequence):
            return logits_of(self._steered, sequence.tokens)


def hooks_engine(model: LanguageModel, steering: Steering) -> TransformersEngine:
    """The transformers hooks, in one forward that knows where each prompt ends."""

    def on(sequence: Answered) -> AbstractContextManager[object]:
        return attach(model.hf_model, steering, layout=model.layout, identity=model.identity, prompt_lengths=[sequence.prompt])

    return TransformersEngine("transformers hooks", model.hf_model, on=on)


_CONTEXT, _CACHE_BYTES = 2048, 2**30


class VllmLogits:
    """One model in vLLM that tells its logits.

    Args:
        llm: ``vllm.LLM``, running in this process.
        context: the longest sequence that it takes.
    """

    def __init__(self, llm: Any, context: int) -> None:
        self._llm, self._context = llm, context
        self._seen: list[Tensor] = []
        llm.apply_model(self._watch)

    def read(self, tokens: Tensor, adapters: Sequence[Any]) -> list[Tensor]:
        """Float32 ``[seq, vocab]`` of the same tokens in one batch: a request for each adapter, None for the bare model.

        Raises:
            InputError: a sequence that is longer than what is compared.
            StoreError: vLLM ran the batch in pieces, so that the logits cannot be told apart.
        """
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        length = len(tokens)
        if length >= self._context:
            raise InputError(
                f"a prompt with its response of {length} tokens does not fit vLLM's context of {self._context}; "
                "give shorter prompts, or fewer --max-new-tokens"
            )
        self._seen.clear()
        settings = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompts = [{"prompt_token_ids": tokens.tolist()} for _ in adapters]
        self._llm.generate(prompts, settings, lora_request=list(adapters) if any(adapters) else None, use_tqdm=False)
        last, *prompt = self._seen  # those that requests go on with come first, then each request's own
        if [len(last), *map(len, prompt)] != [len(adapters), *([length - 1] * len(adapters))]:
            raise StoreError(f"vLLM did not run {len(adapters)} requests of {length} tokens in one step; give shorter prompts")
        return [torch.cat((own, last[i : i + 1])) for i, own in enumerate(prompt)]

    def _watch(self, model: nn.Module) -> None:
        compute = model.compute_logits

        def computed(*args: object) -> Tensor:
            logits = compute(*args)  # type: ignore[intervention]
            self._seen.append(logits.detach().float().cpu().clone())
            return logits

        model.compute_logits = computed  # type: ignore[assignment]


class VllmEngine:
    """Both sides of a comparison, computed together when either is first asked for.

    Args:
        name: program and version.
        compute: bare and steered logits of token ids.
    """

    def __init__(self, name: str, compute: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.name = name
        self._compute = compute
        self._of: Tensor | None = None
        self._logits: tuple[Tensor, Tensor] | None = None

    def bare(self, sequence: Answered) -> Tensor:
        """Unsteered logits."""
        return self._both(sequence)[0]

    def steered(self, sequence: Answered) -> Tensor:
        """Logits with the export."""
        return self._both(sequence)[1]

    def _both(self, sequence: Answered) -> tuple[Tensor, Tensor]:
        if self._logits is None or self._of is not sequence.tokens:
            self._of, self._logits = sequence.tokens, self._compute(sequence.tokens)
        return self._logits


@contextmanager
def lora_in_vllm(folder: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:
    """Load a LoRA with vLLM's own loader, for one request of a batch and not for the other, as a server mixes them.

    Raises:
        ModelError: vLLM is not installed, or of a version that was not tested.
        StoreError: vLLM cannot load the adapter.
    """
    version = check_version()
    with _loaded(
        _base(model),
        model,
        enable_lora=True,
        max_lora_rank=options.facts["max_lora_rank"],
        # else its kernels for CPUs expect a LoRA on the head, and fail at the logits of a prompt
        lora_target_modules=list(options.lora_modules) or read_json(folder / ADAPTER_CONFIG)["target_modules"],  # type: ignore[index]
        # with one slot, vLLM's kernels for CPUs give the one adapter to requests without any (vllm issue 48421)
        max_loras=2,
    ) as hf_model:
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        adapter = LoRARequest("steered", 1, str(folder))

        def compute(tokens: Tensor) -> tuple[Tensor, Tensor]:
            bare, steered = hf_model.read(tokens, (None, adapter))
            return bare, steered

        yield VllmEngine(f"vllm {version}, LoRA per request", compute)


@contextmanager
def merged_in_vllm(folder: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:  # noqa: ARG001
    """Load a merged checkpoint as vLLM serves it, and its base.

    Raises:
        ModelError: vLLM is not installed, or of a version that was not tested.
        StoreError: vLLM cannot load one of them.
    """
    version = check_version()
    with _loaded(_base(model), model) as base, _loaded(str(folder), model) as merged:

        def compute(tokens: Tensor) -> tuple[Tensor, Tensor]:
            return base.read(tokens, (None,))[0], merged.read(tokens, (None,))[0]

        yield VllmEngine(f"vllm {version}", compute)


@contextmanager
def _loaded(path: str, model: LanguageModel, **arguments: object) -> Iterator[VllmLogits]:
    context = min(_CONTEXT, model.hf_model.config.get_text_config().max_position_embeddings)
    with vllm_environment():
        llm = _start(path, model, context, arguments)
        try:
            yield VllmLogits(llm, context)
        finally:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()


def _start(path: str, model: LanguageModel, context: int, arguments: Mapping[str, object]) -> Any:
    try:
        with starting_vllm():
            from vllm import LLM  # pyright: ignore[reportMissingImports]

            return LLM(
                path,
                revision=model.identity.revision if path == _base(model) else None,
                dtype=str(model.hf_model.dtype).removeprefix("torch."),
                max_model_len=context,
                max_num_batched_tokens=2 * _CONTEXT,
                max_num_seqs=2,
                kv_cache_memory_bytes=_CACHE_BYTES,
                enforce_eager=True,
                enable_prefix_caching=False,
                use_tqdm_on_load=False,
                skip_tokenizer_init=True,
                # TRIMTAB_VLLM may ask for a steering that would act beside the export
                additional_config={KEY: False},
                **arguments,
            )
    except (OSError, ValueError, RuntimeError) as cause:
        raise StoreError(f"vLLM cannot load {path}: {' '.join(str(cause).split())[:300]}") from cause


def _base(model: LanguageModel) -> str:
    """Where the model was opened from, a folder or a hub id."""
    return str(model.hf_model.name_or_path)
