"""How surprised the model is by given texts or token sequences, with and without a steering."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.analysis.passes import BATCH_TOKENS, Readout, batches, find_readout, steered_pass
from trimtab.errors import InputError, MismatchError
from trimtab.model import LanguageModel
from trimtab.model.attach import GateOverride
from trimtab.recording.tokens import right_padded
from trimtab.stats.estimates import mean_estimates, ratio_estimates
from trimtab.stats.values import Estimate
from trimtab.steering import Steering
from trimtab.traces import Trace

ScoredTokens = Literal["response", "all"]
"""``response`` scores every generated token, the last one too; ``all`` every token but the first, which nothing predicts."""


@dataclass(frozen=True, slots=True, eq=False)
class Perplexity:
    """Negative log-likelihoods in nats, a row a trace.

    Args:
        ids, problems: of the traces; problems are what intervals are drawn over.
        nll: float64 ``[trace]``, summed over the scored tokens.
        tokens: int64 ``[trace]``, how many were scored.
        scored: which tokens.
    """

    ids: tuple[str, ...]
    problems: tuple[str, ...]
    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]
    scored: ScoredTokens

    @property
    def per_token(self) -> float:
        """``sum nll / sum tokens``: long traces weigh more."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def per_trace(self) -> float:
        """Mean over traces of the mean over their tokens: every trace weighs the same."""
        return float((self.nll / self.tokens).mean())

    @property
    def perplexity(self) -> float:
        """``exp(per_token)``."""
        return float(np.exp(self.per_token))

    def summary(self, seed: int = 0) -> "PerplexitySummary":
        """Means with 95 % intervals that draw problems.

        Raises:
            NotEnoughDataError: fewer than two problems.
        """
        (per_token,) = ratio_estimates(self.nll[:, None], self.tokens.astype(np.float64), self.problems, seed=seed)
        (per_trace,) = mean_estimates((self.nll / self.tokens)[:, None], self.problems, seed=seed)
        return PerplexitySummary(self.scored, len(self.ids), int(self.tokens.sum()), _exp(per_token), per_token, per_trace)


