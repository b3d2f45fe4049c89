"""Watch the real forward pass: each decoder layer's input and output hidden states, as they happen.

Forward hooks see exactly what the model computes. transformers' own ``output_hidden_states=True`` does not serve: its
last entry comes *after* the final norm, so it is not the last layer's output, and it keeps every state alive at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import backbone, decoder_layers
from shortgpt.model.arguments import check_batch, within_positions
from shortgpt.model.offload import input_device
from shortgpt.utils.arguments import shown

Reporter = Callable[[int, Tensor, Tensor], None]


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable, *, before: bool = False) -> Iterator[int]:
    """While open, after each run of a module: ``hook(position, module, args, kwargs, output)``; give how many there are.

    With `before` it is called ahead of each run, without an output. What `hook` returns, if anything, takes the place of
    the output (or of ``(args, kwargs)``), as torch has it. Our hooks, and only ours, go on leaving, also after an exception.
    """
    handles = []
    try:
        for position, module in enumerate(modules):
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(partial(hook, position), with_kwargs=True))
        yield len(handles)
    finally:
        for handle in handles:
            handle.remove()


def layer_input(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The hidden states among the arguments of a decoder layer."""
    return args[0] if args else kwargs["hidden_states"]


def layer_output(output: Tensor | tuple) -> Tensor:
    """The hidden states in what a decoder layer (or a part of one) returns: alone, or the first of several values."""
    return output if isinstance(output, Tensor) else output[0]


@contextmanager
def watch_layers(model: PreTrainedModel, report: Reporter) -> Iterator[int]:
    """While open, call ``report(layer, x_in, x_out)`` each time a decoder layer runs; give the number of layers.

    ``layer`` is the 0-based index; ``x_in`` and ``x_out`` are the hidden states entering and leaving it, of shape
    ``[batch, tokens, hidden]`` in the model's dtype (a few architectures have another layout: see `by_token`). They are
    the model's own tensors: read them, don't change them.
    Our hooks, and only ours, are removed on leaving, also after an exception.
    """

    stack = decoder_layers(model)
    if not callable(report):
        raise TypeError(f"report must be a function of (layer, x_in, x_out), got {shown(report)}")

    def tell(index: int, module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
        report(index, layer_input(args, kwargs), layer_output(output))

    with hooked(stack, tell) as layers:
        yield layers


@contextmanager
def eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """While open, the model is in eval mode; then each module is in its own mode again (they may differ)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def require_numbers(model: PreTrainedModel, values: Tensor) -> None:
    """Raise ValueError if `values`, computed from the logits of `model`, hold a NaN: no measure could be trusted."""
    if values.isnan().any():
        raise ValueError(
            f"the model gives logits with NaN (dtype {model.dtype}): load the model in float32 or bfloat16, or look for "
            "damaged weights"
        )


@contextmanager
def numbers_only(model: PreTrainedModel) -> Iterator[None]:
    """Raise as `require_numbers` does as soon as the model gives a NaN, while another library works with it."""
    # one NaN in a token's last state is one in each of its logits, so the first of them tells
    handle = model.register_forward_hook(lambda module, given, output: require_numbers(model, output.logits[..., 0]))
    try:
        yield
    finally:
        handle.remove()


def by_token(states: Tensor, mask: Tensor) -> Tensor:
    """Bring hidden states into the layout ``[batch, tokens, features]`` of the attention mask ``[batch, tokens]``.

    Most architectures have it already. Where a token has several streams (DeepSeek-V4's hyper-connections, Gemma 3n's
    AltUp) they are one long vector; XLNet puts the tokens first.

    Raises:
        ValueError: no pair of axes is as long as the batch and the tokens.
    """
    shape = tuple(mask.shape)
    if states.ndim == 3 and states.shape[:2] == shape:
        return states
    for axes in ((0, 1), (1, 2), (1, 0)):  # features come behind them
        if states.ndim > max(axes) + 1 and tuple(states.shape[axis] for axis in axes) == shape:
            return states.movedim(axes, (0, 1)).flatten(2)
    raise ValueError(
        f"the layers' hidden states have shape {list(states.shape)}, which does not hold one state for each of the "
        f"{shape[0]} x {shape[1]} tokens: this architecture can't be scored"
    )


def unpadded(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The samples of `batches` in their order, without pads: each batch is cut where their length changes.

    Not every architecture keeps masked tokens out of a forward pass: recurrent states run through them, and where keys
    are compressed in blocks, they move the blocks. So no pad enters one. What is masked out inside a sample goes too,
    and a sample of pads only is left out.

    Raises:
        TypeError, ValueError: what `check_batch` finds in a batch, when its turn comes.
    """
    for batch in batches:
        check_batch(model, batch)
        ids, real = batch["input_ids"], batch["attention_mask"].bool().to(batch["input_ids"].device)
        samples = [row[kept] for row, kept in zip(ids, real, strict=True) if kept.any()]
        for _, equal in groupby(samples, len):
            ids = torch.stack(list(equal))  # [samples, tokens]
            yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def run_backbone(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> None:
    """One forward pass without the language-model head: nobody here needs its logits, the largest tensor of all.

    Without dropout, whatever mode the model is in. `batch` is one of `unpadded`.
    """
    _run(model, backbone(model), batch)


def logits_of(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits ``[batch, tokens, vocabulary]`` of one forward pass, without dropout. `batch` is one of `unpadded`."""
    return _run(model, model, batch).logits


def _run(model: PreTrainedModel, part: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    device = input_device(model)
    ids, mask = (batch[name].to(device) for name in ("input_ids", "attention_mask"))
    with eval_mode(model), within_positions(model, ids.shape[1]):
        return part(input_ids=ids, attention_mask=mask, use_cache=False)


@torch.inference_mode()
def hidden_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """All hidden states of one batch, ``[layers + 1, batch, tokens, hidden]``, in the model's dtype.

    Entry i enters layer i; the last entry leaves the last layer, *before* the final norm. Pads have no state (see
    `unpadded`): where the mask is 0, all are zero. This keeps everything in memory: right for looking at a few sentences,
    wrong for scoring a corpus (`score_layers` streams instead).

    Raises:
        ValueError: the batch holds pads only, or more tokens than the model has positions.
    """
    decoder_layers(model)  # refuses what is no model
    parts = [_states(model, part) for part in unpadded(model, [batch])]
    if not parts:
        raise ValueError("the batch holds no token: its attention_mask is 0 everywhere")
    real = batch["attention_mask"].bool().to(parts[0].device)
    if real.all():
        return parts[0]
    states = parts[0].new_zeros(len(parts[0]), *real.shape, parts[0].shape[-1])
    states[:, real] = torch.cat([part.flatten(1, 2) for part in parts], dim=1)
    return states


def _states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    states: dict[int, Tensor] = {}

    def keep(layer: int, x_in: Tensor, x_out: Tensor) -> None:
        mask = batch["attention_mask"]
        states[layer], states[layer + 1] = by_token(x_in, mask).clone(), by_token(x_out, mask).clone()

    with watch_layers(model, keep):
        run_backbone(model, batch)
    return torch.stack([states[layer] for layer in sorted(states)])
