"""Choosing an answer against writing one, on the same questions: how much does scoring by likelihood hide?

Benchmarks mostly ask which of a few given answers the model finds likeliest. A pruned model can keep that and no longer be
able to write the answer down. Here both are asked after the same prompt, so each item is its own control.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.benchmarks import offline_task
from shortgpt.evaluation.likelihood import token_losses
from shortgpt.evaluation.writing import continue_text
from shortgpt.model.arguments import check_model, check_tokenizer
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import bare_tokens, encode
from shortgpt.utils.arguments import check_choice, check_count, check_strings, shown

QUESTIONS = ("science", "physical", "science_zh")  # the offline tasks that ask one
LETTER = r"[^\W\u3400-\u9fff]"  # of a script that writes spaces between words


def choice_and_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str = "science",
    *,
    limit: int | None = None,
    choices_shown: bool = True,
    chat: bool | None = None,
    new_tokens: int = 16,
    progress: bool = True,
) -> pd.DataFrame:
    """Every question answered twice: the likeliest of the choices, and what the model writes (greedily).

    Args:
        task: ``"science"`` (four choices), ``"science_zh"`` (the same in Chinese) or ``"physical"`` (two), offline.
        limit: only the first questions (they are in random order).
        choices_shown: the prompt lists the choices as A, B, …, for both ways of answering. False: it holds the question
            alone; a right answer in other words then counts as wrong.
        chat: ask in the tokenizer's chat template, for both ways of answering. None: if it has one. (Models that were tuned
            to chat often end at once after a bare "Answer:".) With False and no choices shown the choice is `evaluate`'s.
        new_tokens: how long the written answer may be; only its first line is read.

    Returns:
        A row an item: ``task, item, question, answer`` (the right one), ``choice, choice_right, written`` (the first line as
        it stands), ``read`` (which choice it is taken for; empty: none), ``written_right``. See `choice_summary`.
        A written answer is taken for a choice if it is the choice (case, punctuation and articles don't count), starts with
        its letter (or "The answer is" and its letter), or holds it and no other as whole words (Chinese: as characters).

    Raises:
        TypeError, ValueError: a wrong argument, weights on the meta device, NaN in the logits.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    check_choice("task", task, QUESTIONS)
    limit = None if limit is None else check_count("limit", limit)
    check_count("new_tokens", new_tokens)
    chat = bool(tokenizer.chat_template) if chat is None else chat
    if chat and not tokenizer.chat_template:
        raise ValueError("this tokenizer has no chat template: pass chat=False")
    input_device(model)  # refuses a model without weights
    definition = offline_task(task)
    with open(definition["dataset_kwargs"]["data_files"]["test"], encoding="utf-8") as file:
        items = [json.loads(line) for line in islice(file, limit)]
    rows = []
    for item in tqdm(items, desc="choosing and writing", unit="item", disable=not progress):
        choices, right = item["choices"], item["answer"]
        prompt, between = _prompt(definition, item, choices_shown), definition.get("target_delimiter", " ")
        chosen, written = _answers(model, tokenizer, prompt, between, choices, chat, new_tokens)
        read = read_answer(written, choices, letters=choices_shown)
        row = {"task": task, "item": item["id"], "question": item["question"], "answer": choices[right]}
        row |= {"choice": choices[chosen], "choice_right": chosen == right, "written": written}
        rows.append(row | {"read": "" if read is None else choices[read], "written_right": read == right})
    return pd.DataFrame(rows)


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    between: str,
    choices: Sequence[str],
    chat: bool,
    new_tokens: int,
) -> tuple[int, str]:
    """The number of the likeliest of `choices` after `prompt`, and the first line that the model writes there."""
    bos = None
    if chat:
        messages = [{"role": "user", "content": prompt.rpartition("\n")[0]}]  # without "Answer:"
        prompt = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        between, bos = "", False  # a chat template says itself what stands in front
    losses = [_loss(model, tokenizer, prompt, between + choice, bos) for choice in choices]
    text = continue_text(model, tokenizer, prompt, new_tokens=new_tokens, bos=bos).strip()
    return int(np.argmin(losses)), text.splitlines()[0].strip() if text else ""


