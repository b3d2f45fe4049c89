"""How the hidden states grow from layer to layer, next to what theory expects of a model with norms before its branches.

In a pre-norm model a layer adds something whose length doesn't depend on the state, for it reads the state normalized:
``x_{l+1} = x_l + f_l``. If all f are independent, without a mean, and of one length s, then in three lines

    E|x_l|^2 = E|f_0|^2 + ... + E|f_{l-1}|^2 = l s^2         all mixed terms have mean 0: the length grows as the root of l
    E<x_l, x_{l+1}> = E|x_l|^2 = l s^2                       what is added is at right angles to what is there
    cos(x_l, x_{l+1}) = l s^2 / (s sqrt(l) s sqrt(l+1)) = sqrt(l / (l+1))

so deep layers turn the state less and less: Block Influence is near 1/(2l). (Xiong et al., arXiv 2002.04745; ShortGPT,
appendix A; Sun et al., The Curse of Depth, arXiv 2502.05795, who divide the norm's output by the root of l.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from shortgpt.model.anatomy import original_layers
from shortgpt.model.hooks import by_token, run_backbone, unpadded, watch_layers
from shortgpt.model.view import share_weights


@torch.inference_mode()
def state_growth(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> pd.DataFrame:
    """What each layer does to the lengths and directions of the states, and what `pre_norm_growth` expects there.

    Args:
        batches: as for `score_layers`. All tokens but the first of each sample count (the first has an outsized state).

    Returns:
        A row a layer: ``layer`` (of the dense model), ``norm_in`` and ``norm_out`` (median length of the states), ``cosine``
        (mean, of input and output), ``branch_rms`` (root mean square of the length of what the layer adds); and
        ``expected_norm`` (of its output) and ``expected_cosine``.
    """
    view = share_weights(model)  # RWKV halves its states every few layers; in a view it doesn't
    layers = original_layers(view)
    seen: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def keep(position: int, x_in: Tensor, x_out: Tensor) -> None:
        x, y = (by_token(state, mask)[:, 1:].float().flatten(0, 1) for state in (x_in, x_out))
        found = [x.norm(dim=-1), y.norm(dim=-1), cosine_similarity(x, y, dim=-1), (y - x).norm(dim=-1)]
        seen[layers[position]].append(torch.stack(found).cpu())

    with watch_layers(view, keep):
        for batch in unpadded(view, batches):
            mask = batch["attention_mask"]
            run_backbone(view, batch)
    rows = []
    for layer, parts in seen.items():
        norm_in, norm_out, cosine, added = torch.cat(parts, 1).double()
        rows.append(
            {"layer": layer, "norm_in": norm_in.median().item(), "norm_out": norm_out.median().item()}
            | {"cosine": cosine.mean().item(), "branch_rms": added.square().mean().sqrt().item()}
        )
    table = pd.DataFrame(rows)
    return table.join(pre_norm_growth(len(table), start=table["norm_in"].iloc[0], step=_usual(table["branch_rms"])))


def pre_norm_growth(layers: int, *, start: float = 0.0, step: float = 1.0) -> pd.DataFrame:
    """Theory: each layer adds something of length `step`, at right angles to a state whose length was `start` at first.

    Returns:
        A row a layer: ``expected_norm`` behind it, ``sqrt(start^2 + (l + 1) step^2)``, and ``expected_cosine`` of its input
        and output, the ratio of their lengths: with `start` 0 it is ``sqrt(l / (l + 1))``, NaN for the first layer.
    """
    norms = np.sqrt(start**2 + np.arange(layers + 1) * step**2)
    with np.errstate(invalid="ignore"):
        cosines = np.where(norms[:-1] > 0, norms[:-1] / norms[1:], np.nan)
    return pd.DataFrame({"expected_norm": norms[1:], "expected_cosine": cosines})


def _usual(branches: pd.Series) -> float:
    """One length for all branches: the root of their mean square (theory adds up squares)."""
    return float(np.sqrt((branches**2).mean()))
