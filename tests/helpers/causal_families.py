"""Tiny random models of the causal architectures of transformers, of as many kinds of layers as each family has."""

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY, MOST_PARAMETERS = 320, 30e6
SIZES: dict[str, object] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "hidden_dim", "word_embed_proj_dim", "lm_head_dim"), 64),
    **dict.fromkeys(("mamba_intermediate", "mamba_d_ssm"), 128),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "intermediate_size_mlp"), 112),
    **dict.fromkeys(("shared_intermediate_size", "decoder_ffn_dim", "encoder_ffn_dim"), 112),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "linear_num_value_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "attn_num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "num_experts_per_tok", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("num_experts_per_token", "attn_num_key_value_heads"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("moe_shared_expert_intermediate_size",), 48),
    **dict.fromkeys(("head_dim", "kv_lora_rank", "q_lora_rank", "v_head_dim", "linear_key_head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim", "mamba_d_state", "state_size", "laurel_rank"), 8),
    **dict.fromkeys(("ssm_state_size", "partial_rotary_dim", "lora_rank"), 8),
    **dict.fromkeys(("n_positions", "n_ctx", "max_position_embeddings", "max_seq_len"), 512),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(
        ("moe_layer_start_index", "num_dense_layers", "moe_num_shared_experts", "num_mem_blocks", "mamba_ngroups"), 1
    ),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "mamba_dt_rank"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "sliding_window", "dim_model_base"), 32),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "linear_value_head_dim", "index_head_dim", "index_topk"), 16),
    **dict.fromkeys(("num_kv_shared_layers", "num_nextn_predict_layers", "pad_token_id"), 0),
    "index_n_heads": 2,
    "attention_chunk_size": 64,
    "use_mamba_kernels": False,
    "hidden_size_per_layer_input": 8,
    "activation_sparsity_pattern": [0.0] * 4,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What a configuration is given of, where it has such a key."""

_MLA = {"num_key_value_heads": 4, "head_dim": None}
_NO_KINDS = {"layer_types": None}
OWN: dict[str, dict[str, object]] = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu", "axk1"), _MLA),
    "gemma4_text": {"num_experts": None, "top_k_experts": None},
    "kimi_linear": {**_MLA, "linear_head_dim": 16, "linear_num_heads": 4, "q_lora_rank": None},
    "bamba": {**_NO_KINDS, "attn_layer_indices": [1, 3]},
    "falcon_h1": {**_NO_KINDS, "mamba_d_ssm": 64, "mamba_d_head": 16},
    "jamba": {**_NO_KINDS, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "falcon_mamba": _NO_KINDS,
    "mamba": _NO_KINDS,
    "mamba2": {**_NO_KINDS, "num_heads": 8, "head_dim": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "nemotron_h": {**_NO_KINDS, "layers_block_type": ["mamba", "mlp", "attention", "mlp"]},
    "zamba2": {**_NO_KINDS, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "use_mem_rope": False},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "deepseek_v4": {"mlp_layer_types": ["hash_moe", "moe", "moe", "moe"]},
    "qwen4_exp_text": {"attn_num_heads": 4, "num_heads": 4},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4},
    },
}
"""What a family needs beyond :data:`SIZES`; None leaves a key out."""


def tiny_config(family: str, **changes: object) -> PretrainedConfig:
    """A configuration of four small layers of as many kinds as the family has."""
    kind = CONFIG_MAPPING[family]
    plain = kind()
    text = plain.get_text_config()
    own = {**OWN.get(text.model_type, {}), **OWN.get(family, {}), **changes}
    sizes = {name: size for name, size in SIZES.items() if name in text.to_dict()}
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ()))
    if kinds:
        sizes["layer_types"] = [kinds[layer % len(kinds)] for layer in range(4)]
    if getattr(text, "mlp_layer_types", None):
        sizes["mlp_layer_types"] = ["dense", "sparse", "sparse", "sparse"]
    sizes = {name: value for name, value in {**sizes, **own}.items() if value is not None}
    return kind(**sizes) if text is plain else kind(text_config=type(text)(**sizes))


def tiny_model(family: str, **changes: object) -> PreTrainedModel:
    """A random float32 model whose weights are large enough that any change shows.

    Raises:
        MemoryError: the configuration is not made small by these sizes.
    """
    config = tiny_config(family, **changes)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise MemoryError(f"its smallest configuration here has {size / 1e6:.0f} million parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.1)
    return model


NAMED: dict[str, tuple[str, dict[str, object]]] = {
    **{
        family: (family, {})
        for family in (
            "qwen3_5_text",
            "qwen3_5_moe_text",
            "qwen3_next",
            "qwen2_moe",
            "olmoe",
            "minimax",
            "minimax_m2",
            "deepseek_v2",
            "deepseek_v3",
            "glm4",
            "glm4_moe",
            "kimi_linear",
            "hunyuan_v1_dense",
            "hunyuan_v1_moe",
            "ernie4_5",
            "ernie4_5_moe",
            "gpt_oss",
            "llama4_text",
            "gemma3n_text",
            "gemma4_text",
            "granite",
            "granitemoehybrid",
            "smollm3",
            "olmo3",
            "falcon_h1",
            "lfm2",
            "lfm2_moe",
            "nemotron_h",
            "ministral3",
            "phimoe",
        )
    },
    "qwen3_next, dense": ("qwen3_next", {"mlp_only_layers": [0, 1, 2, 3]}),
    "qwen3_moe, one dense": ("qwen3_moe", {"mlp_only_layers": [1]}),
    "deepseek_v3, dense": ("deepseek_v3", {"first_k_dense_replace": 4}),
    "llama4_text, every other dense": ("llama4_text", {"moe_layers": [1, 3]}),
    "gemma4_text, double wide": ("gemma4_text", {"num_kv_shared_layers": 2, "use_double_wide_mlp": True}),
    "gemma4_text, mixture": ("gemma4_text", {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}),
    "granitemoehybrid, dense": ("granitemoehybrid", {"num_local_experts": 0, "num_experts_per_tok": 0}),
    "nemotron_h, mixture": ("nemotron_h", {"layers_block_type": ["mamba", "moe", "attention", "moe"]}),
}
"""The families that trimtab names, each in the variants that it is released in: architecture, and changes of its sizes."""


def named_model(name: str) -> PreTrainedModel:
    """A tiny model of :data:`NAMED`."""
    family, changes = NAMED[name]
    return tiny_model(family, **changes)
