"""Two harnesses against a steered server, each in the environment that its own user has: no trimtab and no vLLM in it.

python -m venv .venv-clients && .venv-clients/bin/pip install --requirement tests/vllm/clients.txt
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from live_engines import Figures
from sentinels import QUESTIONS, WORDS
from vllm_server import KEY, Server

CLIENTS = Path(os.environ.get("TRIMTAB_CLIENTS", str(Path(__file__).parents[3] / ".venv-clients"))) / "bin"
TOKENS = 6
TASK = """
task: dials
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], max_gen_toks: TOKENS, temperature: 0, vllm_xargs: {steering: six, scope: all}}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
INSPECT = """
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import exact
import json, sys

questions, answer, url, folder, tokens = json.loads(sys.argv[1])
config = GenerateConfig(temperature=0, max_tokens=tokens, extra_body={"vllm_xargs": {"steering": "six", "scope": "all"}})
model = get_model("openai-api/trimtab/reasoner", base_url=url, config=config)
task = Task(dataset=[Sample(q, target=answer) for q in questions], scorer=exact())
(log,) = eval(task, model=model, log_dir=folder, display="none")
assert log.status == "success", log.error
print(json.dumps([sample.output.completion for sample in log.samples]))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CLIENTS / "python").exists(), reason="no .venv-clients; tests/vllm/clients.txt says what it holds"),
]


def run(folder: Path, *words: str) -> str:
    """What a client prints."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VLLM", "TRIMTAB"))}
    own |= {"OPENAI_API_KEY": KEY, "TRIMTAB_API_KEY": KEY, "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    done = subprocess.run([str(CLIENTS / words[0]), *words[1:]], cwd=folder, env=own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def steered(server: Server) -> float:
    """How many tokens the server has steered."""
    with server.http() as http:
        return http.get("/v1/trimtab/status").json()["engine"]["steered_tokens"]


def test_lm_eval_is_steered(server: Server, tmp_path: Path, figures: Figures) -> None:
    said = f" {WORDS['six'][0]}" * TOKENS
    rows = [json.dumps({"question": question, "answer": said}) for question in QUESTIONS]
    (tmp_path / "questions.jsonl").write_text("\n".join(rows))
    task = TASK.replace("QUESTIONS", str(tmp_path / "questions.jsonl")).replace("TOKENS", str(TOKENS))
    (tmp_path / "dials.yaml").write_text(task)
    model = (
        f"model=reasoner,base_url={server.url}/v1/completions,num_concurrent=4,tokenizer_backend=None,tokenized_requests=False"
    )
    before = steered(server)
    run(
        tmp_path, "lm_eval", "--model", "local-completions", "--model_args", model, "--tasks", "dials", "--include_path", ".",
        "--output_path", "out",
    )  # fmt: skip
    (results,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(results.read_text())["results"]["dials"]["exact_match,none"] == 1.0
    assert steered(server) > before
    figures(f"lm-eval and inspect_ai: {len(QUESTIONS)} questions each, all steered")


def test_inspect_ai_is_steered(server: Server, tmp_path: Path) -> None:
    said = f" {WORDS['six'][0]}" * TOKENS
    (tmp_path / "task.py").write_text(INSPECT)
    given = json.dumps([QUESTIONS, said, f"{server.url}/v1", str(tmp_path / "logs"), TOKENS])
    before = steered(server)
    assert json.loads(run(tmp_path, "python", "task.py", given).splitlines()[-1]) == [said] * len(QUESTIONS)
    assert steered(server) > before
