"""How far several layers in a row turn the states together: Block Influence of spans, or their angle. See `influence`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import NO_TOKENS, check_batches
from shortgpt.model.hooks import hidden_states, unpadded
from shortgpt.scoring.influence import require_finite
from shortgpt.utils.arguments import check_choice

METRICS = ("block_influence", "angular_distance")
TOKENS = ("all", "last")


def span_distances(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    metric: str = "block_influence",
    tokens: str = "all",
) -> pd.DataFrame:
    """Distance over every *span* of layers, between x_start and x_end: a mean over tokens.

    Returns one row per pair ``start < end``: ``start, end, layers, score``. Removing layers ``start … end - 1`` skips
    that span; ``end`` equal to the number of layers means the state that leaves the last layer. Keeps all states of
    one batch in memory: give it a few thousand tokens.

    Args:
        metric: ``"block_influence"``, one minus the cosine; or ``"angular_distance"``, the angle as a fraction of a half
            turn (Gromov et al., arXiv 2403.17887).
        tokens: ``"all"``, or only the ``"last"`` real one of each sample, as Gromov et al. take it: it has seen the
            whole sample.

    Raises:
        ValueError: unknown metric or tokens, no tokens, or a NaN or infinity in a hidden state (names the layer), as
            `score_layers`.
    """
    decoder_layers(model)  # refuses what is no model before a batch is read
    check_choice("metric", metric, METRICS)
    check_choice("tokens", tokens, TOKENS)
    check_batches(batches)
    total, count = torch.zeros(1, dtype=torch.float64), 0
    for batch in unpadded(model, batches):
        states = hidden_states(model, batch).float()  # [layers + 1, batch, tokens, hidden]
        states = states[:, :, -1] if tokens == "last" else states.flatten(1, 2)  # [layers + 1, counted tokens, hidden]
        require_finite(states[1:].flatten(1), model.dtype)
        for some in states.cpu().split(256, dim=1):  # sums in float64, a few tokens at a time
            directions = torch.nn.functional.normalize(some.double(), dim=-1)
            if metric == "block_influence":
                total = total + torch.einsum("ith,jth->ij", directions, directions)
            else:
                cosines = torch.einsum("ith,jth->tij", directions, directions)
                total = total + (cosines.clamp(-1, 1).arccos() / torch.pi).sum(0)
        count += states.shape[1]
    if not count:
        raise ValueError(NO_TOKENS)
    distance = (total / count).numpy() if metric == "angular_distance" else (1 - total / count).numpy()
    start, end = np.triu_indices(len(distance), k=1)
    return pd.DataFrame({"start": start, "end": end, "layers": end - start, "score": distance[start, end]})
