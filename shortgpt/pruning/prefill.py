"""Prune only the reading of the prompt: the layers are skipped there, and all of them write (ShortGPT-gen).

What a pruned model loses first is writing. So the published version of the paper (ACL Findings 2025) has a second
method, ShortGPT-gen, whose code does this: while more than one token comes in at once (the prompt), a chosen layer hands
its input on unchanged, but still puts keys and values into the cache, computed from that input by its own norm and
projections. Tokens that come one by one pass through all layers, which find a complete cache. No parameter goes; reading
gets cheaper. (The same idea was found again as POP, arXiv 2602.03295.)

Nothing is computed by hand here. A chosen layer's own forward starts as ever: norm, projections, rotary embedding,
whatever the architecture does. When it hands keys and values to the cache, they are stored, and it is stopped there: its
attention, output projection and FFN never run. (Its query projection does; that is the price of not knowing the layer.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from shortgpt.model.anatomy import decoder_layers, original_layers, removed_so_far
from shortgpt.model.hooks import eval_mode, hooked, layer_input
from shortgpt.model.offload import input_device
from shortgpt.model.view import share_weights
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import PruningPlan


def prune_prefill(model: PreTrainedModel, layers: Sequence[int] | PruningPlan) -> PreTrainedModel:
    """Return `model` with `layers` skipped while it reads a prompt: a new model that shares all weights with it.

    >>> view = prune_prefill(model, plan)
    >>> view.generate(ids, max_new_tokens=40)
    >>> view.generate(ids, max_new_tokens=40, prefill_chunk_size=ids.shape[1] - 1)  # the last token passes all layers

    Args:
        layers: as for `remove_layers`: indices in `model` as it is now, or a plan.

    As in the paper's code, all of the prompt is read so, its last token too: the *first* new token is what the pruned
    model predicts. All later ones come from all layers, over the cache that was left. The third line above spares the
    last token, so that the first new token comes from all layers as well; the cache is the same but for that token.

    "The prompt" is whatever comes as more than one token at once. So a prompt of one token passes all layers; and a view
    can't judge another model's draft (`generate_with_draft`), because it would read the drafted tokens as a prompt.

    The input is unchanged. The view is for this session: saved, it would be the dense model. Keep the plan.

    Raises:
        ValueError: what `remove_layers` refuses; an architecture whose layers do more than put keys and values into the
            cache once (state-space and hybrid layers, two attentions in one layer). The view itself raises it when it
            is to read a prompt without a cache (``use_cache=False``): nothing would be left to write with.
    """
    chosen = current_indices(model, remove_layers(model, layers))  # which refuses what can't be done
    view = share_weights(model)
    ids = torch.tensor([[0, 1]], device=input_device(view))
    stack = decoder_layers(view)
    widths: list[int] = [0] * len(stack)  # how many values a layer returns, 0 for the hidden states alone

    def note(i: int, module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
        widths[i] = len(output) if isinstance(output, tuple) else 0
        x_in = layer_input(args, kwargs)
        others = (
            output[1:] if widths[i] else ()
        )  # attention maps, [batch, heads, tokens, tokens], are for the user only
        if i in chosen and any(isinstance(value, Tensor) and value.ndim != 4 for value in others):
            raise ValueError(
                f"layer {i} of this {type(model).__name__} hands on more than its hidden states: what the next layer would "
                "get instead is not defined, so it can't be skipped while the prompt is read"
            )
        if x_in.shape[:2] != ids.shape:
            raise ValueError(
                f"the layers of {type(model).__name__} take states of shape {list(x_in.shape)} for {list(ids.shape)} tokens: "
                "where the tokens are is not known, so the prefill can't be pruned"
            )

    with hooked(stack, note):
        expected = _cache_after(view, ids)
    for i in chosen:
        layer = stack[i]
        if _skips(layer):  # `model` is such a view already
            continue
        # a partial, not a closure: a copy of the view gets copies of the layer in it
        layer.forward = partial(_write_but_read_past, layer, i, widths[i], vars(layer).get("forward"))
    if _cache_after(view, ids) != expected:
        raise ValueError(
            f"the prefill of {type(model).__name__} can't be pruned: its layers keep more than the keys and values of one "
            "attention, and a skipped layer would leave the cache incomplete"
        )
    return view


def prefill_is_pruned(model: PreTrainedModel) -> bool:
    """Whether `model` is a view that skips layers while it reads a prompt."""
    return any(_skips(layer) for layer in decoder_layers(model))


def _skips(layer: nn.Module) -> bool:
    return getattr(vars(layer).get("forward"), "func", None) is _write_but_read_past


class _Stored(Exception):
    """Raised inside a layer as soon as the cache holds its keys and values."""


def _write_but_read_past(
    layer: nn.Module, index: int, width: int, forward: Callable | None, *args: Any, **kwargs: Any
) -> Tensor | tuple:
    """Stands in for a layer's forward. One token: the layer itself. More: only its keys and values, for the cache."""
    forward = partial(type(layer).forward, layer) if forward is None else forward  # accelerate puts its own there
    x_in = layer_input(args, kwargs)  # [batch, tokens, hidden]
    if x_in.shape[1] == 1:
        return forward(*args, **kwargs)
    cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    if cache is None:
        raise ValueError(
            "a model with pruned prefill needs a cache, for the skipped layers write from it: leave use_cache on (perplexity "
            "of a text without a prompt is that of remove_layers)"
        )
    if not _stores(cache, partial(forward, *args, **kwargs)):
        raise ValueError(
            f"layer {index} ({type(layer).__name__}) puts no keys and values into the cache, so it can't be skipped while "
            "the prompt is read: choose layers with attention"
        )
    return (x_in, *[None] * (width - 1)) if width else x_in


def _stores(cache: Cache, run: Callable[[], object]) -> bool:
    """Run a layer up to where it stores keys and values, and stop it there. False if it never gets there."""
    update: Callable = cache.update

    def store(*args: Any, **kwargs: Any) -> NoReturn:
        update(*args, **kwargs)
        raise _Stored

    vars(cache)["update"] = store
    try:
        run()
    except _Stored:
        return True
    finally:
        del vars(cache)["update"]  # the class's own is back
    return False


@torch.no_grad()
def _cache_after(model: PreTrainedModel, ids: Tensor) -> list[dict[str, object]]:
    """The shapes of all that the cache keeps of each layer after reading `ids`."""
    with eval_mode(model):
        cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    if not isinstance(cache, Cache):
        raise ValueError(
            f"{type(model).__name__} keeps no keys and values: there is no prompt cache that could be filled"
        )
    return [{name: _shapes(value) for name, value in vars(layer).items()} for layer in cache.layers]


def _shapes(value: object) -> object:
    if isinstance(value, Tensor):
        return list(value.shape)
    if isinstance(value, dict):
        return {key: _shapes(each) for key, each in value.items()}
    return [_shapes(each) for each in value] if isinstance(value, list | tuple) else None


def current_indices(model: PreTrainedModel, pruned: PreTrainedModel) -> list[int]:
    """Which layers of `model`, by their indices in it as it is now, `pruned` lacks."""
    gone = removed_so_far(pruned)
    return [now for now, original in enumerate(original_layers(model)) if original in gone]
