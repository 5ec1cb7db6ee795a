"""The plugin in one worker: hooks once the model is loaded, a self-test once it is compiled, answers to ``collective_rpc``."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial, wraps
from typing import Any, cast

import torch
from torch import Tensor, nn

from trimtab.errors import MismatchError, ModelError
from trimtab.vllm_plugin.config import LIVE, PLUGIN, PluginConfig, check_version, installed
from trimtab.vllm_plugin.courses import Warned
from trimtab.vllm_plugin.hooks import LayerTable, StepBuffers, down_projections
from trimtab.vllm_plugin.recording import Recording
from trimtab.vllm_plugin.refusals import check_engine, read_steering
from trimtab.vllm_plugin.requests import RequestStates
from trimtab.vllm_plugin.runners import follow_v1, follow_v2
from trimtab.vllm_plugin.step import EngineSteering
from trimtab.vllm_plugin.tables import Rank, SlotTables, plan_room

logger = logging.getLogger(__name__)

LAYOUT = "trimtab_layout"
"""Entry of ``additional_config`` that makes graphs compiled for other tables useless: vLLM hashes it into their key."""


def install(model: nn.Module, vllm_config: object, config: PluginConfig, device: torch.device) -> EngineSteering:
    """Hook the model and load the steerings of the configuration, in order, into slots 1, 2 ...

    Raises:
        ConfigError, ModelError: an engine, a model or a steering that this does not work with.
    """
    check_version()
    check_engine(vllm_config, config)  # type: ignore[arg-type]  # vLLM's own class
    hf_config = vllm_config.model_config.hf_text_config  # type: ignore[attr-defined]
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config  # type: ignore[attr-defined]
    steerings = {name: read_steering(path, name, config, hf_config) for name, path in config.steerings.items()}
    n_layers, d_model, d_ff = hf_config.num_hidden_layers, hf_config.hidden_size, hf_config.intermediate_size
    down = down_projections(model, n_layers, config.side)
    rank = Rank(_rank(parallel.tensor_parallel_size), parallel.tensor_parallel_size, d_ff)
    step = StepBuffers.make(scheduler.max_num_batched_tokens, device)
    room = plan_room(tuple(steerings.values()), config, rank, n_layers)
    recording = None if config.record is None else Recording(config.record, n_layers, scheduler.max_num_seqs, rank.width, device)
    tables = SlotTables(config, down, room, step, rank, vllm_config.model_config.dtype)  # type: ignore[attr-defined]
    tables.install(d_model, recording)
    if not tables.layers:
        raise ModelError(
            "the trimtab plugin has nothing to hook: no steering is given and neurons_per_layer is 0. "
            "Fix: name a steering, or leave room for some"
        )
    for slot, (name, steering) in enumerate(steerings.items(), 1):
        tables.load(slot, steering, name)
    cast("dict[str, object]", vllm_config.additional_config)[LAYOUT] = f"{PLUGIN};{config.side};{config.monitor};{tables.layout}"  # type: ignore[attr-defined]
    requests = RequestStates(scheduler.max_num_seqs + 1, device)
    logger.info("trimtab: %d layers hooked, %d steerings loaded, side %s", len(tables.layers), len(steerings), config.side)
    return EngineSteering(tables, step, requests, recording, config.monitor)


def _rank(count: int) -> int:
    if count == 1:
        return 0
    from vllm.distributed import get_tensor_model_parallel_rank  # pyright: ignore[reportMissingImports]

    return get_tensor_model_parallel_rank()


TOKENS = 8
_SHIFT = 1e3


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The result of the self-test.

    Args:
        layers: those whose hook changed the output.
        identical: whether slot 0 left it bit for bit as it was.
        counted: whether each layer counted the tokens that it steered.
    """

    layers: tuple[int, ...]
    identical: bool
    counted: bool


