"""Attention heads and FFN channels: where a layer's are, how they score, and how many parameters they hold.

Which matrices they are made of is found by their sizes, without a table of architectures. Removing is in `width`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt.model.anatomy import decoder_layers, text_config
from shortgpt.model.arguments import NO_TOKENS, check_batches
from shortgpt.model.branches import sublayers
from shortgpt.model.hooks import hooked, run_backbone, unpadded
from shortgpt.model.offload import require_in_memory
from shortgpt.utils.arguments import check_choice, check_count

SCORES = ("magnitude", "activation")


def width_scores(
    model: PreTrainedModel,
    kind: str,
    *,
    scores: str = "magnitude",
    batches: Iterable[Mapping[str, Tensor]] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Scores of the ``"channels"`` or ``"heads"`` (key-value groups), float64 ``[layers, units]``: see `remove_channels`."""
    check_choice("kind", kind, ("channels", "heads"))
    check_choice("scores", scores, SCORES)
    if scores == "activation":
        check_batches(batches)
    depth = len(decoder_layers(model))  # refuses what is no model
    require_in_memory(model)
    widths = [find_width(model, i, kind) for i in range(depth)]
    if scores == "magnitude":
        squares = [width.weights_squared() for width in widths]
    else:
        means = _mean_squares(model, widths, batches or (), progress)
        squares = [mean * width.column_squared() for mean, width in zip(means, widths, strict=True)]
    return np.stack([np.sqrt(some.reshape(w.units, -1).sum(1)) for some, w in zip(squares, widths, strict=True)])


def equal_parameters(model: PreTrainedModel, layers: int) -> dict[str, dict[str, int]]:
    """How much of each kind holds as many parameters as `layers` average decoder layers, to the nearest whole number.

    Returns ``{kind: {"n": how many, "parameters": how many those hold}}`` for ``layers``; ``attention`` and ``ffn``, counted
    in sublayers; ``channels`` and ``heads``, counted per layer.
    """
    stack = decoder_layers(model)
    check_count("layers", layers)
    count = lambda modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
    target = layers * count(stack) / len(stack)
    units = {"layers": count(stack) / len(stack)}
    for kind in ("attention", "ffn"):
        parts = [layer.get_submodule(name) for layer in stack for name in sublayers(layer)[kind]]
        units[kind] = count(parts) / len(stack)
    for kind in ("channels", "heads"):
        widths = [find_width(model, i, kind) for i in range(len(stack))]
        units[kind] = sum(w.parameters / w.units for w in widths)
    return {
        kind: {"n": round(target / each), "parameters": round(round(target / each) * each)}
        for kind, each in units.items()
    }


@dataclass
class Width:
    """The matrices of one layer with a side as long as its inner width: those that lead in, and the one that leads out."""

    into: Sequence[nn.Linear | Conv1D]
    out: nn.Linear | Conv1D
    units: int

    @property
    def parameters(self) -> int:
        inner = sum(p.numel() for module in self.into for p in module.parameters())
        return inner + self.out.weight.numel()

    def column_squared(self) -> np.ndarray:
        """Squared norm of each column of the output projection, float64 ``[inner width]``."""
        return by_output(self.out).cpu().double().square().sum(0).numpy()

    def weights_squared(self) -> np.ndarray:
        """Sum of squares of all weights of each unit, float64 ``[units]``."""
        parts = [self.column_squared(), *(by_output(m).cpu().double().square().sum(1).numpy() for m in self.into)]
        return sum(part.reshape(self.units, -1).sum(1) for part in parts)

    def kept(self, units: Tensor, length: int) -> Tensor:
        """Which of `length` rows or columns belong to the `units` that stay."""
        block = length // self.units
        return (units[:, None] * block + torch.arange(block)).flatten()


def find_width(model: PreTrainedModel, i: int, kind: str) -> Width:
    layer, config = decoder_layers(model)[i], text_config(model.config)
    refuse = f"layer {i} ({type(layer).__name__}) has no {kind} that this can remove: "
    names = sublayers(layer)["ffn" if kind == "channels" else "attention"]
    modules = {id(m): m for name in names for m in layer.get_submodule(name).modules()}
    matrices = [m for m in modules.values() if isinstance(m, nn.Linear | Conv1D)]
    counts = (2, 3) if kind == "channels" else (4,)
    if len(matrices) not in counts:
        rule = "an FFN of two or three matrices" if kind == "channels" else "separate matrices for q, k, v and output"
        raise ValueError(f"{refuse}it takes {rule}, and there are {len(matrices)}")
    *into, out = matrices
    inner, hidden = (by_output(out).shape[axis] for axis in (1, 0))
    heads, groups = heads_of(config)
    width = getattr(config, "head_dim", None) or hidden // heads
    sizes = sorted(by_output(m).shape[0] for m in into)
    expected = [inner] * len(into) if kind == "channels" else sorted([heads * width, groups * width, groups * width])
    mine = {id(p) for m in matrices for p in m.parameters()}
    others = [p for m in modules.values() for p in m.parameters(recurse=False) if id(p) not in mine]
    fits = all(p.ndim == 1 and p.numel() in (width, hidden) for p in others) and hidden == config.hidden_size
    if sizes != expected or not fits or (kind == "heads" and inner != heads * width):
        raise ValueError(f"{refuse}its matrices and parameters don't have the sizes of {kind} alone")
    return Width(into, out, inner if kind == "channels" else groups)


@torch.no_grad()
def _mean_squares(
    model: PreTrainedModel, widths: Sequence[Width], batches: Iterable, progress: bool
) -> list[np.ndarray]:
    """Mean square of each input of the output projections over real tokens, float64 ``[inner width]`` a layer."""
    sums, tokens = [np.zeros(1)] * len(widths), 0

    def add(i: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        sums[i] = sums[i] + args[0].flatten(0, -2).cpu().double().square().sum(0).numpy()

    with hooked([width.out for width in widths], add, before=True):
        for batch in unpadded(model, tqdm(batches, desc="watching activations", unit="batch", disable=not progress)):
            run_backbone(model, batch)
            tokens += batch["input_ids"].numel()
    if not tokens:
        raise ValueError(NO_TOKENS)
    return [total / tokens for total in sums]


def heads_of(config: PreTrainedConfig) -> tuple[int, int]:
    heads = config.num_attention_heads
    return heads, getattr(config, "num_key_value_heads", None) or heads


def by_output(module: nn.Linear | Conv1D) -> Tensor:
    """The weight as ``[out, in]``."""
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight
