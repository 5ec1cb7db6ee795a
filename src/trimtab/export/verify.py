"""The verb ``verify``: an export in its own engine against the transformers hooks, and where the two part on greedy requests."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from trimtab.errors import InputError, MismatchError
from trimtab.evaluation.runner import Condition, evaluate_condition
from trimtab.export.engines import hooks_engine
from trimtab.export.exporting import opener_of
from trimtab.export.gguf import check_base
from trimtab.export.parts import EngineName, expressible
from trimtab.export.record import DropCost, ExportRecord, Verification, package_versions, read_export, write_record
from trimtab.export.target import Answered, Engine, EngineOptions
from trimtab.model import LanguageModel, check_identity
from trimtab.progress import Progress, silent
from trimtab.sampling import SamplingSettings, generate_batch
from trimtab.sampling.agreement import NEAR_TIE
from trimtab.sampling.batch import Request
from trimtab.steering import Steering
from trimtab.store import read_bytes
from trimtab.tasks import CHAT, Prompt, render_prompt
from trimtab.tasks.grading.grade import KindGrader
from trimtab.tasks.loading import load_problems
from trimtab.tasks.settings import TaskSettings
from trimtab.traces import Problem, Score

QUESTIONS = (
    "A train leaves at 9:40 and arrives at 13:15. How long does it travel?",
    "What is 17 times 23?",
    "If all bloops are razzies and some razzies are lazzies, are some bloops lazzies?",
    "A shop sells pens at 3 for 2 dollars. What do 12 pens cost?",
    "Write a Python function that reverses a list.",
    "Which is larger, 5/8 or 7/11?",
    "How many days are there from March 3 to May 1?",
    "The sum of two numbers is 41 and their difference 7. What are they?",
)
"""Eight questions of no benchmark, for a model without problems of its own."""


def questions_of(file: Path) -> list[str]:
    """One question a line. Raises InputError when there is none."""
    try:
        lines = [line.strip() for line in read_bytes(file).decode().splitlines()]
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"cannot read {file}: {cause}; give a text file with one prompt a line") from cause
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{file} holds no prompt; give one a line")
    return found


def default_questions(source: str) -> list[str]:
    """Eight questions that a model can be asked: the testbed's own for its models, which speak nothing else."""
    if not source.startswith("testbed:"):
        return list(QUESTIONS)
    settings = TaskSettings(source="testbed", train=0, validation=len(QUESTIONS), test=0)
    return [problem.question for problem in load_problems(settings)]


def asked(model: LanguageModel, questions: Sequence[str]) -> list[Request]:
    """Each question as a request, as the model is asked it."""
    return [Request(f"q/{i}", rendered(model, question)) for i, question in enumerate(questions)]


def answered(model: LanguageModel, steering: Steering, questions: Sequence[str], max_new_tokens: int) -> list[Answered]:
    """Each question with the greedy response that the steered model gives it, as far as the model's context reaches.

    Raises:
        InputError: a question that is no token, or one that fills the context.
    """
    requests = asked(model, questions)
    longest = max(len(request.prompt_ids) for request in requests)
    room = model.hf_model.config.get_text_config().max_position_embeddings - longest
    if room < 1:
        raise InputError(f"a prompt of {longest} tokens fills this model's context; give shorter ones")
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=min(room, max_new_tokens))
    size = 32
    found: list[Answered] = []
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        for request, generation in zip(batch, generate_batch(model, batch, settings, steering), strict=True):
            tokens = torch.tensor([*request.prompt_ids, *generation.response_ids], dtype=torch.int64)
            found.append(Answered(tokens, len(request.prompt_ids)))
    return found


def rendered(model: LanguageModel, question: str) -> tuple[int, ...]:
    """A question as the model is asked it, by its chat template if it has one."""
    if model.tokenizer.chat_template:
        return render_prompt(model.tokenizer, question)
    tokens = tuple(model.tokenizer.encode(question))
    if not tokens:
        raise InputError(f"the model's tokenizer makes no token of the prompt {question!r}; give other prompts")
    return tokens


