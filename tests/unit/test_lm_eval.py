"""The harness under a steering: strength 0 is its own ``hf`` bit for bit, anything else is what trimtab generates and scores."""

import importlib
import json
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import DynamicCache

from steering_samples import logistic, neuron_set
from tiny_testbed import open_tiny_testbed, settings, some_problems
from trimtab.errors import InputError, MismatchError, ModelError
from trimtab.gate import ALWAYS, NEVER, Gate
from trimtab.lm_eval import SteeredLM, main
from trimtab.model import LanguageModel, attach
from trimtab.sampling import Request, generate_batch
from trimtab.steering import PositionScope, Steering
from trimtab.tasks.prompts import CHAT, render_prompt

QUESTIONS = [problem.question for problem in some_problems(7)]
PAIRS = [("w1 w2 w3", "w4 w5"), ("w9", "w8 w7 w6 w5"), ("w3 w1 w4 w1 w5 w9", "w2 w6"), ("w2 w7", "w1 w8 w2")]
ON_CPU = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("tiny")) / "model"


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return open_tiny_testbed(folder)


@pytest.fixture
def words(model: LanguageModel) -> list[str]:
    return model.tokenizer.convert_ids_to_tokens(list(range(20, 80)))


def steered(
    model: LanguageModel, folder: Path, *, strength: float = 1.0, scope: PositionScope = "generated", gate: Gate = ALWAYS
) -> Steering:
    steering = Steering.of(neuron_set(model.identity), strength, scope, gate)
    steering.save_pretrained(folder)
    return steering


def halfway(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> Gate:
    """A gate that fires on half of these prompts, rounded up."""
    requests = [Request(str(i), tuple(prompt)) for i, prompt in enumerate(prompts)]
    seen = generate_batch(model, requests, settings(), Steering.of(neuron_set(model.identity), 1.0, gate=logistic()))
    probabilities = sorted(g.p_fail for g in seen if g.p_fail is not None)
    split = len(probabilities) // 2
    return logistic((probabilities[split - 1] + probabilities[split]) / 2)


def chats(lm: HFLM) -> list[Instance]:
    contexts = [str(lm.apply_chat_template([{"role": "user", "content": question}])) for question in QUESTIONS]
    return [Instance("generate_until", {}, (c, {"until": [], "max_gen_toks": 12}), i) for i, c in enumerate(contexts)]


def pairs(words: Sequence[str]) -> list[Instance]:
    """Continuations of several lengths after contexts of several lengths."""
    texts = [tuple(" ".join(words[int(w[1:])] for w in side.split()) for side in pair) for pair in PAIRS]
    return [Instance("loglikelihood", {}, (context, f" {rest}"), i) for i, (context, rest) in enumerate(texts)]


@torch.no_grad()
def stepwise(model: LanguageModel, steering: Steering, context: str, continuation: str, window: int = 256) -> tuple[float, bool]:
    """The score of a continuation by generating it: a prefill of the context, then one token after the other."""
    ids, more = (model.tokenizer(text, add_special_tokens=False).input_ids for text in (context, continuation))
    ids = ids[max(0, len(ids) + len(more) - window - 1) :]
    total, greedy, cache = 0.0, True, DynamicCache()
    with attach(model.hf_model, steering, layout=model.layout, identity=model.identity):
        fed = ids
        for token in more:
            logits = model.hf_model(input_ids=torch.tensor([fed]), past_key_values=cache, use_cache=True).logits[0, -1]
            total += logits.log_softmax(-1)[token].item()
            greedy &= int(logits.argmax()) == token
            fed = [token]
    return total, greedy


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("strength", "override", "gate"), [(0.0, "auto", ALWAYS), (1.0, "off", ALWAYS), (1.0, "auto", NEVER)])
def test_steering_nothing_is_hf_bit_for_bit(
    model: LanguageModel,
    folder: Path,
    tmp_path: Path,
    words: list[str],
    batch_size: int,
    strength: float,
    override: str,
    gate: Gate,
) -> None:
    steered(model, tmp_path / "s", strength=strength, gate=gate)
    plain = HFLM(str(folder), batch_size=batch_size, **ON_CPU)
    lm = SteeredLM(str(folder), str(tmp_path / "s"), override, batch_size=batch_size, **ON_CPU)
    assert lm.generate_until(chats(lm), disable_tqdm=True) == plain.generate_until(chats(plain), disable_tqdm=True)
    assert lm.loglikelihood(pairs(words), disable_tqdm=True) == plain.loglikelihood(pairs(words), disable_tqdm=True)
    assert lm.get_model_info()["steering"]["rows_steered"] == 0


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("gate", ["auto", "on"])
def test_it_generates_what_trimtab_generates(
    model: LanguageModel, folder: Path, tmp_path: Path, gate: str, batch_size: int
) -> None:
    requests = [Request(str(i), render_prompt(model.tokenizer, question, CHAT)) for i, question in enumerate(QUESTIONS)]
    steering = steered(model, tmp_path / "s", gate=halfway(model, [request.prompt_ids for request in requests]))
    expected = generate_batch(model, requests, settings(), steering, gate)  # type: ignore[arg-type]
    lm = SteeredLM(str(folder), str(tmp_path / "s"), gate, batch_size=batch_size, **ON_CPU)
    texts = lm.generate_until(chats(lm), disable_tqdm=True)
    assert texts == [model.tokenizer.decode(g.response_ids, skip_special_tokens=True) for g in expected]
    assert texts != HFLM(str(folder), batch_size=3, **ON_CPU).generate_until(chats(lm), disable_tqdm=True)
    facts = lm.get_model_info()["steering"]
    assert (facts["rows_generated"], facts["rows_steered"]) == (7, 4 if gate == "auto" else 7)
    assert (facts["digest"], facts["gate"]) == (steering.digest, {"auto": "logistic", "on": "on"}[gate])


