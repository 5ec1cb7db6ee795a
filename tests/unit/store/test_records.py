"""The identity of a model in a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import InputError, StoreError
from trimtab.gate import ALWAYS
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

MODEL = ModelIdentity("tiny", None, "mixtral", "f00", n_layers=2, d_model=4, d_ff=16, vocab_size=9)
EXPERTS = replace(MODEL, n_experts=2)


def steering(model) -> Steering:
    one = np.ones(1, np.float32)
    return Steering(np.array([1]), np.array([11]), one, one, 1.0, "generated", ALWAYS, model)


@pytest.mark.parametrize("model", [MODEL, EXPERTS], ids=["dense", "experts"])
def test_round_trip(model, tmp_path: Path) -> None:
    steering(model).save_pretrained(tmp_path / "s")
    assert Steering.from_pretrained(tmp_path / "s").model == model


def test_experts_that_do_not_divide_the_layer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="16 neurons a layer are not 3 experts of one width"):
        replace(EXPERTS, n_experts=3)
    steering(EXPERTS).save_pretrained(tmp_path / "s")
    path = tmp_path / "s" / "config.json"
    path.write_text(path.read_text().replace('"n_experts": 2', '"n_experts": 3'))
    with pytest.raises(StoreError, match="16 neurons a layer are not 3 experts"):
        Steering.from_pretrained(tmp_path / "s")


def test_an_address_in_words() -> None:
    assert MODEL.address(1, 3) == "layer   1  index      3"
    assert EXPERTS.address(1, 11) == "layer   1  expert   1  index      3"
