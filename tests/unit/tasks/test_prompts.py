"""Two renderings of a question."""

import pytest
from pydantic import ValidationError

from tiny_models import word_tokenizer
from trimtab.errors import InputError
from trimtab.tasks import Prompt, render_prompt
from trimtab.tasks.prompts import check_prompts


def test_chat_uses_the_models_own_template() -> None:
    tokenizer = word_tokenizer(eos_token="w1")
    tokenizer.chat_template = (
        "{% for m in messages %}w2 {{ m.content }} w3{% endfor %}{% if add_generation_prompt %} w4{% endif %}"
    )
    assert render_prompt(tokenizer, "w7 w8") == (2, 7, 8, 3, 4)


def test_adaras_plain_is_the_bare_text() -> None:
    tokenizer = word_tokenizer()
    expected = tuple(tokenizer.encode("Question: w7 w8\nThinking process:"))
    assert render_prompt(tokenizer, "w7 w8", Prompt(style="adaras-plain")) == expected
    assert {7, 8} <= set(expected)


def test_no_chat_template() -> None:
    with pytest.raises(InputError, match=r'no chat template; set prompt\.style = "adaras-plain", or add a chat_template'):
        render_prompt(word_tokenizer(), "w7")


def test_template_system_and_thinking_reach_the_chat_template() -> None:
    tokenizer = word_tokenizer(eos_token="w1")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}{% if enable_thinking is false %}w4{% endif %}"
    prompt = Prompt(template="w5 {question} w6", system="w9", thinking="off")
    assert render_prompt(tokenizer, "w7", prompt) == (9, 5, 7, 6, 4)


def test_a_template_must_hold_the_question() -> None:
    with pytest.raises(ValidationError, match="exactly once"):
        Prompt(template="no place for it")


def test_braces_in_a_question_are_text() -> None:
    assert Prompt(template="<{question}>").wrap("a {question} {x}") == "<a {question} {x}>"


def test_a_system_message_needs_a_chat_template() -> None:
    with pytest.raises(InputError, match="no place for a system message"):
        render_prompt(word_tokenizer(), "w7", Prompt(style="adaras-plain", system="be brief"))


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (
            "{{ raise_exception('System role not supported') }}",
            "be brief",
            r"System role not supported; put the instruction into pro",
        ),
        (
            "{{ raise_exception('no \x1b[2J\nway') }}",
            "",
            r'refuses the prompt: no .*way; set prompt\.style = "adaras-plain", or mend',
        ),
        ("{{ 1 / 0 }}", "", "refuses the prompt: division by zero"),
        ("{{ nope() }}", "", "refuses the prompt: 'nope' is undefined"),
        ("{% if %}", "", "refuses the prompt: Expected an expression"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "", "refuses the prompt: Range too big"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "", "refuses the prompt: maximum recursion depth"),
        ("{{ messages.append(1) }}", "", "refuses the prompt: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "", "refuses the prompt: "),
    ],
)
def test_a_chat_template_that_fails_is_a_message_with_the_fix(template: str, system: str, message: str) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=message) as caught:
        render_prompt(tokenizer, "w7", Prompt(system=system))
    assert "\n" not in str(caught.value)


def test_prompts_that_leave_the_question_out_are_refused() -> None:
    check_prompts(["a", "b"], [(1, 2), (1, 3)])
    check_prompts(["a", "a"], [(1, 2), (1, 2)])
    check_prompts(["a"], [(1, 2)])
    check_prompts([], [])
    with pytest.raises(InputError, match=r"all 2 problems get the same prompt of 2 tokens: .* leaves the question out; set"):
        check_prompts(["a", "b"], [(1, 2), (1, 2)])


def test_plain_is_the_template_alone() -> None:
    tokenizer = word_tokenizer()
    prompt = Prompt(style="plain", template="w1 w2\n{question} w3")
    assert render_prompt(tokenizer, "w7", prompt) == tuple(tokenizer.encode("w1 w2\nw7 w3"))
    with pytest.raises(InputError, match='style "plain" has no place for a system message'):
        render_prompt(tokenizer, "w7", Prompt(style="plain", system="be brief"))
