"""Width pruning, to compare depth with: remove attention heads or FFN channels, the same number in every layer.

An FFN channel is one entry of its inner state: a row of each matrix that leads into it and a column of the one that leads out
(the *output projection*). An attention head goes with all that belongs to it; where several query heads share one head of
keys and values (grouped-query attention), the whole group goes, so that the rest is still a model of its class. So the
result is an ordinary checkpoint with a smaller ``intermediate_size`` or fewer heads.

Which matrices these are is found by their sizes and by what runs last; then the pruned model is compared, on three tokens,
with the full one in which the same channels are set to zero. What does not fit this rule is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import INDEX_NAMES, text_config
from shortgpt.model.hooks import eval_mode, hooked
from shortgpt.model.offload import input_device
from shortgpt.model.view import share_weights
from shortgpt.pruning.config_fit import build, differences, reread
from shortgpt.pruning.width_units import by_output, find_width, heads_of, width_scores
from shortgpt.utils.arguments import check_amount

_INNER_FIELDS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff")


def remove_channels(
    model: PreTrainedModel,
    n: int | None = None,
    *,
    ratio: float | None = None,
    scores: str = "magnitude",
    batches: Iterable[Mapping[str, Tensor]] | None = None,
    progress: bool = True,
) -> PreTrainedModel:
    """Return `model` without `n` FFN channels in every layer: those with the lowest scores there.

    Args:
        n, ratio: how many channels of each layer, or which fraction of them, 0 to below 1 (rounded); give one.
        scores: ``"magnitude"``, the norm of a channel's weights (rows that lead in and column that leads out); or
            ``"activation"``, the root mean square of the channel's value over the real tokens of `batches` times the norm of
            its column in the output projection: how much it adds to the residual stream (Wanda's product, Sun et al.,
            arXiv 2306.11695).
        batches: for ``"activation"``: dicts with ``input_ids`` and ``attention_mask`` (see `calibration_batches`).

    A new model; what was not cut is shared with `model`, which stays as it was. The configuration records the new size.

    Raises:
        ValueError: neither or both of n and ratio, too many, no batches for ``"activation"``, or an architecture whose FFN
            is not a pair of matrices or a gated triple (mixtures of experts, fused projections).
    """
    return _remove(model, "channels", n, ratio, scores, batches, progress)


def remove_heads(
    model: PreTrainedModel,
    n: int | None = None,
    *,
    ratio: float | None = None,
    scores: str = "magnitude",
    batches: Iterable[Mapping[str, Tensor]] | None = None,
    progress: bool = True,
) -> PreTrainedModel:
    """Return `model` without `n` key-value groups of attention heads in every layer: those with the lowest scores there.

    A group is one head of keys and values with the query heads that use it; without grouped-query attention, one head.
    Arguments, result and errors are those of `remove_channels`; a group's score is the root of the sum of squares of the
    scores of its channels (the inputs of the attention's output projection; for ``"magnitude"`` all its weights count).
    """
    return _remove(model, "heads", n, ratio, scores, batches, progress)


def _remove(
    model: PreTrainedModel,
    kind: str,
    n: int | None,
    ratio: float | None,
    scores: str,
    batches: Iterable | None,
    progress: bool,
) -> PreTrainedModel:
    require_no_adapter(model, f"lose {kind}")
    units = find_width(model, 0, kind).units
    n = check_amount(n, ratio, units, kind, f"each layer has {units} {kind} to choose from")
    ranking = width_scores(model, kind, scores=scores, batches=batches, progress=progress)  # [layers, units]
    kept = [torch.tensor(np.sort(np.argsort(row, kind="stable")[n:])) for row in ranking]
    view = share_weights(model)
    for i, stay in enumerate(kept):
        width = find_width(view, i, kind)
        for module in width.into:
            rows = width.kept(stay, by_output(module).shape[0])
            _cut(module, 1 if isinstance(module, Conv1D) else 0, rows, bias=True)
        _cut(width.out, 0 if isinstance(width.out, Conv1D) else 1, width.kept(stay, by_output(width.out).shape[1]))
    _record(view.config, kind, units, units - n, inner=by_output(find_width(model, 0, kind).out).shape[1])
    _adopt_numbers(view)
    before = differences(model, model.config)  # what somebody changed after loading is not about this
    left = [difference for difference in differences(view, view.config) if difference not in before]
    if left or not _equal_to_zeroed(view, model, kind, kept):
        raise ValueError(
            f"{type(model).__name__} without some {kind} is no model that its configuration could describe"
            f"{' (' + left[0].rpartition('Error: ')[2][:120] + ')' if left else ''}; remove layers or sublayers instead"
        )
    return view


def _record(config: PreTrainedConfig, kind: str, before: int, after: int, inner: int) -> None:
    config = text_config(config)
    if kind == "channels":
        for name in _INNER_FIELDS:
            if hasattr(config, name) and getattr(config, name) in (before, None):
                setattr(config, name, after)
        return
    heads, groups = heads_of(config)
    config.head_dim = inner // heads
    config.num_attention_heads = heads // groups * after
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = after


def _adopt_numbers(view: PreTrainedModel) -> None:
    """Give every module the sizes (numbers of heads, features) that one built from the configuration has."""
    try:
        built = dict(build(view, reread(view.config)).named_modules())
    except Exception:  # `differences` says what the class has against its configuration
        return
    for name, module in view.named_modules():
        for key, value in vars(built.get(name, module)).items():
            size = isinstance(value, int) and not isinstance(value, bool) and key not in INDEX_NAMES
            if size and isinstance(vars(module).get(key), int):
                setattr(module, key, value)


def _cut(module: nn.Module, axis: int, kept: Tensor, *, bias: bool = False) -> None:
    for name in ("weight", "bias") if bias and module.bias is not None else ("weight",):
        old = getattr(module, name)
        new = old.index_select(axis if name == "weight" else 0, kept.to(old.device))
        setattr(module, name, nn.Parameter(new.detach().clone(), old.requires_grad))


@torch.no_grad()
def _equal_to_zeroed(view: PreTrainedModel, model: PreTrainedModel, kind: str, kept: Sequence[Tensor]) -> bool:
    """Whether `view` gives, on three tokens, the logits of `model` with the removed units set to zero."""
    ids = torch.tensor([[1, 2, 3]], device=input_device(model))

    widths = [find_width(model, i, kind) for i in range(len(kept))]

    def zero(i: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = torch.zeros(args[0].shape[-1], dtype=args[0].dtype)
        mask[widths[i].kept(kept[i], len(mask))] = 1
        return (args[0] * mask.to(args[0].device), *args[1:]), kwargs

    with eval_mode(model), eval_mode(view):
        with hooked([width.out for width in widths], zero, before=True):
            expected = model(input_ids=ids, use_cache=False).logits.float()
        off = (view(input_ids=ids, use_cache=False).logits.float() - expected).abs().amax(-1)  # [1, tokens]
    # the middle one of the three tokens: a mistake shows in all, but a single one may magnify rounding a hundredfold
    return bool(off.median() <= min(1000 * torch.finfo(model.dtype).eps, 0.05) * expected.abs().max())
