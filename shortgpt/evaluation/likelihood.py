"""Perplexity: how surprised the model is by text, per token. The measure that always moves when layers go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.model.arguments import check_ids, check_model, check_tokenizer, within_positions
from shortgpt.model.hooks import eval_mode, require_numbers
from shortgpt.model.logits import cross_entropy
from shortgpt.model.offload import input_device
from shortgpt.model.text import built_in_text
from shortgpt.model.tokens import bare_tokens, begin_tokens
from shortgpt.utils.arguments import check_count, check_strings, shown


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str] | None = None,
    *,
    window: int = 1024,
    stride: int = 512,
    bos: bool | None = None,
) -> float:
    """``exp`` of the mean loss per token over `texts`; lower is better. See `perplexity_table` for the arguments."""
    texts = built_in_text("perplexity")["text"] if texts is None else texts
    frame = pd.DataFrame({"text": check_strings("texts", texts)}, dtype=object)
    return float(perplexity_table(model, tokenizer, frame, window=window, stride=stride, bos=bos)["perplexity"].iloc[0])


@torch.inference_mode()
def perplexity_table(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: pd.DataFrame | None = None,
    *,
    by: str | Sequence[str] | None = None,
    window: int = 1024,
    stride: int = 512,
    bos: bool | None = None,
) -> pd.DataFrame:
    """Perplexity of `documents` (a ``text`` column), one row per value of the column `by`, or one row in all.

    >>> perplexity_table(model, tokenizer, built_in_text("perplexity", language=None), by=["language", "genre"])

    Every token but a document's first is scored exactly once, with at least ``window - stride`` tokens of context
    where the document has them, and at most ``window - 1``. Means are over tokens. ``bits_per_byte`` doesn't depend on the
    tokenizer, so it also compares models and languages; perplexity doesn't. ``standard_error`` is that of the perplexity,
    over documents.

    Args:
        window, stride: tokens read at once, and how far each window is from the one before.
        bos: whether a begin token (BOS) stands in front of each document *and each window* (it takes a place in it): a
            model trained with one never saw a text without. None: as the tokenizer itself does it, which is how the model
            was trained (see `tokens.begin_tokens`). Behind a begin token a document's first token is scored as well.

    Returns:
        columns `by` (none, one or several), then ``perplexity, standard_error, bits_per_byte, tokens, documents, window,
        stride, bos`` (whether there was a begin token).

    Raises:
        ValueError: no text with at least two tokens, a stride outside 1 to window - 1, a missing column, a tokenizer
            of another model, or logits with NaN. TypeError: no model, tokenizer or strings.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    documents = built_in_text("perplexity") if documents is None else documents
    if not isinstance(documents, pd.DataFrame):
        raise TypeError(f"documents must be a DataFrame with a column 'text', got {shown(documents)}: see perplexity()")
    keys = [] if by is None else [by] if isinstance(by, str) else check_strings("by", by)
    for column in ("text", *keys):
        if column not in documents:
            raise ValueError(f"documents has no column {column!r}: it has {', '.join(map(str, documents))}")
    texts = check_strings("texts", documents["text"])
    begin, read = scored_documents(tokenizer, texts, window, stride, bos)
    labels = documents[keys].itertuples(index=False, name=None) if keys else texts
    rows = []
    for label, text, ids in zip(labels, texts, read, strict=True):
        if not len(ids):
            continue
        losses = token_losses(model, ids, window=window, stride=stride, begin=begin)
        size = len(text.encode()) - (0 if begin else _bytes_of_first(tokenizer, text))
        rows.append({"label": label, "loss": losses.sum().item(), "tokens": len(losses), "bytes": size})
    measured = pd.DataFrame(rows)
    if keys:  # a document without a label is a document
        groups = measured.groupby([measured["label"].str[i] for i in range(len(keys))], dropna=False)
    else:
        groups = [((), measured)]
    table = pd.DataFrame([dict(zip(keys, label, strict=True)) | _summary(group) for label, group in groups])
    return table.assign(window=window, stride=stride, bos=bool(begin))


