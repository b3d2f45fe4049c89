"""`shortgpt generate`: what the dense and the pruned model write after the same prompt, side by side."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter, validators

import shortgpt
from shortgpt.cli.deciding import dense_of
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import FLAG, FROM_0, FROM_1, Loading, Progress
from shortgpt.cli.printing import Result

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

WRITING = Group("Writing", sort_key=1)


def generate_text(
    *models: Annotated[str, Parameter(required=True)],
    prompt: Annotated[list[str], Parameter(group=WRITING, negative=(), name=["--prompt", "-p"])],
    tokens: Annotated[int, FROM_1, Parameter(group=WRITING)] = 60,
    temperature: Annotated[float, Parameter(group=WRITING, validator=validators.Number(gte=0))] = 0,
    seed: Annotated[int, FROM_0, Parameter(group=WRITING)] = 0,
    chat: Annotated[bool, FLAG, Parameter(group=WRITING)] = False,
    loading: Loading = Loading(),
    progress: Progress = True,
) -> Result:
    """Write after a prompt with each model, side by side.

    Of one pruned model, the dense one that its plan names writes first. One model is in memory at a time.

        shortgpt generate ./smaller --prompt "The capital of France is"
        shortgpt generate ./smaller -p "Who are you?" --chat
        shortgpt generate my_model ./smaller -p "The sea" --temperature 0.8 --seed 1

    Under each text: tokens, whether the model ended it, and repetition, the share of word triples that stood there before:
    near 1 it goes in circles. The same seed draws with the same noise in all models.

    Args:
        models: One pruned model, or those to compare.
        prompt: What they go on with; give it several times for several prompts.
        tokens: How many tokens each may write.
        temperature: 0 takes the likeliest token; 1 samples what the model believes.
        seed: Draws the samples.
        chat: Put the prompt into the model's chat template, as a question.
    """
    names = _with_dense(models, loading)
    table = _written(names, prompt, tokens, temperature, seed, chat, progress=progress)
    how = f"sampled at temperature {temperature:g}, seed {seed}" if temperature else "always the likeliest token"
    return Result(table, for_people(table), [f"{how}, at most {tokens} tokens"])


def _with_dense(models: tuple[str, ...], loading: Loading) -> list[tuple[str, Loading]]:
    """The models and how to load them: before a single pruned one, the dense one that its plan names."""
    from shortgpt.pruning.plan_words import plan_beside

    if repeated := [name for name in models if models.count(name) > 1]:
        raise UsageError(f"{repeated[0]} is named twice: name each model once")
    plan = plan_beside(models[0]) if len(models) == 1 else None
    dense = [dense_of(plan, loading)] if plan is not None and plan.model else []
    return [*dense, *((name, loading) for name in models)]


def _written(
    names: list[tuple[str, Loading]],
    prompts: list[str],
    tokens: int,
    temperature: float,
    seed: int,
    chat: bool,
    *,
    progress: bool,
) -> pd.DataFrame:
    """A row for each prompt and model, prompts as they were given."""
    import pandas as pd

    tables = []
    for name, where in names:
        model, tokenizer = where.load(name)
        given = [_as_question(prompt, tokenizer, name) for prompt in prompts] if chat else prompts
        report = shortgpt.generation_report(
            {name: model},
            tokenizer,
            given,
            new_tokens=tokens,
            temperature=temperature,
            seed=seed,
            bos=False if chat else None,
            progress=progress,
        )
        tables.append(report.assign(prompt=prompts)[["prompt", "model", "text", "tokens", "ended", "repetition"]])
        del model
        gc.collect()
    order = {prompt: place for place, prompt in enumerate(prompts)}
    return pd.concat(tables, ignore_index=True).sort_values("prompt", key=lambda p: p.map(order), kind="stable")


def _as_question(prompt: str, tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    if not tokenizer.chat_template:
        raise ValueError(f"{name} has no chat template, so it is no chat model: leave --chat out")
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def for_people(table: pd.DataFrame) -> str:
    """Under each prompt what each model wrote."""
    import textwrap

    lines = []
    for prompt, group in table.groupby("prompt", sort=False):
        lines += [*textwrap.wrap(str(prompt), 96), ""]
        for row in group.itertuples():
            end = "ended" if row.ended else "cut off"
            lines.append(f"  [{row.model}] {row.tokens} tokens, {end}, repetition {row.repetition:.2f}")
            lines += [f"    {line}" for line in textwrap.wrap(" ".join(str(row.text).split()), 92) or ["(nothing)"]]
        lines.append("")
    return "\n".join(lines).rstrip("\n")
