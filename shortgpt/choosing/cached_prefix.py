"""Run a model's own forward with layers that stand still: removed ones, and all before a state that is known already.

The model must be a view (`share_weights`): an instance attribute ``forward`` stands in for a layer's own, and is taken off
again afterwards. The model's forward handles everything else: masks, positions, norms, head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from shortgpt.model.hooks import layer_input

Output = Tensor | tuple  # of a layer: the hidden states, alone or followed by other values


@contextmanager
def stand_ins(
    stack: nn.ModuleList, widths: Sequence[int], removed: Collection[int], kept: Sequence[Output]
) -> Iterator[None]:
    """While open, the first ``len(kept)`` layers end in the last of the outputs `kept`, and `removed` ones do nothing.

    A layer that returns a tuple (`widths`: of how many values) hands on, behind its input, what the last layer that ran
    had returned: that is what the model's loop has at hand where there is no such layer.
    """
    last: list[Output] = []
    undo: list[Callable[[], None]] = []

    def stand_in(layer: nn.Module, forward: Callable[..., Output]) -> None:
        before = vars(layer).get("forward")  # accelerate puts its own there
        layer.forward = forward
        undo.append(lambda: delattr(layer, "forward") if before is None else setattr(layer, "forward", before))

    def pass_on(width: int, *args: object, **kwargs: object) -> Output:
        x_in = layer_input(args, kwargs)
        if not width:
            return x_in
        others = last[0][1:] if last and isinstance(last[0], tuple) and len(last[0]) == width else [None] * (width - 1)
        return (x_in, *others)

    def remember(module: nn.Module, args: tuple, output: Output) -> None:
        last[:] = [output]

    def end(*args: object, **kwargs: object) -> Output:
        last[:] = [kept[-1]]
        return copied(kept[-1])

    try:
        for i, layer in enumerate(stack):
            if i == len(kept) - 1:
                stand_in(layer, end)
            elif i < len(kept) or i in removed:
                stand_in(layer, partial(pass_on, widths[i]))
            elif widths[i]:
                undo.append(layer.register_forward_hook(remember).remove)
        yield
    finally:
        for step in undo:
            step()


def copied(output: Output, whole: bool = True) -> Output:
    """The states in memory of their own, because a layer may add to its input in place; attention maps if `whole`."""
    if isinstance(output, Tensor):
        return output.clone()
    others = (None if not whole and isinstance(value, Tensor) and value.ndim == 4 else value for value in output[1:])
    return (output[0].clone(), *others)