def choice_summary(table: pd.DataFrame) -> pd.DataFrame:
    """How often each way is right, and the difference: what scoring by choice hides.

    Returns:
        One row, in percent of the items: ``items, choice, choice_error, written, written_error, difference`` (choice minus
        written), ``difference_error`` (paired: from the items' own differences), ``only_choice, only_written`` (right one way
        only), ``unread`` (no choice could be read from what was written). Errors are standard errors; empty for one item.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"expected the table of choice_and_generation(), got {shown(table)}")
    for column in ("choice_right", "written_right", "read"):
        if column not in table:
            raise ValueError(f"the table has no column {column!r}: pass what choice_and_generation() returned")
    if table.empty:
        raise ValueError("the table is empty: give it at least one item")
    choice, written = (100.0 * table[f"{way}_right"].astype(float) for way in ("choice", "written"))
    row: dict[str, float] = {"items": len(table)}
    for name, values in {"choice": choice, "written": written, "difference": choice - written}.items():
        row |= {name: values.mean(), f"{name}_error": values.sem()}
    row["only_choice"] = 100 * float((choice > written).mean())
    row["only_written"] = 100 * float((choice < written).mean())
    row["unread"] = 100 * float((table["read"] == "").mean())
    return pd.DataFrame([row])


def read_answer(written: str, choices: Sequence[str], *, letters: bool = True) -> int | None:
    """The number of the choice that a written answer is taken for, or None if it is none or more than one.

    >>> read_answer("A spoon.", ["a fork", "a spoon"], letters=False)
    1
    >>> read_answer("B) a spoon", ["a fork", "a spoon"])
    1
    """
    plain = [_plain(choice) for choice in check_strings("choices", choices)]
    answer = _plain(written)
    if answer in plain:
        return plain.index(answer)
    # "A spoon" is no letter; "A.", "(A)", "The answer is A" and "答案是A。" are
    says = r"(?i:the (?:correct )?answer is):? |(?:正确)?答案[是为]?[:：]?\s*|(?:应该?)?选择?"
    letter = re.match(rf"(?:{says})?[(（]?([A-Z])(?:[.:)．：）、，。]|$)", written.strip())
    if letters and letter and ord(letter[1]) - ord("A") < len(plain):
        return ord(letter[1]) - ord("A")
    longest_first = "|".join(map(re.escape, sorted(filter(None, plain), key=len, reverse=True)))
    found = {*re.findall(rf"(?<!{LETTER})(?:{longest_first})(?!{LETTER})", answer)} if longest_first else set()
    return plain.index(found.pop()) if len(found) == 1 else None


def _plain(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    words = re.sub(r"[^\w\s]|_", "", text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _prompt(definition: dict, item: dict, choices_shown: bool) -> str:
    """The task's own prompt, with the choices between question and answer if they are to be shown."""
    lettered = [f"{string.ascii_uppercase[i]}. {choice}\n" for i, choice in enumerate(item["choices"])]
    question, answer = definition["doc_to_text"].replace("{{question}}", item["question"]).rsplit("\n", 1)
    return f"{question}\n{''.join(lettered) if choices_shown else ''}{answer}"


def _loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, choice: str, bos: bool | None
) -> float:
    """Nats of the choice after the prompt, added up over its tokens: minus the log-probability that the harness scores."""
    before, whole = (encode(tokenizer, text, bos=bos) for text in (prompt, prompt + choice))
    if (
        whole[: len(before)] != before
    ):  # one token reaches over the border, as may be without a space: score all of the choice
        whole = before + bare_tokens(tokenizer, choice)
    losses = token_losses(model, torch.tensor(whole), window=len(whole) + 1, stride=len(whole))
    return losses[len(before) - 1 :].sum().item()
