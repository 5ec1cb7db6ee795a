"""Open a model, find its neurons, prove the hook points, and steer it."""

from trimtab.model.adapters import FfnLayout, find_ffn
from trimtab.model.attach import Attachment, attach
from trimtab.model.check import Diagnosis, LayerFinding, check_model
from trimtab.model.hook_points import down_weights, hook_neurons, watch_neurons
from trimtab.model.identity import check_identity, identify, rebind, tokenizer_fingerprint, weights_digest
from trimtab.model.opening import LanguageModel, checkpoint_dtype, open_model, open_tokenizer
from trimtab.model.probes import prove

__all__ = [
    "Attachment",
    "Diagnosis",
    "FfnLayout",
    "LanguageModel",
    "LayerFinding",
    "attach",
    "check_identity",
    "check_model",
    "checkpoint_dtype",
    "down_weights",
    "find_ffn",
    "hook_neurons",
    "identify",
    "open_model",
    "open_tokenizer",
    "prove",
    "rebind",
    "tokenizer_fingerprint",
    "watch_neurons",
    "weights_digest",
]
