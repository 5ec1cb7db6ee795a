"""The condition ``sft-lora``: post-training on the same correct traces that the neurons were found with, as the baseline of
steering.

A LoRA (Hu et al. 2021, arXiv 2106.09685) learns the model's own correct responses: rejection-sampling fine-tuning, as in STaR. It
sees what the contrast saw on its correct side and no more, so the condition answers whether steering adds anything over the
obvious use of the same data. The traces are samples of the model itself, so the loss starts near the entropy of its sampling and
falls by little however much accuracy is won: judge the condition by its outcomes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import PreTrainedModel

from trimtab.errors import ConfigError, InputError, ModelError, NotEnoughDataError, StoreError
from trimtab.evaluation.finetune_training import SftSettings, train
from trimtab.evaluation.rows import SFT_LORA
from trimtab.model import LanguageModel, identify
from trimtab.progress import Progress, silent
from trimtab.store import AnyPath, Record, digest_of, load_tensors, read_record, replace_folder, save_tensors, write_json
from trimtab.traces import Trace

if TYPE_CHECKING:
    from peft import LoraConfig, LoraModel, PeftModel

RECORD, WEIGHTS = "sft.json", "adapter_model.safetensors"


class SftRecord(Record):
    """sft.json: the settings and digests that decide the adapter, and the result of the training.

    ``parameters_share`` is the LoRA's parameters over the model's own.
    """

    inputs: dict[str, object]
    traces: int
    problems: int
    parameters_trained: int
    parameters_share: float
    steps: int
    tokens: int
    response_tokens: int
    loss_before: float
    loss_after: float


@contextmanager
def sft_lora(
    model: LanguageModel, traces: Sequence[Trace], settings: SftSettings, folder: AnyPath, *, progress: Progress = silent
) -> Iterator[LanguageModel]:
    """Train a LoRA on correct traces, or find it in ``folder``, and lend the tuned model for the ``with`` block.

    The adapter lies beside the weights, unmerged: within the block ``model.hf_model`` is the tuned model too, and afterwards it
    is what it was, bit for bit, for its weights were never touched. The model that is lent has a fingerprint of its own, so it
    never takes over the parts of another condition, and a steering of the base refuses it.

    ``folder`` appears whole when the training has finished, in peft's own format with ``sft.json`` beside it. A training that was
    killed starts again, with the same result on the same CPU; a GPU or other threads may differ in the last bits.

    Args:
        traces: correct traces of the train split, as the model's own ids; their order does not matter.
        folder: of this adapter alone.

    Raises:
        NotEnoughDataError: no traces.
        InputError: peft is not installed, or a trace without prompt or response.
        ConfigError: ``folder`` holds an adapter of other traces, settings or weights; each difference is named.
        ModelError: unknown target modules, a gradient that is not finite, or a batch that does not fit into memory.
        StoreError: ``folder`` holds something else, or cannot be written.

    Example:
        >>> with sft_lora(opened, correct, SftSettings(), run / "sft") as tuned:  # doctest: +SKIP
        ...     outcomes = evaluate_condition(tuned, Condition(SFT_LORA), problems, settings, grader, parts)
    """
    _check(traces)
    traces = sorted(traces, key=lambda trace: trace.id)
    inputs = {
        **settings.model_dump(mode="json"),
        "model": model.identity.fingerprint,
        "traces": digest_of([(trace.id, trace.prompt_ids, trace.response_ids) for trace in traces]),
    }
    with _adapter(model.hf_model, settings) as adapter:
        # a local folder appears whole: one without the record is somebody else's, and reading it says so
        if (folder / RECORD).exists() or (isinstance(folder, Path) and folder.exists()):
            _load(adapter, folder, inputs)
        else:
            trained, total = adapter.get_nb_trainable_parameters()
            training = train(model.hf_model, traces, settings, progress)
            facts = {
                "inputs": inputs,
                "traces": len(traces),
                "problems": len({trace.problem_id for trace in traces}),
                "parameters_trained": trained,
                "parameters_share": trained / (total - trained),
                **training._asdict(),
            }
            _save(adapter, folder, SftRecord.model_validate(facts))
        model.hf_model.requires_grad_(False)
        name = f"{model.identity.name} + {SFT_LORA}"
        yield replace(model, identity=identify(model.hf_model, name, model.identity.revision, layout=model.layout))


def read_sft(folder: AnyPath) -> SftRecord:
    """Read the record of an adapter's training. Raises StoreError when there is none."""
    return read_record(folder / RECORD, SftRecord)


@contextmanager
def _adapter(model: PreTrainedModel, settings: SftSettings) -> "Iterator[PeftModel]":
    """A fresh LoRA within the model, and the model as it was afterwards."""
    try:
        import peft
    except ModuleNotFoundError as cause:
        if cause.name != "peft":
            raise
        raise InputError(
            f"the condition {SFT_LORA} trains with peft, which is not installed; run: pip install 'trimtab[sft]'", code="no-peft"
        ) from cause
    modules = settings.target_modules
    config = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )
    gradients = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            adapter = peft.get_peft_model(model, config)
        except ValueError as cause:
            raise ModelError(f"no LoRA fits target_modules {modules!r}: {cause}; use 'all-linear'") from cause
    try:
        yield adapter
    finally:
        cast("LoraModel", adapter.base_model).unload()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in gradients)


def _check(traces: Sequence[Trace]) -> None:
    if not traces:
        raise NotEnoughDataError(
            f"the condition {SFT_LORA} learns from correct traces of the train split, and there is none; sample more traces "
            "(sampling.n), or leave the condition out"
        )
    for trace in traces:
        if not trace.prompt_ids or not trace.response_ids:
            raise InputError(f"trace {trace.id} has no prompt or no response, so {SFT_LORA} cannot learn from it; leave it out")


def _save(adapter: "PeftModel", folder: AnyPath, record: SftRecord) -> None:
    """Everything at once, in the files that peft reads."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(adapter, save_embedding_layers=False)
    config = cast("LoraConfig", adapter.peft_config["default"])
    config.target_modules = sorted(config.target_modules or ())  # a set, whose order changes from process to process
    with replace_folder(folder, last=RECORD) as temporary:
        save_tensors(temporary / WEIGHTS, {name: weight.cpu().numpy() for name, weight in weights.items()}, {})
        config.save_pretrained(str(temporary))
        write_json(temporary / RECORD, record.model_dump())


def _load(adapter: "PeftModel", folder: AnyPath, inputs: Mapping[str, object]) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    stored = read_sft(folder).inputs
    keys = sorted({*stored, *inputs})
    changes = [f"{key} {stored.get(key)!r} -> {inputs.get(key)!r}" for key in keys if stored.get(key) != inputs.get(key)]
    if changes:
        raise ConfigError(
            f"{folder} holds an adapter of another training: {'; '.join(changes)}; "
            "run with the old settings, choose another run directory, or start again with --force"
        )
    arrays, _ = load_tensors(folder / WEIGHTS)
    fresh = get_peft_model_state_dict(adapter, save_embedding_layers=False)
    if {name: array.shape for name, array in arrays.items()} != {name: tuple(tensor.shape) for name, tensor in fresh.items()}:
        raise StoreError(f"{folder / WEIGHTS} does not hold the weights that {RECORD} beside it tells of; delete {folder}")
    set_peft_model_state_dict(adapter, {name: torch.from_numpy(array) for name, array in arrays.items()})
