"""The down projections' weights, in one orientation whatever the module."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError
from trimtab.model.experts import experts_shape
from trimtab.model.opening import LanguageModel


def down_weights(model: LanguageModel, layers: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    """``W`` of each layer, float32 ``[d_model, d_ff]``, so that ``W[:, S] @ shift`` is what a shift adds to the FFN's output.

    Experts stand side by side; the shift of a neuron reaches the output of a token times the routing weight of its expert.

    Raises:
        ModelError: a quantised down projection, whose weight is not a plain matrix.
    """
    weights = {}
    for layer in layers:
        module = model.layout.modules[layer]
        if model.layout.mixture:
            shape = experts_shape(module)
            stacked = module.get_parameter("down_proj")  # [expert, d_model, d_expert]
            weight = stacked.permute(1, 0, 2).reshape(shape.d_model, shape.n_experts * shape.d_expert)
        elif type(module) is nn.Linear:
            weight = module.weight
        elif isinstance(module, Conv1D):
            weight = module.weight.T
        else:
            raise ModelError(
                f"the down projection of layer {layer} is a {type(module).__name__}, whose weight cannot be read as a matrix; "
                "open the model without quantisation to match the norms of random controls"
            )
        if weight.is_meta:
            raise ModelError(f"the down projection of layer {layer} is offloaded, so its weight cannot be read; use one device")
        weights[layer] = weight.detach().float().cpu().numpy()
    return weights
