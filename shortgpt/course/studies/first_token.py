"""One vector: a layer left out for the first token of a text only, or for all the other tokens only.

The first token of a text becomes an *attention sink*: one layer makes its state extremely long, and later layers look at
it whenever they have nothing else to look at. So a layer can be needed for a single token, and Block Influence, in which
each token has one vote, does not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.likelihood import perplexity
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_model
from shortgpt.model.hooks import hooked, layer_input, layer_output
from shortgpt.pruning.plan import check_indices
from shortgpt.utils.arguments import check_choice, check_strings

TOKENS: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda positions: positions == 0,
    "others": lambda positions: positions > 0,
    "all": lambda positions: positions >= 0,
}


@contextmanager
def skipped_for(model: PreTrainedModel, layer: int, tokens: str) -> Iterator[None]:
    """While open, `layer` hands on what enters it, unchanged, for some tokens; for the others it works as before.

    >>> with skipped_for(model, 11, "first"):
    ...     perplexity(model, tokenizer, texts)

    Args:
        layer: 0-based.
        tokens: ``"first"`` (position 0 of a text), ``"others"`` (all but that one) or ``"all"``. "all" equals a model
            without the layer. With a cache, too, a token's position is the one in the whole text.

    Raises:
        ValueError: an unknown layer or name of tokens; a model that does not tell its layers the positions.
    """
    check_model(model)
    check_choice("tokens", tokens, TOKENS)
    (layer,) = check_indices([layer], len(decoder_layers(model)), keep_one=False)

    def skip(_: int, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        positions = kwargs.get("position_ids")
        if positions is None:
            raise ValueError(
                f"{type(module).__name__} is not told the positions of its tokens: take a Llama-like model"
            )
        x_in, x_out = layer_input(args, kwargs), layer_output(output)  # [batch, tokens, hidden]
        mixed = torch.where(TOKENS[tokens](positions)[..., None], x_in, x_out)
        return mixed if isinstance(output, Tensor) else (mixed, *output[1:])

    with hooked([decoder_layers(model)[layer]], skip):
        yield


def one_vector(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: Sequence[int], texts: Iterable[str]
) -> pd.DataFrame:
    """Perplexity of `texts` when one of `layers` is skipped for the first token only, and for all others only.

    Returns:
        Two rows for each layer: ``layer, skipped_for`` (``first`` or ``others``), ``perplexity``. A text longer than
        1,024 tokens is read in windows, and each window has a first token.
    """
    read = check_strings("texts", texts)
    rows = []
    for layer in layers:
        for tokens in ("first", "others"):
            with skipped_for(model, layer, tokens):
                found = perplexity(model, tokenizer, read)
            rows.append({"layer": layer, "skipped_for": tokens, "perplexity": found})
    return pd.DataFrame(rows)
