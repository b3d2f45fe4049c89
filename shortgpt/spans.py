"""Block Influence of spans: how much several layers in a row turn the states together. See `influence`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.arguments import check_batches
from shortgpt.capture import hidden_states
from shortgpt.influence import NO_TOKENS, require_finite
from shortgpt.layers import decoder_layers


def span_distances(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> pd.DataFrame:
    """Block Influence of every *span* of layers: one minus the mean cosine between x_start and x_end, per token.

    Returns one row per pair ``start < end``: ``start, end, layers, score``. Removing layers ``start … end - 1`` skips
    that span; ``end`` equal to the number of layers means the state that leaves the last layer. Keeps all states of
    one batch in memory: give it a few thousand tokens.

    Raises:
        ValueError: no tokens, or a NaN or infinity in a hidden state (names the layer), as `score_layers`.
    """
    decoder_layers(model)  # refuses what is no model before a batch is read
    check_batches(batches)
    total, tokens = 0.0, 0
    for batch in batches:
        states = hidden_states(model, batch).float()  # [layers + 1, batch, tokens, hidden]
        real = batch["attention_mask"].bool().to(states.device)
        real_states = states[:, real]  # [layers + 1, real tokens, hidden]
        require_finite(real_states[1:].flatten(1), model.dtype)
        for some in real_states.cpu().split(256, dim=1):  # sums in float64, a few tokens at a time
            directions = torch.nn.functional.normalize(some.double(), dim=-1)
            total = total + torch.einsum("ith,jth->ij", directions, directions)
        tokens += int(real.sum())
    if not tokens:
        raise ValueError(NO_TOKENS)
    distance = (1 - total / tokens).numpy()
    start, end = np.triu_indices(len(distance), k=1)
    return pd.DataFrame({"start": start, "end": end, "layers": end - start, "score": distance[start, end]})
