"""Tiny random models and batches. Not in conftest: lessons have a conftest too, and `import conftest` finds the last one."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, HIDDEN, LAYERS = 96, 32, 6
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2")


def build_tiny(family: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random model with weights large enough that every layer matters."""
    names = {"gpt2": {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256}}
    sizes = names.get(
        family,
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
        },
    )
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def random_batch(rows: int = 3, tokens: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
