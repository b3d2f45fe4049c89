"""Tasks whose truth is known (sums, brackets, agreement): which token of each answer does a model get right?

The items are `data/twins/controlled.jsonl` (`data/twins/SOURCES.md` says how they were made). Sums are written with their
least significant digit first (``347+586=339``), so that each digit can be written as soon as its carry is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.model.hooks import logits_of, require_numbers
from shortgpt.model.logits import cross_entropy
from shortgpt.model.tokens import encode
from shortgpt.utils.arguments import check_choice, check_count
from shortgpt.utils.data import data_folder

TASKS = ("addition", "brackets", "agreement")
Item = Mapping[str, Any]


def controlled_items(task: str | None = None, *, most: int | None = None, file: Path | None = None) -> list[Item]:
    """The held-out items: ``task, prompt, answer, level``, in agreement ``other``, the wrong verb; of each task `most`.

    The items that are kept are spread over the whole file, whatever its order.
    """
    file = file or data_folder() / "twins" / "controlled.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if task is not None:
        check_choice("task", task, TASKS)
    kept = []
    for name in TASKS if task is None else (task,):
        some = [row for row in rows if row["task"] == name]
        take = len(some) if most is None else min(check_count("most", most), len(some))
        kept += [some[i * len(some) // take] for i in range(take)]
    return kept


@torch.inference_mode()
def controlled_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], *, batch_size: int = 128
) -> pd.DataFrame:
    """Read each item with its right answer, and note for every token of the answer what the model found likeliest there.

    Args:
        items: of `controlled_items`. Where an item has an ``other`` answer, the model chooses: the likelier of the two,
            all their tokens together.

    Returns:
        A row for each token of each answer (a choice is one row): ``item`` (its number in `items`), ``task, level,
        position`` (0-based, in the answer), ``expected`` and ``predicted`` (as text), ``right``.

    Raises:
        ValueError: a tokenizer that joins the end of a prompt and the beginning of its answer, or logits with NaN.
    """
    verbs = {i: (item["prompt"], item["other"]) for i, item in enumerate(items) if "other" in item}
    wrong = (
        cross_entropy(logits, ids).sum() for ids, logits in read_answers(model, tokenizer, verbs.values(), batch_size)
    )
    other = dict(zip(verbs, wrong, strict=True))
    pairs = [(item["prompt"], item["answer"]) for item in items]
    rows: list[dict[str, Any]] = []
    for i, (ids, logits) in enumerate(read_answers(model, tokenizer, pairs, batch_size)):
        named = {"item": i, "task": items[i]["task"], "level": items[i]["level"]}
        if i in other:
            right = bool(cross_entropy(logits, ids).sum() < other[i])
            told = [(items[i]["answer"], items[i]["answer" if right else "other"])]
        else:
            both = zip(ids.tolist(), logits.argmax(-1).tolist(), strict=True)
            told = [(str(tokenizer.decode([a])), str(tokenizer.decode([b]))) for a, b in both]
        for position, (expected, predicted) in enumerate(told):
            found = {"position": position, "expected": expected, "predicted": predicted}
            rows.append(named | found | {"right": expected == predicted})
    return pd.DataFrame(rows)


def accuracy_by_task(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `controlled_accuracy`, a row a task: ``tokens_right`` and ``answers_right`` (every token of an answer)
    in percent, and ``items``."""
    whole = table.groupby(["task", "item"])["right"].all().groupby("task")
    tokens = table.groupby("task")["right"].mean()
    return pd.DataFrame(
        {"tokens_right": 100 * tokens, "answers_right": 100 * whole.mean(), "items": whole.size()}
    ).reset_index()


def answer_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> tuple[list[int], int]:
    """The tokens of prompt and answer, begun as the model was trained to see a text, and at which of them the answer begins.

    Raises:
        ValueError: a token that reaches from one into the other.
    """
    ids, start = encode(tokenizer, prompt + answer), len(encode(tokenizer, prompt))
    if ids[:start] != encode(tokenizer, prompt):
        raise ValueError(
            f"this tokenizer joins the end of {prompt!r} and the beginning of {answer!r}: end the prompt "
            "where a token ends"
        )
    return ids, start


def read_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Iterable[tuple[str, str]], batch_size: int = 128
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each prompt and answer: the answer's tokens, ``[n]``, and the logits that should find each, ``[n, vocabulary]``."""
    coded = [answer_ids(tokenizer, *pair) for pair in pairs]
    for first in range(0, len(coded), batch_size):
        some = coded[first : first + batch_size]
        logits = logits_of(model, right_padded(model, [ids for ids, _ in some]))
        for (ids, start), row in zip(some, logits, strict=True):
            require_numbers(model, row[start - 1 : len(ids) - 1])
            yield torch.tensor(ids[start:]), row[start - 1 : len(ids) - 1]


def right_padded(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """One batch of texts of any lengths, for a causal model: what stands behind a text can't change what it reads there.

    So the mask says nothing of pads (RWKV would not look at it), and no pad may stand in front.
    """
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # [rows, tokens]
    ids = pad(ids, (0, -ids.shape[1] % getattr(model.config, "chunk_size", 1)))  # Mamba-2 computes whole chunks anyway
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
