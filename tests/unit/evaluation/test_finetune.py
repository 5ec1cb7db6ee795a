"""The condition sft-lora: its loss against a loop, and that training it, finding it again and leaving it changes nothing else."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel

from steering_samples import CoinGrader, neuron_set
from tiny_models import tiny, word_tokenizer
from tiny_testbed import settings as sampling
from tiny_testbed import some_problems, tree_bytes
from trimtab.errors import ConfigError, InputError, MismatchError, ModelError, NotEnoughDataError, StoreError
from trimtab.evaluation import finetune as module
from trimtab.evaluation.finetune import WEIGHTS, read_sft, sft_lora
from trimtab.evaluation.finetune_training import SftSettings, response_loss, train
from trimtab.evaluation.rows import SFT_LORA
from trimtab.evaluation.runner import Condition, evaluate_condition
from trimtab.model import LanguageModel, attach, find_ffn, identify
from trimtab.steering import Steering
from trimtab.traces import Trace

LENGTHS = ((4, 6), (2, 9), (7, 1), (3, 3), (5, 5))
QUICK = SftSettings(rank=2, alpha=4, learning_rate=0.01, epochs=2, batch_traces=2)


def some_traces(lengths: tuple[tuple[int, int], ...] = LENGTHS) -> list[Trace]:
    rng = random.Random(0)
    ids = [tuple(tuple(rng.randrange(5, 90) for _ in range(n)) for n in pair) for pair in lengths]
    return [Trace(f"p{i // 2}/{i % 2}", f"p{i // 2}", i % 2, *pair, "", "stop") for i, pair in enumerate(ids)]


TRACES = some_traces()


def tiny_open(model: PreTrainedModel) -> LanguageModel:
    layout = find_ffn(model)
    return LanguageModel(model, word_tokenizer(pad_token="w0"), layout, identify(model, "tiny", None, layout=layout))


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model(input_ids=torch.arange(5, 35).reshape(2, 15)).logits


@torch.no_grad()
def naive_loss(model: PreTrainedModel, traces: list[Trace]) -> float:
    total = 0.0
    for trace in traces:
        for i, token in enumerate(trace.response_ids):
            seen = torch.tensor([[*trace.prompt_ids, *trace.response_ids[:i]]])
            total -= model(input_ids=seen).logits[0, -1].log_softmax(-1)[token].item()
    return total


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[:1], ((1, 1), (6, 2))])
def test_the_loss_is_that_of_the_responses_alone(tiny_model: PreTrainedModel, lengths: tuple[tuple[int, int], ...]) -> None:
    traces = some_traces(lengths)
    assert response_loss(tiny_model, traces).item() == pytest.approx(naive_loss(tiny_model, traces), rel=1e-5)


def test_a_first_step_is_one_of_adam_on_the_mean_loss(qwen3: PreTrainedModel) -> None:
    weight = qwen3.model.layers[1].mlp.down_proj.weight.requires_grad_(True)
    before = weight.detach().clone()
    (response_loss(qwen3, TRACES[:2]) / 15).backward()
    gradient = weight.grad
    assert gradient is not None
    gradient = gradient / max(1.0, gradient.norm().item())
    weight.grad = None
    train(qwen3, TRACES[:2], SftSettings(learning_rate=0.01, max_steps=1))
    torch.testing.assert_close(weight.detach(), before - 0.01 * gradient / (gradient.abs() + 1e-8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [{"batch_tokens": 1}, {"batch_tokens": 22}, {"gradient_checkpointing": True}])
def test_what_spares_memory_changes_nothing_else(change: dict[str, object]) -> None:
    models = [tiny("qwen3"), tiny("qwen3")]
    weights = [model.model.layers[0].mlp.up_proj.weight.requires_grad_(True) for model in models]
    plain, sparing = (
        train(model, TRACES, QUICK.model_copy(update=some)) for model, some in zip(models, ({}, change), strict=True)
    )
    assert not torch.equal(weights[0], tiny("qwen3").model.layers[0].mlp.up_proj.weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-4)
    assert plain.loss_after == pytest.approx(sparing.loss_after, rel=1e-3)
    assert not models[1].training
    assert not models[1].is_gradient_checkpointing


def test_training_counts_what_it_did_and_lowers_the_loss(qwen3: PreTrainedModel) -> None:
    qwen3.requires_grad_(True)
    training = train(qwen3, TRACES, QUICK)
    # 5 traces by 2 are 3 steps an epoch; they forward 9 + 10 + 7 + 5 + 9 tokens and learn 6 + 9 + 1 + 3 + 5
    assert (training.steps, training.tokens, training.response_tokens) == (6, 2 * 40, 2 * 24)
    assert training.loss_after < training.loss_before
    assert training.loss_after == pytest.approx(naive_loss(qwen3, TRACES) / 24, rel=1e-5)
    assert train(qwen3, TRACES, SftSettings(batch_traces=2, max_steps=4)).steps == 4


def test_a_gradient_that_is_not_finite_ends_the_training(qwen3: PreTrainedModel) -> None:
    qwen3.requires_grad_(True)
    with pytest.raises(ModelError, match=r"NaN or infinite at learning_rate 1e\+30"):
        train(qwen3, TRACES, QUICK.model_copy(update={"learning_rate": 1e30}))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set", "ignore:The following (rank|alpha)_pattern keys")  # GPT-2, experts
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_lent_tuned_and_given_back_bit_for_bit(tiny_model: PreTrainedModel, tmp_path: Path, fails: bool) -> None:
    model = tiny_open(tiny_model)
    before, config, modules = logits(tiny_model), tiny_model.config.to_dict(), dict(tiny_model.named_modules())
    attributes = set(tiny_model.__dict__)
    try:
        with sft_lora(model, TRACES, QUICK, tmp_path / "sft") as tuned:
            assert not torch.equal(logits(tuned.hf_model), before)
            assert not any(parameter.requires_grad for parameter in tuned.hf_model.parameters())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert torch.equal(logits(tiny_model), before)
    assert (tiny_model.config.to_dict(), dict(tiny_model.named_modules())) == (config, modules)
    assert set(tiny_model.__dict__) == attributes
    assert identify(tiny_model, "tiny", None) == model.identity
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())


def test_half_precision_weights_get_a_float32_adapter(qwen3: PreTrainedModel, tmp_path: Path) -> None:
    model = tiny_open(qwen3.to(torch.bfloat16))  # type: ignore[arg-type]
    before = logits(qwen3)
    with sft_lora(model, TRACES, QUICK, tmp_path / "sft") as tuned:
        assert logits(tuned.hf_model).dtype == torch.bfloat16
        adapter = [parameter for name, parameter in tuned.hf_model.named_parameters() if "lora_" in name]
        assert {parameter.dtype for parameter in adapter} == {torch.float32}
        assert not torch.equal(logits(tuned.hf_model), before)
    assert torch.equal(logits(qwen3), before)
    assert read_sft(tmp_path / "sft").loss_after < read_sft(tmp_path / "sft").loss_before


def test_others_can_load_the_adapter(model: LanguageModel, tmp_path: Path) -> None:
    with sft_lora(model, TRACES, QUICK, tmp_path / "sft") as tuned:
        expected = logits(tuned.hf_model)
    loaded = PeftModel.from_pretrained(model.hf_model, str(tmp_path / "sft"))
    try:
        assert torch.equal(logits(loaded), expected)  # type: ignore[arg-type]
    finally:
        loaded.unload()


def test_the_record_tells_what_was_trained(model: LanguageModel, tmp_path: Path) -> None:
    with sft_lora(model, TRACES, QUICK, tmp_path / "sft"):
        pass
    record = read_sft(tmp_path / "sft")
    assert (record.traces, record.problems, record.steps, record.tokens, record.response_tokens) == (5, 3, 6, 80, 48)
    # two layers, rank 2 by in + out: 32 x 32 for q and o, 32 x 16 for k and v, 32 x 40 for gate, up and down
    trained = 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 40))
    assert record.parameters_trained == trained
    assert record.parameters_share == trained / sum(parameter.numel() for parameter in model.hf_model.parameters())
    assert record.loss_before == pytest.approx(naive_loss(model.hf_model, TRACES) / 24, rel=1e-5)
    assert record.loss_after < record.loss_before
    assert record.inputs["learning_rate"] == 0.01


def test_a_finished_adapter_is_found_again(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sft_lora(model, TRACES, QUICK, tmp_path / "sft") as tuned:
        expected, identity = logits(tuned.hf_model), tuned.identity
    files = tree_bytes(tmp_path)
    monkeypatch.setattr(module, "train", None)
    with sft_lora(model, TRACES[::-1], QUICK, tmp_path / "sft") as tuned:
        assert torch.equal(logits(tuned.hf_model), expected)
        assert tuned.identity == identity
    assert tree_bytes(tmp_path) == files


def test_an_interrupted_training_leaves_nothing_and_the_next_one_is_the_same(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(hf_model: PreTrainedModel, *rest: object) -> None:
        train(hf_model, *rest)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with sft_lora(model, TRACES, QUICK, tmp_path / "a" / "sft"):
        pass
    torch.rand(3)
    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt), sft_lora(model, TRACES, QUICK, tmp_path / "b" / "sft"):
        pass
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(module, "train", train)
    with sft_lora(model, TRACES, QUICK, tmp_path / "b" / "sft"):
        pass
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")


def test_the_seed_decides_and_no_other_draw_is_touched(model: LanguageModel, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with sft_lora(model, TRACES, QUICK, tmp_path / "a"), torch.random.fork_rng():
        pass
    assert torch.equal(torch.rand(3), expected)
    with sft_lora(model, TRACES, QUICK.model_copy(update={"seed": 1}), tmp_path / "b"):
        pass
    assert (tmp_path / "a" / WEIGHTS).read_bytes() != (tmp_path / "b" / WEIGHTS).read_bytes()


def test_an_adapter_of_another_training_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    with sft_lora(model, TRACES, QUICK, tmp_path / "sft"):
        pass
    before = logits(model.hf_model)
    others = [(TRACES[1:], QUICK, "traces '"), (TRACES, QUICK.model_copy(update={"epochs": 3}), "epochs 2 -> 3")]
    for traces, settings, difference in others:
        with pytest.raises(ConfigError, match=difference), sft_lora(model, traces, settings, tmp_path / "sft"):
            pass
    with pytest.raises(ConfigError, match="model '"), sft_lora(tiny_open(tiny("qwen3")), TRACES, QUICK, tmp_path / "sft"):
        pass
    assert torch.equal(logits(model.hf_model), before)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data.replace(b"lora_A", b"lora_C")])
def test_damaged_weights_are_refused(model: LanguageModel, tmp_path: Path, damage) -> None:
    with sft_lora(model, TRACES, QUICK, tmp_path / "sft"):
        pass
    path = tmp_path / "sft" / WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=WEIGHTS), sft_lora(model, TRACES, QUICK, tmp_path / "sft"):
        pass


def test_a_folder_of_something_else_is_left_alone(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"sft\.json is missing"), sft_lora(model, TRACES, QUICK, tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_tuned_model_runs_as_an_condition_of_its_own(model: LanguageModel, tmp_path: Path) -> None:
    problems, condition = some_problems(4), Condition(SFT_LORA, None)
    strong = QUICK.model_copy(update={"learning_rate": 0.1})
    base = evaluate_condition(model, Condition("unsteered", None), problems, sampling(), CoinGrader(), tmp_path / "base")
    with sft_lora(model, TRACES, strong, tmp_path / "sft") as tuned:
        outcomes = evaluate_condition(tuned, condition, problems, sampling(), CoinGrader(), tmp_path / "condition")
        with pytest.raises(MismatchError, match="fingerprint"):
            attach(tuned.hf_model, Steering.of(neuron_set(model.identity), 1.0), identity=tuned.identity)
    assert [outcome.condition for outcome in outcomes] == [SFT_LORA] * 4
    assert [outcome.response for outcome in outcomes] != [outcome.response for outcome in base]
    with pytest.raises(ConfigError, match="another plan"):
        evaluate_condition(model, condition, problems, sampling(), CoinGrader(), tmp_path / "condition")


def test_nothing_to_learn_from_is_one_error(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDataError, match=r"correct traces of the train split, and there is none"):
        sft_lora(model, [], QUICK, tmp_path / "sft").__enter__()
    empty = Trace("p/0", "p", 0, (5, 6), (), "", "stop")
    with pytest.raises(InputError, match="trace p/0 has no prompt or no response"):
        sft_lora(model, [empty], QUICK, tmp_path / "sft").__enter__()


def test_without_peft_the_error_says_what_to_install(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'trimtab\[sft\]'"):
        sft_lora(model, TRACES, QUICK, tmp_path / "sft").__enter__()


def test_unknown_target_modules_leave_the_model_as_it_was(model: LanguageModel, tmp_path: Path) -> None:
    before = logits(model.hf_model)
    with pytest.raises(ModelError, match=r"no LoRA fits target_modules \('elbow',\)"):
        sft_lora(model, TRACES, QUICK.model_copy(update={"target_modules": ("elbow",)}), tmp_path / "sft").__enter__()
    assert torch.equal(logits(model.hf_model), before)
    with sft_lora(model, TRACES, QUICK.model_copy(update={"target_modules": ("down_proj",)}), tmp_path / "sft"):
        pass
    assert read_sft(tmp_path / "sft").parameters_trained == 2 * 2 * (40 + 32)


@pytest.mark.parametrize("wrong", [{"rnak": 8}, {"learning_rate": 0.0}, {"epochs": 0}, {"target_modules": "q_proj"}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SftSettings.model_validate(wrong)
    assert np.isclose(SftSettings().learning_rate, 5e-4)
