"""How each kind of twin is built and trained: what the finished model does not show. `train_twins.py` uses it.

* scaled-norm: each norm of layer l gives 1/sqrt(l) of what it would (Curse of Depth, arXiv 2502.05795); the factor is
  folded into the norm's weight at the end, which leaves an ordinary Llama of exactly the same function.
* layer-dropout: each layer is left out of a whole training step with probability 0.2 (LayerDrop, arXiv 1909.11556).
* rwkv, mamba: transformers' classes; while `quick` is open, their loops are the same sums in fewer, larger steps. So is
  the attention of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mamba2 import modeling_mamba2
from transformers.models.rwkv import modeling_rwkv

from shortgpt import decoder_layers
from shortgpt.checkpoints.twins import DROPOUT, WINDOW, twin_config

CHUNK, ROWS = 64, 128  # tokens of an RWKV step; queries of a step of attention
NORMS = ("input_layernorm", "post_attention_layernorm")
_ATTENTION = F.scaled_dot_product_attention
_LATER = torch.full((WINDOW, WINDOW), -torch.inf).triu(1)  # is added to what a query may not see; faster than bools
_WKV, _SCAN = modeling_rwkv.rwkv_linear_attention, modeling_mamba2.mamba2_chunk_scan


class ScaledNorm(LlamaRMSNorm):
    """Llama's norm, whose weight counts as `factor` times what is stored; a tensor, so that all layers compile to one."""

    factor: Tensor

    def __init__(self, norm: LlamaRMSNorm, factor: float) -> None:
        super().__init__(len(norm.weight), norm.variance_epsilon)
        self.register_buffer("factor", torch.tensor(factor), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        states = x.float()
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * self.factor * states.to(x.dtype)


def build(kind: str, seed: int, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """A new model as it is trained, in float32 on the CPU; twins of one seed and shape begin with the same matrices."""
    config = config or twin_config(kind)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if kind == "post-norm":
        fields = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}
        alike = build("pre-norm", seed, type(twin_config("pre-norm"))(**fields))
        model.load_state_dict(alike.state_dict(), strict=False)  # but for the last norm
    if kind == "scaled-norm":
        for number, layer in enumerate(decoder_layers(model), start=1):
            for name in NORMS:
                setattr(layer, name, ScaledNorm(getattr(layer, name), number**-0.5))
    return model.train()


def folded(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with the factors of scaled norms in their weights (changed in place): what is saved."""
    for layer in decoder_layers(model):
        for name in NORMS:
            norm = getattr(layer, name, None)
            if isinstance(norm, ScaledNorm):
                plain = LlamaRMSNorm(len(norm.weight), norm.variance_epsilon)
                plain.weight = nn.Parameter((norm.weight * norm.factor).detach())
                setattr(layer, name, plain)
    return model


@contextmanager
def dropped(model: PreTrainedModel, kind: str, seed: int, step: int) -> Iterator[None]:
    """While open, `model` is without the layers that this training step leaves out; only layer-dropout leaves out any."""
    if kind != "layer-dropout":
        yield
        return
    whole = decoder_layers(model)
    keep = np.random.default_rng([seed, step, 1]).random(len(whole)) >= DROPOUT
    model.model.layers = nn.ModuleList(layer for layer, kept in zip(whole, keep, strict=True) if kept)
    try:
        yield
    finally:
        model.model.layers = whole


@contextmanager
def quick() -> Iterator[None]:
    """While open, transformers' RWKV, Mamba-2 and attention compute their sums with the functions below.

    A number below 1e-38 is zero meanwhile: the processor takes a hundred times as long for it as for another, and the
    weights of attention are full of them.
    """
    with (
        mock.patch.object(F, "scaled_dot_product_attention", attention),
        mock.patch.object(F, "silu", silu),
        mock.patch.object(modeling_rwkv, "rwkv_linear_attention", wkv),
        mock.patch.object(modeling_mamba2, "mamba2_chunk_scan", chunk_scan),
        mock.patch.object(modeling_mamba2, "causal_conv1d_fn", causal_conv),
    ):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
    """Causal attention as plain matrix products, `ROWS` queries at a time with the keys they see.

    Args:
        query, key, value: ``[batch, heads, tokens, width]``, returned likewise.

    torch's own kernel for CPUs is several times slower backward where heads are this narrow. It runs for all but training
    on a CPU: with a mask, with more than a window, on a GPU, without gradients.
    """
    whole = rest.get("is_causal") and attn_mask is None and not rest.get("dropout_p") and query.shape == key.shape
    if not (whole and query.shape[-2] <= WINDOW and query.requires_grad and query.device.type == "cpu"):
        return _ATTENTION(query, key, value, attn_mask=attn_mask, **rest)
    query, out = query * (rest.get("scale") or query.shape[-1] ** -0.5), []
    for begin in range(0, query.shape[-2], ROWS):
        end = min(begin + ROWS, query.shape[-2])
        scores = query[..., begin:end, :] @ key[..., :end, :].mT
        scores = scores + _LATER[begin:end, :end].to(scores.dtype)
        weights = (scores - scores.detach().amax(-1, keepdim=True)).exp()
        total = weights.sum(-1, keepdim=True, dtype=torch.float32)
        out.append((weights @ value[..., :end, :] / total).to(value.dtype))
    return torch.cat(out, -2)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    """With the sigmoid as a step of its own, which a compiled gradient then computes once and not twice."""
    return x * torch.sigmoid(x)


def wkv(
    time_decay: Tensor, time_first: Tensor, key: Tensor, value: Tensor, state: Any = None, return_state: bool = False
) -> Any:
    """RWKV-4's weighted mean of all values so far, `CHUNK` tokens at a time: transformers' function loops over tokens.

    Args:
        time_decay, time_first: ``[channels]``.
        key, value: ``[batch, tokens, channels]``.

    Within a chunk it is one matrix product a channel; what came before is a numerator and a denominator. Both are divided
    by exp of the largest key so far, so that nothing overflows; a key that is smaller by more than 80 counts as 80 smaller,
    so that no sum is zero. Where a state goes in or out (writing), it is transformers' function that runs.
    """
    if state is not None or return_state:
        return _WKV(time_decay, time_first, key, value, state=state, return_state=return_state)
    with torch.autocast(key.device.type, enabled=False):
        decay, first = torch.exp(time_decay.float()), time_first.float()
        keys, values = (x.float().permute(2, 1, 0) for x in (key, value))  # [channels, tokens, batch]
        past = torch.arange(CHUNK, device=key.device)
        ago = (past[:, None] - 1 - past).clamp(min=0)  # tokens between, for s < t
        seen = (past[:, None] > past).float()
        within = torch.exp(-decay[:, None, None] * ago) * seen + torch.diag_embed(
            first.exp()[:, None].expand(-1, CHUNK)
        )
        reach = torch.exp(-decay[:, None] * past)  # what is left of the state after so many tokens
        numerator = denominator = torch.zeros_like(keys[:, 0])
        largest, out = torch.full_like(keys[:, 0], -1e38), []
        for k, v in zip(keys.split(CHUNK, 1), values.split(CHUNK, 1), strict=True):
            n = k.shape[1]
            new = torch.maximum(largest, k.amax(1)).detach()
            kept, weight = torch.exp(largest - new), torch.exp((k - new[:, None]).clamp(min=-80))
            numerator, denominator, largest = numerator * kept, denominator * kept, new
            pair = torch.cat([weight * v, weight], -1)
            before = torch.cat([numerator, denominator], -1)
            over, under = (within[:, :n, :n] @ pair + reach[:, :n, None] * before[:, None]).chunk(2, -1)
            out.append(over / under)
            after = (reach[:, :n].flip(1)[:, None] @ pair)[:, 0] + torch.exp(-decay * n)[:, None] * before
            numerator, denominator = after.chunk(2, -1)
        return torch.cat(out, 1).permute(2, 1, 0).to(key.dtype), None


def chunk_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, **rest: Any) -> Any:
    """Mamba-2's scan for one group and whole chunks: transformers' function computes B·C again for every head.

    Args:
        x: ``[batch, tokens, heads, width]``. dt: ``[batch, tokens, heads]``. A: ``[heads]``.
        B, C: ``[batch, tokens, 1, state]``.
        rest: ``D`` and ``dt_bias``, ``[heads]``, and what else transformers' function takes.

    Returns ``[batch, tokens, heads, width]``. With a state that goes in or out (writing), with several groups, or where the
    last chunk is not whole, it is transformers'.
    """
    states = rest.get("return_final_states") or rest.get("initial_states") is not None
    if states or B.shape[2] > 1 or x.shape[1] % chunk_size:
        return _SCAN(x, dt, A, B, C, chunk_size, **rest)
    batch, tokens, heads, width = x.shape
    dt = F.softplus(dt.float() + rest["dt_bias"])
    chunks = (batch, tokens // chunk_size, chunk_size)
    drive = (x * dt[..., None]).reshape(*chunks, heads, width)
    B, C = (part.reshape(*chunks, -1) for part in (B, C))
    decay = (A * dt).reshape(*chunks, heads).cumsum(2).transpose(2, 3)  # [batch, chunks, heads, tokens of the chunk]
    lower = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=x.device).tril()
    between = (decay[..., None] - decay[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    inside = ((C @ B.mT)[:, :, None] * between) @ drive.transpose(2, 3)  # [batch, chunks, heads, tokens, width]
    late = drive * (decay[..., -1:] - decay).exp().transpose(2, 3)[..., None]
    gains = B.mT @ late.flatten(3)  # [batch, chunks, state, heads * width]: what each chunk leaves
    whole = decay[..., -1].exp().repeat_interleave(width, -1)[:, :, None]
    state, states = torch.zeros_like(gains[:, 0]), []
    for gain, kept in zip(gains.unbind(1), whole.unbind(1), strict=True):
        states.append(state)
        state = state * kept + gain
    carried = (C @ torch.stack(states, 1)).reshape(*chunks, heads, width)
    out = inside.transpose(2, 3) + carried * decay.exp().transpose(2, 3)[..., None]
    skip = rest["D"][:, None].expand(heads, width).reshape(-1) * x.flatten(
        2
    )  # flat: its gradient is a sum of whole rows
    return (out.reshape(batch, tokens, -1) + skip).reshape(batch, tokens, heads, width)


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **_: Any
) -> Tensor:
    """Mamba-2's convolution over the last few tokens, as products and sums: torch's is slow with a filter a channel.

    Args:
        x: ``[batch, channels, tokens]``, returned likewise. weight: ``[channels, taps]``. bias: ``[channels]``.
    """
    taps, tokens = weight.shape[-1], x.shape[-1]
    padded = F.pad(x.mT, (0, 0, taps - 1, 0))  # channels last: gradients of weights are then sums of whole rows
    out: Any = sum(weight[:, tap] * padded[:, tap : tap + tokens] for tap in range(taps))
    out = out if bias is None else out + bias
    return (out if activation is None else ACT2FN[activation](out)).to(x.dtype).mT
