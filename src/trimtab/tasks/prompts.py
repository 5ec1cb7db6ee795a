"""How a question becomes the tokens that a model reads."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

from jinja2 import TemplateError, TemplateRuntimeError
from pydantic import BaseModel, ConfigDict, field_validator
from transformers import PreTrainedTokenizerBase

from trimtab.errors import InputError


class Prompt(BaseModel):
    r"""How a question is put to a model.

    ``chat`` is the model's own chat template with the generation prompt; ``adaras-plain`` is the text
    ``Question: {q}\nThinking process:`` that AdaRAS feeds; ``plain`` is the template's own text and nothing else, such as
    solved examples before the question.

    Args:
        style: ``chat``, ``adaras-plain`` or ``plain``.
        template: the text around the question, which replaces ``{question}``.
        system: a system message; empty for none. Only ``chat`` has one.
        thinking: ``on`` or ``off`` is passed to the chat template as ``enable_thinking``; ``default`` leaves it to the template.

    Example:
        >>> Prompt(template="{question}\nAnswer with a number.").wrap("What is 2 + 2?")
        'What is 2 + 2?\nAnswer with a number.'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: Literal["chat", "adaras-plain", "plain"] = "chat"
    template: str = "{question}"
    system: str = ""
    thinking: Literal["default", "on", "off"] = "default"

    @field_validator("template")
    @classmethod
    def _holds_the_question(cls, template: str) -> str:
        if template.count("{question}") != 1:
            raise ValueError(f"the template must hold {{question}} exactly once, got {template!r}")
        return template

    def wrap(self, question: str) -> str:
        """The question inside the template."""
        return self.template.replace("{question}", question)


CHAT = Prompt()
"""The model's chat template around the bare question."""


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str, prompt: Prompt = CHAT) -> tuple[int, ...]:
    """Token ids of a question, up to where the response starts.

    Raises:
        InputError: ``chat`` was asked for and the tokenizer has no chat template, or one that fails; or a system message where
            there is no place for one.
    """
    text = prompt.wrap(question)
    if prompt.style != "chat":
        if prompt.system:
            raise InputError(f'style "{prompt.style}" has no place for a system message; put it into the template')
        return tuple(tokenizer.encode(text if prompt.style == "plain" else f"Question: {text}\nThinking process:"))
    if not tokenizer.chat_template:
        raise InputError(
            'this tokenizer has no chat template; set prompt.style = "adaras-plain", '
            "or add a chat_template to its tokenizer_config.json",
            code="no-chat-template",
        )
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    messages = [*system, {"role": "user", "content": text}]
    options: dict[str, object] = {} if prompt.thinking == "default" else {"enable_thinking": prompt.thinking == "on"}
    try:
        with _bounded():
            rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)  # type: ignore[arg-type]
    except _TEMPLATE_ERRORS as cause:
        raise _refused(cause, prompt) from cause
    return tuple(tokenizer.encode(str(rendered), add_special_tokens=False))


MOST_STEPS = 1_000_000
"""Lines of a template that one prompt may run; real ones run some hundred."""


@contextmanager
def _bounded() -> Iterator[None]:
    """End a template that would run for ever, such as loops of loops, by counting its lines; not under a debugger, which does so.

    Raises:
        TemplateRuntimeError: it ran more than :data:`MOST_STEPS`.
    """
    steps = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001  # as Python calls it
        nonlocal steps
        steps += 1
        if steps > MOST_STEPS:
            raise TemplateRuntimeError(f"it had not ended after {MOST_STEPS:,} steps")
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001
        return line if frame.f_code.co_filename == "<template>" else None  # as Jinja names what it compiles

    if sys.gettrace() is not None:
        yield
        return
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(None)


_TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template raises: its own refusals, and whatever its expressions come to."""


def _refused(cause: Exception, prompt: Prompt) -> InputError:
    said = " ".join(str(cause).split())[:200] or type(cause).__name__
    if prompt.system and "system" in said.lower():
        fix = 'put the instruction into prompt.template, as "INSTRUCTION\\n{question}", and leave prompt.system empty'
    else:
        fix = 'set prompt.style = "adaras-plain", or mend chat_template in its tokenizer_config.json'
    return InputError(f"this model's chat template refuses the prompt: {said}; {fix}")


def check_prompts(questions: Sequence[str], prompts: Sequence[Sequence[int]]) -> None:
    """Refuse prompts that are all the same though the questions are not, before anything is sampled.

    Raises:
        InputError: two questions or more, and one prompt.
    """
    if len(set(questions)) > 1 and len(set(map(tuple, prompts))) == 1:
        raise InputError(
            f"all {len(prompts)} problems get the same prompt of {len(prompts[0])} tokens: this model's chat template leaves the "
            'question out; set prompt.style = "adaras-plain", or mend chat_template in its tokenizer_config.json',
            code="template-drops-question",
        )
