"""The residual stream is recorded after every block and becomes the difference of class means, against loops over tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import tiny, word_tokenizer
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.model import LanguageModel
from trimtab.ranking.residual import mean_difference_directions
from trimtab.recording import Recording, RecordingSettings, record_job
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Trace

BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
LENGTHS = ((5, 4), (2, 7), (3, 2), (6, 5), (1, 9))


def _traces() -> list[Trace]:
    rng = np.random.default_rng(0)
    ids = [(rng.integers(1, 97, p).tolist(), rng.integers(1, 97, r).tolist()) for p, r in LENGTHS]
    return [Trace(f"p/{i}", "p", i, tuple(prompt), tuple(said), "", "stop") for i, (prompt, said) in enumerate(ids)]


def _model(family: str) -> LanguageModel:
    return LanguageModel.of(tiny(family), word_tokenizer(pad_token="w0"), "tiny")


def _recorded(model: LanguageModel, folder: Path, batch_tokens: int) -> Recording:
    settings = RecordingSettings(scopes=("response",), moments=("sum",), batch_tokens=batch_tokens)
    job = record_job(model, _traces(), settings, folder, site="residual")
    job.run(model, job.missing(), lambda *_: None)
    return job.finish()


def _naive_mean(model: LanguageModel, trace: Trace) -> np.ndarray:
    """Of one trace alone, ``[layer, d_model]``: every block's output at each response token that is forwarded."""
    seen: list[torch.Tensor] = []
    blocks = model.hf_model.get_submodule(BLOCKS.get(model.hf_model.config.model_type, "model.layers"))
    hooks = [b.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)) for b in blocks]
    model.hf_model(input_ids=torch.tensor([[*trace.prompt_ids, *trace.response_ids[:-1]]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    tokens = [[layer[0, at].double().numpy() for at in range(len(trace.prompt_ids), layer.shape[1])] for layer in seen]
    return np.array([sum(one) / len(one) for one in tokens])


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "gpt2", "gpt_neox", "mixtral"])
def test_directions_are_the_difference_of_naive_class_means(family: str, tmp_path: Path) -> None:
    model = _model(family)
    rows = [ContrastRow(trace.id, "p", i in (0, 3)) for i, trace in enumerate(_traces()) if i != 2]
    found = mean_difference_directions(_recorded(model, tmp_path / "r", 40), rows, "response", model.identity, {"a": 1})
    means = [_naive_mean(model, trace) for trace in _traces()]
    expected = (means[0] + means[3]) / 2 - (means[1] + means[4]) / 2
    np.testing.assert_allclose(found.vector, expected, rtol=1e-4, atol=1e-5)
    assert found.layer.tolist() == [0, 1, 2]
    assert found.facts == {"a": 1, "n_correct": 2, "n_incorrect": 2}


def test_parts_do_not_matter_and_nothing_of_the_neurons_is_read(tmp_path: Path) -> None:
    model = _model("qwen3")
    rows = [ContrastRow(trace.id, "p", i < 2) for i, trace in enumerate(_traces())]
    one, other = (_recorded(model, tmp_path / str(size), size) for size in (8, 4000))
    assert len(other._parts.plan.parts) == 1 < len(one._parts.plan.parts)
    vectors = [mean_difference_directions(r, rows, "response", model.identity, {}).vector for r in (one, other)]
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-5)
    assert one.shape("response") == (3, model.identity.d_model, 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf_model.modules())


def test_a_class_without_a_trace_and_a_trace_that_was_not_recorded(tmp_path: Path) -> None:
    model = _model("qwen3")
    recording = _recorded(model, tmp_path / "r", 40)
    rows = [ContrastRow(trace.id, "p", True) for trace in _traces()]
    with pytest.raises(NotEnoughDataError, match="correct and incorrect traces, and the contrast has 5 and 0"):
        mean_difference_directions(recording, rows, "response", model.identity, {})
    with pytest.raises(InputError, match="not in the recording"):
        mean_difference_directions(recording, [ContrastRow("q/0", "q", True)], "response", model.identity, {})
