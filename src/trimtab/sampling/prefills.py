"""Prompts that are read once: for many conditions, where steering begins after the prompt, and what all prompts begin with."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import uuid4

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig

from trimtab.model import LanguageModel
from trimtab.sampling.batch import Request
from trimtab.sampling.decoding import PreallocatedLayer, sees_everything
from trimtab.sampling.ways import gaps_hold

SHARED, SAVED = 8, 256
"""Tokens that all prompts begin with, at least, and that reading them once has to save, or they are read with the rest."""

Prompts = tuple[tuple[int, ...], ...]


class _Prefill(NamedTuple):
    """Logits ``[row, vocabulary]`` of the first token of each response, and keys and values of every layer.

    ``beginning`` is one row of the columns that all rows have in common, and ``rest`` are the other columns.
    """

    logits: Tensor
    beginning: tuple[tuple[Tensor, Tensor], ...]
    rest: tuple[tuple[Tensor, Tensor], ...]


def shared_tokens(model: LanguageModel, requests: Sequence[Request], room: int) -> int:
    """How many tokens all prompts begin with, at most all but the last of the shortest; 0 where reading them once would not pay.

    It depends on prompts and model alone, so that all conditions of a batch read them alike, bit for bit; ``room`` are the
    columns for what is generated, which have to lie within the model's window together with the prompts.

    Example:
        >>> examples = tuple(range(300))  # doctest: +SKIP
        >>> shared_tokens(opened, [Request("a", (*examples, 7, 8)), Request("b", (*examples, 9))], 20)  # doctest: +SKIP
        300
    """
    prompts = {request.prompt_ids for request in requests}
    first, last = min(prompts), max(prompts)  # what these two begin with, all do
    most = min(map(len, prompts)) - 1
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    shared = min(shared, most)
    if shared < SHARED or shared * (len(prompts) - 1) < SAVED:
        return 0
    fits = sees_everything(model.hf_model.config, max(map(len, prompts)) + room)
    return shared if fits and gaps_hold(model) else 0


def kept_positions(batch_tokens: int) -> int:
    """How many positions of a cache are kept at most: those of half a batch."""
    return batch_tokens // 2


class Prefills:
    """Prefills of batches of prompts on one model, for as long as its weights stay as they are.

    The same prompts in the same batch give the same bits, so what is generated from a kept prefill is what would be generated
    anyway. The first batches are kept and not the last, since each condition begins with the first again.

    Only caches that this package allocates are kept; a model with recurrent states, or with windows that a batch outgrows, reads
    its prompts every time.
    """

    def __init__(self, batch_tokens: int) -> None:
        """Nothing is kept yet.

        Args:
            batch_tokens: of the sampling; as many bytes are kept as :func:`kept_positions` take in a cache.
        """
        self._batch_tokens = batch_tokens
        self._name = uuid4().hex
        self._kept: dict[Prompts, _Prefill] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        """Nothing of it goes to another process, which keeps under its name what it reads itself."""
        return _arrived, (self._name, self._batch_tokens)

    def get(self, prompts: Sequence[tuple[int, ...]], config: PretrainedConfig, room: int) -> tuple[Tensor, DynamicCache] | None:
        """Logits and a cache of its own with room for more tokens, or None where these prompts are not kept as one batch.

        Args:
            prompts: in order.
            config: of the model.
            room: positions for what is generated.
        """
        found, capacity = self._kept.get(tuple(prompts)), max(map(len, prompts)) + room
        if found is None or not sees_everything(config, capacity):
            return None
        cache = DynamicCache(config=config)
        layers = [PreallocatedLayer(capacity) for _ in found.rest]
        for layer, common, (keys, values) in zip(layers, found.beginning, found.rest, strict=True):
            layer.update(*(part.expand(len(keys), -1, -1, -1) for part in common))
            layer.update(keys, values)
        cache.layers[:] = layers
        return found.logits, cache

    def keep(self, prompts: Sequence[tuple[int, ...]], logits: Tensor, cache: DynamicCache, shared: int = 0) -> None:
        """Keep what a forward over these prompts has given, if there is room for it.

        Args:
            prompts: in order.
            logits: ``[row, vocabulary]``.
            cache: after that forward.
            shared: columns at its beginning that are the same in all rows; they are kept once.
        """
        layers = [layer.filled for layer in cache.layers if isinstance(layer, PreallocatedLayer)]
        if len(layers) < len(cache.layers):
            return
        beginning = [tuple(part[:1, :, :shared] for part in layer) for layer in layers]
        rest = [tuple(part[:, :, shared:] for part in layer) for layer in layers]
        a_position = sum(part.nbytes for layer in layers for part in layer) // (len(prompts) * cache.get_seq_length())
        size = logits.nbytes + sum(part.nbytes for layer in (*beginning, *rest) for part in layer)
        if self._bytes + size > kept_positions(self._batch_tokens) * a_position:
            return
        self._kept[tuple(prompts)] = _Prefill(logits, _wholes(beginning), _wholes(rest))
        self._bytes += size


ARRIVED = 2
"""Prefills of other processes that are kept here; a worker goes to and fro between the validation and the test split."""
_here: OrderedDict[str, Prefills] = OrderedDict()


def _arrived(name: str, batch_tokens: int) -> Prefills:
    """What this process keeps under a name: the same for every job that comes with it."""
    prefills = _here.pop(name) if name in _here else Prefills(batch_tokens)  # which is false while it is empty
    _here[name] = prefills
    while len(_here) > ARRIVED:
        _here.popitem(last=False)
    return prefills


def _wholes(layers: Iterable[Iterable[Tensor]]) -> tuple[tuple[Tensor, Tensor], ...]:
    """Copies of keys and values that hold nothing else in memory."""
    copies = (tuple(part.clone(memory_format=torch.contiguous_format) for part in layer) for layer in layers)
    return tuple((keys, values) for keys, values in copies)
