"""Servers of the bundled model, started by ``trimtab serve`` or as ``vllm serve`` starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import OpenAI

from trimtab.testbed.models import resolve

MODEL = "testbed:reasoner"
KEY = "key-of-the-tests"
SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32", "MALLOC_ARENA_MAX": "1"}
"""oneDNN keeps a thousand kernels, one a batch size, which takes 400 MiB and many thousand requests: a leak would drown in it."""
KEPT_ALIVE = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600"}
"""Seconds: vLLM closes a connection 5 s after its last answer was sent, which a slow reader has then just read. A request that is
written to it at that moment fails, and no server is to blame."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    pid: int
    log: Path

    def http(self, key: str = KEY) -> httpx.Client:
        """A client for the routes beside OpenAI's."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def openai(self) -> OpenAI:
        """The official client."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)


OURS = ("-m", "trimtab.cli.main", "serve", MODEL)
STOCK = ("-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(MODEL)))
"""What ``vllm serve`` runs. The command itself looks for a package called vllm, which that for CPUs is not."""


@contextmanager
def serving(
    folder: Path, options: Sequence[str], command: Sequence[str] = OURS, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server on a free port, in eager mode, run in the folder and with its log there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = ["--enforce-eager", "--host=127.0.0.1", f"--port={port}", "--served-model-name=reasoner", "--max-num-seqs=64"]
    engine += [f"--api-key={KEY}", "--disable-uvicorn-access-log"]
    words = [sys.executable, *command, *options, *engine]
    settings = (
        {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        | KEPT_ALIVE
        | SMALL_CACHES
        | dict(environment or {})
    )
    log = folder / "server.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            words, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=os.environ | settings, start_new_session=True
        ) as process,
    ):
        made = Server(f"http://127.0.0.1:{port}", process.pid, log)
        try:
            _wait(process, made)
            yield made
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # a server that is still starting swallows the signal, and its engine outlives it
                os.killpg(process.pid, signal.SIGKILL)


def _wait(process: "subprocess.Popen[bytes]", made: Server) -> None:
    until = time.monotonic() + 600
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{made.url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start: {made.log.read_text()[-4000:]}")
