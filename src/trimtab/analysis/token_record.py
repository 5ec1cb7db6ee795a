"""The verb ``tokens``: of each response its tokens' log probabilities, alternatives, and what steering did to each of them.

One teacher-forced pass a response, batched, in place of hooks in the loop that generates: it serves every engine that generates,
leaves the outcomes' bytes alone, and costs a prefill. Its numbers are those of a forward over the whole response, which differ
from the loop's by rounding.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import DynamicCache

from trimtab.analysis.contributions import DirectPath, EditWatch, direct_path, why_no_dose, why_not
from trimtab.analysis.passes import Readout, find_readout, steered_pass
from trimtab.errors import InputError, ModelError
from trimtab.gate import RunningGate
from trimtab.model import LanguageModel
from trimtab.progress import Advance
from trimtab.recording.tokens import n_forwarded, right_padded
from trimtab.sampling import Request
from trimtab.sampling.decoding import keep_rows, new_cache
from trimtab.sampling.prefills import shared_tokens
from trimtab.steering import Steering
from trimtab.store import AnyPath, Parts, Plan, digest_of, load_tensors, make_plan
from trimtab.traces import Trace

ALTERNATIVES, LARGEST, CONTEXTS = 5, 3, 12
"""Most likely tokens, places of largest contribution, and tokens on which a neuron is most active."""


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """A response whose tokens are recorded: ``strength`` is the steering's times g, 0 for the bare model."""

    trace: Trace
    strength: float


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """The tokens of one response, ``T`` of them.

    Args:
        logprob: float32 ``[T]``, nats, of the token that was chosen.
        alternative, alternative_logprob: int32 and float32 ``[T, 5]``, the most likely tokens, most likely first.
        acted: bool ``[T]``, whether the forward that chose the token was steered.
        total: float32 ``[T]``, logit of the chosen token that all edits add directly; 0 where steering does not act.
        neuron, contribution: int32 and float32 ``[T, 3]``, the places (neurons, then directions, in the steering's order) of
            largest absolute contribution; 0 where steering does not act.
        dose: float32 ``[T]``, norm of the edit over the norm of what the FFN of the steered layers writes; 0 where it has none.
        p_fail: float32 ``[T]``, running p(fail) once the token is read; the last token, which nobody reads, keeps that of the
            token before it. None without a running gate.
    """

    logprob: NDArray[np.float32]
    alternative: NDArray[np.int32]
    alternative_logprob: NDArray[np.float32]
    acted: NDArray[np.bool_]
    total: NDArray[np.float32]
    neuron: NDArray[np.int32]
    contribution: NDArray[np.float32]
    dose: NDArray[np.float32]
    p_fail: NDArray[np.float32] | None = None


class Hit(NamedTuple):
    """A token of a response on which a neuron is active: the response's id, the token's place in it, the activation."""

    response: str
    token: int
    activation: float


