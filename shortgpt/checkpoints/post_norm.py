"""The one twin that transformers has no class for: a Llama whose norms stand behind the sums (post-norm).

``x = RMSNorm(x + attention(x))``, then ``x = RMSNorm(x + ffn(x))``: the order of the first transformer (Vaswani et al.,
arXiv 1706.03762), with Llama's parts. The state that leaves the last layer is normalized already, so there is no norm in
front of the output matrix. Importing this module tells transformers' automatic classes of it; a process that has not done
so refuses the checkpoint by its model type.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


class PostNormConfig(LlamaConfig):
    """Llama's configuration; only the type differs."""

    model_type = "shortgpt_post_norm"


class PostNormLayer(LlamaDecoderLayer):
    """Llama's decoder layer, its two norms behind the sums; they keep Llama's names."""

    def forward(self, hidden_states: Tensor, **inputs: Any) -> Tensor:  # type: ignore[override]
        hidden_states = self.input_layernorm(hidden_states + self.self_attn(hidden_states, **inputs)[0])
        return self.post_attention_layernorm(hidden_states + self.mlp(hidden_states))


class PostNormModel(LlamaModel):
    config_class = PostNormConfig
    _no_split_modules = ["PostNormLayer"]  # noqa: RUF012 (as transformers writes it)
    _can_record_outputs = LlamaModel._can_record_outputs | {"hidden_states": PostNormLayer}

    def __init__(self, config: PostNormConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(PostNormLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.Identity()  # type: ignore[assignment]
        self.post_init()


class PostNormForCausalLM(LlamaForCausalLM):
    config_class = PostNormConfig

    def __init__(self, config: PostNormConfig) -> None:
        super().__init__(config)
        self.model = PostNormModel(config)
        self.post_init()


AutoConfig.register(PostNormConfig.model_type, PostNormConfig, exist_ok=True)
AutoModelForCausalLM.register(PostNormConfig, PostNormForCausalLM, exist_ok=True)
