"""A view of a model: a new tree of modules over the very same weights, to be changed without the model noticing.

Functions that somebody put in the place of a model's own methods must work on the view, too. `copy.deepcopy` copies modules,
bound methods and partials, and takes a plain function as it is. So a ``forward`` made by a decorator (``torch.compile``,
autocast, a user's patch) would compute with the modules of the original: the copy of a model would answer as the original
does, whatever was removed from it.
"""

from __future__ import annotations

import copy
import dis
from collections import deque
from collections.abc import Mapping
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.anatomy import (
    forget_checkpoint,
    model_name,
)
from shortgpt.model.offload import accelerate_hooks, forget_replaced_movers

_MOST = 10_000  # objects to look at behind one function: it may hold somebody's data


def rebind(model: PreTrainedModel, copies: Mapping[int, nn.Module]) -> None:
    """Make the functions on the modules of `model` (changed in place), a copy, use this copy's modules.

    `copies` has the copy of each module of the original by the original's ``id``. Functions are copied along with what they
    close over. What `torch.compile` made is left out: it is made for one model, and `copy.deepcopy` of a model after
    ``model.compile()`` leaves it out, too.

    Raises:
        ValueError: a method was replaced by a function that gets at the original in another way (a global variable).
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            parent._modules[name] = child._modules.get("_orig_mod", child)  # what torch.compile(layer) wraps
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if not callable(value):
                continue
            plain = _uncompiled(value)
            new = _rebound(plain, copies, {})
            if hasattr(type(module), name) and _held_deep(new, copies):
                where = f"model{path and '.' + path}.{name}"
                raise ValueError(
                    f"{where} of this {type(model).__name__} was replaced by a function that uses this very model, so a "
                    f"changed copy would still compute with the layers of this one: take it off (del {where}), and put it "
                    "on the result"
                )
            if plain is not value and _is_own(new, module):
                del vars(module)[name]  # the class's is back
            elif new is not value:
                vars(module)[name] = new


def _is_own(value: object, module: nn.Module) -> bool:
    return isinstance(value, MethodType) and value.__func__ is getattr(
        type(module), getattr(value, "__name__", ""), None
    )


def _uncompiled(value: Any) -> Any:
    if not (isinstance(value, FunctionType) and hasattr(value, "_torchdynamo_orig_callable")):
        return value
    from torch._dynamo.eval_frame import innermost_fn

    return innermost_fn(value)


def _rebound(value: Any, copies: Mapping[int, nn.Module], done: dict[int, object]) -> Any:
    """`value`, or if it holds modules of the original, a copy of it that holds their copies."""
    if isinstance(value, nn.Module):
        return copies.get(id(value), value)
    value = _uncompiled(value)
    if id(value) in done:
        return done[id(value)]
    if not _held_deep(value, copies):
        return value

    def again(inner: Any) -> Any:
        return _rebound(inner, copies, done)

    if isinstance(value, MethodType):
        return MethodType(again(value.__func__), again(value.__self__))
    if isinstance(value, partial):
        return partial(again(value.func), *map(again, value.args), **{k: again(v) for k, v in value.keywords.items()})
    if type(value) in (list, tuple):
        return type(value)(map(again, value))
    if type(value) is dict:
        return {key: again(each) for key, each in value.items()}
    if isinstance(value, FunctionType):
        cells = tuple(CellType() for _ in value.__closure__ or ())
        new = FunctionType(value.__code__, value.__globals__, value.__name__, again(value.__defaults__), cells)
        done[id(value)] = new  # a function may close over itself
        for cell, old in zip(cells, value.__closure__ or (), strict=True):
            if old != CellType():  # an empty one
                cell.cell_contents = again(old.cell_contents)
        new.__kwdefaults__ = again(value.__kwdefaults__)
    elif callable(value) and hasattr(value, "__dict__"):
        new = object.__new__(type(value))  # without __getstate__: accelerate's refuses
        done[id(value)] = new
    else:
        return value
    vars(new).update({key: again(each) for key, each in vars(value).items()})
    return new


def _held_deep(value: Any, copies: Mapping[int, nn.Module]) -> bool:
    """Whether `value` gets at a module of the original: through what it closes over, its attributes, global variables."""
    todo, seen = deque([(value, True)]), set[int]()
    while todo and len(seen) < _MOST:  # the nearest first
        value, reads_globals = todo.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            if id(value) in copies:
                return True
        elif not isinstance(value, Tensor | type | ModuleType | str):
            todo += [(each, reads_globals) for each in _parts(value)]
            if isinstance(value, FunctionType) and reads_globals:  # and not those of the functions found there
                names = {step.argval for step in dis.get_instructions(value) if step.opname == "LOAD_GLOBAL"}
                todo += [(value.__globals__[name], False) for name in names & value.__globals__.keys()]
    return False


def _parts(value: object) -> list[object]:
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    parts = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, partial):
        parts += [value.func, value.args, value.keywords]
    if isinstance(value, FunctionType):
        parts += [value.__defaults__, value.__kwdefaults__]
        parts += [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
    return parts


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree and configuration whose parameters and buffers are the model's own tensors.

    Nothing `torch.compile` made is in it. It no longer has the name of the checkpoint that `model` is (`model_name` still
    tells it): all that change a model work on such a copy.
    """
    # accelerate's hooks hold weights too, or know by their old names where these are on disk
    shared: dict[int, Any] = {id(it): it for it in (*model.parameters(), *model.buffers(), *accelerate_hooks(model))}
    originals = list(model.modules())
    view = copy.deepcopy(model, shared)  # the memo tells deepcopy that these are copied already, and learns the rest
    rebind(view, {id(module): shared[id(module)] for module in originals})
    forget_replaced_movers(view)
    for inner in view.modules():
        if hasattr(inner, "layers_are_rescaled"):
            _undo_rescaling(inner)
    forget_checkpoint(view, model_name(model))
    return view


def _undo_rescaling(inner: Any) -> None:
    """RWKV divides weights in place by a power of two that grows with depth: give a view its own, undivided ones."""
    every = inner.config.rescale_every
    if not every:
        return
    with torch.no_grad():
        for position, block in enumerate(inner.blocks):
            factor = 2 ** (position // every) if inner.layers_are_rescaled else 1
            for linear in (block.attention.output, block.feed_forward.value):
                linear.weight = nn.Parameter(linear.weight * factor, linear.weight.requires_grad)
    inner.config.rescale_every = 0