@pytest.mark.parametrize(
    ("scope", "gated", "batch_size"),
    [
        ("generated", False, 1),
        ("generated", False, 4),
        ("generated", True, 1),
        ("generated", True, 4),
        ("generated", True, "auto"),
        ("last-and-generated", False, 4),
        ("all", False, 4),
    ],
)
def test_a_continuation_scores_as_if_it_were_generated(
    model: LanguageModel,
    folder: Path,
    tmp_path: Path,
    words: list[str],
    scope: PositionScope,
    gated: bool,
    batch_size: int | str,
) -> None:
    contexts = [model.tokenizer(request.args[0], add_special_tokens=False).input_ids for request in pairs(words)]
    gate = halfway(model, contexts) if gated else ALWAYS
    steering = steered(model, tmp_path / "s", scope=scope, gate=gate)
    lm = SteeredLM(str(folder), str(tmp_path / "s"), batch_size=batch_size, max_batch_size=4, **ON_CPU)
    scores = lm.loglikelihood(pairs(words), disable_tqdm=True)
    plain = HFLM(str(folder), batch_size=4, **ON_CPU).loglikelihood(pairs(words), disable_tqdm=True)
    expected = [stepwise(model, steering, *request.args) for request in pairs(words)]
    np.testing.assert_allclose([score for score, _ in scores], [score for score, _ in expected], rtol=1e-5)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]
    changed = [score != bare for score, bare in zip(scores, plain, strict=True)]
    assert sum(changed) == (2 if gated else 4)


def test_the_greedy_continuation_is_known_for_one(model: LanguageModel, folder: Path, tmp_path: Path, words: list[str]) -> None:
    steering = steered(model, tmp_path / "s", scope="last-and-generated")
    context = " ".join(words[:4])
    ids = tuple(model.tokenizer(context, add_special_tokens=False).input_ids)
    response = generate_batch(model, [Request("x", ids)], settings(), steering)[0].response_ids
    text = str(model.tokenizer.decode(response[:3]))
    lm = SteeredLM(str(folder), str(tmp_path / "s"), **ON_CPU)
    [(_, greedy)] = lm.loglikelihood([Instance("loglikelihood", {}, (context, f" {text}"), 0)], disable_tqdm=True)
    assert greedy


def test_a_context_beyond_the_window_loses_its_left(model: LanguageModel, folder: Path, tmp_path: Path, words: list[str]) -> None:
    steering = steered(model, tmp_path / "s")
    lm = SteeredLM(str(folder), str(tmp_path / "s"), batch_size=4, max_length=5, **ON_CPU)
    scores = lm.loglikelihood(pairs(words), disable_tqdm=True)
    expected = [stepwise(model, steering, *request.args, window=5) for request in pairs(words)]
    np.testing.assert_allclose([score for score, _ in scores], [score for score, _ in expected], rtol=1e-5)
    assert expected[2] != stepwise(model, steering, *pairs(words)[2].args)


def test_single_tokens_are_out_of_reach_and_said_to_be(
    model: LanguageModel, folder: Path, tmp_path: Path, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    steered(model, tmp_path / "s")
    requests = [Instance("loglikelihood", {}, (words[i], f" {words[i + 1]}"), i) for i in range(4)]
    lm = SteeredLM(str(folder), str(tmp_path / "s"), batch_size=4, **ON_CPU)
    with caplog.at_level(logging.WARNING, logger="trimtab"):
        scores = lm.loglikelihood(requests, disable_tqdm=True)
    assert scores == HFLM(str(folder), batch_size=4, **ON_CPU).loglikelihood(requests, disable_tqdm=True)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["4 of 4 continuations are one token long"]


def test_whole_texts_are_scored_under_scope_all_only(
    model: LanguageModel, folder: Path, tmp_path: Path, words: list[str]
) -> None:
    text = " ".join(words[:9])
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0)]
    everywhere = steered(model, tmp_path / "all", scope="all")
    [score] = SteeredLM(str(folder), str(tmp_path / "all"), **ON_CPU).loglikelihood_rolling(requests, disable_tqdm=True)
    assert score == pytest.approx(stepwise(model, everywhere, str(model.tokenizer.eos_token), f" {text}")[0], rel=1e-5)
    steered(model, tmp_path / "s")
    with pytest.raises(InputError, match="scores a whole text, and scope 'generated' begins after a prompt"):
        SteeredLM(str(folder), str(tmp_path / "s"), **ON_CPU).loglikelihood_rolling(requests, disable_tqdm=True)
    [plain] = HFLM(str(folder), **ON_CPU).loglikelihood_rolling(requests, disable_tqdm=True)
    [off] = SteeredLM(str(folder), str(tmp_path / "s"), "off", **ON_CPU).loglikelihood_rolling(requests, disable_tqdm=True)
    assert off == plain != score


