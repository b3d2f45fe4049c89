"""How often a model is right when it sees only the choices: what the wording of a task gives away by itself.

    python measure/hidden_question.py science science_zh             the default model (half a minute of one core each)
    python measure/hidden_question.py science --model path/or/name   another one

Prints a table. `default_model.py` measures it for `measured.json`.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt import load
from shortgpt.evaluation.benchmarks import offline_task
from shortgpt.model.hooks import eval_mode, require_numbers
from shortgpt.model.logits import cross_entropy
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import bare_tokens, begin_token

TASKS = Path(__file__).parents[1] / "data" / "tasks"
AT_ONCE = 16  # choices: a large model reads its weights once for all of them


def hidden_question(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, limit: int | None = None
) -> dict:
    """Accuracy on an offline task with choices, when only what follows the question ("Answer:") and a choice are read.

    Both stand behind the token that begins a text. The likeliest choice counts, as in `evaluate`: log-probabilities summed.

    Args:
        limit: only the first items.

    Returns:
        ``task, value, standard_error, chance`` (percent), ``items``.

    Raises:
        ValueError: the task has no question, or no choices.
    """
    definition = offline_task(task)
    _, question, after = definition["doc_to_text"].rpartition("}}")
    if not question or "doc_to_choice" not in definition:
        raise ValueError(f"{task} has no question with choices to hide: take physical, science, science_zh or chinese")
    prefix = after.strip() + definition.get("target_delimiter", " ") if after else ""
    with (TASKS / f"{task}.jsonl").open(encoding="utf-8") as file:
        items = [json.loads(line) for line in islice(file, limit)]
    start = tokenizer.convert_tokens_to_ids(begin_token(tokenizer, "hidden_question"))
    texts = [[start, *bare_tokens(tokenizer, prefix + choice)] for item in items for choice in item["choices"]]
    losses = torch.cat([_summed_losses(model, texts[i : i + AT_ONCE]) for i in range(0, len(texts), AT_ONCE)])
    chosen = losses.view(len(items), -1).argmin(1).tolist()
    right = pd.Series([100.0 * (i == item["answer"]) for i, item in zip(chosen, items, strict=True)])
    chance = 100 / len(items[0]["choices"])
    return {"task": task, "value": right.mean(), "standard_error": right.sem(), "chance": chance, "items": len(items)}


@torch.inference_mode()
def _summed_losses(model: PreTrainedModel, texts: list[list[int]]) -> torch.Tensor:
    """Nats of each text's tokens behind its first, added up: ``[texts]``. Padding stands behind, where nothing sees it."""
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    with eval_mode(model):
        logits = model(input_ids=ids.to(input_device(model)), use_cache=False).logits
    losses = [cross_entropy(row[: len(t) - 1], torch.tensor(t[1:])).sum() for row, t in zip(logits, texts, strict=True)]
    require_numbers(model, torch.stack(losses))
    return torch.stack(losses)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--model")
    given = parser.parse_args()
    loaded = load(given.model, device="cpu") if given.model else load(device="cpu")
    print(pd.DataFrame([hidden_question(*loaded, task) for task in given.tasks]).to_string(index=False))
