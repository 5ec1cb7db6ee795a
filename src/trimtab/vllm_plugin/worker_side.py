"""The plugin on one worker: what the front can ask of it."""

from dataclasses import asdict, dataclass

from trimtab.errors import MismatchError
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.engine import EngineSteering
from trimtab.vllm_plugin.install import read_steering
from trimtab.vllm_plugin.selftest import SelfTest
from trimtab.vllm_plugin.versions import LIVE, PLUGIN, installed


@dataclass(slots=True)
class WorkerSide:
    """An engine's steering with what was found at its start.

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
            MismatchError: the artifact is not the one that the front has read.
            ModelError: it does not fit the model or the tables.
        """
        steering = read_steering(path, path, self.config, self.hf_config)
        if steering.digest != digest:
            raise MismatchError(f"{path} was read as {digest} by the front and as {steering.digest} here; load it again")
        self.steering.tables.load(slot, steering, path)

    def unload(self, slot: int) -> None:
        """Empty a slot."""
        self.steering.tables.unload(slot)

    def status(self) -> dict[str, object]:
        """All that can be known of this worker, as plain values."""
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
        """What was read of a request."""
        return self.steering.scores.find(request_id)

    def moments(self, request_id: str) -> dict[str, object] | None:
        """The recorded sums of a request, once."""
        recording, total = self.steering.recording, self.steering.moments(request_id)
        return None if recording is None or total is None else recording.wire(total)