def test_what_does_not_fit_is_refused_before_any_request(model: LanguageModel, folder: Path, tmp_path: Path) -> None:
    other = open_tiny_testbed(tmp_path / "other", seed=1)
    steered(other, tmp_path / "s")
    with pytest.raises(MismatchError, match="fingerprint: expected"):
        SteeredLM(str(folder), str(tmp_path / "s"), **ON_CPU)
    forced = SteeredLM(str(folder), str(tmp_path / "s"), force_model=True, **ON_CPU)
    assert len(forced.generate_until(chats(forced), disable_tqdm=True)) == 7
    with pytest.raises(ModelError, match="unknown gate override 'maybe'"):
        SteeredLM(str(tmp_path / "other"), str(tmp_path / "s"), "maybe", **ON_CPU)


@pytest.mark.parametrize(("given", "meant"), [(True, "on"), (False, "off")])
def test_yaml_spells_on_and_off_its_own_way(model: LanguageModel, folder: Path, tmp_path: Path, given: bool, meant: str) -> None:
    steered(model, tmp_path / "s", gate=logistic())
    lm = SteeredLM(str(folder), str(tmp_path / "s"), given, strength=0.5, **ON_CPU)
    facts = lm.get_model_info()["steering"]
    assert (facts["gate"], facts["strength"]) == (meant, 0.5)


@pytest.fixture
def task(tmp_path: Path) -> TaskManager:
    """A local task of four questions whose right answer is a word that the tiny model may say or not."""
    rows = [{"question": question, "answer": "north"} for question in QUESTIONS[:4]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(
        f"""
task: tiny_local
dataset_path: json
dataset_kwargs:
  data_files: {{test: {tmp_path / "rows.jsonl"}}}
  cache_dir: {tmp_path / "cache"}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 12}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
    )
    return TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)


def _run(model: str, arguments: dict[str, object], task: TaskManager) -> dict[str, object]:
    results = simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=["tiny_local"],
        batch_size=2,
        device="cpu",
        task_manager=task,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    assert results is not None
    return results


def test_a_local_task_runs_by_name(model: LanguageModel, folder: Path, tmp_path: Path, task: TaskManager) -> None:
    steering = steered(model, tmp_path / "s")
    hf_model = {"pretrained": str(folder), "dtype": "float32"}
    plain = _run("hf", hf_model, task)
    answers = {}
    for strength in (0.0, 1.0):
        results = _run("trimtab", {**hf_model, "steering": str(tmp_path / "s"), "strength": strength}, task)
        answers[strength] = [sample["resps"] for sample in results["samples"]["tiny_local"]]  # type: ignore[index]
        assert results["config"]["steering"]["strength"] == strength  # type: ignore[index]
    assert answers[0.0] == [sample["resps"] for sample in plain["samples"]["tiny_local"]]  # type: ignore[index]
    requests = [Request(str(i), render_prompt(model.tokenizer, q, CHAT)) for i, q in enumerate(QUESTIONS[:4])]
    expected = generate_batch(model, requests, settings(), steering)
    assert answers[1.0] == [[[model.tokenizer.decode(g.response_ids, skip_special_tokens=True)]] for g in expected]


def test_the_command_line_reports_a_wrong_steering_in_one_message(
    model: LanguageModel, folder: Path, tmp_path: Path, task: TaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the thousands of tasks that come with the harness take seconds to index; the command line sets an environment variable
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    steered(open_tiny_testbed(tmp_path / "other", seed=1), tmp_path / "s")
    arguments = f"pretrained={folder},steering={tmp_path / 's'},dtype=float32"
    command = ["lm_eval", "--model", "trimtab", "--model_args", arguments, "--tasks", "tiny_local", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--include_path", str(tmp_path / "tasks")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert str(stopped.value).startswith("error[mismatch/other-model]: made for ")


def test_without_the_harness_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.__main__", raising=False)
    monkeypatch.delitem(sys.modules, "trimtab.lm_eval")
    with pytest.raises(InputError, match=r"pip install 'trimtab\[lm-eval\]'"):
        importlib.import_module("trimtab.lm_eval")
