"""Remove only the attention or only the FFN of a layer; score them like layers.

Most decoder layers add two branches to the residual stream, one after the other or side by side: a token mixer
(attention; a state-space or linear-attention block counts as one) and an FFN (an MLP or a mixture of experts). A removed
branch is replaced by a module that adds nothing. No configuration of transformers can say that, so such a model is saved
in our own format (see `saving`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.branches import (
    KINDS,
    NOT_SEPARATE,
    Removed,
    probe_sublayers,
    sublayers,
)
from shortgpt.model.view import share_weights
from shortgpt.pruning.plan import check_indices
from shortgpt.pruning.recipe import record_step


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
    wanted = {
        kind: check_indices(indices, len(stack), keep_one=False)
        for kind, indices in (("attention", attention), ("ffn", ffn))
    }
    names = [sublayers(layer) for layer in stack]
    for kind, indices in wanted.items():
        for i in indices:
            if not names[i][kind]:
                there = " and ".join(k for k in KINDS if names[i][k]) or "neither of the two"
                raise ValueError(f"layer {i} has no {kind} to remove: it has {there}")
    if outputs is None:
        affected = sorted({*wanted["attention"], *wanted["ffn"]})
        outputs, separate = probe_sublayers(model, affected)
        for i in affected:
            if i not in separate:
                raise ValueError(NOT_SEPARATE.format(i=i, layer=type(stack[i]).__name__))
    view = share_weights(model)
    for kind, indices in wanted.items():
        for i in indices:
            for position, name in enumerate(names[i][kind]):
                layer = decoder_layers(view)[i]
                original = layer.get_submodule(name)
                counts = kind == "attention" and position == 0  # Falcon-H1 has two mixers, and one cache place for both
                layer.set_submodule(name, Removed(original, outputs[type(original).__name__], counts=counts))
    step = {kind: sorted(indices) for kind, indices in wanted.items()}
    if not any(step.values()):  # an ordinary model still
        return view
    record_step(view, model, step | {"outputs": dict(outputs)})
    return view
