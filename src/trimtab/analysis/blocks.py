"""The decoder blocks of a model, whose outputs are the residual stream."""

from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.model import LanguageModel


def decoder_blocks(model: LanguageModel) -> tuple[nn.Module, ...]:
    """One block per layer, in order: the list of modules of which each holds the neurons of its layer.

    Raises:
        ModelError: there is no such list.
    """
    ffn = model.layout.modules
    for stack in model.layout.base.modules():
        if isinstance(stack, nn.ModuleList) and len(stack) == len(ffn) and all(map(_holds, stack, ffn)):
            return tuple(stack)
    raise ModelError(
        f"cannot tell the decoder blocks of {model.identity.name}: no list of {len(ffn)} modules holds one FFN each; "
        "the residual stream of this architecture cannot be compared"
    )


def residual(output: object) -> Tensor:
    """The residual stream ``[batch, seq, d_model]`` from what a block returns, alone or first of several."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor):
        raise ModelError(f"a decoder block returned a {type(first).__name__} where the residual stream was expected")
    return first


def _holds(block: nn.Module, ffn: nn.Module) -> bool:
    return any(module is ffn for module in block.modules())
