"""Block Influence: how much a layer turns the hidden states that pass through it (ShortGPT, section 3.1, equation 1).

    BI_i = 1 - E[ cos(x_i, x_{i+1}) ],   x_i: the hidden state of one token entering layer i

``x_in`` below is x_i and ``x_out`` is x_{i+1}. The score lies between 0 (the layer changes no direction: a candidate
for removal) and 2. There is one cosine per token; tokens of one sample are not independent, so uncertainty is computed
over *samples*. The last layer is measured before the final norm, like every other. The model never sees a pad.

This module is arithmetic. The table is in `scores`, hooks in `model/hooks`, choosing in `choosing`, removing in `pruning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers, model_name, removed_so_far
from shortgpt.model.arguments import NO_TOKENS, check_batches
from shortgpt.model.hooks import Reporter, by_token, run_backbone, unpadded, watch_layers
from shortgpt.model.text import sample_digests
from shortgpt.scoring.provenance import begins_with_bos
from shortgpt.scoring.scores import LayerScores
from shortgpt.scoring.stability import is_stable
from shortgpt.utils.arguments import check_choice, check_count, check_number, shown
from shortgpt.utils.distributed import share, this_process


def block_influence(x_in: Tensor, x_out: Tensor) -> Tensor:
    """One minus the cosine between a layer's input and output, per token: ``[..., hidden] -> [...]``, float32.

    The same direction gives 0, a right angle 1, the opposite direction 2; length plays no part. A zero vector has no
    direction: it counts as a right angle. States are taken to float32 first, because in half precision the norms of
    deep layers overflow (float16 ends at 65,504) and the score becomes NaN.
    """
    _require_one_shape(x_in, x_out)
    return 1 - cosine_similarity(x_in.float(), x_out.float(), dim=-1)


def angular_distance(x_in: Tensor, x_out: Tensor) -> Tensor:
    """Angle between input and output as a fraction of a half turn, 0 to 1 (Gromov et al., arXiv 2403.17887)."""
    return torch.arccos(cosine_similarity(x_in.float(), x_out.float(), dim=-1).clamp(-1, 1)) / torch.pi


def relative_magnitude(x_in: Tensor, x_out: Tensor) -> Tensor:
    """What the layer adds against what leaves it, ``|f(x)| / |x + f(x)|`` (Samragh et al., arXiv 2312.09299)."""
    x_in, x_out = x_in.float(), x_out.float()
    return (x_out - x_in).norm(dim=-1) / x_out.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)


Watch = Callable[[PreTrainedModel, Reporter], AbstractContextManager[int]]
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "block_influence": block_influence,
    "angular_distance": angular_distance,
    "relative_magnitude": relative_magnitude,
}


@torch.inference_mode()
def score_layers(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    metric: str = "block_influence",
    until_stable: int | None = None,
    confidence: float = 0.95,
    progress: bool = True,
    watch: Watch = watch_layers,
) -> LayerScores:
    """Score every decoder layer of `model` on calibration `batches`.

    Args:
        batches: dicts with ``input_ids`` and ``attention_mask``, ``[batch, tokens]`` (see `calibration_batches`).
        metric: a key of `METRICS`; for all of them low means redundant.
        until_stable: stop after the first batch with which the choice of so many lowest layers is stable: of at least 8
            documents, drawn again, they choose a share of `confidence` of these layers again (`LayerScores.stability`). No
            later batch is asked for. Where the text ends first, all of it was read, and the choice hangs on it. One process
            only. ``calibration_batches(…, spread=True)`` reads as many documents as possible first, and so stops sooner.
        watch: what reports the states between which the metric is taken; `score_sublayers` watches parts of layers.

    The model is left as it was: weights, mode, hooks. Cost: one pass of the backbone over the batches; memory: two
    states of one layer, and one number per token and layer of a batch. In a script started by ``accelerate launch``
    each process scores its share and all return the scores of one process: give all of them the same batches.

    >>> model, tokenizer = load()
    >>> scores = score_layers(model, calibration_batches(tokenizer))
    >>> scores.table.nsmallest(3, "score")

    Raises:
        ValueError: unknown metric, no calibration tokens, a NaN or infinity in a hidden state (names the layer); or
            `until_stable` outside 1 to layers - 1, a `confidence` outside 0 to 1, or several processes to stop together.
    """
    check_choice("metric", metric, METRICS)
    depth = len(decoder_layers(model))
    check_batches(batches)

    if until_stable is not None:
        _check_stop(until_stable, confidence, depth)
    documents: list[str] = []

    def noted(batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        names = getattr(batch, "documents", ())
        if names:  # `unpadded` leaves a sample of pads only out
            documents.extend(name for name, mask in zip(names, batch["attention_mask"], strict=True) if mask.any())
        return batch

    def all_of(parts: list[_BatchSums]) -> LayerScores:
        sums, counts = (np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[:2])
        digests = tuple(digest for _, _, some, _ in parts for digest in some)
        named = tuple(documents[: len(counts)]) if len(documents) >= len(counts) else ()
        bos = all(begun for *_, begun in parts)
        return LayerScores(sums, counts, metric, removed_so_far(model), digests, model_name(model), bos, named)

    def score_share(rank: int, world: int) -> list[tuple[int, _BatchSums]]:
        bar = tqdm(batches, desc=f"scoring {depth} layers", unit="batch", disable=not progress or rank > 0)
        mine = (pair for pair in enumerate(unpadded(model, map(noted, bar))) if pair[0] % world == rank)
        done = []
        for i, batch in mine:
            done.append((i, _score_batch(model, batch, metric, watch)))
            if until_stable is not None and is_stable(all_of([part for _, part in done]), until_stable, confidence):
                break
        return done

    parts = share(score_share)
    if not parts:
        raise ValueError(NO_TOKENS)
    return all_of(parts)


def _check_stop(n: int, confidence: float, depth: int) -> None:
    if not 1 <= check_count("until_stable", n) < depth:
        raise ValueError(f"until_stable must be 1 to {depth - 1}, how many of {depth} layers are to go, got {n}")
    if not 0 < check_number("confidence", confidence) < 1:
        raise ValueError(f"confidence must be above 0 and below 1, for instance 0.95, got {confidence}")
    if this_process()[1] > 1:
        raise ValueError("until_stable stops one process, and here are several: leave it out, or start one")


_BatchSums = tuple[np.ndarray, np.ndarray, list[bytes], bool]  # sums [samples, layers], counts [samples], digests, BOS


def _score_batch(model: PreTrainedModel, batch: Mapping[str, Tensor], metric: str, watch: Watch) -> _BatchSums:
    """Run the backbone once and sum the metric over the tokens of each sample. `batch` is one of `unpadded`."""
    mask = batch["attention_mask"]  # [batch, tokens], all of them real
    # one block for all layers: a small tensor left behind by each layer would break up the heap between large states.
    # One on each device that layers are on: a layer that sent its numbers to the CPU would make its GPU wait for them
    blocks: dict[torch.device, Tensor] = {}  # [layers, batch, tokens]; zeros where another device has the layer
    idle: set[int]

    def score(layer: int, x_in: Tensor, x_out: Tensor) -> None:
        if x_out.device not in blocks:
            blocks[x_out.device] = torch.zeros(count, *mask.shape, device=x_out.device)
        x_in = x_in.to(x_out.device)  # on a spread model they may differ
        blocks[x_out.device][layer] = METRICS[metric](by_token(x_in, mask), by_token(x_out, mask))
        idle.discard(layer)

    with watch(model, score) as count:
        idle = set(range(count))
        run_backbone(model, batch)
    if idle:
        raise ValueError(f"layer {min(idle)} of this {type(model).__name__} did not run in a forward pass: no score")
    per_token = torch.stack([block.cpu() for block in blocks.values()]).sum(0)  # the only transfer
    require_finite(per_token.flatten(1), model.dtype, count // len(decoder_layers(model)))
    # not every accelerator has float64, so this is done on the CPU
    sums, counts = per_token.double().sum(-1).T.numpy(), mask.sum(1).cpu().numpy()
    return sums, counts, sample_digests(batch), begins_with_bos(model, batch)


def require_finite(per_token: Tensor, dtype: torch.dtype, parts: int = 1) -> None:
    """Name the first broken layer: NaN or infinity in a state makes every metric NaN (infinity over infinite norm)."""
    broken = (~torch.isfinite(per_token)).any(-1).nonzero()
    if len(broken):
        raise ValueError(
            f"layer {int(broken[0]) // parts} gives hidden states with NaN or infinity (dtype {dtype}): load the model in "
            "float32 or bfloat16, or look for damaged weights"
        )


def _require_one_shape(x_in: Tensor, x_out: Tensor) -> None:
    for states in (x_in, x_out):
        if not isinstance(states, Tensor):
            raise TypeError(f"hidden states must be tensors, got {shown(states)}")
    if x_in.shape != x_out.shape or not x_in.ndim:
        raise ValueError(
            f"hidden states must have at least one axis and both one shape, got {list(x_in.shape)} and {list(x_out.shape)}"
        )
