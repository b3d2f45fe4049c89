"""A tiny random model of every decoder-only architecture that transformers can build, from its own config class.

`tiny_config` shrinks the default configuration by the names of its fields (a width is a width everywhere); `NEEDS` holds
the few fields that the rule can't guess, `EXCLUDED` the model types that are left out, each with its reason. Both are
data: a model type that is new to transformers is neither, is built by the rule, and fails the tests until someone decides.
"""

from __future__ import annotations

import re

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

DEPTH, WIDTH, VOCABULARY = 6, 64, 128

_ENCODER = "an encoder with a language-model head; its causal form is the decoder half of an encoder-decoder"
_HALF = "the decoder half of an encoder-decoder: its layers expect an encoder's states"
EXCLUDED: dict[str, str] = {
    **dict.fromkeys(
        [
            "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
            "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
        ],
        _ENCODER,
    ),
    **dict.fromkeys(
        [
            "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
            "musicgen", "musicgen_melody", "prophetnet", "trocr", "whisper",
        ],
        _HALF,
    ),
    "blt": "several stacks over patches of bytes, each of its own width: there is no one list of decoder layers",
    "dots3_note": "its vision tower has no small form; the text model is dots3_note_text",
    "gemma3n": "its vision tower needs timm; the text model is gemma3n_text",
    "gemma4_assistant": "a drafter that runs on another model's states and caches, not a model of its own",
    "gemma4_unified_assistant": "a drafter that runs on another model's states and caches, not a model of its own",
    "xlm": "keeps attention, norms and FFN in parallel lists: it has no decoder layer modules",
    "hrm_text": "recurrent: two stacks run many times over, so a layer has no single place",
    "reformer": "reversible layers on two streams, with random hashing: no single hidden state between layers",
}  # fmt: skip

