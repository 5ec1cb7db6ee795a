"""Write docs/models.md: every causal architecture of the installed transformers, proved on a tiny random model or refused.

``python docs/make_models.py`` takes some minutes on one core. ``--check`` fails, and writes nothing, if an architecture that the
page calls proved is no longer.
"""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trimtab.errors import ModelError
from trimtab.model import LanguageModel, check_model
from trimtab.sampling import way_of

PAGE = Path(__file__).with_name("models.md")
VOCABULARY, MOST_PARAMETERS, SECONDS = 320, 30e6, 40
SIZES: dict[str, object] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "hidden_dim", "word_embed_proj_dim", "lm_head_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "intermediate_size_mlp"), 112),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "num_experts_per_tok", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("head_dim", "kv_lora_rank", "q_lora_rank", "v_head_dim", "linear_key_head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim", "mamba_d_state", "state_size", "laurel_rank"), 8),
    **dict.fromkeys(("n_positions", "n_ctx", "max_position_embeddings", "max_seq_len"), 512),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "mamba_dt_rank"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "sliding_window", "dim_model_base"), 32),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "linear_value_head_dim"), 16),
    **dict.fromkeys(("num_kv_shared_layers", "num_nextn_predict_layers", "pad_token_id"), 0),
    "mamba_d_ssm": 128,
    "hidden_size_per_layer_input": 8,
    "activation_sparsity_pattern": [0.0] * 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_config(family: str) -> PretrainedConfig:
    """A configuration of four small layers of as many kinds as the family has."""
    kind = CONFIG_MAPPING[family]
    plain = kind()
    text = plain.get_text_config()
    sizes = {name: size for name, size in SIZES.items() if name in text.to_dict()}
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ()))
    if kinds:
        sizes["layer_types"] = [kinds[layer % len(kinds)] for layer in range(4)]
    return kind(**sizes) if text is plain else kind(text_config=type(text)(**sizes))


def tiny_model(family: str) -> PreTrainedModel:
    """A random float32 model whose weights are large enough that any change shows."""
    config = tiny_config(family)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise MemoryError(f"its smallest configuration here has {size / 1e6:.0f} million parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, 0.1)
    return model


def outcome(family: str, tokenizer: PreTrainedTokenizerFast) -> tuple[str, str, str]:
    """Result, how its neurons were found, and the reason or the way of sampling."""
    try:
        hf_model = tiny_model(family)
    except Exception as error:  # noqa: BLE001 -- whatever a configuration of this family needs beyond the usual sizes
        return "not tried", "", f"no tiny model: {type(error).__name__}: {first_line(error)}"
    try:
        model = LanguageModel.of(hf_model, tokenizer, family)
        diagnosis = check_model(model)
        if not diagnosis.ok:
            faults = [*diagnosis.faults, *(fault for layer in diagnosis.layers for fault in layer.faults)]
            return "refused", model.layout.found_by, faults[0]
        return "proved", model.layout.found_by, str(way_of(model))
    except ModelError as error:
        return "refused", "", first_line(error)
    except Exception as error:  # noqa: BLE001 -- a fault of the model's own code, which the page names
        return "fails", "", f"{type(error).__name__}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """The first line of a message, short and without what breaks a table."""
    return (str(error).strip().splitlines() or [""])[0].replace("|", "/")[:160]


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Every family in turn; a notice of each goes to stderr."""
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", pad_token="w0", eos_token="w2")

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, late)
    for family in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        signal.alarm(SECONDS)
        row = (family, *outcome(family, tokenizer))
        signal.alarm(0)
        print(*row, sep=" | ", file=sys.stderr, flush=True)
        yield row


def main() -> None:
    """Run over all families and write the page, or compare with it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = list(rows())
    proved = {row[0] for row in found if row[1] == "proved"}
    if "--check" in sys.argv:
        before = {line.split("`")[1] for line in PAGE.read_text().splitlines() if "| proved |" in line}
        if lost := sorted(before - proved):
            raise SystemExit(f"no longer proved: {', '.join(lost)}")
        return
    counts = {result: sum(row[1] == result for row in found) for result in ("proved", "refused", "fails", "not tried")}
    lines = [
        "# Models",
        "",
        "Written by `python docs/make_models.py`; do not edit. Each causal architecture of transformers",
        f"{transformers.__version__} was built small and random, and opened, checked and sampled as any model is.",
        "`proved` means that every layer was hooked, that an attachment did in a padded, cached generation what a plain",
        "hook does, and that the sampler gave each row what it gives the row alone. `refused` ends in the message shown.",
        "`trimtab doctor MODEL` proves the same on real weights.",
        "",
        ", ".join(f"{count} {result}" for result, count in counts.items()) + ".",
        "",
        "| architecture | result | found by | sampling, or reason |",
        "|---|---|---|---|",
        *(f"| `{family}` | {result} | {by} | {why} |" for family, result, by, why in found),
    ]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