class TokenRecord:
    """Tokens of responses on disk.

    Args:
        folder: of the parts.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._parts = Parts(folder, ".safetensors")

    @property
    def why_not(self) -> str:
        """Why there are no contributions; empty where there are."""
        return str(self._parts.plan.settings["why_not"])

    @property
    def why_no_dose(self) -> str:
        """Why there is no dose; empty where there is."""
        return str(self._parts.plan.settings["why_no_dose"])

    def read(self) -> tuple[dict[str, TokenRows], list[list[Hit]]]:
        """The rows of every response by its id, and of every neuron the unsteered tokens on which it is most active, most first.

        Raises:
            StoreError: a part is missing or truncated.
        """
        rows: dict[str, TokenRows] = {}
        hits: list[list[Hit]] = []
        for part, ids in enumerate(self._parts.plan.parts):
            tensors, _ = load_tensors(self._parts.path(part))
            bounds = np.cumsum(tensors["count"])[:-1]
            columns = {name: np.split(tensors[name], bounds) for name in _COLUMNS if name in tensors}
            for i, name in enumerate(ids):
                rows[name] = TokenRows(**{column: values[i] for column, values in columns.items()})
            value, row, token = tensors["hit_value"], tensors["hit_row"], tensors["hit_token"]
            hits = hits or [[] for _ in value]
            for neuron, found in enumerate(zip(row.tolist(), token.tolist(), value.tolist(), strict=True)):
                hits[neuron] += [Hit(ids[r], t, v) for r, t, v in zip(*found, strict=True) if r >= 0]
        return rows, [sorted(found, key=lambda hit: (-abs(hit.activation), hit.response))[:CONTEXTS] for found in hits]


_COLUMNS = tuple(TokenRows.__dataclass_fields__)


@dataclass(frozen=True)
class TokensJob:
    """The responses of one folder of parts."""

    responses: Mapping[str, JudgedResponse]
    steering: Steering
    parts: Parts
    probe: RunningGate | None = None
    label: str = "tokens"

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        parts = list(parts)
        if not parts:
            return
        readout = find_readout(model)
        path = None if self.plan.settings["why_not"] else direct_path(model, self.steering, readout)
        for part in parts:
            batch = [self.responses[name] for name in self.plan.parts[part]]
            self.parts.write_tensors(part, _tensors(model, batch, self.steering, readout, path, self.probe), {})
            advance(len(batch), sum(len(response.trace.response_ids) for response in batch))


def tokens_job(
    model: LanguageModel,
    responses: Mapping[str, JudgedResponse],
    steering: Steering,
    folder: AnyPath,
    *,
    batch_tokens: int,
    why_not: str = "",
    probe: RunningGate | None = None,
) -> TokensJob:
    """Plan the record of some responses, store the plan, and compute nothing yet.

    Args:
        responses: by a name of their own; none of them without a token.
        steering: what acted on those of a strength other than 0.
        batch_tokens: bounds rows x longest row of one forward.
        why_not: why no contribution is computed; empty to compute them.
        probe: a running gate, whose p(fail) is recorded at every token.

    Raises:
        InputError: a response without a token.
        ConfigError: the folder holds another plan.
    """
    for name, response in responses.items():
        if not response.trace.response_ids or not response.trace.prompt_ids:
            raise InputError(f"response {name} has no token to record; leave it out")
    facts = {
        "steering": steering.digest,
        "model": model.identity.fingerprint,
        "dtype": str(model.hf_model.dtype),
        "why_not": why_not,
        "why_no_dose": why_no_dose(model, steering),
        **({} if probe is None else {"probe": digest_of([probe.settings, {n: a.tolist() for n, a in probe.arrays.items()}])}),
    }
    sizes = [n_forwarded(response.trace) for response in responses.values()]
    plan = make_plan(list(responses), sizes, batch_tokens, facts)
    parts = Parts(folder, ".safetensors")
    parts.ensure_plan(plan)
    return TokensJob(responses, steering, parts, probe)


def mean_doses(model: LanguageModel, responses: Mapping[str, JudgedResponse], steering: Steering) -> dict[str, float | None]:
    """The mean dose of each response over the tokens that its steering acted on; None where it acted on none.

    The dose is the norm of the edit over the norm of what the FFN of the steered layers writes without it: at 1 the edit
    is as large as the layers' own output.

    Args:
        responses: by a name of their own; their strengths may differ.

    Raises:
        ModelError: a model whose dose cannot be read, such as a mixture of experts.
    """
    if reason := why_no_dose(model, steering) or why_not(model, steering, find_readout(model)):
        raise ModelError(f"the dose of this steering cannot be read: {reason}")
    with TemporaryDirectory() as folder:
        job = tokens_job(model, responses, steering, Path(folder), batch_tokens=16_384)
        job.run(model, job.missing(), lambda *_: None)
        rows, _ = TokenRecord(Path(folder)).read()
    return {name: float(row.dose[row.acted].mean()) if row.acted.any() else None for name, row in rows.items()}


def acting(responses: Sequence[JudgedResponse], scope: str, width: int) -> Tensor:
    """Strength times g where a generation would have been steered, 0 elsewhere; float32 ``[batch, width]``."""
    weight = torch.zeros(len(responses), width)
    for row, response in zip(weight, responses, strict=True):
        prompt = len(response.trace.prompt_ids)
        start = {"generated": prompt, "last-and-generated": prompt - 1, "all": 0}[scope]
        row[start : n_forwarded(response.trace)] = response.strength
    return weight


@dataclass(frozen=True, slots=True, eq=False)
class TokenPass:
    """One forward of a batch, at the positions that chose a response token, all responses one after the other.

    Args:
        counts: tokens of each response.
        hidden: ``[token, d_model]``, after the final norm.
        chosen: int64 ``[token]``, ids.
        weight: float32 ``[token]``, strength times g where the forward was steered.
        contributions: float32 ``[token, place]``; None without a path.
        dose: float32 ``[token]``.
        p_fail: float32 ``[token]``; None without a probe.
        watch: what was seen, of all positions from ``shared`` on.
        shared: tokens that all prompts begin with, which a forward of their own has read.
    """

    counts: list[int]
    hidden: Tensor
    chosen: Tensor
    weight: Tensor
    contributions: Tensor | None
    dose: Tensor
    p_fail: NDArray[np.float32] | None
    watch: EditWatch
    shared: int


@torch.inference_mode()
def pass_tokens(
    model: LanguageModel,
    batch: Sequence[JudgedResponse],
    steering: Steering,
    path: DirectPath | None,
    probe: RunningGate | None = None,
) -> TokenPass:
    """Run a batch, each row at its own strength, and gather the positions that chose its tokens."""
    traces = [response.trace for response in batch]
    ids = right_padded(model, traces)
    shared, cache = _beginning(model, batch, steering, ids)
    ids = ids[:, shared:]
    everywhere = acting(batch, steering.scope, shared + ids.shape[1])[:, shared:]
    watch = EditWatch(model, steering, everywhere, path, probe)
    strength = torch.tensor([response.strength for response in batch])
    with ExitStack() as hooks:
        watch.install(hooks)
        if strength.any():
            # after the watch's hooks, which see what the model computed
            attachment = hooks.enter_context(steered_pass(model, traces, steering, "on", strength))
            if shared:
                attachment.note_beginning(traces[0].prompt_ids[:shared])
        watch.install_last(hooks)
        forward = model.layout.base(input_ids=ids.to(model.device), past_key_values=cache, use_cache=cache is not None)
        hidden = forward.last_hidden_state
    rows = torch.cat([torch.full((len(t.response_ids),), row) for row, t in enumerate(traces)])
    columns = torch.cat([torch.arange(len(t.prompt_ids) - 1, n_forwarded(t)) for t in traces]) - shared
    chosen = torch.tensor([token for trace in traces for token in trace.response_ids])
    picked = hidden[rows.to(hidden.device), columns.to(hidden.device)]
    weight = everywhere[rows, columns]
    on = weight != 0
    contributions = None
    if path is not None:
        contributions = torch.zeros(len(chosen), len(steering))
        if on.any():
            assert watch.stream is not None
            row, column, here = rows[on], columns[on], on.to(hidden.device)
            factor = path.norm_factor(watch.stream[row.to(hidden.device), column.to(hidden.device)], picked[here]).cpu()
            contributions[on] = path.contributions(watch.delta(row, column), chosen[on], factor)
    p_fail = (
        None if probe is None else np.concatenate([_running(probe, t, watch.features[i], shared) for i, t in enumerate(traces)])
    )
    counts = [len(t.response_ids) for t in traces]
    return TokenPass(counts, picked, chosen, weight, contributions, watch.dose[rows, columns], p_fail, watch, shared)


def _beginning(
    model: LanguageModel, batch: Sequence[JudgedResponse], steering: Steering, ids: Tensor
) -> tuple[int, DynamicCache | None]:
    """How many tokens all prompts begin with, and a cache of them for each row; 0 and None where each is read whole."""
    if steering.scope == "all":
        return 0, None
    requests = [Request(response.trace.id, response.trace.prompt_ids) for response in batch]
    width = ids.shape[1]
    shared = shared_tokens(model, requests, width - max(len(request.prompt_ids) for request in requests))
    if not shared:
        return 0, None
    cache = new_cache(model.hf_model.config, width)
    model.layout.base(input_ids=ids[:1, :shared].to(model.device), past_key_values=cache, use_cache=True)
    keep_rows(cache, torch.zeros(len(batch), dtype=torch.long, device=model.device))
    return shared, cache


def _running(probe: RunningGate, trace: Trace, features: Tensor, shared: int) -> NDArray[np.float32]:
    """Running p(fail) of a response, ``[T]``; that of no token at all is the bias alone."""
    read = features[len(trace.prompt_ids) - shared : n_forwarded(trace) - shared].numpy()
    p = probe.probability(read) if len(read) else 1 / (1 + np.exp(-np.array([probe.bias])))
    return np.append(p, p[-1:])[: len(trace.response_ids)].astype(np.float32)


def _tensors(
    model: LanguageModel,
    batch: Sequence[JudgedResponse],
    steering: Steering,
    readout: Readout,
    path: DirectPath | None,
    probe: RunningGate | None,
) -> dict[str, NDArray[Any]]:
    found = pass_tokens(model, batch, steering, path, probe)
    logprob, ids, alternatives = _probabilities(readout, found.hidden, found.chosen)
    contributions = found.contributions
    if contributions is None:
        contributions = torch.zeros(len(found.chosen), len(steering))
    largest = contributions.abs().topk(min(LARGEST, len(steering)), -1).indices
    acted = found.weight != 0
    return {
        "count": np.array(found.counts),
        "logprob": logprob.numpy(),
        "alternative": ids.to(torch.int32).numpy(),
        "alternative_logprob": alternatives.numpy(),
        "acted": acted.numpy(),
        "total": contributions.sum(-1).numpy(),
        "neuron": torch.where(acted[:, None], largest, 0).to(torch.int32).numpy(),
        "contribution": contributions.gather(-1, largest).numpy(),
        "dose": found.dose.numpy(),
        **({} if found.p_fail is None else {"p_fail": found.p_fail}),
        **_hits(batch, found.watch.activations, found.shared),
    }


@torch.inference_mode()
def _probabilities(readout: Readout, hidden: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log probability of the chosen tokens, and the most likely ones with theirs."""
    columns: list[tuple[Tensor, ...]] = []
    for part in readout.chunks(len(hidden)):
        logprob = log_softmax(readout.logits(hidden[part]), -1)
        own = logprob.gather(-1, chosen[part].to(logprob.device)[:, None])[:, 0]
        best = logprob.topk(min(ALTERNATIVES, logprob.shape[-1]), -1)
        columns.append((own.cpu(), best.indices.cpu(), best.values.cpu()))
    own, ids, alternatives = (torch.cat(column) for column in zip(*columns, strict=True))
    return own, ids, alternatives


