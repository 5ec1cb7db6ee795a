"""What a worker answers to ``collective_rpc``: vLLM mixes this class into its own worker."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.vllm_plugin.worker_side import WorkerSide


class TrimtabWorker:
    """Named by ``worker_extension_cls``; ``trimtab_side`` is set when the worker has loaded its model."""

    trimtab_side: "WorkerSide"

    def trimtab_load(self, slot: int, path: str, digest: str) -> None:
        """Put an artifact into a slot; the digest says which one the front has read."""
        self.trimtab_side.load(slot, path, digest)

    def trimtab_unload(self, slot: int) -> None:
        """Empty a slot that no request holds."""
        self.trimtab_side.unload(slot)

    def trimtab_status(self) -> dict[str, object]:
        """Versions, layout, slots, counters and the self-test's result."""
        return self.trimtab_side.status()

    def trimtab_request(self, request_id: str) -> dict[str, object] | None:
        """The gate's score and decision of a request, and its monitor; None for one that is not remembered."""
        return self.trimtab_side.request(request_id)

    def trimtab_moments(self, request_id: str) -> dict[str, object] | None:
        """The recorded sums of a request, once; see :func:`trimtab.vllm_plugin.recording.read_wire`."""
        return self.trimtab_side.moments(request_id)
