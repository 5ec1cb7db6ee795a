"""Tiny models of architectures in which something is unusual: how the stack is run, what is cached, what is in the wrapper."""

from collections.abc import Callable, Mapping

import torch
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    BertConfig,
    FalconConfig,
    FalconH1Config,
    Lfm2Config,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MambaConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5TextConfig,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    RwkvConfig,
)

from tiny_models import VOCABULARY

_SIZES: dict[str, object] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
_VISION: dict[str, object] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
_MAMBA: dict[str, object] = {"mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16, "mamba_n_heads": 4}


def _weighted(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough that any change shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.data.normal_(0, 0.2, generator=generator)
    return model.float().eval().requires_grad_(False)


def _causal(config: PretrainedConfig) -> PreTrainedModel:
    return _weighted(AutoModelForCausalLM.from_config(config))


def _llava() -> PreTrainedModel:
    vision = {"model_type": "clip_vision_model", "projection_dim": 16, "image_size": 28, "patch_size": 14, **_VISION}
    text = {"model_type": "llama", **_SIZES}
    return _weighted(LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=96)))


def _mistral3() -> PreTrainedModel:
    vision = {"model_type": "pixtral", "image_size": 28, "patch_size": 14, **_VISION}
    text = {"model_type": "mistral", "head_dim": 8, **_SIZES}
    return _weighted(
        Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision, image_token_index=96))
    )


def _qwen3_vl() -> PreTrainedModel:
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen3VLConfig(
        text_config={"head_dim": 8, **_SIZES}, vision_config={**vision, "deepstack_visual_indexes": [0]}, image_token_id=96
    )
    return _weighted(Qwen3VLForConditionalGeneration(config))


def _opt() -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    return _causal(config)


def _falcon() -> PreTrainedModel:
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
    )
    return _causal(FalconConfig(**{name: _SIZES[name] for name in names}, ffn_hidden_size=48))


def _qwen3_5() -> PreTrainedModel:
    linear = {f"linear_{name}": value for name, value in (("num_key_heads", 2), ("num_value_heads", 4))}
    sizes = {**_SIZES, **linear, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "head_dim": 8}
    return _causal(Qwen3_5TextConfig(**sizes, layer_types=["linear_attention", "full_attention", "linear_attention"]))


HYBRIDS: Mapping[str, Callable[[], PreTrainedModel]] = {
    "qwen3_5_text": _qwen3_5,
    "lfm2": lambda: _causal(Lfm2Config(**_SIZES, layer_types=["conv", "full_attention", "conv"])),
    "falcon_h1": lambda: _causal(FalconH1Config(**_SIZES, **_MAMBA, head_dim=8, mamba_d_ssm=64, mamba_d_head=16, mamba_expand=2)),
    "bamba": lambda: _causal(BambaConfig(**_SIZES, **_MAMBA, mamba_d_head=16, attn_layer_indices=[1])),
}
"""Some or all of their layers keep a state that is no key or value."""
WRAPPERS: Mapping[str, Callable[[], PreTrainedModel]] = {"llava": _llava, "mistral3": _mistral3, "qwen3_vl": _qwen3_vl}
"""Text models with a vision tower beside them."""
ODD: Mapping[str, Callable[[], PreTrainedModel]] = {"opt": _opt, "falcon": _falcon, **HYBRIDS, **WRAPPERS}
REFUSED: Mapping[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "mamba": (
        lambda: _causal(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8)),
        "'mamba' (keeps no key-value cache|has neurons)",
    ),
    "rwkv": (
        lambda: _causal(RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)),
        "'rwkv' keeps no key-value cache",
    ),
    "bert": (lambda: _causal(BertConfig(**{k: v for k, v in _SIZES.items() if k != "num_key_value_heads"})), "is not causal"),
}
