"""What several public functions ask of a model, a tokenizer and their batches: a wrong one is one clear sentence.

Torch answers wrong arguments from deep inside, in the words of its own code, and on a GPU a token beyond the vocabulary ends
the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.utils.arguments import shown


def check_model(model: object) -> None:
    if isinstance(model, PreTrainedModel):
        return
    hint = "pass what load() returned first"
    if isinstance(getattr(model, "_orig_mod", None), PreTrainedModel):
        raise TypeError(
            "expected a transformers model, got what torch.compile() made of one: pass the model that it was given"
        )
    if type(model).__module__.partition(".")[0] == "peft":
        hint = "pass its merge_and_unload(), or get_base_model() if its adapter is a prompt and changes no layer"
    raise TypeError(f"expected a transformers model, got {type(model).__name__}: {hint}")


def check_models(models: object) -> dict[str, PreTrainedModel]:
    """`models` as a dict, if it names at least one, and each is a model."""
    if not isinstance(models, Mapping):
        raise TypeError(f"models must be a dict from name to model, got {shown(models)}")
    if not models:
        raise ValueError("models is empty: give at least one, the reference first")
    for model in models.values():
        check_model(model)
    return dict(models)


def check_tokenizer(tokenizer: object) -> None:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(f"expected a tokenizer, got {type(tokenizer).__name__}: pass what load() returned second")


def check_batches(batches: object) -> None:
    if isinstance(batches, str | Mapping | Tensor) or not isinstance(batches, Iterable):
        hint = ": put it in a list" if isinstance(batches, Mapping) else ""
        raise TypeError(f"batches must be a list as calibration_batches() gives it, got {shown(batches)}{hint}")


def check_batch(model: PreTrainedModel, batch: object) -> None:
    """Raise unless `batch` holds token ids of the model, ``[batch, tokens]``, and which of them are real."""
    if not isinstance(batch, Mapping):
        raise TypeError(f"a batch is a dict with input_ids and attention_mask, got {shown(batch)}")
    for name in ("input_ids", "attention_mask"):
        if name not in batch:
            raise ValueError(
                f'the batch has no {name}: calibration_batches() and tokenizer(texts, padding=True, return_tensors="pt") '
                "give both input_ids and attention_mask"
            )
        if not isinstance(batch[name], Tensor):
            raise TypeError(f"{name} must be a tensor of shape [batch, tokens], got {shown(batch[name])}")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if ids.ndim != 2:
        raise ValueError(f"input_ids must be of shape [batch, tokens], got shape {list(ids.shape)}")
    if not ids.numel():
        raise ValueError(f"the batch holds no token: its input_ids are of shape {list(ids.shape)}")
    if mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask has shape {list(mask.shape)}, and input_ids {list(ids.shape)}: make them equal"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("attention_mask must hold 1 for a token and 0 for padding, and nothing else")
    check_ids(model, ids)


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many tokens `model` has an embedding for: its tokenizer may know fewer."""
    return next(model.get_input_embeddings().parameters()).shape[0]


def check_ids(model: PreTrainedModel, ids: Tensor) -> None:
    """Raise unless `ids` are tokens that `model` has an embedding for."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"input_ids must be whole numbers (torch.int64), got {ids.dtype}")
    vocabulary = vocabulary_size(model)
    for token in (int(ids.min()), int(ids.max())) if ids.numel() else ():
        if not 0 <= token < vocabulary:
            raise ValueError(
                f"token {token} is not in the model's vocabulary of {vocabulary}: use the model's own tokenizer, and for "
                "padding a token that it has (`tokenizer.pad_token = tokenizer.eos_token`)"
            )


@contextmanager
def within_positions(model: PreTrainedModel, tokens: int) -> Iterator[None]:
    """Say it clearly if `tokens` are more than the positions that a model learned (GPT-2; most compute theirs)."""
    try:
        yield
    except IndexError as error:
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if most is None or tokens <= most:
            raise
        raise ValueError(
            f"{tokens} tokens are too many for this {type(model).__name__}, which learned {most} positions: take fewer"
        ) from error


NO_TOKENS = "the calibration batches hold no token: give calibration_batches() some text (in the shell: --text)"