@dataclass(frozen=True, slots=True)
class PerplexitySummary:
    """Perplexity of some traces, with 95 % intervals.

    Args:
        traces, tokens: how many traces, and tokens that were scored.
        perplexity: ``exp(nll_per_token)``.
        nll_per_token: nats, long traces weigh more.
        nll_per_trace: nats, mean over traces of the mean over their tokens.
    """

    scored: ScoredTokens
    traces: int
    tokens: int
    perplexity: Estimate
    nll_per_token: Estimate
    nll_per_trace: Estimate

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers and dictionaries."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PerplexityChange:
    """The change in likelihood of the same tokens under a steering, paired trace by trace.

    Args:
        ratio: perplexity steered over unsteered; above 1 is worse.
        per_token, per_trace: steered minus unsteered negative log-likelihood, nats a token, with long traces weighing more or all
            the same.
    """

    ratio: Estimate
    per_token: Estimate
    per_trace: Estimate

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers and dictionaries."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PerplexityEffect:
    """The same tokens without and with a steering, and the paired change."""

    unsteered: PerplexitySummary
    steered: PerplexitySummary
    change: PerplexityChange

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers and dictionaries."""
        return asdict(self)


@torch.inference_mode()
def perplexity(
    model: LanguageModel,
    traces: Sequence[Trace],
    steering: Steering | None = None,
    *,
    scored: ScoredTokens = "response",
    gate: GateOverride = "auto",
    batch_tokens: int = BATCH_TOKENS,
) -> Perplexity:
    """Score token sequences in teacher-forced passes.

    The steering acts where it would in a generation: the prompt's length of each trace is known. So the first response token,
    which the last prompt token predicts, is steered by the scope ``last-and-generated`` but not by ``generated``.

    Args:
        traces: token sequences; for plain texts see :func:`text_traces`.
        steering: None for the bare model.
        scored: which tokens count.
        gate: ``auto`` asks the steering's gate on each prompt.
        batch_tokens: of one pass, padding included.

    Raises:
        InputError: a trace with nothing to score, an empty prompt under ``response``, ids outside the vocabulary, or NaN.
        ModelError: the model cannot be steered, or its logits are not understood.
    """
    _check(traces, scored)
    readout = find_readout(model)
    nll: dict[str, float] = {}
    for batch in batches(model, traces, batch_tokens):
        with nullcontext() if steering is None else steered_pass(model, batch, steering, gate):
            ids = right_padded(model, batch).to(model.device)
            hidden = model.layout.base(input_ids=ids, use_cache=False).last_hidden_state
        nll |= zip([trace.id for trace in batch], _sums(readout, hidden, batch, scored), strict=True)
    broken = [name for name, value in nll.items() if not np.isfinite(value)]
    if broken:
        raise InputError(
            f"{len(broken)} traces have a log-likelihood that is NaN or infinite, first {broken[0]}; use dtype float32"
        )
    return Perplexity(
        ids=tuple(trace.id for trace in traces),
        problems=tuple(trace.problem_id for trace in traces),
        nll=np.array([nll[trace.id] for trace in traces], np.float64),
        tokens=np.array([len(_tokens(trace)) - _first(trace, scored) for trace in traces], np.int64),
        scored=scored,
    )


def compare_perplexity(unsteered: Perplexity, steered: Perplexity, seed: int = 0) -> PerplexityChange:
    """The paired change, with 95 % intervals that draw problems.

    Raises:
        MismatchError: other traces, or other tokens of them.
        NotEnoughDataError: fewer than two problems.
    """
    if (unsteered.ids, unsteered.scored) != (steered.ids, steered.scored) or (unsteered.tokens != steered.tokens).any():
        raise MismatchError("a change of perplexity is of the same tokens of the same traces; score both on one list of traces")
    difference = (steered.nll - unsteered.nll)[:, None]
    tokens = unsteered.tokens.astype(np.float64)
    (per_token,) = ratio_estimates(difference, tokens, unsteered.problems, seed=seed)
    (per_trace,) = mean_estimates(difference / tokens[:, None], unsteered.problems, seed=seed)
    return PerplexityChange(_exp(per_token), per_token, per_trace)


def perplexity_effect(
    model: LanguageModel,
    traces: Sequence[Trace],
    steering: Steering,
    *,
    scored: ScoredTokens = "response",
    gate: GateOverride = "on",
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
) -> PerplexityEffect:
    """Score the same traces twice; see :func:`perplexity` and :func:`compare_perplexity`.

    Args:
        gate: ``on`` steers every trace, ``auto`` those on whose prompt the gate fires.
        seed: of the bootstrap.
    """
    unsteered = perplexity(model, traces, scored=scored, batch_tokens=batch_tokens)
    steered = perplexity(model, traces, steering, scored=scored, gate=gate, batch_tokens=batch_tokens)
    return PerplexityEffect(unsteered.summary(seed), steered.summary(seed), compare_perplexity(unsteered, steered, seed))


def text_traces(model: LanguageModel, texts: Sequence[str], name: str = "text") -> list[Trace]:
    """Plain texts as traces: the first token (a beginning-of-text token where the tokenizer adds one) stands for the prompt.

    Raises:
        InputError: a text of fewer than two tokens.
    """
    traces = []
    for number, text in enumerate(texts):
        ids = tuple(model.tokenizer.encode(text))
        if len(ids) < 2:
            raise InputError(f"text {number} has {len(ids)} tokens, and a perplexity needs two or more: {text[:80]!r}")
        traces.append(Trace(f"{name}/{number}", f"{name}/{number}", 0, ids[:1], ids[1:], text, "stop"))
    return traces


def _tokens(trace: Trace) -> tuple[int, ...]:
    return (*trace.prompt_ids, *trace.response_ids)


def _first(trace: Trace, scored: ScoredTokens) -> int:
    """The first token that is scored."""
    return len(trace.prompt_ids) if scored == "response" else 1


def _check(traces: Sequence[Trace], scored: ScoredTokens) -> None:
    for trace in traces:
        if not 1 <= _first(trace, scored) < len(_tokens(trace)):
            raise InputError(
                f"trace {trace.id} of {len(trace.prompt_ids)} prompt and {len(trace.response_ids)} response tokens has none that "
                f"is predicted under scored={scored!r}; leave it out, or score all tokens"
            )


def _sums(readout: Readout, hidden: Tensor, batch: Sequence[Trace], scored: ScoredTokens) -> list[float]:
    """Summed negative log-likelihood of each trace of a batch."""
    rows, positions, targets = [], [], []
    for row, trace in enumerate(batch):
        tokens, first = _tokens(trace), _first(trace, scored)
        rows += [row] * (len(tokens) - first)
        # the token at a position is predicted by the one before
        positions += range(first - 1, len(tokens) - 1)
        targets += tokens[first:]
    row, position, target = (torch.tensor(column, device=hidden.device) for column in (rows, positions, targets))
    sums = torch.zeros(len(batch), dtype=torch.float64)
    for chunk in readout.chunks(len(rows)):
        logits = readout.logits(hidden[row[chunk], position[chunk]])
        loss = torch.nn.functional.cross_entropy(logits, target[chunk], reduction="none")
        sums.index_add_(0, row[chunk].cpu(), loss.double().cpu())
    return sums.tolist()


def _exp(estimate: Estimate) -> Estimate:
    return Estimate(*(float(np.exp(end)) for end in (estimate.value, estimate.low, estimate.high)))
