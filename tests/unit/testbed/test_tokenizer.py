"""One token a word, and nothing lost."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trimtab.tasks import render_prompt
from trimtab.testbed.chains import OPENING_WORDS, write_chain
from trimtab.testbed.domains import DOMAINS
from trimtab.testbed.problems import draw
from trimtab.testbed.tokenizer import UNKNOWN, build_tokenizer, vocabulary
from trimtab.testbed.train import RECIPES, examples


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_words_are_unique_and_numbered_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    words = vocabulary()
    assert len(set(words)) == len(words) == len(tokenizer)
    assert tokenizer.convert_tokens_to_ids(words) == list(range(len(words)))


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.sampled_from(vocabulary()), max_size=30))
def test_decode_undoes_encode(words: list[str]) -> None:
    tokenizer = build_tokenizer()
    text = " ".join(words)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("name", DOMAINS)
def test_questions_and_chains_hold_no_unknown_word(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    rng = random.Random(0)
    for _ in range(30):
        problem = draw(rng, name, 9)
        text = f"{problem.question} {write_chain(rng, problem)}"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.convert_tokens_to_ids(UNKNOWN) not in ids
        assert len(ids) == len(text.split())
        assert tokenizer.decode(ids) == text


def test_a_prompt_is_what_the_training_text_has_before_a_response(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    question = "now dial 5 : a +1 b +2 as ever ?"
    prompt, response = next(examples(random.Random(0), tokenizer, RECIPES["reasoner"]))
    assert " ".join(tokenizer.convert_ids_to_tokens(response)).split()[0] in OPENING_WORDS
    layout = tokenizer.decode(prompt).replace(tokenizer.decode(prompt[1 : prompt.index(tokenizer.eos_token_id)]), question)
    for one in (tokenizer, again):
        assert one.decode(render_prompt(one, question)) == layout == f"<|user|> {question} <|end|> <|assistant|> <think>"
    turns = [{"role": "user", "content": "now"}, {"role": "assistant", "content": "5"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert str(text).split() == ["<|user|>", "now", "<|end|>", "<|assistant|>", "5", "<|end|>"]


def test_an_unknown_word_is_marked(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(tokenizer.encode("now flibbert ?", add_special_tokens=False)) == f"now {UNKNOWN} ?"
