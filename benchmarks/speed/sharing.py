"""Work that ``record`` could still leave out: padding, by packed rows, and the repeated question, by a shared prefix.

It takes neither; these rows say why. Both forward fewer positions than the padded batch beside them and end with the same hidden
states, on the decoder stack alone, with nothing recorded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import in_turn, timed
from benchmarks.speed.workload import open_random_model
from trimtab.model import LanguageModel

LAYERS = 2
"""Of the twelve: a layer is a layer, and the ratio is of the stack."""
TESTBED_ROWS = (110, 105, 100, 95) * 4
TESTBED_PROBLEMS, TESTBED_TRACES, TESTBED_PROMPT, TESTBED_RESPONSE = 48, 4, 28, 54
TOLERANCE = 1e-4
Forward = Callable[[], Tensor]


def measure(bundled: LanguageModel, sizes: Sizes, workshop: Path) -> dict[str, dict[str, dict[str, object]]]:
    """Rows by model and lengths: seconds of the way that forwards less over those of the padded batch."""
    wide = open_random_model(workshop / "wide", LAYERS, sizes.width, sizes.d_ff)
    prefixes = [(bundled, "testbed", TESTBED_PROBLEMS, (TESTBED_TRACES, TESTBED_PROMPT, TESTBED_RESPONSE))]
    prefixes += [(wide, "2 layers of 12x768", 1, lengths) for lengths in sizes.prefixes]
    return {
        "packed rows": {
            "testbed": _packed(bundled, TESTBED_ROWS, sizes),
            "2 layers of 12x768": _packed(wide, sizes.packed, sizes),
        },
        "shared prefix": {
            f"{name}, {problems} x {n} traces of {prompt} + {response}": _shared(model, problems, n, prompt, response, sizes)
            for model, name, problems, (n, prompt, response) in prefixes
        },
    }


def _packed(model: LanguageModel, lengths: Sequence[int], sizes: Sizes) -> dict[str, object]:
    """All rows in one, told apart by positions that begin again: transformers makes the block-diagonal mask of them."""
    rows = [_ids(model, 1, length, seed)[0] for seed, length in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    packed, positions = torch.cat(rows)[None], torch.cat([torch.arange(length) for length in lengths])[None]
    real = torch.cat([torch.arange(length) + row * padded.shape[1] for row, length in enumerate(lengths)])
    base = model.layout.base
    row = _compared(
        lambda: base(input_ids=packed, position_ids=positions, use_cache=False).last_hidden_state[0],
        lambda: base(input_ids=padded, use_cache=False).last_hidden_state.flatten(0, 1)[real],
        sizes,
    )
    return {"what": "seconds of one packed row over those of padded rows", "positions_saved": _share(real, padded), **row}


def _shared(model: LanguageModel, problems: int, n: int, prompt: int, response: int, sizes: Sizes) -> dict[str, object]:
    """Each prompt once, its cache repeated for the traces of its problem; prompts of one length, so nothing has to be padded."""
    questions, responses = _ids(model, problems, prompt, 0), _ids(model, problems * n, response, 1)
    whole = torch.cat([questions.repeat_interleave(n, 0), responses], 1)
    base = model.layout.base

    def shared() -> Tensor:
        cache = DynamicCache(config=model.hf_model.config)
        base(input_ids=questions, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(n)
        return base(input_ids=responses, past_key_values=cache, use_cache=True).last_hidden_state

    row = _compared(shared, lambda: base(input_ids=whole, use_cache=False).last_hidden_state[:, prompt:], sizes)
    saved = round(1 - (questions.numel() + responses.numel()) / whole.numel(), 4)
    return {"what": "seconds with the prompt forwarded once over those of whole traces", "positions_saved": saved, **row}


def _share(real: Tensor, padded: Tensor) -> float:
    return round(1 - len(real) / padded.numel(), 4)


def _ids(model: LanguageModel, rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(3, model.identity.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def _compared(less: Forward, padded: Forward, sizes: Sizes) -> dict[str, object]:
    """Both timed in turn, after they were found to give the same hidden states."""
    difference = float((less() - padded()).abs().max())
    if difference > TOLERANCE:
        raise click.ClickException(f"forwarding less gives other hidden states, by up to {difference:.3g}")
    pairs = in_turn(lambda: timed(less), lambda: timed(padded), max(2, sizes.pairs // 2), warm_up=False)
    return {**pairs.to_json(), "largest_difference": float(f"{difference:.2g}")}
