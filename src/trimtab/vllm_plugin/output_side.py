"""What neurons write: the output side's form of an additive steering."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.vllm_plugin.projections import is_lora
from trimtab.vllm_plugin.rank import Rank


def written_by(
    module: nn.Module, neurons: NDArray[np.int64], shift: NDArray[np.float32], rank: Rank, dtype: torch.dtype
) -> Tensor:
    """``W_down @ shift``, float32 ``[d_model]``, summed over the ranks.

    From the weights in float32 where they are plain; through the module's own kernel where they are quantised, with the error
    that the kernel makes on any input.

    Args:
        module: a down projection, which all ranks call together.
        neurons: int64 ``[neuron]``, counted over all ranks.
        shift: float32 ``[neuron]``.
        rank: of this worker.
        dtype: of the model's activations.
    """
    base: nn.Module = module.base_layer if is_lora(module) else module  # type: ignore[assignment]
    place, columns = rank.own(0, np.zeros_like(neurons), neurons)
    tensors = dict(base.named_parameters())
    device = next(iter(tensors.values())).device
    own = torch.zeros(rank.width, device=device)
    own[torch.from_numpy(columns).to(device)] = torch.from_numpy(np.ascontiguousarray(shift[place])).to(device)
    weight = tensors.get("weight")
    if weight is None or weight.dtype not in (torch.float32, torch.float16, torch.bfloat16) or weight.shape[-1] != rank.width:
        both = torch.stack([own, torch.zeros_like(own)]).to(dtype)
        output = base(both)
        with_shift, without = (output[0] if isinstance(output, tuple) else output).float()
        return with_shift - without
    written = weight.detach().float() @ own
    if rank.count > 1:
        from vllm.distributed import tensor_model_parallel_all_reduce  # pyright: ignore[reportMissingImports]

        written = tensor_model_parallel_all_reduce(written)
    return written
