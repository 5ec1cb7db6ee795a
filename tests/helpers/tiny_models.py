"""Tiny random models of every supported family, built from their configs: whole runs offline, in milliseconds."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

N_LAYERS, D_MODEL, D_FF, VOCABULARY = 3, 32, 48, 97
N_EXPERTS, TOP_K = 4, 2
WINDOW = 4
"""Sliding window of the families that have one in some layers: shorter than the tests' prompts, so that it matters."""

_OWN_SETTINGS: dict[str, dict[str, object]] = {
    "qwen2": {},
    "qwen3": {},
    "llama": {},
    "mistral": {},
    "gemma2": {
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 9.0,
    },
    "gemma3_text": {
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "phi3": {},
    "olmo2": {},
    "gpt2": {"n_inner": D_FF},
    "gpt_neox": {},
    "qwen3_moe": {"num_experts": N_EXPERTS, "moe_intermediate_size": D_FF // N_EXPERTS, "num_experts_per_tok": TOP_K},
    "mixtral": {"num_local_experts": N_EXPERTS, "intermediate_size": D_FF // N_EXPERTS, "num_experts_per_tok": TOP_K},
}
FAMILIES = tuple(_OWN_SETTINGS)
MIXTURES = ("qwen3_moe", "mixtral")


def tiny(family: str, seed: int = 0, tied: bool = False, **changes: object) -> PreTrainedModel:
    """A float32 model in eval mode; weights large enough that any change shows in the logits."""
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "intermediate_size": D_FF,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(family, **{**settings, **_OWN_SETTINGS[family], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


def word_tokenizer(words: int = VOCABULARY, **special: str) -> PreTrainedTokenizerFast:
    """Whole words ``w0``, ``w1``, ..., each its own number, with the special tokens given."""
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", **special)
