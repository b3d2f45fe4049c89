"""Does a draft pay? The arithmetic of speculative decoding, and a table that holds it against counts and the clock.

Let c be the cost of a pass of the draft against one of the full model, and α the probability that a drafted token is
accepted if all before it were. A round of γ drafted tokens costs 1 + γc and writes 1 + α + ... + α^γ tokens (Leviathan et
al., arXiv 2211.17192). So one drafted token pays if α > c: a draft that costs 80 percent must be right in more than 80
percent of cases. Longer drafts ask for more, and no draft gains more than 1/c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.course.studies.ablation import multiplications
from shortgpt.course.studies.clock import in_turn
from shortgpt.course.studies.drafting import (
    Draft,
    DraftedText,
    check_drafting,
    draft_view,
    share,
    write_alone,
    write_drafted,
)
from shortgpt.model.anatomy import decoder_layers, removed_so_far
from shortgpt.model.tokens import prompt_tokens
from shortgpt.pruning.plan import PruningPlan
from shortgpt.utils.arguments import check_count, check_counts, check_some, check_strings, shown

Case = tuple[str, PreTrainedModel, int]  # a draft's name, the draft, and γ


@torch.inference_mode()
def speculative_report(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    drafts: Mapping[str, Draft] | Iterable[Draft],
    prompts: Iterable[str],
    *,
    new_tokens: int = 40,
    draft_tokens: int | Iterable[int] = 4,
    repeats: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Write after every prompt, alone and with each draft: what was accepted, the gain by arithmetic and by the clock.

    Args:
        drafts: drafts as for `generate_with_draft`; a dict names them, in a list their number of removed layers does.
        draft_tokens: γ, one or several.
        repeats: how often each text is written for the clock (alone and all drafts take turns; the median counts).

    Returns:
        One row per draft and γ, over all prompts: ``draft, removed, layers`` (all layers that the draft lacks, original
        indices), ``draft_tokens, tokens, target_passes, draft_passes, tokens_per_pass, drafted, accepted, acceptance`` (α),
        ``cost`` (c, by parameters), ``break_even`` (the α from which on it pays), ``predicted`` (speed-up from the counted
        passes and c), ``formula`` (from α and c alone), ``measured`` (by the clock, reading the prompt included),
        ``seconds_alone, seconds_drafted``, ``equal`` (whether all texts were the model's own).

    ``predicted`` takes a pass over several tokens to cost as much as one over one token. That holds where reading the
    weights takes the time (a GPU, one text at a time); where arithmetic does (few slow cores), ``measured`` is lower.
    Errors are those of `generate_with_draft`.
    """
    gammas = check_some("draft_tokens", check_counts("draft_tokens", _listed(draft_tokens), least=1))
    check_drafting(model, tokenizer, new_tokens, gammas[0])
    check_count("repeats", repeats)
    prompts = check_some("prompts", check_strings("prompts", prompts))
    texts = [prompt_tokens(tokenizer, prompt) for prompt in prompts]
    cases = [(name, draft, gamma) for name, draft in _named(model, drafts).items() for gamma in gammas]
    total = len(texts) * repeats * (1 + len(cases))
    with tqdm(total=total, desc="drafting", unit="text", disable=not progress) as bar:
        found = [in_turn(_ways(model, tokenizer, text, cases, new_tokens), repeats, bar) for text in texts]
    rows = []
    for i, (name, draft, gamma) in enumerate(cases, 1):
        own, runs = ([results[way] for results, _ in found] for way in (0, i))
        alone, drafted = (sum(seconds[way] for _, seconds in found) for way in (0, i))
        removed = len(decoder_layers(model)) - len(decoder_layers(draft))
        row = {"draft": name, "removed": removed, "layers": removed_so_far(draft)}
        row |= _counted(runs, gamma, draft_cost(model, draft))
        row |= {"measured": alone / drafted, "seconds_alone": alone, "seconds_drafted": drafted}
        rows.append(row | {"equal": all(torch.equal(run.ids, text) for run, text in zip(runs, own, strict=True))})
    return pd.DataFrame(rows)


