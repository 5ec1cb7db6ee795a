"""A worker's start: hooks after its model is loaded, the self-test after it is compiled."""

import logging
import time
from functools import wraps
from typing import Any

from torch import Tensor

from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.install import install
from trimtab.vllm_plugin.selftest import TOKENS, self_test
from trimtab.vllm_plugin.v1 import follow_v1
from trimtab.vllm_plugin.v2 import follow_v2
from trimtab.vllm_plugin.worker_side import WorkerSide

logger = logging.getLogger(__name__)


def follow_worker(worker: Any, config: PluginConfig) -> None:
    """Wrap two methods of this one worker."""
    load_model, warm_up = worker.load_model, worker.compile_or_warm_up_model

    @wraps(load_model)
    def load_and_hook(*args: Any, **kwargs: Any) -> Any:
        result = load_model(*args, **kwargs)
        worker.trimtab_side = _hook(worker, config)
        return result

    @wraps(warm_up)
    def warm_up_and_test(*args: Any, **kwargs: Any) -> Any:
        result = warm_up(*args, **kwargs)
        if config.self_test:
            _test(worker.model_runner, worker.trimtab_side)
        logger.info("trimtab: %.2f s added to the start", worker.trimtab_side.seconds)
        return result

    worker.load_model, worker.compile_or_warm_up_model = load_and_hook, warm_up_and_test


def _hook(worker: Any, config: PluginConfig) -> WorkerSide:
    began = time.perf_counter()
    runner, vllm_config = worker.model_runner, worker.vllm_config
    steering = install(runner.get_model(), vllm_config, config, runner.device)
    second = bool(vllm_config.use_v2_model_runner)
    (follow_v2 if second else follow_v1)(runner, steering)
    side = WorkerSide(steering, config, vllm_config.model_config.hf_text_config, "V2" if second else "V1")
    side.seconds = time.perf_counter() - began
    return side


def _test(runner: Any, side: WorkerSide) -> None:
    began = time.perf_counter()

    def forward() -> Tensor:
        return runner._dummy_run(TOKENS, force_attention=True)[0]

    side.self_test = self_test(side.steering, forward)
    side.seconds += time.perf_counter() - began