def self_test(steering: EngineSteering, forward: Callable[[], Tensor]) -> SelfTest:
    """Run forwards of dummy tokens, with a large shift in each layer by itself.

    Args:
        steering: no request runs yet.
        forward: the model on :data:`TOKENS` dummy tokens, its hidden states.

    Raises:
        ModelError: a layer whose shift changes nothing (a graph compiled without it, a kernel that passes it by), or an unsteered
            forward that differs.
    """
    steering.testing = True
    try:
        return _self_test(steering, forward)
    finally:
        steering.testing = False
        steering.wipe()


def _self_test(steering: EngineSteering, forward: Callable[[], Tensor]) -> SelfTest:
    tables = steering.tables
    layers = [layer for layer, table in tables.layers.items() if table.steers_input or table.steers_output]
    plain = _run(steering, forward, 0)
    identical = torch.equal(plain, _run(steering, forward, 0))
    before = {layer: int(tables.layers[layer].fired) for layer in layers}
    moved = [
        layer
        for layer in layers
        if not torch.equal(plain, _shifted(tables.layers[layer], tables.test_row, partial(_run, steering, forward)))
    ]
    counted = all(int(tables.layers[layer].fired) - before[layer] == TOKENS * len(layers) for layer in layers)
    if set(layers) - set(moved):
        raise ModelError(
            f"self-test: a shift of {_SHIFT:g} in layers {sorted(set(layers) - set(moved))} does not change the output, so "
            "steering would silently do nothing there. Fix: delete vLLM's compile cache (VLLM_CACHE_ROOT) or set "
            "VLLM_DISABLE_COMPILE_CACHE=1; if it stays, the model passes its down projections by: serve it without steering"
        )
    if not identical:
        raise ModelError(
            "self-test: the same tokens give other bits twice, so an unsteered request cannot be compared; "
            "switch self_test off in the plugin's configuration if the engine is known to be nondeterministic"
        )
    return SelfTest(tuple(moved), identical, counted)


def _run(steering: EngineSteering, forward: Callable[[], Tensor], row: int) -> Tensor:
    step = steering.step
    step.rows[:TOKENS] = row
    step.weight[:TOKENS] = 1.0
    step.steered.fill_(TOKENS if row else 0)
    return forward().detach()[:TOKENS].clone()


def _shifted(table: LayerTable, row: int, run: Callable[[int], Tensor]) -> Tensor:
    entry = table.output_shift if table.steers_output else table.shift
    entry[row] = _SHIFT
    try:
        return run(row)
    finally:
        entry[row] = 0.0


@dataclass(slots=True)
class WorkerSteering:
    """The steering of a worker, with the results of its start.

    Args:
        steering: around the model of this worker.
        config: of the engine.
        hf_config: sizes of the model.
        runner: ``V1`` or ``V2``, vLLM's model runner.
        self_test: None before it has run, or where it is switched off.
        seconds: what the plugin has added to the start.
    """

    steering: EngineSteering
    config: PluginConfig
    hf_config: object
    runner: str
    self_test: SelfTest | None = None
    seconds: float = 0.0

    def load(self, slot: int, path: str, digest: str) -> None:
        """Put an artifact into a slot.

        Raises:
            MismatchError: the artifact is not the one that the input processor has read.
            ModelError: it does not fit the model or the tables.
        """
        steering = read_steering(path, path, self.config, self.hf_config)
        if steering.digest != digest:
            raise MismatchError(
                f"{path} was read as {digest} by the input processor and as {steering.digest} here; load it again"
            )
        self.steering.tables.load(slot, steering, path)

    def unload(self, slot: int) -> None:
        """Empty a slot."""
        self.steering.tables.unload(slot)

    def status(self) -> dict[str, object]:
        """Return versions, layout, slots, counters and the self-test's result, as plain values."""
        return {
            "plugin": PLUGIN,
            "vllm": installed(),
            "vllm_live_tested": LIVE,
            "runner": self.runner,
            "runner_status": "live-tested" if self.runner == "V1" else "not run live",
            "side": self.config.side,
            "layout": self.steering.tables.layout,
            "self_test": None if self.self_test is None else asdict(self.self_test),
            "startup_seconds": self.seconds,
            **self.steering.status(),
        }

    def request(self, request_id: str) -> dict[str, object] | None:
        """Return the gate's outputs of a request."""
        return self.steering.gate_outputs.find(request_id)

    def course(self, request_id: str) -> list[list[float]] | None:
        """Return p(fail) after each response token and g at it, as two lists; None where no running gate read it. Once."""
        found = self.steering.requests.courses.take(request_id)
        return None if found is None else found.T.tolist()

    def warnings(self, since: int) -> tuple[list[Warned], int]:
        """Return the warnings after the first ``since``, and how many there are in all."""
        courses = self.steering.requests.courses
        return courses.warned(since), courses.warnings

    def moments(self, request_id: str) -> dict[str, object] | None:
        """Return the recorded sums of a request, once."""
        recording, total = self.steering.recording, self.steering.moments(request_id)
        return None if recording is None or total is None else recording.wire(total)


