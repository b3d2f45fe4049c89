"""Where does pruning hurt: in reading the prompt, or in writing after it? Perplexity of continuations, and the time to read.

Each text is cut into a prompt and its true continuation. The prompt is read by one model, the continuation is judged by
another one, which goes on with the first one's cache: the dense model, the pruned one, and the two mixtures of
`prefill`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.course.studies.clock import in_turn
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_ids, check_model, check_tokenizer, within_positions
from shortgpt.model.hooks import eval_mode, hooked, require_numbers
from shortgpt.model.logits import cross_entropy
from shortgpt.model.offload import input_device
from shortgpt.model.text import built_in_text
from shortgpt.model.tokens import encode
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import PruningPlan
from shortgpt.pruning.prefill import current_indices, prune_prefill
from shortgpt.utils.arguments import check_count, check_some, check_strings, shown


@dataclass
class _Way:
    """How a prompt is read and a continuation written."""

    name: str
    reads: PreTrainedModel
    writes: PreTrainedModel
    spared: int = 0  # tokens at the prompt's end that `writes` reads
    layers: tuple[int, ...] = ()


@torch.inference_mode()
def prefill_report(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layer_sets: Iterable[Sequence[int] | PruningPlan],
    texts: Iterable[str] | None = None,
    *,
    prompt_tokens: int = 256,
    new_tokens: int = 64,
    repeats: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Perplexity of true continuations, by who reads the prompt and who writes, for each set of layers.

    Args:
        layer_sets: one or several; each as for `remove_layers`.
        texts: the first ``prompt_tokens + new_tokens`` tokens of each are used; shorter texts are left out. Default: the
            built-in perplexity texts.
        repeats: how often each prompt is read for the clock (all ways take turns; the median counts).

    Returns:
        A row for the dense model (`way` ``"dense"``), and three for each set: ``"prefill"`` (`prune_prefill`, as in the
        paper's code: the first new token is still the pruned model's), ``"prefill, last token whole"`` (all layers read
        the prompt's last token), ``"removed"`` (the layers are gone, also in writing). Columns: ``way, removed, layers``
        (current indices), ``perplexity`` (mean over all new tokens), ``first_loss, later_loss`` (nats, of the first new
        token and the others), ``texts, prompt_tokens, new_tokens``, ``read_weights`` (share of the layers' weights that
        a prompt token passes), ``read_seconds`` (mean over prompts), ``read_speedup``.

    Raises:
        ValueError: no text is long enough, NaN in the logits, or what `prune_prefill` refuses. TypeError: a wrong argument.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    check_count("prompt_tokens", prompt_tokens, least=3)  # of two, sparing the last leaves one, which is no prompt
    check_count("new_tokens", new_tokens)
    check_count("repeats", repeats)
    if isinstance(layer_sets, str | PruningPlan) or not isinstance(layer_sets, Iterable):
        raise TypeError(f"layer_sets must be a list of lists of layers, for instance [[3, 4]], got {shown(layer_sets)}")
    prompts = _long_enough(model, tokenizer, texts, prompt_tokens + new_tokens)
    ways = _ways(model, check_some("layer_sets", list(layer_sets)))
    losses: list[list[np.ndarray]] = [[] for _ in ways]  # nats of each token, one array a text
    seconds = np.zeros(len(ways))
    with tqdm(total=len(prompts) * len(ways) * repeats, desc="reading", unit="prompt", disable=not progress) as bar:
        for ids in prompts:
            read, clock = in_turn([partial(_read_prompt, way, ids, prompt_tokens) for way in ways], repeats, bar)
            seconds += clock
            for way, its, (logits, cache) in zip(ways, losses, read, strict=True):
                its.append(_continuation(way, ids, prompt_tokens, logits, cache))
    weights = np.array([_weights_passed(way.reads, prompts[0][:, :2]) for way in ways])
    table = pd.DataFrame({"way": way.name, "removed": len(way.layers), "layers": way.layers} for way in ways)
    table = table.join(pd.DataFrame([_mean_losses(np.stack(its)) for its in losses]))
    table = table.assign(texts=len(prompts), prompt_tokens=prompt_tokens, new_tokens=new_tokens)
    return table.assign(
        read_weights=weights / weights[0], read_seconds=seconds / len(prompts), read_speedup=seconds[0] / seconds
    )


def _ways(model: PreTrainedModel, layer_sets: Sequence[Sequence[int] | PruningPlan]) -> list[_Way]:
    ways = [_Way("dense", model, model)]
    for layers in layer_sets:
        view, pruned = prune_prefill(model, layers), remove_layers(model, layers)
        gone = tuple(current_indices(model, pruned))
        ways += [_Way("prefill", view, model, 0, gone), _Way("prefill, last token whole", view, model, 1, gone)]
        ways.append(_Way("removed", pruned, pruned, 0, gone))
    return ways


def _read_prompt(way: _Way, ids: Tensor, prompt_tokens: int) -> tuple[Tensor, object]:
    """Logits ``[1, 1, vocabulary]`` of the last token of the prompt, and the cache behind it."""
    cut = prompt_tokens - way.spared
    with eval_mode(way.reads), eval_mode(way.writes), within_positions(way.reads, ids.shape[1]):
        logits, cache = _read(way.reads, ids[:, :cut])
        return _read(way.writes, ids[:, cut:prompt_tokens], cache) if way.spared else (logits, cache)


def _continuation(way: _Way, ids: Tensor, prompt_tokens: int, logits: Tensor, cache: object) -> np.ndarray:
    """The loss of each token after the prompt, which `_read_prompt` has read."""
    losses = [cross_entropy(logits[0], ids[0, prompt_tokens : prompt_tokens + 1])]
    if ids.shape[1] > prompt_tokens + 1:  # not the view goes on: several tokens at once are a prompt to it
        with eval_mode(way.writes), within_positions(way.writes, ids.shape[1]):
            rest = way.writes(input_ids=ids[:, prompt_tokens:-1], past_key_values=cache).logits[0]
        losses.append(cross_entropy(rest, ids[0, prompt_tokens + 1 :]))
    together = torch.cat(losses)
    require_numbers(way.writes, together)
    return together.numpy()


def _read(model: Any, ids: Tensor, cache: object = None) -> tuple[Tensor, object]:
    """Logits of the last token, and the cache."""
    only_last = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, **only_last)
    return output.logits[:, -1:], output.past_key_values


def _mean_losses(losses: np.ndarray) -> dict[str, float]:
    """Of ``[texts, new tokens]``."""
    later = losses[:, 1:].mean() if losses.shape[1] > 1 else np.nan
    return {"perplexity": np.exp(losses.mean()), "first_loss": losses[:, 0].mean(), "later_loss": later}


def _weights_passed(model: PreTrainedModel, ids: Tensor) -> int:
    """Weights (of matrices) in the decoder layers that run when `model` reads `ids`, each counted once."""
    ran: dict[int, int] = {}

    def note(_: int, module: nn.Module, *arguments: object) -> None:
        ran.update({id(p): p.numel() for p in module.parameters(recurse=False) if p.ndim > 1})

    modules = (module for layer in decoder_layers(model) for module in layer.modules())
    with hooked(modules, note, before=True), eval_mode(model):
        model(input_ids=ids, use_cache=True)
    return sum(ran.values())


def _long_enough(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str] | None, tokens: int
) -> list[Tensor]:
    """The first `tokens` tokens, ``[1, tokens]``, of each text that has as many."""
    texts = built_in_text("perplexity")["text"] if texts is None else texts
    lists = [encode(tokenizer, text, most=tokens) for text in check_strings("texts", texts)]
    found = [torch.tensor([ids]) for ids in lists if len(ids) >= tokens]
    if not found:
        raise ValueError(
            f"no text has {tokens} tokens (the longest has {max(map(len, lists), default=0)}): give longer texts, or take "
            "fewer prompt_tokens and new_tokens"
        )
    for ids in found:
        check_ids(model, ids)
    return [ids.to(input_device(model)) for ids in found]
