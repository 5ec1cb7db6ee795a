"""The base model as a GGUF file without a tokenizer, for comparing logits in llama.cpp; not for serving."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from trimtab.errors import InputError
from trimtab.export.target import not_installed
from trimtab.model import LanguageModel

WRITABLE: Mapping[str, str] = MappingProxyType({"qwen2": "qwen2", "qwen3": "qwen3"})
"""Families by the name that llama.cpp gives them; both rotate halves, as transformers does, so no weight is permuted."""
_GLOBAL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_base(model: LanguageModel, path: Path) -> Path:
    """Write an opened model in float32.

    Raises:
        InputError: a family that is not in :data:`WRITABLE`, or gguf is not installed.
    """
    family = model.hf_model.config.model_type
    if family not in WRITABLE:
        raise InputError(
            f"trimtab writes {', '.join(WRITABLE)} as GGUF, not {family}; convert the base model with llama.cpp's "
            "convert_hf_to_gguf.py --outtype f32 and give the file with --base-gguf"
        )
    try:
        from gguf import GGUFWriter
    except ModuleNotFoundError as cause:
        raise not_installed("gguf", "the base model in llama.cpp", cause) from cause
    config = model.hf_model.config
    writer = GGUFWriter(path, WRITABLE[family])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, parameter in model.hf_model.named_parameters(remove_duplicate=True):
        writer.add_tensor(gguf_name(name), _array(parameter))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    """What GGUF calls a parameter.

    Example:
        >>> gguf_name("model.layers.3.mlp.down_proj.weight")
        'blk.3.ffn_down.weight'
    """
    module, _, kind = name.rpartition(".")
    if module in _GLOBAL:
        return f"{_GLOBAL[module]}.{kind}"
    layer, _, inner = module.removeprefix("model.layers.").partition(".")
    if inner not in _BLOCK:
        raise InputError(f"no GGUF name is known for the parameter {name}; give a converted file with --base-gguf")
    return f"blk.{layer}.{_BLOCK[inner]}.{kind}"


def _array(parameter: Tensor):
    return parameter.detach().float().cpu().numpy()
