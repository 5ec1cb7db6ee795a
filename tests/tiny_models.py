"""Tiny random models of every supported family, built from their configs: whole runs offline, in milliseconds."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
N_LAYERS, D_MODEL, D_FF, VOCABULARY = 3, 32, 48, 97

_CLASSES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def tiny(family: str, seed: int = 0, tied: bool = False) -> PreTrainedModel:
    """A float32 model in eval mode; weights large enough that any change shows in the logits."""
    config_class, model_class = _CLASSES[family]
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=D_FF,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).to(torch.float32).eval().requires_grad_(False)


def word_tokenizer(words: int = VOCABULARY, **special: str) -> PreTrainedTokenizerFast:
    """Whole words ``w0``, ``w1``, ..., each its own number, with the special tokens given."""
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", **special)
