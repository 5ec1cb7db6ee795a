"""The commands of docs/deploy.md that need vLLM, on the bundled model."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from deploy_page import MODEL, arguments, fitting, save_steerings, shell_commands, table_commands
from tiny_testbed import some_problems
from trimtab.cli.main import trimtab
from trimtab.model import LanguageModel
from trimtab.sampling import TRANSFORMERS, Request, SamplingSettings
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.testbed.models import resolve
from trimtab.traces import Split

SERVE, VERIFY = shell_commands()[2:4], shell_commands()[4:]
TOKENS = 24


@pytest.fixture(scope="module")
def exported(reasoner: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``lora`` and ``merged``, beside the steerings."""
    folder = Path(tmp_path_factory.mktemp("deploy"))
    steerings = save_steerings(reasoner, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for target in ("lora", "merged"):
            words = arguments(table_commands()[target], fitting(steerings, target))
            assert CliRunner().invoke(trimtab, words[1:], catch_exceptions=False).exit_code == 0
    return folder


@pytest.mark.parametrize("command", VERIFY)
def test_verify(exported: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(exported)
    words = arguments(command, exported / "gains")[1:]
    told = CliRunner().invoke(trimtab, [*words, "--max-new-tokens", "16", "--json"], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout.splitlines()[-1])["ok"] is True


@pytest.mark.parametrize("command", SERVE)
def test_serve(exported: Path, reasoner: LanguageModel, command: str) -> None:
    """The adapter, the merged checkpoint and the base answer as the hooks do, side by side where one server has both."""
    steering = Steering.from_pretrained(exported / "gains")
    prompt = render_prompt(reasoner.tokenizer, some_problems(1, Split.VALIDATION)[0].question)
    settings, request = SamplingSettings(n=1, temperature=0.0, max_new_tokens=TOKENS), Request("a", prompt)
    expected = {
        name: TRANSFORMERS.generate(reasoner, [request], settings, attached, "on")[0].response_ids
        for name, attached in (("bare", None), ("steered", replace(steering, strength=1.0)))
    }
    with serving(arguments(command, exported / "gains"), exported) as url:
        models = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
        body = {"prompt": list(prompt), "max_tokens": TOKENS, "temperature": 0, "return_token_ids": True}
        for model in models:
            answer = httpx.post(f"{url}/v1/completions", json={"model": model, **body}, timeout=120)
            assert answer.status_code == 200, answer.text
            ids = tuple(answer.json()["choices"][0]["token_ids"])
            kind = "steered" if model in ("steered", "merged") else "bare"
            assert ids == expected[kind], model
    assert len(models) == (2 if "--enable-lora" in command else 1)


@contextmanager
def serving(words: list[str], folder: Path) -> Iterator[str]:
    """A server of the page's command on a free port, small enough for a test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256", "--host", "127.0.0.1", "--port", str(port)]
    model, *options = [str(resolve(MODEL)) if word == MODEL else word for word in words[2:]]
    # what `vllm serve` runs; the command itself looks for a package called vllm, which that for CPUs is not
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *options, *small]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": ""}
    log = folder / f"log-{port}"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            until = time.monotonic() + 240
            while not _answers(f"http://127.0.0.1:{port}/health"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server did not start: {log.read_text()[-4000:]}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
