"""What must be the same where a part is computed, so that its bytes do not tell who computed it."""

from collections.abc import Mapping
from importlib.metadata import version

import torch

from trimtab.errors import MismatchError
from trimtab.model import LanguageModel

Facts = Mapping[str, str]

_PACKAGES = ("trimtab", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "safetensors")


def package_facts() -> dict[str, str]:
    """Versions of the packages that a part's bytes depend on; read before anything of theirs is unpickled."""
    return {name: version(name) for name in _PACKAGES}


def model_facts(model: LanguageModel) -> dict[str, str]:
    """Who the model is and how it computes."""
    device = model.device.type
    return {
        "model fingerprint": model.identity.fingerprint,
        "tokenizer fingerprint": model.tokenizer_fingerprint,
        "dtype": str(model.hf_model.dtype),
        "attention": str(model.hf_model.config._attn_implementation),
        "device": f"cpu, {torch.backends.cpu.get_cpu_capability()}" if device == "cpu" else device,
        "threads": str(torch.get_num_threads()),
    }


def check_facts(expected: Facts, found: Facts, where: str) -> None:
    """Raise MismatchError that names what differs on a worker, with its value there and here.

    Args:
        expected: the driver's.
        found: the worker's, with the same keys.
        where: of the worker, for the message.
    """
    different = [f"  {key}: here {expected[key]}, there {found[key]}" for key in expected if expected[key] != found[key]]
    if different:
        raise MismatchError(
            f"the worker on {where} would write other bytes than this process; they differ in\n"
            + "\n".join(different)
            + "\nFix: install the same packages and put the same model on every node; for another dtype or device name "
            "model.dtype and executor.num_gpus in run.toml"
        )
