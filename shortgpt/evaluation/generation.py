"""How well do models write? Each prompt's continuation, in numbers for a table and side by side for reading.

No single number will do. A loop is easy to predict, so the perplexity of what a broken model wrote can be low while its
repetition is high; a model that goes astray is the other way round; and neither says whether the text is true. Read it.
`accumulation.py` follows the damage from token to token; `writing.py` does the writing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.likelihood import perplexity_and_error, token_losses
from shortgpt.evaluation.writing import distinct, repetition
from shortgpt.model.arguments import check_model, check_models, check_tokenizer
from shortgpt.model.sampling import sampling_noise, write_tokens
from shortgpt.model.tokens import prompt_tokens
from shortgpt.utils.arguments import check_count, check_number, check_some, check_strings, shown

MEASURES = ("tokens", "ended", "repetition", "distinct_1", "distinct_2", "distinct_3")
COLUMNS = ("model", "prompt", "text", *MEASURES, "perplexity")


@torch.inference_mode()
def generation_report(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[str],
    *,
    new_tokens: int = 64,
    temperature: float = 0,
    seed: int = 0,
    reference: PreTrainedModel | str | None = None,
    bos: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """What each model writes after each prompt, and measures of it: a row per prompt and model.

    >>> report = generation_report({"dense": model, "pruned": pruned}, tokenizer, prompts)
    >>> generation_summary(report)
    >>> print(side_by_side(report))

    Args:
        models: name → model, all with one tokenizer.
        prompts: none of them empty.
        new_tokens: how many tokens each model may write. Texts of different length can't be compared in ``distinct_*``.
        temperature: 0 (always the likeliest token, as `continue_text`) or above, to sample as `sampled_text` does, with
            noise that depends on `seed` and the prompt's number only: all models draw with the same.
        reference: the model that judges, usually the dense one, or its name in `models`; the first if not given.
        bos: whether a begin token stands in front of each prompt; None: as the tokenizer itself does it.

    Returns:
        columns ``model, prompt, text`` and

        * ``tokens``: how many were written, an end token among them; ``ended``: whether the model stopped by itself;
        * ``repetition``: share of the word triples that stood in the text before (0 where words have no spaces between);
        * ``distinct_1, distinct_2, distinct_3``: different token n-grams by all of them (Li et al. 2016), 1 where none
          comes twice, without the end token; NaN for a text with no n-gram;
        * ``perplexity`` of the written tokens, with the end token, to the reference, given the prompt. The reference finds
          its own greedy text easy: that row shows how low it gets, not what good writing has.

    Raises:
        TypeError, ValueError: a wrong argument, an empty prompt, a tokenizer of another model, NaN in the logits.
    """
    models = check_models(models)
    check_tokenizer(tokenizer)
    new_tokens, seed = check_count("new_tokens", new_tokens), check_count("seed", seed, least=0)
    temperature = check_number("temperature", temperature)
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 (always the likeliest token) or above and finite, got {temperature}")
    judge = _reference(models, reference)
    prompts = check_prompts(prompts)
    encoded = [prompt_tokens(tokenizer, prompt, bos) for prompt in prompts]
    rows = []
    with tqdm(total=len(prompts) * len(models), desc="writing", unit="text", disable=not progress) as bar:
        for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True)):
            for name, model in models.items():
                draw = [sampling_noise([np.random.default_rng([seed, number])], temperature, len(tokenizer))]
                written = write_tokens(model, tokenizer, ids, new_tokens, *(draw if temperature else ()))[0]
                row = _measures(model, tokenizer, written, new_tokens)
                rows.append({"model": name, "prompt": prompt} | row | {"perplexity": _perplexity(judge, ids, written)})
                bar.update()
    return pd.DataFrame(rows, columns=COLUMNS)


def generation_summary(report: pd.DataFrame) -> pd.DataFrame:
    """Means of a `generation_report` by model, with standard errors (``<measure>_error``) over prompts.

    One row a model: ``model, prompts``, the measures (``ended`` is a share), ``perplexity``, which is over all written
    tokens, as `perplexity_table` has it. The models were given the same prompts, so their difference is usually surer
    than two such errors suggest. The error of one prompt is NaN.
    """
    _check_report(report)
    rows = []
    for name, group in report.groupby("model", sort=False):
        row = {"model": name, "prompts": len(group)}
        for measure in MEASURES:
            values = group[measure].astype(float)
            row |= {measure: values.mean(), f"{measure}_error": values.sem()}
        row["perplexity"], row["perplexity_error"] = perplexity_and_error(
            np.log(group["perplexity"]) * group["tokens"], group["tokens"]
        )
        rows.append(row)
    return pd.DataFrame(rows)


def side_by_side(report: pd.DataFrame, *, width: int = 100) -> str:
    """A `generation_report` as plain text to print and read: under each prompt what each model wrote, with measures."""
    _check_report(report)
    check_count("width", width, least=40)
    lines = []
    for prompt, group in report.groupby("prompt", sort=False):
        lines += [*textwrap.wrap(prompt, width), ""]
        for row in group.itertuples():
            end = "ended" if row.ended else "cut off"
            measured = f"{row.tokens} tokens, {end}, repetition {row.repetition:.2f}, perplexity {row.perplexity:,.1f}"
            lines.append(f"  [{row.model}] {measured}")
            text = textwrap.wrap(" ".join(row.text.split()), width - 4) or ["(nothing)"]
            lines += [f"    {line}" for line in text]
        lines += ["", ""]
    return "\n".join(lines).rstrip("\n")


def check_prompts(prompts: object) -> list[str]:
    return check_some("prompts", check_strings("prompts", prompts))


def _reference(models: Mapping[str, PreTrainedModel], reference: PreTrainedModel | str | None) -> PreTrainedModel:
    if reference is None:
        return next(iter(models.values()))
    if isinstance(reference, str):
        if reference not in models:
            raise ValueError(f"no model {reference!r} to be the reference: there are {', '.join(map(str, models))}")
        return models[reference]
    check_model(reference)
    return reference


def _measures(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, written: Tensor, new_tokens: int) -> dict:
    """Text and measures of the tokens that `model` wrote, ``[tokens]``."""
    tokens, ends = written.tolist(), model.generation_config.eos_token_id
    ends = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    last = tokens[-1] in ends
    text = str(tokenizer.decode(written, skip_special_tokens=True))
    row = {"text": text, "tokens": len(tokens), "ended": last or len(tokens) < new_tokens}
    body = tokens[:-1] if last else tokens
    return row | {"repetition": repetition(text)} | {f"distinct_{n}": distinct(body, n) for n in (1, 2, 3)}


def _perplexity(reference: PreTrainedModel, ids: dict[str, Tensor], written: Tensor) -> float:
    """Perplexity of the tokens `written` after the prompt `ids`: one window, so each has all that stands before it."""
    whole = torch.cat([ids["input_ids"][0], written])
    losses = token_losses(reference, whole, window=len(whole), stride=len(whole))[-len(written) :]
    return float(losses.double().mean().exp())


def _check_report(report: object) -> None:
    if not isinstance(report, pd.DataFrame) or not set(COLUMNS) <= {*report}:
        raise TypeError(f"report must be a table from generation_report(), got {shown(report)}")
    if report.empty:
        raise ValueError("the report has no rows: give generation_report() at least one prompt")
