"""The verb ``verify``: an export in its own engine against the transformers hooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trimtab.errors import InputError, MismatchError
from trimtab.export.cost import cost_of
from trimtab.export.parts import EngineName, expressible
from trimtab.export.record import ExportRecord, Verification, package_versions, read_export, write_record
from trimtab.export.registry import opener_of
from trimtab.export.sequences import answered
from trimtab.export.target import Answered, Engine, EngineOptions
from trimtab.export.transformers_engine import hooks_engine
from trimtab.model import LanguageModel, check_identity
from trimtab.progress import Progress, silent
from trimtab.sampling.agreement import NEAR_TIE
from trimtab.steering import Steering
from trimtab.tasks import CHAT, Prompt
from trimtab.traces import Problem

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""The largest difference of the effects by the coarser dtype of the engine and of the weights that the export holds."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the hooks do on one sequence.

    Args:
        effect: steered minus unsteered logits, float32 ``[seq, vocab]``.
        best: the steered model's choice, int64 ``[seq]``.
        gap: its lead over the second best, float32 ``[seq]``.
    """

    sequence: Answered
    effect: Tensor
    best: Tensor
    gap: Tensor


def verify_export(
    folder: Path,
    model: LanguageModel,
    steering: Steering,
    questions: Sequence[str],
    *,
    problems: Sequence[Problem] = (),
    prompt: Prompt = CHAT,
    max_new_tokens: int = 256,
    engine: EngineName = "own",
    base_gguf: Path | None = None,
    allow_pickle: bool = False,
    progress: Progress = silent,
) -> ExportRecord:
    """Load an export with its target's own loader, compare it with the hooks, and write the result into its card.

    Compared are effects, ``D = steered - unsteered`` logits of one engine, so a tolerance cannot be larger than what it is to
    prove: ``norm(D_engine - D_hooks) / norm(D_hooks)`` over all positions of the questions and of the responses that the hooks
    give to them. Greedy tokens are compared on the same sequences, which is the same as comparing greedy decoding up to the first
    difference.

    Args:
        model: the base model, in the dtype in which to compare.
        steering: the artifact that was exported.
        questions: held-out questions.
        problems: held-out problems on which to measure what dropped parts cost in accuracy.
        prompt: how the problems are asked.
        engine: the target's own loader, or ``vllm`` for a LoRA or a merged checkpoint in vLLM.
        base_gguf: the base model as a GGUF file, for the target gguf.

    Returns:
        The record with its verification, which may have failed: see :attr:`Verification.ok`.

    Raises:
        MismatchError: the export was made of another steering, or for another model.
        InputError: the engine is not installed or does not take the export, or there is no question.
        StoreError: the folder holds no export, or its files cannot be loaded.
    """
    if not questions:
        raise InputError("an export is verified on at least one prompt; none was given")
    record = read_export(folder)
    if record.steering != steering.digest:
        raise MismatchError(
            f"{folder} was exported from a steering with digest {record.steering}, and the one given has {steering.digest}; "
            "give the artifact that was exported, or export it again"
        )
    check_identity(record.model.identity(), model.identity)
    reduced = expressible(steering, record.target, tuple(record.dropped))
    coarser = max(_dtype(model), str(record.facts.get("weights", "float32")), key=TOLERANCE.__getitem__)
    sequences = answered(model, reduced, questions, max_new_tokens)
    hooks = hooks_engine(model, reduced)
    references = [_reference(hooks, sequence) for sequence in sequences]
    options = EngineOptions(reduced, record.facts, base_gguf, allow_pickle)
    with opener_of(record.target, engine)(folder, model, options) as running:
        verification = _compare(running, references, _dtype(model), coarser, progress)
    if record.dropped:
        cost = cost_of(model, steering, reduced, questions, problems, prompt, max_new_tokens)
        verification = verification.model_copy(update={"cost": cost})
    versions = package_versions()
    if engine == "own":
        verified = record.model_copy(update={"verification": verification, "versions": versions})
    else:
        elsewhere = {**record.elsewhere, engine: verification}
        verified = record.model_copy(update={"elsewhere": elsewhere, "versions": versions})
    write_record(verified, folder)
    return verified


def _dtype(model: LanguageModel) -> str:
    return str(model.hf_model.dtype).removeprefix("torch.")


def _reference(hooks: Engine, sequence: Answered) -> Reference:
    steered = hooks.steered(sequence)
    top = steered.topk(2, dim=-1).values
    return Reference(sequence, steered - hooks.bare(sequence), steered.argmax(-1), top[:, 0] - top[:, 1])


def near_tie(logits: Tensor, dtype: str) -> Tensor:
    """The lead below which a choice is a near tie, float32 ``[seq]``, of logits ``[seq, vocab]``.

    In a coarser dtype than float32 two units in the last place of the larger one.
    """
    if dtype == "float32":
        return torch.full((len(logits),), NEAR_TIE)
    return 2 * torch.finfo(getattr(torch, dtype)).eps * logits.abs().amax(-1)


def _compare(engine: Engine, references: Sequence[Reference], dtype: str, coarser: str, progress: Progress) -> Verification:
    difference = reference_size = engine_size = logits_size = 0.0
    differing = ties = positions = 0
    with progress(f"verify with {engine.name}", len(references), 0) as advance:
        for reference in references:
            bare, steered = engine.bare(reference.sequence), engine.steered(reference.sequence)
            effect = (steered - bare).double()
            difference += float((effect - reference.effect.double()).square().sum())
            reference_size += float(reference.effect.double().square().sum())
            engine_size += float(effect.square().sum())
            logits_size += float(bare.double().square().sum())
            other = steered.argmax(-1) != reference.best
            near = reference.gap < near_tie(steered, coarser)
            ties += int((other & near).sum())
            differing += int((other & ~near).sum())
            positions += len(reference.best)
            advance(1, len(reference.best))
    if not reference_size:
        raise InputError("the steering changes no logit on these prompts, so nothing can be compared; give other prompts")
    return Verification(
        engine=engine.name,
        dtype=dtype,
        prompts=len(references),
        positions=positions,
        effect=(difference / reference_size) ** 0.5,
        tolerance=TOLERANCE[coarser],
        size=(engine_size / logits_size) ** 0.5,
        tokens=positions,
        tokens_differing=differing,
        near_ties=ties,
    )
