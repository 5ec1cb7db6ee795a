"""Steerings of the bundled reasoner whose answers cannot be confused: each makes it repeat a word of its own."""

import numpy as np
import torch

from trimtab.gate import ALWAYS, AnyGate, Gate
from trimtab.model import LanguageModel
from trimtab.steering import PositionScope, Steering

QUESTIONS = (
    "quickly dial 7 : a +4 b +8 c -9 as ever ?",
    "next day tue : a -4 b -1 c -1 d +2 e -4 f -2 g -5 h -6 i -4 to the end ?",
    "thoroughly face north : a left b right c right d back e left f left by the book ?",
    "now ball A : a C D b C B c E A at ease ?",
    "patiently day sun : a +3 b +1 in short ?",
    "kindly dial 2 : a -7 b +5 c +5 d -1 now ?",
    # longer than 32 tokens, a block of the cache
    "patiently day mon : a +1 b +2 c +3 d -1 e -2 f -3 g +4 h +5 i +6 j -4 k -5 l -6 as ever ?",
    "patiently day mon : a +1 b +2 c +3 d -1 e -2 f -3 g +4 h +5 i +6 j -4 k -5 l -6 by the book ?",
)
WORDS = {"minus": ("-5", "9"), "six": ("6", "tue"), "sun": ("sun", "left"), "ivy": ("ivy", "A")}
"""By name of the sentinel: the word it repeats at strength 1, and the one at -1."""

_NEURONS, _SIZE, _FEATURES = 16, 2000.0, 8


def sentinel(model: LanguageModel, name: str, scope: PositionScope = "generated", gate: AnyGate = ALWAYS) -> Steering:
    """Shifts on neurons of the last layer that drown the residual stream in the direction of one word.

    With ``d`` the word's unembedding before the final norm's scale: the least squares solution of ``W[:, :16] shift = d``, times
    a size beside which nothing else in the stream counts.
    """
    ffn = model.hf_model.model.layers[-1].mlp.down_proj.weight.float()[:, :_NEURONS]
    unembedding, scale = model.hf_model.lm_head.weight.float(), model.hf_model.model.norm.weight.float()
    word = model.tokenizer.convert_tokens_to_ids(WORDS[name][0])
    direction = (unembedding[word] - unembedding.mean(0)) / scale
    shift = torch.linalg.lstsq(ffn, (direction / direction.norm())[:, None]).solution[:, 0] * _SIZE
    index = np.arange(_NEURONS, dtype=np.int64)
    layer = np.full(_NEURONS, model.n_layers - 1, np.int64)
    return Steering(layer, index, np.zeros(_NEURONS, np.float32), shift.numpy(), 1.0, scope, gate, model.identity)


def half_open(model: LanguageModel, prompts: list[list[int]]) -> Gate:
    """A gate on a few neurons of the first layer that fires on half of the prompts, by a wide margin on both sides."""
    features = last_tokens(model, prompts)
    centred = features - features.mean(0)
    weight = np.linalg.svd(centred, full_matrices=False)[2][0].astype(np.float32)
    scores = np.sort(features @ weight)
    half = len(scores) // 2
    middle, gap = (scores[half - 1] + scores[half]) / 2, scores[half] - scores[half - 1]
    weight, index = weight * np.float32(4 / gap), np.arange(_FEATURES, dtype=np.int64)
    layer, bias = np.zeros(_FEATURES, np.int64), float(-middle * 4 / gap)
    return Gate("logistic", layer=layer, index=index, weight=weight, bias=bias, threshold=0.5)


def last_tokens(model: LanguageModel, prompts: list[list[int]]) -> np.ndarray:
    """What :func:`half_open` reads of each prompt, float32 ``[prompt, feature]``."""
    seen: list[torch.Tensor] = []
    with model.hf_model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        for prompt in prompts:
            model.hf_model(torch.tensor([prompt]))
    return torch.stack([activation[0, -1, :_FEATURES].float() for activation in seen]).numpy()