def _hits(batch: Sequence[JudgedResponse], activations: Tensor, shared: int) -> dict[str, NDArray[Any]]:
    """Where each neuron is most active among the generated tokens of unsteered responses, ``[neuron, hit]``; row -1 for none."""
    n_neurons = activations.shape[-1]
    value = np.zeros((n_neurons, CONTEXTS), np.float32)
    row, token = (np.full((n_neurons, CONTEXTS), -1, np.int32) for _ in range(2))
    bare = [i for i, response in enumerate(batch) if response.strength == 0 and len(response.trace.response_ids) > 1]
    if bare:
        spans = [(len(batch[i].trace.prompt_ids) - shared, n_forwarded(batch[i].trace) - shared) for i in bare]
        seen = torch.cat([activations[i, start:stop] for i, (start, stop) in zip(bare, spans, strict=True)])
        rows = np.concatenate([np.full(stop - start, i) for i, (start, stop) in zip(bare, spans, strict=True)])
        places = np.concatenate([np.arange(stop - start) for start, stop in spans])
        best = seen.abs().topk(min(CONTEXTS, len(seen)), 0).indices.T.numpy()
        kept = best.shape[1]
        row[:, :kept], token[:, :kept] = rows[best], places[best]
        value[:, :kept] = np.take_along_axis(seen.T.numpy(), best, 1)
    return {"hit_value": value, "hit_row": row, "hit_token": token}