def _ways(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: dict, cases: Sequence[Case], new_tokens: int
) -> list[Callable[[], Tensor | DraftedText]]:
    """To write after `prompt`: alone, and in each of the cases."""
    write = partial(write_drafted, model, tokenizer, prompt)
    drafted = [partial(write, draft, new_tokens, gamma) for _, draft, gamma in cases]
    return [partial(write_alone, model, tokenizer, prompt, new_tokens), *drafted]


def draft_cost(model: PreTrainedModel, draft: PreTrainedModel) -> float:
    """c: what a pass of `draft` costs against one of `model`, by the parameters that it reads (see `multiplications`)."""
    return multiplications(draft) / multiplications(model)


def speculative_speedup(acceptance: float, draft_tokens: int, cost: float) -> float:
    """How many times faster: the tokens that a round writes, 1 + α + ... + α^γ, over what it costs, 1 + γc.

    `acceptance` is α (0 to 1), taken as the same for every token; `draft_tokens` is γ; `cost` is c, above 0.
    """
    gamma = check_count("draft_tokens", draft_tokens)
    if not 0 <= acceptance <= 1:
        raise ValueError(f"acceptance is a probability, 0 to 1, got {acceptance}")
    if not cost > 0:
        raise ValueError(f"cost must be above 0 (1 is the cost of the full model), got {cost}")
    return sum(acceptance**k for k in range(gamma + 1)) / (1 + gamma * cost)


def break_even_acceptance(draft_tokens: int, cost: float) -> float:
    """The α at which drafting neither gains nor loses; more is a gain. NaN if even α = 1 can't pay (`cost` above 1).

    It is `cost` itself for one drafted token, and grows with their number.
    """
    if speculative_speedup(1.0, draft_tokens, cost) < 1:
        return float("nan")
    low, high = 0.0, 1.0
    for _ in range(60):  # halving: the speed-up grows with α
        middle = (low + high) / 2
        low, high = (low, middle) if speculative_speedup(middle, draft_tokens, cost) >= 1 else (middle, high)
    return high


def _listed(value: object) -> object:
    return value if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _named(model: PreTrainedModel, drafts: object) -> dict[str, PreTrainedModel]:
    if isinstance(drafts, str | PruningPlan | PreTrainedModel) or not isinstance(drafts, Iterable):
        raise TypeError(f"drafts must be a list (or a dict with names) of lists of layers, got {shown(drafts)}")
    if isinstance(drafts, Mapping):
        return {str(name): draft_view(model, each) for name, each in check_some("drafts", [*drafts.items()])}
    named: dict[str, PreTrainedModel] = {}
    for each in check_some("drafts", list(drafts)):
        view = draft_view(model, each)
        name = f"{len(decoder_layers(model)) - len(decoder_layers(view))} removed"
        while name in named:
            name += "'"
        named[name] = view
    return named


def _counted(runs: Sequence[DraftedText], gamma: int, cost: float) -> dict[str, object]:
    """The columns that one draft's texts and the arithmetic give."""
    tokens, target = sum(len(run.ids) for run in runs), sum(run.target_passes for run in runs)
    accepted, helper = sum(run.accepted for run in runs), sum(run.draft_passes for run in runs)
    acceptance = share(accepted, sum(run.rejected for run in runs))
    return {
        "draft_tokens": gamma,
        "tokens": tokens,
        "target_passes": target,
        "draft_passes": helper,
        "tokens_per_pass": tokens / target,
        "drafted": sum(sum(run.drafted) for run in runs),
        "accepted": accepted,
        "acceptance": acceptance,
        "cost": cost,
        "break_even": break_even_acceptance(gamma, cost),
        "predicted": tokens / (target + cost * helper),
        "formula": np.nan if np.isnan(acceptance) else speculative_speedup(acceptance, gamma, cost),
    }
