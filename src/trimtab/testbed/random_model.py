"""A random Qwen3 with a byte-level tokenizer: ``python -m trimtab.testbed.random_model OUT``.

For trying things on real text where no weights can be downloaded: every byte is a token, so any text can be recorded and ranked.
It knows nothing.
"""

from pathlib import Path

import click
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

PAD, END = "<pad>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and four special tokens; no merges."""
    alphabet = sorted(ByteLevel.alphabet())
    specials = [PAD, "<|im_start|>", END]
    core = Tokenizer(BPE({token: i for i, token in enumerate([*specials, *alphabet])}, []))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=specials[1:2],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def random_qwen3(tokenizer: PreTrainedTokenizerFast, layers: int, width: int, d_ff: int, seed: int = 0) -> Qwen3ForCausalLM:
    """A Qwen3 of this shape with random weights from a fixed seed; heads of 64, half as many for keys and values."""
    torch.manual_seed(seed)
    heads = width // 64
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=d_ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=64,
        max_position_embeddings=131_072,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.get_vocab()[END],
        pad_token_id=tokenizer.get_vocab()[PAD],
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--layers", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--width", type=click.IntRange(min=128), default=256, show_default=True, help="A multiple of 128.")
@click.option("--d-ff", type=click.IntRange(min=1), default=768, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(out: Path, layers: int, width: int, d_ff: int, seed: int) -> None:
    """Write a random byte-level Qwen3 to the folder OUT."""
    if width % 128:
        raise click.UsageError(f"--width must be a multiple of 128, got {width}")
    tokenizer = byte_tokenizer()
    random_qwen3(tokenizer, layers, width, d_ff, seed).save_pretrained(out)
    tokenizer.save_pretrained(out)
    click.echo(out)


if __name__ == "__main__":
    main()
