"""How a question becomes the tokens that a model reads."""

from typing import Literal

from transformers import PreTrainedTokenizerBase

from trimtab.errors import InputError

Rendering = Literal["chat", "adaras-plain"]


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str, rendering: Rendering = "chat") -> tuple[int, ...]:
    r"""Token ids of a question, up to where the response starts.

    ``chat`` is the model's own chat template with the generation prompt; ``adaras-plain`` is the text
    ``Question: {q}\nThinking process:`` that AdaRAS feeds.

    Raises:
        InputError: ``chat`` was asked for and the tokenizer has no chat template.
    """
    if rendering == "adaras-plain":
        return tuple(tokenizer.encode(f"Question: {question}\nThinking process:"))
    if not tokenizer.chat_template:
        raise InputError(
            'this tokenizer has no chat template; set rendering = "adaras-plain", '
            "or add a chat_template to its tokenizer_config.json"
        )
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
    return tuple(tokenizer.encode(str(text), add_special_tokens=False))
