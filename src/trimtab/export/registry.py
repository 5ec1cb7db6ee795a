"""The targets by name."""

from collections.abc import Mapping
from types import MappingProxyType

from trimtab.export.parts import TargetName
from trimtab.export.target import Target
from trimtab.export.targets.adaras_csv import AdarasCsv
from trimtab.export.targets.gguf_vector import GgufVector
from trimtab.export.targets.ia3 import Ia3
from trimtab.export.targets.lm_eval_dict import LmEvalDict
from trimtab.export.targets.lora import Lora
from trimtab.export.targets.merged import Merged
from trimtab.export.targets.plain_json import PlainJson

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