_PATTERN = [
    "linear_attention",
    "full_attention",
    "linear_attention",
    "linear_attention",
    "full_attention",
    "linear_attention",
]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_HYBRID = ["linear_attention", "hybrid", "linear_attention", "hybrid", "linear_attention", "hybrid"]
_MIXED = [
    "sliding_attention",
    "full_attention",
    "sliding_attention",
    "sliding_attention",
    "full_attention",
    "full_attention",
]
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 32}
NEEDS: dict[str, dict[str, object]] = {
    "bamba": _MAMBA2 | {"attn_layer_indices": [1, 4]},
    "bailing_hybrid": {"layer_types": _PATTERN, "n_group": 1, "topk_group": 1},
    "cohere_compass_text": {
        "layer_types": _MIXED,
        "sliding_window": 8,
        "rope_parameters": dict.fromkeys(set(_MIXED), _ROPE),
    },
    "codegen": {"n_head": 4, "rotary_dim": 8},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 2},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": _MIXED, "vocab_size_per_layer_input": VOCABULARY},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "gptj": {"n_head": 4, "rotary_dim": 8},
    "granitemoehybrid": _MAMBA2 | {"layer_types": _PATTERN},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "conv", "full_attention", "conv"]},
    "longcat_flash": {
        "qk_rope_head_dim": 16,
        "head_dim": 16,
        "qk_nope_head_dim": 16,
        "num_layers": DEPTH,
        "qk_head_dim": 32,
    },
    "mamba2": {"num_heads": 8, "n_groups": 2},
    "ministral": {"head_dim": 16},
    "mllama_text_model": {"cross_attention_layers": [1, 4]},
    "inkling2_text": {"n_layers_per_attn_res_block": 4},
    **{t: {"layer_types": _PATTERN} for t in ("olmo_hybrid", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")},
    "recurrent_gemma": {"block_types": ["recurrent", "attention", "recurrent"]},
    **{
        name: {"rope_parameters": _ROPE | {"mrope_section": [2, 3, 3]}}
        for name in ("qwen2_vl_text", "qwen2_5_vl_text", "glm4v_text", "glm_ocr_text", "paddleocr_vl_text")
    },
    "glm4v_moe_text": {"rope_parameters": _ROPE | {"mrope_section": [1, 1, 2]}},
    "glm5_next_text": {"layer_types": _PATTERN},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "moe", "mlp", "full_attention", "linear_attention"],
        "n_groups": 2,
    },
    "dots3_note_text": {
        "per_layer_config": {
            i: {"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 8} for i in (2, 3, 4)
        },
        "head_dim": 32,
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "qwen4_exp_text": {
        "layer_types": [kind.replace("full", "indexed") for kind in _PATTERN],
        **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 64},
        **{"indexer_compress_ratio": 4, "ngram_vocab_size_base": 64, "hc_lowrank": 8},
    },
    "rwkv": {"rescale_every": 0},  # it rescales its own weights in the first forward; a test of its own covers that
    "youtu": {"tie_word_embeddings": False},  # tied in the configuration, but not by its class
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "zamba": {
        "layers_block_type": _HYBRID,
        "num_key_value_heads": 4,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "zamba2": {
        "layers_block_type": _HYBRID,
        "num_key_value_heads": 4,
        "num_mem_blocks": 2,
        "mamba_headdim": 32,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "zaya": {"num_experts_per_tok": 1},
}

# Composite models whose text part has no causal class of its own: verified as they are, on text without images.
COMPOSITES = [
    "cosmos3_omni", "glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr", "glmga", "granite_docling",
    "mistral_large4", "muse_glimmer", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "unlimited_ocr",
]  # fmt: skip
_VISION = "the rule that shrinks configurations can't build its image or audio part"
COMPOSITES_EXCLUDED: dict[str, str] = {
    **dict.fromkeys(
        [
            "chameleon", "cosmos3_edge", "deepseek_ocr2", "diffusion_gemma", "emu3", "ernie4_5_vl_moe", "granite4_vision",
            "hunyuan_vl", "kosmos-2.5", "mistral4", "molmo2", "muse_spark", "qwen2_5_omni_thinker",
            "qwen3_omni_moe_thinker", "step3p7",
        ],
        _VISION,
    ),
    **dict.fromkeys(["blip", "evolla", "pi0", "pix2struct", "pp_formulanet", "t5gemma2", "udop"], _HALF),
    "kosmos-2": "does not run on text alone",
    "idefics": "keeps its cross-attention layers in a list beside the decoder layers",
}  # fmt: skip

# field names -> size; the first pattern that fits decides
_SIZES: list[tuple[str, int]] = [
    (r"vocab_size", VOCABULARY),
    (r"(num|n)_(hidden_)?layers?|num_decoder_layers|depth|layers", DEPTH),
    (r"hidden_size|n_embd|d_model|dim_model|emb_dim|embedding_size|word_embed_proj_dim|hidden_dim|lru_width|out_hidden_size"
     r"|attention_hidden_size|embedding_dim", WIDTH),
    (r"num_attention_heads|n_heads?|num_heads|attention_heads|linear_num_value_heads|mamba_n_heads|mamba_num_heads"
     r"|n_mamba_heads", 4),
    (r"num_key_value_heads|num_kv_heads|n_head_kv|linear_num_key_heads|global_num_key_value_heads|kv_n_heads", 2),
    (r".*(head_dim|_d_head|head_size)|rotary_dim", 16),
    (r".*(lora_rank|_rank)", 16),
    (r".*(intermediate|ffn|inner|mlp).*(size|dim)|n_inner|d_ff|d_inner|dim_ff", 64),
    (r"(num|n|moe_num)_.*experts", 4),
    (r".*experts_per_tok|moe_top_?k|top_k_experts|num_experts_per.*|moe_k|num_selected.*", 2),
    (r"n_group|topk_group", 1),
    (r"max_position.*|n_positions|n_ctx|context_length|max_seq.*", 256),
    (r".*(state_size|d_state|ssm_state.*)", 16),
    (r"sliding_window|attention_window|window_size", 8),
]  # fmt: skip


def decoder_only_types() -> list[str]:
    """Every model type of transformers' causal-LM mapping that is not excluded."""
    return [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in EXCLUDED]


def tiny_config(model_type: str) -> PreTrainedConfig:
    """The default configuration of `model_type`, shrunk to 6 layers of width 64 and a vocabulary of 128."""
    return _shrink(CONFIG_MAPPING[model_type], NEEDS.get(model_type, {}))


def tiny_model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """A random model in eval mode whose layers all matter: weights of unit gain, norms and biases off their defaults."""
    factory = AutoModelForImageTextToText if model_type in COMPOSITES else AutoModelForCausalLM
    with torch.random.fork_rng():  # some parameters keep what they start with
        torch.manual_seed(seed)
        model = factory.from_config(tiny_config(model_type), dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            elif not re.search("A_log|dt_bias|decay", name):  # state-space rates: noise would make them explode
                parameter.add_(0.05 * noise)
    return model


def _shrink(cls: type[PreTrainedConfig], needs: dict[str, object]) -> PreTrainedConfig:
    default = cls(**needs.get("default", {}))
    values: dict[str, object] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    for name, value in vars(default).items():
        if isinstance(value, PreTrainedConfig):
            values[name] = _shrink(type(value), NEEDS.get(value.model_type, {}) | needs.get(name, {}))
        elif isinstance(value, int) and not isinstance(value, bool) and value:
            size = _size(name, value)
            if size is not None:
                values[name] = size
    if "kv_lora_rank" in vars(default):  # latent attention has a key for every query head
        values["num_key_value_heads"] = values["num_attention_heads"]
    values |= {k: v for k, v in needs.items() if k != "default" and k not in cls.sub_configs}
    return cls(**values)


def _size(name: str, value: int) -> int | None:
    if name.endswith(("_id", "_ids", "_index")):
        return None
    for pattern, size in _SIZES:
        if re.fullmatch(pattern, name):
            return size
    return 64 if value > 512 else None
