"""Engines that vLLM itself starts: the plugin finds its configuration, and a graph compiled without it is not used."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from live_engines import Figures, answer, prompts, sampling, tokens
from live_rows import word
from sentinels import QUESTIONS, WORDS
from trimtab.model import LanguageModel
from trimtab.testbed.models import resolve
from trimtab.vllm_plugin.offline import gate_outputs, load, status, unload
from vllm_server import STOCK, Server, serving

LENGTH = 6


@pytest.fixture(scope="module")
def stock(steerings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``vllm serve`` with the name of a file in the environment and no option of the plugin."""
    folder = tmp_path_factory.mktemp("stock")
    (folder / "more").mkdir()
    for name in ("six", "sun"):
        shutil.copytree(steerings[name], folder / "more" / name)  # a link would lead out of the folder
    (folder / "one").symlink_to(steerings["six"])
    (folder / "serving.toml").write_text('load_from = "more"\n[steerings]\nsix = "one"\n')
    with serving(folder, ["--dtype=float32"], STOCK, {"TRIMTAB_VLLM": "serving.toml"}) as made:
        yield made


def said(server: Server, **xargs: Any) -> list[str]:
    """The words of an answer."""
    with server.openai() as client:
        answer = client.chat.completions.create(
            model="reasoner",
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            temperature=0,
            max_tokens=LENGTH,
            extra_body={"ignore_eos": True} | ({"vllm_xargs": xargs} if xargs else {}),
        )
    return (answer.choices[0].message.content or "").split()


def test_a_stock_server_steers_by_request(stock: Server) -> None:
    plain = said(stock)
    assert said(stock, steering="six") == plain[:1] + [WORDS["six"][0]] * (LENGTH - 1) != plain
    assert plain == said(stock, steering="none") == said(stock, steering="six", strength=0.0)


def test_a_stock_server_has_the_routes_the_check_and_the_metrics(stock: Server) -> None:
    with stock.http() as http:
        assert [one["name"] for one in http.get("/v1/trimtab/status").json()["steerings"]] == ["six"]
        assert http.post("/v1/trimtab/load", json={"name": "sun", "path": "sun"}).status_code == 200
        assert said(stock, steering="sun")[1:] == [WORDS["sun"][0]] * (LENGTH - 1)
        body = {"model": "reasoner", "prompt": "a", "stream": True, "vllm_xargs": {"steering": "careless"}}
        refused = http.post("/v1/completions", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "steering 'careless' cannot be used; accepted: none, six, sun"
        assert "trimtab_steered_tokens_total" in http.get("/metrics").text
    with stock.http(key="another") as http:
        assert http.get("/v1/trimtab/status").status_code == 401


def test_a_stock_engine_steers_offline(
    steerings: dict[str, str], reasoner: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm import LLM

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("TRIMTAB_VLLM", "no-file.toml")  # the entry comes first
    small: dict[str, Any] = {"max_model_len": 512, "max_num_seqs": 8, "kv_cache_memory_bytes": 2**26}
    config = {"trimtab": {"steerings": {name: steerings[name] for name in ("six", "gated")}}}
    llm = LLM(str(resolve("testbed:reasoner")), dtype="float32", enforce_eager=True, additional_config=config, **small)
    asked = prompts(reasoner)[:1] * 3
    plain, six, gated = answer(llm, asked, [sampling(LENGTH), sampling(LENGTH, steering="six"), sampling(2, steering="gated")])
    assert tokens(six)[1:] == [word(reasoner, "six")] * (LENGTH - 1)
    assert tokens(plain) != tokens(six)
    assert gate_outputs(llm, [gated.request_id])[0]["p_fail"] is not None  # type: ignore[index]
    assert status(llm)["self_test"]["identical"] is True  # type: ignore[index]
    load(llm, "sun", steerings["sun"])
    assert tokens(answer(llm, asked[:1], [sampling(LENGTH, steering="sun")])[0])[1:] == [word(reasoner, "sun")] * (LENGTH - 1)
    unload(llm, "sun")


def compiled(cache: Path, config: dict[str, object], asked: list[int], **xargs: Any) -> list[int]:
    """The tokens of one answer of a compiled engine, in a process of its own that has this cache."""
    code = (
        "import json, sys; from vllm import LLM, SamplingParams; model, config, asked, xargs, length = json.loads(sys.argv[1]);"
        "small = dict(max_model_len=256, max_num_seqs=4, max_num_batched_tokens=256, kv_cache_memory_bytes=2**26);"
        "llm = LLM(model, dtype='float32', additional_config=config, **small);"
        "params = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, extra_args=xargs or None);"
        "print(json.dumps(llm.generate([{'prompt_token_ids': asked}], params, use_tqdm=False)[0].outputs[0].token_ids))"
    )
    given = json.dumps([str(resolve("testbed:reasoner")), config, asked, xargs, LENGTH])
    settings = {"VLLM_CACHE_ROOT": str(cache), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run([sys.executable, "-c", code, given], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def graphs(cache: Path) -> set[str]:
    """Names of the compiled graphs in a cache."""
    return {folder.name for folder in (cache / "torch_compile_cache").glob("*/*") if folder.is_dir()}


def test_a_graph_compiled_without_the_plugin_is_not_used_with_it(
    steerings: dict[str, str], reasoner: LanguageModel, tmp_path: Path, figures: Figures
) -> None:
    asked, config = prompts(reasoner)[0], {"trimtab": {"steerings": {"six": steerings["six"]}, "self_test": False}}
    compiled(tmp_path, {}, asked)
    bare = graphs(tmp_path)
    assert bare
    assert compiled(tmp_path, config, asked, steering="six")[1:] == [word(reasoner, "six")] * (LENGTH - 1)
    assert graphs(tmp_path) > bare  # another key, so neither engine finds the other's graph
    figures("steering acts on the compile cache of an engine without the plugin")
