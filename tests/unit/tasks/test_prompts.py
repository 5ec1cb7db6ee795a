"""Two renderings of a question."""

import pytest

from tiny_models import word_tokenizer
from trimtab.errors import InputError
from trimtab.tasks import render_prompt


def test_chat_uses_the_models_own_template() -> None:
    tokenizer = word_tokenizer(eos_token="w1")
    tokenizer.chat_template = (
        "{% for m in messages %}w2 {{ m.content }} w3{% endfor %}{% if add_generation_prompt %} w4{% endif %}"
    )
    assert render_prompt(tokenizer, "w7 w8") == (2, 7, 8, 3, 4)


def test_adaras_plain_is_the_bare_text() -> None:
    tokenizer = word_tokenizer()
    expected = tuple(tokenizer.encode("Question: w7 w8\nThinking process:"))
    assert render_prompt(tokenizer, "w7 w8", "adaras-plain") == expected
    assert {7, 8} <= set(expected)


def test_no_chat_template() -> None:
    with pytest.raises(InputError, match='no chat template; set rendering = "adaras-plain", or add a chat_template'):
        render_prompt(word_tokenizer(), "w7")
