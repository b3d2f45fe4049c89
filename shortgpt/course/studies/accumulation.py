"""Do errors accumulate? How far a pruned model is from the dense one, token by token, along two texts.

Along a text that the dense model wrote, every step has a clean context: the pruned model may be wrong at each token, but
no error of its own is in what it reads (teacher forcing; perplexity and choice tasks are measured like this). Along its own
text it reads what it wrote. If errors accumulate, the second curve rises and the first does not.

A loop hides this: once a text repeats itself, both models foresee it, and a mean over all tokens falls although nothing got
better. So `divergence_by_pair` keeps new pairs of tokens and repeated ones apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.evaluation.generation import check_prompts
from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.model.arguments import check_ids, check_model, check_tokenizer, vocabulary_size, within_positions
from shortgpt.model.hooks import eval_mode, require_numbers
from shortgpt.model.logits import divergence
from shortgpt.model.offload import input_device
from shortgpt.model.sampling import write_tokens
from shortgpt.model.tokens import prompt_tokens
from shortgpt.utils.arguments import check_count, shown

NEEDED = ("written_by", "position", "token", "divergence")


@torch.inference_mode()
def divergence_along(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[str],
    *,
    new_tokens: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """How the next-token distributions of the two models differ along the greedy text of each, after each prompt.

    >>> along = divergence_along(model, pruned, tokenizer, prompts)
    >>> along.groupby(["written_by", "position"])["divergence"].mean().unstack("written_by")

    Args:
        new_tokens: how many tokens are written and followed. A text that its model ends sooner has fewer rows, so late
            positions may be means over fewer prompts.

    Returns:
        a row per prompt, text and position: ``prompt``; ``written_by``, ``"dense"`` or ``"pruned"``; ``position`` (1 for the
        first token written); ``token``, the id that was written there; and of the distributions it was chosen from, given
        the prompt and the text so far: ``divergence``, KL(dense || pruned) in nats; ``agree``, whether both models' likeliest
        token is the same; ``loss`` of the token to the dense model, in nats; and ``perplexity``, the dense model's of the
        text up to this token, the token included. Softmax and sums are in float64.

    Raises:
        TypeError, ValueError: a wrong argument, an empty prompt, models of different vocabularies, NaN in the logits.
    """
    for model in (dense, pruned):
        check_model(model)
    check_tokenizer(tokenizer)
    check_count("new_tokens", new_tokens)
    sizes = [vocabulary_size(model) for model in (dense, pruned)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the models have vocabularies of {sizes[0]} and {sizes[1]} tokens: compare two that came from one model"
        )
    prompts = check_prompts(prompts)
    encoded = [prompt_tokens(tokenizer, prompt) for prompt in prompts]
    tables = []
    with tqdm(total=2 * len(prompts), desc="following texts", unit="text", disable=not progress) as bar:
        for prompt, ids in zip(prompts, encoded, strict=True):
            for name, writer in {"dense": dense, "pruned": pruned}.items():
                written = write_tokens(writer, tokenizer, ids, new_tokens)[0]
                table = _along(dense, pruned, ids["input_ids"][0], written)
                tables.append(table.assign(prompt=prompt, written_by=name))
                bar.update()
    whole = pd.concat(tables, ignore_index=True)
    return whole[["prompt", "written_by", *(c for c in whole if c not in ("prompt", "written_by"))]]


def divergence_by_pair(along: pd.DataFrame, *, stretch: int = 12) -> pd.DataFrame:
    """The divergence along both texts in stretches, with tokens that repeat a pair kept apart from the others.

    A token is *repeated* if it and the token before it stood next to each other earlier in the same text. The first token
    written has no pair yet; it counts as new.

    >>> divergence_by_pair(divergence_along(model, pruned, tokenizer, prompts))

    Args:
        along: of `divergence_along`, rows in its order.
        stretch: tokens taken together; single tokens differ far more than stretches do.

    Returns:
        A row per ``written_by``, ``pair`` (``"new"`` or ``"repeated"``) and stretch that has such tokens: ``middle`` (its
        middle position), ``divergence`` (mean over tokens, nats), ``error`` (its standard error over texts; NaN for one
        text), ``tokens`` and ``texts`` (how many there are).

    Raises:
        TypeError: a table without the columns of `divergence_along`. ValueError: `stretch` below 1.
    """
    if not isinstance(along, pd.DataFrame) or not {*NEEDED} <= {*along}:
        raise TypeError(f"along must be a table of divergence_along(), got {shown(along)}")
    check_count("stretch", stretch)
    text = (along["position"] == 1).cumsum()  # a prompt may be there twice: a text begins where position is 1
    repeated = along.groupby(text)["token"].transform(_repeats).astype(bool)
    pair = repeated.map({True: "repeated", False: "new"})
    part = ((along["position"] - 1) // stretch).rename("part")
    middle = along["position"].groupby(part).agg(lambda positions: (positions.min() + positions.max()) / 2)
    each = along["divergence"].groupby([along["written_by"], pair.rename("pair"), part, text.rename("text")])
    sums = each.agg(["sum", "size"])  # of each text in each stretch
    rows = []
    for (writer, name, number), of_texts in sums.groupby(level=[0, 1, 2]):
        mean, error = mean_and_error(of_texts["sum"], of_texts["size"])
        row = {"written_by": writer, "pair": name, "middle": middle[number], "divergence": mean, "error": error}
        rows.append(row | {"tokens": int(of_texts["size"].sum()), "texts": len(of_texts)})
    return pd.DataFrame(rows)


def _repeats(tokens: pd.Series) -> list[bool]:
    """Of each token of one text: did it and the one before it stand next to each other earlier?"""
    pairs = list(zip([None, *tokens], tokens, strict=False))
    return [pair in pairs[:i] for i, pair in enumerate(pairs)]


def _along(dense: PreTrainedModel, pruned: PreTrainedModel, prompt: Tensor, written: Tensor) -> pd.DataFrame:
    """Both models read ``prompt + written``; what they predicted for each token of `written`, compared."""
    log_p, log_q = (_predictions(model, prompt, written) for model in (dense, pruned))  # [tokens, vocabulary]
    losses = -log_p.gather(-1, written[:, None])[:, 0].numpy()  # [tokens]
    positions = np.arange(1, len(written) + 1)
    return pd.DataFrame(
        {
            "position": positions,
            "token": written.numpy(),
            "divergence": divergence(log_p, log_q).numpy(),
            "agree": (log_p.argmax(-1) == log_q.argmax(-1)).numpy(),
            "loss": losses,
            "perplexity": np.exp(losses.cumsum() / positions),
        }
    )


def _predictions(model: PreTrainedModel, prompt: Tensor, written: Tensor) -> Tensor:
    """Log-probabilities, ``[tokens of written, vocabulary]`` in float64 on the CPU, of what comes at each of its tokens."""
    ids = torch.cat([prompt, written])
    check_ids(model, ids)
    with eval_mode(model), within_positions(model, len(ids)):
        logits = model(input_ids=ids[None].to(input_device(model)), use_cache=False).logits[0]
    logits = logits[len(prompt) - 1 : -1]  # the prediction of a token stands one place before it
    require_numbers(model, logits)
    return log_softmax(logits.cpu().double(), -1)
