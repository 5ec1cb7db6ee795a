"""The identity of a model: sizes and a fingerprint of its weights, by which an artifact knows the model it was made for."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trimtab.errors import MismatchError, ModelError
from trimtab.model.adapters import FfnLayout, find_ffn
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

logger = logging.getLogger(__name__)

_SAMPLE = 4096
_NO_CONTENT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
"""Keys of a configuration that change no logit; the dtype is that of the weights."""
_SIZES = ("architecture", "n_layers", "d_model", "d_ff", "n_experts", "vocab_size", "widths")


def identify(model: PreTrainedModel, name: str, revision: str | None, *, layout: FfnLayout | None = None) -> ModelIdentity:
    """Sizes and weight fingerprint of a model.

    The fingerprint is blake2b over the name, shape and an evenly strided sample (at most 4096 elements) of every parameter, each
    parameter once however many names it is tied to. Samples are rounded to bfloat16 first, so a checkpoint opened in bfloat16
    and in float32 agrees. Not guaranteed: a float32 checkpoint opened in float16 (rounded twice), a quantised copy, and two
    fine-tunes that differ only between the sampled elements or below bfloat16's resolution.

    Args:
        name: what the file will call the model (hub id or folder); free text.
        revision: commit or branch; free text.
        layout: the result of :func:`find_ffn`, found again when None.

    Raises:
        ModelError: a weight is offloaded, so its content cannot be read.
    """
    layout = layout or find_ffn(model)
    return ModelIdentity(
        name=name,
        revision=revision,
        architecture=model.config.model_type,
        fingerprint=_weight_fingerprint(model),
        n_layers=layout.n_layers,
        d_model=layout.d_model,
        d_ff=layout.d_ff,
        vocab_size=model.config.get_text_config().vocab_size,
        n_experts=layout.n_experts,
        widths=layout.widths,
    )


_digests: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def weights_digest(hf_model: PreTrainedModel) -> str:
    """Hash of all that a model computes with: every byte of its parameters and buffers, its configuration, its end tokens.

    Unlike the fingerprint of :func:`identify` it tells apart two models that differ in one element, and a float32 copy from a
    bfloat16 one. The bytes are hashed again when a tensor was replaced, when its version counter has changed (every in-place
    operation of torch moves it), or when the fingerprint has. Not guaranteed: a write through ``.data`` or numpy, which moves no
    version counter, between the sampled elements.

    Raises:
        ModelError: a weight is offloaded, so its content cannot be read.
    """
    tensors = [*hf_model.named_parameters(), *((f"buffer {name}", buffer) for name, buffer in hf_model.named_buffers())]
    state = (_weight_fingerprint(hf_model), *((name, t.data_ptr(), t.dtype, _version(t)) for name, t in tensors))
    held = _digests.get(hf_model)
    if held is None or held[0] != state:
        held = state, _hash_bytes(tensors)
        _digests[hf_model] = held
    config = {key: value for key, value in hf_model.config.to_dict().items() if key not in _NO_CONTENT}
    ends = hf_model.generation_config.eos_token_id if hf_model.generation_config else None
    facts = json.dumps([held[1], config, hf_model.config._attn_implementation, ends], sort_keys=True, default=str)
    return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


def _version(tensor: Tensor) -> object:
    # an inference tensor counts no versions: a new object each time, so that it never equals what was kept
    return object() if tensor.is_inference() else tensor._version


def _hash_bytes(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        if tensor.is_meta:
            raise _offloaded(name)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().reshape(-1).cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what turns text into ids and back: vocabulary, added tokens and, for a fast tokenizer, its rules and merges.

    The chat template and the padding and truncation settings of a call do not count.
    """
    facts: dict[str, object] = {
        "vocabulary": tokenizer.get_vocab(),
        "added": {str(token_id): str(token) for token_id, token in tokenizer.added_tokens_decoder.items()},
    }
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        facts |= {part: state[part] for part in ("normalizer", "pre_tokenizer", "model", "decoder")}
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def check_identity(expected: ModelIdentity, actual: ModelIdentity, force: bool = False) -> None:
    """Raise MismatchError naming every field in which a model differs from the one an artifact was made for.

    Name and revision may differ (a renamed folder is the same model). ``force`` admits another fingerprint, for a fine-tune
    of the same base; sizes and architecture must agree in any case.
    """
    different = [field for field in _SIZES if getattr(expected, field) != getattr(actual, field)]
    refused = different + (["fingerprint"] if expected.fingerprint != actual.fingerprint and not force else [])
    if refused:
        lines = [f"  {field}: expected {getattr(expected, field)}, this model has {getattr(actual, field)}" for field in refused]
        fix = (
            f"open {expected.name}" + (f" at revision {expected.revision}" if expected.revision else "")
            if different
            else f"open {expected.name}, or use --force-model (attach(..., force_model=True)) if this is a fine-tune of it"
        )
        raise MismatchError(
            f"made for {expected.name}, given {actual.name}, and they differ in\n" + "\n".join(lines) + f"\nFix: {fix}",
            code="other-model",
        )
    if expected.fingerprint != actual.fingerprint:
        logger.warning("forced: made for weights %s, used on %s (%s)", expected.fingerprint, actual.fingerprint, actual.name)


def rebind(steering: Steering, identity: ModelIdentity) -> Steering:
    """The same steering for another set of weights of the same architecture, a fine-tune for example.

    The new artifact remembers in ``facts["forced_from"]`` which model it was made for.

    Raises:
        MismatchError: sizes or architecture differ.
    """
    if steering.model.fingerprint == identity.fingerprint:
        return steering
    check_identity(steering.model, identity, force=True)
    made_for = {"name": steering.model.name, "fingerprint": steering.model.fingerprint}
    return replace(steering, model=identity, facts={**steering.facts, "forced_from": made_for})


def weight_fingerprint(samples: Iterable[tuple[str, Sequence[int], bytes]]) -> str:
    """The fingerprint of parameters given as (name, shape, sample), see :func:`identify`; the order does not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for name, shape, sample in sorted(samples, key=lambda item: item[0]):
        digest.update(f"{name}{list(shape)}".encode())
        digest.update(sample)
    return digest.hexdigest()


def sample_stride(numel: int) -> int:
    """Every how many elements of a flattened parameter the fingerprint takes one."""
    return max(1, -(-numel // _SAMPLE))


def sample_bytes(sample: Tensor) -> bytes:
    """Sampled elements as the fingerprint hashes them, rounded to bfloat16."""
    return sample.to(torch.bfloat16).to("cpu", torch.float32).numpy().tobytes()


def _weight_fingerprint(model: PreTrainedModel) -> str:
    return weight_fingerprint(
        (name, parameter.shape, _sample(name, parameter.detach()))
        for name, parameter in model.named_parameters(remove_duplicate=True)
    )


def _sample(name: str, parameter: Tensor) -> bytes:
    if parameter.is_meta:
        raise _offloaded(name)
    return sample_bytes(parameter.reshape(-1)[:: sample_stride(parameter.numel())])


def _offloaded(name: str) -> ModelError:
    return ModelError(
        f"parameter {name} is offloaded, so the weights cannot be fingerprinted; "
        "open the model on one device, or pass the identity it had when it was opened"
    )
