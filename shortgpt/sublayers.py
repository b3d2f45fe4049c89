"""Remove only the attention or only the FFN of a layer; score them like layers.

Most decoder layers add two branches to the residual stream, one after the other or side by side: a token mixer
(attention; a state-space or linear-attention block counts as one) and an FFN (an MLP or a mixture of experts). A removed
branch is replaced by a module that adds nothing. No configuration of transformers can say that, so such a model is saved
in our own format (see `saving`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from shortgpt.capture import run_backbone
from shortgpt.choose import check_indices
from shortgpt.influence import LayerScores, score_layers
from shortgpt.layers import decoder_layers
from shortgpt.pruning import record_step, share_weights

KINDS = ("attention", "ffn")
_FFN_NAME = re.compile(r"mlp|ffn|feed_?forward|ff$|moe|expert|^fc\d$", re.I)
_FFN_CLASS = re.compile(r"(mlp|ffn|feed_?forward|moe|moeblock|experts)$", re.I)


class Removed(nn.Module):
    """Stands where a sublayer was, and adds nothing to the residual stream.

    Args:
        original: the module that was here; asked only for its signature and its number.
        outputs: how many values it returned (0: a tensor, not a tuple).
    """

    def __init__(self, original: nn.Module, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.parameters_of_forward = tuple(inspect.signature(original.forward).parameters)
        self.layer_idx = getattr(original, "layer_idx", None)

    def forward(self, *args: object, **kwargs: object) -> Tensor | tuple:
        named = dict(zip(self.parameters_of_forward, args, strict=False)) | kwargs
        x = next(value for value in named.values() if isinstance(value, Tensor))
        for value in named.values():
            if isinstance(value, Cache):
                self._keep_count(value, x)
        # BLOOM's sublayers add the residual themselves
        result = named["residual"] if isinstance(named.get("residual"), Tensor) else torch.zeros_like(x)
        return (result, *[named.get("state")] * (self.outputs - 1)) if self.outputs else result

    def _keep_count(self, cache: Cache, x: Tensor) -> None:
        """The cache counts the tokens it holds in some layer, perhaps this one: store them, with nothing in them."""
        layer = cache.layers[self.layer_idx] if self.layer_idx < len(cache.layers) else None
        if layer is None or hasattr(layer, "keys"):
            nothing = x.new_zeros(x.shape[0], 1, x.shape[1], 1)  # [batch, heads, tokens, width]
            cache.update(nothing, nothing, self.layer_idx)


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


def remove_sublayers(
    model: PreTrainedModel,
    *,
    attention: Sequence[int] = (),
    ffn: Sequence[int] = (),
    outputs: Mapping[str, int] | None = None,
) -> PreTrainedModel:
    """Return `model` without the attention of some layers and without the FFN of some: a view that shares the weights.

    Args:
        attention, ffn: 0-based indices of layers in `model` as it is now.
        outputs: how many values each replaced module returns, by its class (see `Removed`); measured with a forward pass
            over a few tokens if it is not given. `saving` gives it.

    The input is unchanged. A layer may lose both, and then passes its input on; `remove_layers` does that at no cost.

    Raises:
        ValueError: an unknown or repeated index, a layer without that sublayer, or an architecture whose layers don't
            add the two as separate branches to the residual stream (that is checked by running it).
    """
    stack = decoder_layers(model)
    wanted = {"attention": list(attention), "ffn": list(ffn)}
    for indices in wanted.values():
        check_indices(indices, len(stack), keep_one=False)
    names = [sublayers(layer) for layer in stack]
    for kind, indices in wanted.items():
        for i in indices:
            if not names[i][kind]:
                there = " and ".join(k for k in KINDS if names[i][k]) or "neither of the two"
                raise ValueError(f"layer {i} has no {kind} to remove: it has {there}")
    if outputs is None:
        outputs = _count_outputs(model, sorted({*attention, *ffn}))
    view = share_weights(model)
    for kind, indices in wanted.items():
        for i in indices:
            for name in names[i][kind]:
                layer = decoder_layers(view)[i]
                original = layer.get_submodule(name)
                layer.set_submodule(name, Removed(original, outputs[type(original).__name__]))
    step = {kind: sorted(map(int, indices)) for kind, indices in wanted.items()}
    record_step(view, model, step | {"outputs": dict(outputs)})
    return view


def score_sublayers(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    metric: str = "block_influence",
    progress: bool = True,
) -> dict[str, LayerScores]:
    """Score the attention and the FFN of every layer as `score_layers` scores layers: ``{"attention": …, "ffn": …}``.

    The attention is scored from the layer's input to the residual stream after attention, the FFN from there to the
    layer's output. That middle state is computed by the layer itself, run again with the attention's output replayed and
    the FFN adding nothing; so it is right for norms after the branch, scaled residuals and parallel branches too. Where a
    layer lacks one of the two, its score is NaN.

    Raises:
        ValueError: as `score_layers`; or an architecture whose layers don't add two separate branches.
    """
    _count_outputs(model, range(len(decoder_layers(model))))  # raises if this can't be done
    both = score_layers(model, batches, metric=metric, progress=progress, watch=_watch_sublayers)
    scores = {}
    for column, kind in enumerate(KINDS):
        sums = both.sums[:, column :: len(KINDS)].copy()
        absent = [i for i, layer in enumerate(decoder_layers(model)) if not sublayers(layer)[kind]]
        sums[:, absent] = np.nan
        scores[kind] = replace(both, sums=sums)
    return scores


@contextmanager
def _watch_sublayers(model: PreTrainedModel, report: Callable[[int, Tensor, Tensor], None]) -> Iterator[int]:
    """Like `watch_layers`, with two numbers a layer: ``2 i`` for its attention, ``2 i + 1`` for its FFN."""

    def split(
        index: int, layer: nn.Module, inputs: tuple[tuple, dict], outputs: dict[str, object], out: object
    ) -> None:
        x_in, x_out = _first(inputs[0] or [inputs[1].get("hidden_states")]), _first(out)
        x_between = _first(_rerun(layer, inputs, outputs, without=sublayers(layer)["ffn"]))
        report(2 * index, x_in, x_between)
        report(2 * index + 1, x_between, x_out)

    with _record(model, range(len(decoder_layers(model))), split):
        yield 2 * len(decoder_layers(model))


def _count_outputs(model: PreTrainedModel, indices: Iterable[int]) -> dict[str, int]:
    """How many values each sublayer's class returns; checks that a layer without its sublayers hands on its input."""
    counts: dict[str, int] = {}

    def check(
        index: int, layer: nn.Module, inputs: tuple[tuple, dict], outputs: dict[str, object], out: object
    ) -> None:
        for name, output in outputs.items():
            counts[type(layer.get_submodule(name)).__name__] = 0 if isinstance(output, Tensor) else len(output)
        x_in = _first(inputs[0] or [inputs[1].get("hidden_states")])
        try:
            rest = _first(_rerun(layer, inputs, outputs, without=[*outputs]))
            separate = rest.shape == x_in.shape and torch.equal(rest.float(), x_in.float())
        except Exception:  # the layer does more with a sublayer than call it
            separate = False
        if not separate:
            raise ValueError(
                f"layer {index} ({type(layer).__name__}) does not simply add an attention and an FFN branch to the residual "
                "stream, so they can't be removed or scored one by one: use remove_layers and score_layers"
            )

    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode(), _record(model, indices, check):
        run_backbone(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return counts


@contextmanager
def _record(model: PreTrainedModel, indices: Iterable[int], tell: Callable) -> Iterator[None]:
    """While open, after each run of a layer: ``tell(index, layer, (args, kwargs), {sublayer: its output}, output)``."""
    handles = []

    def watch(index: int, layer: nn.Module) -> None:
        outputs: dict[str, object] = {}
        for name in (name for names in sublayers(layer).values() for name in names):
            handles.append(
                layer.get_submodule(name).register_forward_hook(
                    lambda module, args, output, name=name: outputs.__setitem__(name, output)
                )
            )

        def after(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            tell(index, module, (args, kwargs), dict(outputs), output)
            outputs.clear()

        handles.append(layer.register_forward_hook(after, with_kwargs=True))

    stack = decoder_layers(model)
    try:
        for index in indices:
            watch(index, stack[index])
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rerun(
    layer: nn.Module, inputs: tuple[tuple, dict], outputs: Mapping[str, object], without: Sequence[str]
) -> object:
    """What `layer` gives on the same input if the sublayers `without` add nothing; the others' outputs are replayed."""
    changed: list[tuple[nn.Module, object]] = []
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


def _first(values: object) -> Tensor:
    return values if isinstance(values, Tensor) else values[0]
