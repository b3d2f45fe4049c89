"""The two branches of a decoder layer, attention and FFN: what they are, and what the layer does without one.

Nothing here knows an architecture. A branch is found by the names of the modules; whether it is one, that is, whether the
layer only adds it to the residual stream, is found by running the layer again with a stand-in that adds nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from shortgpt.model.anatomy import INDEX_NAMES, decoder_layers
from shortgpt.model.hooks import hooked, layer_input, layer_output, run_backbone

KINDS = ("attention", "ffn")
_FFN_NAME = re.compile(r"mlp|ffn|feed_?forward|ff$|moe|expert|^fc\d$", re.I)
_FFN_CLASS = re.compile(r"(mlp|ffn|feed_?forward|moe|moeblock|experts)$", re.I)


Inputs = tuple[tuple, dict]  # positional and named arguments of a layer


class Removed(nn.Module):
    """Stands where a sublayer was, and adds nothing to the residual stream.

    Args:
        original: the module that was here; asked only for its signature and its number.
        outputs: how many values it returned (0: a tensor, not a tuple).
        counts: whether to go on counting the tokens in the key-value cache, as attention does.
    """

    def __init__(self, original: nn.Module, outputs: int, *, counts: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        self.parameters_of_forward = tuple(inspect.signature(original.forward).parameters)
        numbers = [getattr(part, name, None) for part in original.modules() for name in INDEX_NAMES]
        self.layer_idx = next((n for n in numbers if isinstance(n, int)), None) if counts else None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple:
        named = dict(zip(self.parameters_of_forward, args, strict=False)) | kwargs
        x = next(value for value in named.values() if isinstance(value, Tensor))
        for value in named.values():
            if isinstance(value, Cache) and self.layer_idx is not None:
                self._keep_count(value, x, self.layer_idx)
        # BLOOM's sublayers add the residual themselves
        result = named["residual"] if isinstance(named.get("residual"), Tensor) else torch.zeros_like(x)
        return (result, *[named.get("state")] * (self.outputs - 1)) if self.outputs else result

    def _keep_count(self, cache: Cache, x: Tensor, place: int) -> None:
        """The cache counts the tokens it holds in some layer, perhaps this one: store them, with nothing in them."""
        layer = cache.layers[place] if place < len(cache.layers) else None
        if layer is None or hasattr(layer, "keys"):
            nothing = x.new_zeros(x.shape[0], 1, x.shape[1], 1)  # [batch, heads, tokens, width]
            cache.update(nothing, nothing, place)


def sublayers(layer: nn.Module) -> dict[str, list[str]]:
    """Names of the modules within one decoder layer that make up its ``"attention"`` and its ``"ffn"``.

    The FFN is what is called one (``mlp``, ``feed_forward``, experts, or the pair ``fc1``, ``fc2``); any other part with
    matrices of its own that is no single linear layer mixes tokens. Either list may be empty, or longer than one.
    """
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name, module in layer.named_children():
        parts = (
            [(f"{name}.{k}", part) for k, part in module.named_children()]
            if isinstance(module, nn.ModuleList)
            else [(name, module)]
        )
        for part_name, part in parts:
            matrices = sum(p.ndim > 1 for p in part.parameters())
            if matrices and (_FFN_NAME.search(name) or _FFN_CLASS.search(type(part).__name__)):
                found["ffn"].append(part_name)
            elif matrices > 1:
                found["attention"].append(part_name)
    return found


@contextmanager
def record(model: PreTrainedModel, indices: Iterable[int], tell: Callable) -> Iterator[None]:
    """While open, after each run of a layer: ``tell(index, layer, inputs, {sublayer: its output}, output)``."""
    stack, indices = decoder_layers(model), list(indices)
    places = [(index, name) for index in indices for names in sublayers(stack[index]).values() for name in names]
    outputs: dict[int, dict[str, Any]] = {index: {} for index in indices}

    def note(position: int, module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        index, name = places[position]
        outputs[index][name] = output

    def after(position: int, layer: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        index = indices[position]
        tell(index, layer, (args, kwargs), dict(outputs[index]), output)
        outputs[index].clear()

    parts = [stack[index].get_submodule(name) for index, name in places]
    with hooked(parts, note), hooked([stack[index] for index in indices], after):
        yield


def rerun(layer: nn.Module, inputs: Inputs, outputs: Mapping[str, Any], without: Sequence[str]) -> Any:
    """What `layer` gives on the same input if the sublayers `without` add nothing; the others' outputs are replayed."""
    changed: list[tuple[nn.Module, Any]] = []
    try:
        for name, output in outputs.items():
            module = layer.get_submodule(name)
            stand_in = Removed(module, 0 if isinstance(output, Tensor) else len(output)).forward
            changed.append((module, vars(module).get("forward")))
            module.forward = stand_in if name in without else (lambda *args, output=output, **kwargs: output)
        args, kwargs = inputs
        return layer.forward(*args, **kwargs)
    finally:
        for module, before in changed:
            if before is None:
                del module.forward
            else:
                module.forward = before  # accelerate puts its own there


NOT_SEPARATE = (
    "layer {i} ({layer}) does not simply add an attention and an FFN branch to the residual stream, so they can't be removed "
    "or scored one by one: use remove_layers and score_layers"
)


def probe_sublayers(model: PreTrainedModel, indices: Iterable[int]) -> tuple[dict[str, int], set[int]]:
    """Run `model` over three tokens: how many values each sublayer's class returns, and which of the layers `indices`
    hand on their input unchanged when their sublayers add nothing."""
    counts: dict[str, int] = {}
    separate: set[int] = set()

    def check(index: int, layer: nn.Module, inputs: Inputs, outputs: dict[str, Any], out: Any) -> None:
        for name, output in outputs.items():
            counts[type(layer.get_submodule(name)).__name__] = 0 if isinstance(output, Tensor) else len(output)
        ffn = sublayers(layer)["ffn"]
        order = [name in ffn for name in outputs]  # as they ran
        if order != sorted(order):
            return  # attention again after an FFN (LongCat): not one pair
        x_in = layer_input(*inputs)
        try:
            rest = layer_output(rerun(layer, inputs, outputs, without=[*outputs]))
        except Exception:  # the layer does more with a sublayer than call it
            return
        if rest.shape == x_in.shape and torch.equal(rest.float(), x_in.float()):
            separate.add(index)

    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode(), record(model, indices, check):
        run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return counts, separate
