"""Training of the baselines ``sft-lora`` and ``trained``: a loss on responses, AdamW with a rate that falls to 0, no more.

Plain torch: a trainer would bring defaults that decide the result unseen, and fifty lines say all of it here. The defaults follow
"LoRA Without Regret" (Schulman and Thinking Machines Lab 2025): every linear layer, small batches, and ten times the 5e-5 of full
fine-tuning. A run that looks for a better learning rate must do so on the validation split.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trimtab.errors import ModelError
from trimtab.evaluation.rows import SFT_LORA
from trimtab.progress import Progress, silent
from trimtab.store import make_plan
from trimtab.traces import Trace

IGNORE = -100


class TrainingSettings(BaseModel):
    """A step learns ``batch_traces`` traces, in slices of ``batch_tokens`` tokens or one trace.

    ``batch_tokens`` and ``gradient_checkpointing`` (a third slower, for long responses on a card) spare memory and change a
    result by rounding only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=5e-4, gt=0.0)
    epochs: int = Field(default=3, ge=1)
    max_steps: int = Field(default=1000, ge=1)
    batch_traces: int = Field(default=16, ge=1)
    batch_tokens: int = Field(default=8192, ge=1)
    gradient_checkpointing: bool = False
    seed: int = 0


class SftSettings(TrainingSettings):
    """How the LoRA is trained.

    ``target_modules`` are peft's: ``all-linear`` is every linear layer but the language-model head.
    """

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1, description="The update is alpha / rank * B A.")
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TrainedSettings(BaseModel):
    """How gains and shifts are trained. Every learning rate is tried, and the one with the best accuracy on the validation split
    is kept; ties go to the smallest.

    Args:
        learning_rates: of AdamW, in units of the activations for a shift and of 1 for a gain.
        gains: train a gain for each neuron beside its shift.
        epochs, max_steps, batch_traces, batch_tokens, gradient_checkpointing, seed: as for ``evaluation.sft``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rates: tuple[float, ...] = Field(default=(0.01, 0.03, 0.1), min_length=1)
    gains: bool = True
    epochs: int = Field(default=3, ge=1)
    max_steps: int = Field(default=300, ge=1)
    batch_traces: int = Field(default=16, ge=1)
    batch_tokens: int = Field(default=8192, ge=1)
    gradient_checkpointing: bool = False
    seed: int = 0

    def at(self, learning_rate: float) -> TrainingSettings:
        """The training at one of the rates."""
        return TrainingSettings(learning_rate=learning_rate, **self.model_dump(exclude={"learning_rates", "gains"}))


class Training(NamedTuple):
    """The outcome of a training.

    Args:
        tokens: forwarded in all steps, prompts included.
        response_tokens: those of them with a loss.
        loss_before, loss_after: nats per response token over all traces.
    """

    steps: int
    tokens: int
    response_tokens: int
    loss_before: float
    loss_after: float


Within = Callable[[Sequence[Trace]], AbstractContextManager[None]]
"""What a forward and its backward run within, given the traces that are its rows."""


def _bare(traces: Sequence[Trace]) -> AbstractContextManager[None]:  # noqa: ARG001
    return nullcontext()


def train(
    model: PreTrainedModel,
    traces: Sequence[Trace],
    settings: TrainingSettings,
    progress: Progress = silent,
    *,
    parameters: Sequence[Parameter] | None = None,
    label: str = SFT_LORA,
    within: Within = _bare,
) -> Training:
    """Train parameters, in place, on the traces' responses.

    Each step descends the mean loss per response token of its traces: AdamW without weight decay, gradients clipped to norm 1,
    the learning rate falling linearly to 0. Every epoch is shuffled anew from the seed.

    Args:
        parameters: None are those of the model that require gradients.
        label: of the progress bar.
        within: of hooks that hold parameters and have to know the rows.

    Raises:
        ModelError: a gradient that is not finite, or a slice that does not fit into memory.
    """
    if parameters is None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = list(_steps(traces, settings))
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=len(steps))
    before = _mean_loss(model, traces, settings, within)
    with progress(f"train {label}", len(steps), 0) as advance, _checkpointing(model, settings.gradient_checkpointing):
        for batch in steps:
            _backward(model, batch, settings, within)
            _clip(parameters, settings)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            advance(1, sum(map(_length, batch)))
    return Training(
        steps=len(steps),
        tokens=sum(_length(trace) for batch in steps for trace in batch),
        response_tokens=sum(len(trace.response_ids) for batch in steps for trace in batch),
        loss_before=before,
        loss_after=_mean_loss(model, traces, settings, within),
    )


class _Row(NamedTuple):
    """A trace as one row of tokens."""

    tokens: tuple[int, ...]
    prompt: int


def response_loss(model: PreTrainedModel, traces: Sequence[Trace]) -> Tensor:
    """``-sum log p(token | question, response so far)`` over the response tokens of all traces, in nats, float32 scalar.

    Rows are right-padded and run without an attention mask: under causal attention no real position sees the padding. The final
    token is predicted but never forwarded, as when generating.
    """
    rows = [_Row((*trace.prompt_ids, *trace.response_ids), len(trace.prompt_ids)) for trace in traces]
    width = max(len(row.tokens) for row in rows) - 1
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORE)
    for i, (tokens, prompt) in enumerate(rows):
        ids[i, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        targets[i, prompt - 1 : len(tokens) - 1] = torch.tensor(tokens[prompt:])
    first = min(row.prompt for row in rows) - 1
    # logits are what fills the memory of a model with a large vocabulary, so none are made before the first response
    logits = model(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=width - first).logits
    wanted = targets[:, first:].to(logits.device)
    return cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORE, reduction="sum")


def _backward(model: PreTrainedModel, batch: Sequence[Trace], settings: TrainingSettings, within: Within) -> None:
    """Add the gradients of the mean loss per response token of one step."""
    tokens = sum(len(trace.response_ids) for trace in batch)
    for part in _slices(batch, settings.batch_tokens):
        try:
            with within(part):
                (response_loss(model, part) / tokens).backward()
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"training ran out of memory on {len(part)} traces, the longest of {max(map(_length, part))} tokens: {error}; "
                "lower batch_tokens, set gradient_checkpointing, or leave out longer traces"
            ) from error


def _clip(parameters: Sequence[Parameter], settings: TrainingSettings) -> None:
    try:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    except RuntimeError as error:
        raise ModelError(
            f"a gradient is NaN or infinite at learning_rate {settings.learning_rate}; use a smaller one, or dtype float32 or "
            "bfloat16"
        ) from error


@torch.no_grad()
def _mean_loss(model: PreTrainedModel, traces: Sequence[Trace], settings: TrainingSettings, within: Within) -> float:
    total = 0.0
    for part in _slices(traces, settings.batch_tokens):
        with within(part):
            total += float(response_loss(model, part))
    return total / sum(len(trace.response_ids) for trace in traces)


@contextmanager
def _checkpointing(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Recompute activations in the backward pass; transformers does so in train mode only, so a model's dropout comes with it."""
    if not wanted:
        yield
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    try:
        yield
    finally:
        model.eval()
        model.gradient_checkpointing_disable()


def _steps(traces: Sequence[Trace], settings: TrainingSettings) -> Iterator[list[Trace]]:
    """The traces of each step, cut at ``max_steps``."""
    rng = random.Random(settings.seed)
    done = 0
    for _ in range(settings.epochs):
        order = rng.sample(traces, len(traces))
        for start in range(0, len(order), settings.batch_traces):
            if done == settings.max_steps:
                return
            yield order[start : start + settings.batch_traces]
            done += 1


def _slices(traces: Sequence[Trace], budget: int) -> list[list[Trace]]:
    """Traces of like length together, at most ``budget`` tokens with padding, or as many as the longest trace has."""
    by_id = {trace.id: trace for trace in traces}
    lengths = list(map(_length, traces))
    plan = make_plan([trace.id for trace in traces], lengths, max(budget, *lengths), {})
    return [[by_id[name] for name in part] for part in plan.parts]


def _length(trace: Trace) -> int:
    """Tokens that are forwarded."""
    return len(trace.prompt_ids) + len(trace.response_ids) - 1