def follow_worker(worker: Any, config: PluginConfig) -> None:
    """Install the plugin in a worker, by wrapping two methods of this one object."""
    load_model, warm_up = worker.load_model, worker.compile_or_warm_up_model

    @wraps(load_model)
    def load_and_hook(*args: Any, **kwargs: Any) -> Any:
        result = load_model(*args, **kwargs)
        worker.trimtab_steering = _hook(worker, config)
        return result

    @wraps(warm_up)
    def warm_up_and_test(*args: Any, **kwargs: Any) -> Any:
        result = warm_up(*args, **kwargs)
        if config.self_test:
            _test(worker.model_runner, worker.trimtab_steering)
        logger.info("trimtab: %.2f s added to the start", worker.trimtab_steering.seconds)
        return result

    worker.load_model, worker.compile_or_warm_up_model = load_and_hook, warm_up_and_test


def _hook(worker: Any, config: PluginConfig) -> WorkerSteering:
    began = time.perf_counter()
    runner, vllm_config = worker.model_runner, worker.vllm_config
    steering = install(runner.get_model(), vllm_config, config, runner.device)
    second = bool(vllm_config.use_v2_model_runner)
    (follow_v2 if second else follow_v1)(runner, steering)
    side = WorkerSteering(steering, config, vllm_config.model_config.hf_text_config, "V2" if second else "V1")
    side.seconds = time.perf_counter() - began
    return side


def _test(runner: Any, side: WorkerSteering) -> None:
    began = time.perf_counter()

    def forward() -> Tensor:
        return runner._dummy_run(TOKENS, force_attention=True)[0]

    side.self_test = self_test(side.steering, forward)
    side.seconds += time.perf_counter() - began


class WorkerExtension:
    """The methods that ``collective_rpc`` can call. vLLM mixes them into its worker, as ``worker_extension_cls`` says.

    Attributes:
        trimtab_steering: set when the worker has loaded its model.
    """

    trimtab_steering: "WorkerSteering"

    def trimtab_load(self, slot: int, path: str, digest: str) -> None:
        """Put an artifact into a slot; the digest says which one the input processor has read."""
        self.trimtab_steering.load(slot, path, digest)

    def trimtab_unload(self, slot: int) -> None:
        """Empty a slot that no request holds."""
        self.trimtab_steering.unload(slot)

    def trimtab_status(self) -> dict[str, object]:
        """Return versions, layout, slots, counters and the self-test's result."""
        return self.trimtab_steering.status()

    def trimtab_request(self, request_id: str) -> dict[str, object] | None:
        """Return p(fail), the gate's decision and the monitor of a request; None if it is not remembered."""
        return self.trimtab_steering.request(request_id)

    def trimtab_course(self, request_id: str) -> list[list[float]] | None:
        """Return p(fail) after each response token and g at it, once; None where no running gate read the request."""
        return self.trimtab_steering.course(request_id)

    def trimtab_warnings(self, since: int) -> tuple[list[Warned], int]:
        """Return the warnings of running gates after the first ``since`` (request, token, p(fail)), and how many there are."""
        return self.trimtab_steering.warnings(since)

    def trimtab_moments(self, request_id: str) -> dict[str, object] | None:
        """Return the recorded sums of a request, once; see :func:`trimtab.vllm_plugin.recording.read_wire`."""
        return self.trimtab_steering.moments(request_id)