def scored_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], window: int, stride: int, bos: bool | None
) -> tuple[list[int], list[Tensor]]:
    """What stands in front of each window, and the tokens ``[tokens]`` of each text: none if there is nothing to score.

    Raises:
        ValueError: windows that don't overlap, or no text with anything to score.
    """
    window, stride = check_count("window", window, least=2), check_count("stride", stride)
    begin = begin_tokens(tokenizer, bos)
    if not 1 <= stride < window - len(begin):
        places = f" - {len(begin)} (begin token)" if begin else ""
        raise ValueError(f"stride must be 1 to window{places} - 1, got stride {stride} and window {window}")
    documents = [scored_tokens(tokenizer, text, begin) for text in texts]
    documents = [ids if len(begin) + len(ids) > 1 else ids[:0] for ids in documents]
    if not any(map(len, documents)):
        raise ValueError("there is no text to measure perplexity on: every document needs at least two tokens")
    return begin, documents


def scored_tokens(tokenizer: PreTrainedTokenizerBase, text: str, begin: Sequence[int]) -> Tensor:
    """The tokens of `text`, ``[tokens]``, without `begin`, also where the text itself has it in front."""
    ids = bare_tokens(tokenizer, text)
    return torch.tensor(ids[len(begin) :] if begin and ids[: len(begin)] == list(begin) else ids)


@torch.inference_mode()
def token_losses(
    model: PreTrainedModel, ids: Tensor, *, window: int = 1024, stride: int = 512, begin: Sequence[int] = ()
) -> Tensor:
    """Loss (nats) of each token given what stands before it: ``[tokens] -> [tokens - 1]``, all but the first, in float64.

    With `begin` in front of each window (and counted in `window`) also of the first: ``[tokens] -> [tokens]``.
    """
    front = torch.tensor(list(begin), dtype=ids.dtype)
    for each in (front, ids):
        check_ids(model, each)
    device = input_device(model)
    losses, done = [], 0 if begin else 1  # tokens before `done` have their loss
    for start in range(0, len(ids), stride):
        end = min(start + window - len(begin), len(ids))
        read = torch.cat([front, ids[start:end].to(front.device)]).to(device)
        with eval_mode(model), within_positions(model, len(read)):
            logits = model(input_ids=read[None], use_cache=False).logits[0]  # [window, vocabulary]
        losses.append(cross_entropy(logits[len(begin) + done - start - 1 : -1], ids[done:end]))
        require_numbers(model, losses[-1])
        done = end
        if end == len(ids):
            break
    return torch.cat(losses)


def perplexity_and_error(loss: pd.Series, tokens: pd.Series) -> tuple[float, float]:
    """Perplexity and its standard error from the summed loss and the token count of each document (or prompt)."""
    mean, error = mean_and_error(loss, tokens)
    return np.exp(mean), np.exp(mean) * error


def mean_and_error(loss: pd.Series | np.ndarray, tokens: pd.Series | np.ndarray) -> tuple[float, float]:
    """Mean over tokens (nats), and its standard error, from each document's summed loss (or difference) and token count.

    A ratio of two sums over documents, to first order; the error of a single document is NaN.
    """
    documents, mean = len(loss), loss.sum() / tokens.sum()
    residuals = loss - tokens * mean
    error = np.sqrt(documents / (documents - 1) * (residuals**2).sum()) / tokens.sum() if documents > 1 else np.nan
    return float(mean), float(error)


def _summary(group: pd.DataFrame) -> dict[str, float]:
    loss, tokens, documents = group["loss"].sum(), group["tokens"].sum(), len(group)
    value, error = perplexity_and_error(group["loss"], group["tokens"])
    return {
        "perplexity": value,
        "standard_error": error,
        "bits_per_byte": loss / np.log(2) / group["bytes"].sum(),
        "tokens": int(tokens),
        "documents": documents,
    }


def _bytes_of_first(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Bytes of the first token, which is not scored; 0 for a slow tokenizer, which doesn't know where it ends."""
    if not tokenizer.is_fast:
        return 0
    head = tokenizer(text[:1000], add_special_tokens=False)
    return len(text[: head.token_to_chars(1).start].encode()) if len(head["input_ids"]) > 1 else 0