def cost_of(
    model: LanguageModel,
    full: Steering,
    reduced: Steering,
    questions: Sequence[str],
    problems: Sequence[Problem],
    prompt: Prompt,
    max_new_tokens: int,
) -> DropCost:
    """The distance of the effects on the logits and, where problems are given, both accuracies (greedy, one response each)."""
    distance = _distance(model, full, reduced, questions, max_new_tokens)
    if not problems:
        return DropCost(distance=distance)
    accuracies = [_accuracy(model, steering, problems, prompt, max_new_tokens) for steering in (full, reduced)]
    return DropCost(distance=distance, problems=len(problems), accuracy_full=accuracies[0], accuracy_reduced=accuracies[1])


def _distance(
    model: LanguageModel, full: Steering, reduced: Steering, questions: Sequence[str], max_new_tokens: int
) -> float | None:
    whole, part = hooks_engine(model, full), hooks_engine(model, reduced)
    difference = size = 0.0
    for sequence in answered(model, full, questions, max_new_tokens):
        bare, steered = whole.bare(sequence).double(), whole.steered(sequence).double()
        difference += float((part.steered(sequence).double() - steered).square().sum())
        size += float((steered - bare).square().sum())
    return (difference / size) ** 0.5 if size else None


def _accuracy(
    model: LanguageModel, steering: Steering, problems: Sequence[Problem], prompt: Prompt, max_new_tokens: int
) -> float:
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=max_new_tokens)
    condition = Condition("steered", steering, "auto")
    with TemporaryDirectory() as scratch, KindGrader() as grader:
        outcomes = evaluate_condition(model, condition, problems, settings, grader, Path(scratch) / "parts", prompt=prompt)
    return sum(outcome.score is Score.CORRECT for outcome in outcomes) / len(outcomes)


TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
"""The largest difference of the effects by the coarser dtype of the engine and of the weights that the export holds."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The effect of the hooks on one sequence.

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
    folder: str | os.PathLike[str],
    model: LanguageModel,
    steering: Steering,
    questions: Sequence[str],
    *,
    problems: Sequence[Problem] = (),
    prompt: Prompt = CHAT,
    max_new_tokens: int = 256,
    engine: EngineName = "own",
    base_gguf: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
    lora_modules: Sequence[str] = (),
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
        lora_modules: the modules that a vLLM server applies adapters to, if it was told; only with ``vllm`` and a LoRA.

    Returns:
        The record with its verification, which may have failed: see :attr:`Verification.ok`.

    Raises:
        MismatchError: the export was made of another steering, or for another model.
        InputError: the engine is not installed or does not take the export, or there is no question.
        StoreError: the folder holds no export, a file of it is not what was written, or they cannot be loaded.
    """
    folder = Path(folder)
    if not questions:
        raise InputError("an export is verified on at least one prompt; none was given")
    record = read_export(folder)
    if record.steering != steering.digest:
        raise MismatchError(
            f"{folder} was exported from a steering with digest {record.steering}, and the one given has {steering.digest}; "
            "give the artifact that was exported, or export it again",
            code="other-steering",
        )
    check_identity(record.model, model.identity)
    if lora_modules and (engine, record.target) != ("vllm", "lora"):
        raise InputError("lora_modules (--lora-target-modules) says how vLLM serves a LoRA; give engine vllm, and a LoRA")
    base_file = None if base_gguf is None else Path(base_gguf)
    if base_file is not None:
        if (engine, record.target) != ("own", "gguf"):
            raise InputError("base_gguf (--base-gguf) is what llama.cpp opens; give it for an export to gguf alone")
        check_base(base_file, model)
    reduced = expressible(steering, record.target, tuple(record.dropped))
    coarser = max(_dtype(model), str(record.facts.get("weights", "float32")), key=TOLERANCE.__getitem__)
    sequences = answered(model, reduced, questions, max_new_tokens)
    hooks = hooks_engine(model, reduced)
    references = [_reference(hooks, sequence) for sequence in sequences]
    options = EngineOptions(reduced, record.facts, base_file, allow_pickle, tuple(lora_modules))
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
