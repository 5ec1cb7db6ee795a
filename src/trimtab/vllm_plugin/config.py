"""What an engine is started with: the steerings, room for more, and what it reads of the activations."""

from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import ConfigError
from trimtab.moments import TokenScope
from trimtab.vllm_plugin.versions import PLUGIN, check_version

KEY = "trimtab"
"""Where the configuration stands in vLLM's ``additional_config``."""
NONE = "none"
"""What a request calls the absence of a steering."""
EXTENSION = "trimtab.vllm_plugin.worker.TrimtabWorker"

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
        slots: how many steerings the engine holds at once.
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
        >>> PluginConfig(steerings={"careful": "runs/demo/steering"}, default="careful").slots
        8
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = PLUGIN
    steerings: dict[str, str] = Field(default_factory=dict)
    default: str | None = None
    slots: int = Field(default=8, ge=1, le=4096)
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
        if len(self.steerings) > self.slots:
            raise ValueError(f"{len(self.steerings)} steerings do not fit {self.slots} slots; raise slots")
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
