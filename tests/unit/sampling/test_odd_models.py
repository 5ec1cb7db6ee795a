"""Architectures in which something is unusual are proved end to end, attached and sampled, or refused by name."""

import logging

import numpy as np
import pytest

from odd_models import HYBRIDS, ODD, REFUSED, WRAPPERS
from tiny_models import VOCABULARY, tiny, word_tokenizer
from tiny_testbed import settings
from trimtab.errors import InputError, ModelError
from trimtab.model import LanguageModel, check_model, find_ffn, open_model
from trimtab.sampling import Request, generate_batch, way_of, ways

NEW = 6


def _requests(lengths: tuple[int, ...] = (7, 3, 12, 5)) -> list[Request]:
    rng = np.random.default_rng(3)
    return [Request(str(n), tuple(rng.integers(2, VOCABULARY - 1, n).tolist()), seed=n) for n in lengths]


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> LanguageModel:
    return LanguageModel.of(ODD[request.param](), word_tokenizer(pad_token="w0", eos_token="w1"), request.param)


def test_an_attachment_is_proved_and_rows_are_sampled_as_alone(odd: LanguageModel) -> None:
    diagnosis = check_model(odd)
    assert diagnosis.ok, diagnosis.summary()
    assert str(way_of(odd)) == "padded batches"
    requests, sampled = _requests(), settings(max_new_tokens=NEW, temperature=1.0)
    odd.hf_model.generation_config.eos_token_id = list(range(0, VOCABULARY, 6))  # so that rows end and are dropped
    together = generate_batch(odd, requests, sampled)
    assert len({len(g.response_ids) for g in together}) > 1
    assert together == [generate_batch(odd, [request], sampled)[0] for request in requests]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        find_ffn(build())


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_opens_from_its_folder(name: str, tmp_path) -> None:
    WRAPPERS[name]().save_pretrained(tmp_path)
    word_tokenizer(pad_token="w0", eos_token="w1").save_pretrained(tmp_path)
    model = open_model(tmp_path, device="cpu")
    assert (model.n_layers, model.d_ff) == (3, 48)


def test_a_model_whose_batches_cannot_be_proved_is_sampled_row_by_row(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = LanguageModel.of(tiny("qwen3"), word_tokenizer(pad_token="w0", eos_token="w1"))
    requests, sampled = _requests(), settings(max_new_tokens=NEW, temperature=1.0)
    expected = [generate_batch(model, [request], sampled)[0] for request in requests]
    monkeypatch.setattr(ways, "_difference", lambda *_: 0.5)
    ways._ways.clear()
    with caplog.at_level(logging.WARNING):
        assert generate_batch(model, requests, sampled) == expected
    assert "row by row through model.generate, since a row in a padded batch differs from the row alone" in caplog.text


def test_where_rows_cannot_be_dropped_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LanguageModel.of(HYBRIDS["lfm2"](), word_tokenizer(pad_token="w0", eos_token="w1"))

    def refuse(*_: object) -> None:
        raise RuntimeError("states cannot be selected")

    monkeypatch.setattr(ways, "keep_rows", refuse)
    assert str(way_of(model)).startswith("padded batches, finished rows kept, since a padded batch raised RuntimeError: states")
    model.hf_model.generation_config.eos_token_id = list(range(0, VOCABULARY, 3))
    assert len(generate_batch(model, _requests(), settings(max_new_tokens=NEW))) == 4


def test_an_empty_prompt_has_its_own_error() -> None:
    model = LanguageModel.of(tiny("qwen3"), word_tokenizer(pad_token="w0", eos_token="w1"))
    with pytest.raises(InputError, match=r"the prompt of request 'b' is empty \(1 of 2\)"):
        generate_batch(model, [Request("a", (5, 6)), Request("b", ())], settings())
