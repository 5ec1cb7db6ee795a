"""The targets by name, and the engines that open their exports."""

from collections.abc import Mapping
from types import MappingProxyType

from trimtab.errors import InputError
from trimtab.export.parts import EngineName, TargetName
from trimtab.export.target import Opener, Target
from trimtab.export.targets.adaras_csv import AdarasCsv
from trimtab.export.targets.gguf_vector import GgufVector
from trimtab.export.targets.ia3 import Ia3
from trimtab.export.targets.lm_eval_dict import LmEvalDict
from trimtab.export.targets.lora import Lora
from trimtab.export.targets.merged import Merged
from trimtab.export.targets.plain_json import PlainJson
from trimtab.export.vllm_engine import lora_in_vllm, merged_in_vllm

TARGETS: Mapping[TargetName, Target] = MappingProxyType(
    {
        "lora": Lora(),
        "ia3": Ia3(),
        "merged": Merged(),
        "gguf": GgufVector(),
        "adaras-csv": AdarasCsv(),
        "json": PlainJson(),
        "lm-eval": LmEvalDict(),
    }
)

_IN_VLLM: Mapping[TargetName, Opener] = MappingProxyType({"lora": lora_in_vllm, "merged": merged_in_vllm})


def opener_of(target: TargetName, engine: EngineName) -> Opener:
    """What loads an export of a target: the loader that the target is made for, or another engine that takes its files.

    Raises:
        InputError: the engine does not take them.
    """
    if engine == "own":
        return TARGETS[target].open
    if target not in _IN_VLLM:
        raise InputError(f"vLLM does not load an export to {target}; it loads {', '.join(_IN_VLLM)}. Verify without --engine")
    return _IN_VLLM[target]
