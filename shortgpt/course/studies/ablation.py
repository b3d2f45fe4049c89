"""What a model is without some of its layers: its perplexity, size and work, and what it writes.

Made to be played with: the perplexity of a set of layers is measured on from the set before it, so that only the layers
behind the first that differs run again (see `Trials`), and no set is measured twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.choosing.trials import Trials
from shortgpt.evaluation.cost import size
from shortgpt.evaluation.writing import continue_text
from shortgpt.model.anatomy import parameter_count
from shortgpt.model.arguments import check_model, check_tokenizer
from shortgpt.model.text import built_in_text, calibration_batches
from shortgpt.model.tokens import prompt_tokens
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import check_indices
from shortgpt.utils.arguments import check_count, check_string, shown

PROMPT = "The old lighthouse keeper opened the door and"
COLUMNS = ["layers", "removed", "perplexity", "times_dense", "memory_mb", "work"]


class Ablation:
    """Measure `model` without any set of its layers: ``ablation([8, 9])``, and ``ablation.writes([8, 9])``.

    >>> ablation = Ablation(model, tokenizer)
    >>> ablation([8, 9])["perplexity"], ablation.writes([8, 9])

    Args:
        text: perplexity is measured on its first `tokens` tokens; None: a built-in encyclopedic text that nothing else
            was chosen by. So little text ranks choices roughly: differences of a few percent mean nothing.
        prompt, new_tokens: what `writes` continues, and by how many tokens.

    Attributes:
        depth: layers of `model`.
        tried: what was measured so far, ascending layers -> result.
        text: the tokens that perplexity is measured on, as text.

    Memory: the output of every layer for every token of the text (see `Trials`).

    Raises:
        TypeError, ValueError: a wrong argument, a text of fewer than two tokens, logits with NaN.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str | None = None,
        *,
        tokens: int = 128,
        prompt: str = PROMPT,
        new_tokens: int = 12,
    ) -> None:
        check_model(model)
        check_tokenizer(tokenizer)
        text = built_in_text("perplexity", genre="encyclopedic")["text"].iloc[0] if text is None else text
        check_string("text", text)
        prompt_tokens(tokenizer, prompt)  # refuses an empty one
        check_count("tokens", tokens, least=2)
        self.new_tokens = check_count("new_tokens", new_tokens)
        batches = calibration_batches(tokenizer, [text], samples=1, length=tokens)
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.text = tokenizer.decode(batches[0]["input_ids"][0], skip_special_tokens=True)
        self.tried: dict[tuple[int, ...], dict[str, Any]] = {}
        self._written: dict[tuple[int, ...], str] = {}
        self._last: tuple[tuple[int, ...], PreTrainedModel] = ((), model)  # a view takes as long as measuring
        self._trials = Trials(model, batches)
        self.depth, self._work = self._trials.depth, multiplications(model)
        self(())  # all others are compared with it

    def __call__(self, removed: Collection[int]) -> dict[str, Any]:
        """What is left without the layers `removed` (0-based, as `model` is now).

        Returns:
            ``layers`` (ascending) and ``removed`` (how many), ``perplexity``, ``times_dense`` (that divided by the dense
            model's), ``memory_mb`` (10^6 bytes of weights), and ``work``, the multiplications for one token in percent
            of the dense model's (see `multiplications`).

        Raises:
            ValueError: an unknown or repeated layer, none left, or layers that the others can't do without.
        """
        key = tuple(sorted(check_indices(removed, self.depth)))
        if key not in self.tried:
            pruned = self._without(key)  # refuses what can't go
            if self._trials.resumes:
                self._trials.rebase(key)  # runs the layers behind the first that differs; then only the head is left
            perplexity = float(np.exp(self._trials(key)))
            self.tried[key] = {
                "layers": list(key),
                "removed": len(key),
                "perplexity": perplexity,
                "times_dense": perplexity / self.tried[()]["perplexity"] if key else 1.0,
                "memory_mb": size(pruned)["memory_bytes"] / 1e6,
                "work": 100 * multiplications(pruned) / self._work,
            }
        return self.tried[key]

    def writes(self, removed: Collection[int]) -> str:
        """How the model goes on after the prompt without the layers `removed`, greedily, without the prompt."""
        key = tuple(sorted(check_indices(removed, self.depth)))
        if key not in self._written:
            self._written[key] = continue_text(
                self._without(key), self.tokenizer, self.prompt, new_tokens=self.new_tokens
            )
        return self._written[key]

    def _without(self, key: tuple[int, ...]) -> PreTrainedModel:
        if self._last[0] != key:
            self._last = key, remove_layers(self.model, key)
        return self._last[1]

    def table(self, choices: Mapping[str, Collection[int]]) -> pd.DataFrame:
        """A row for each of `choices`, name -> layers to remove: what calling returns, and ``text``, what it writes."""
        if not isinstance(choices, Mapping):
            raise TypeError(f"choices must be a dict from name to layers, got {shown(choices)}")
        rows = [self(layers) | {"text": self.writes(layers)} for layers in choices.values()]
        return pd.DataFrame(rows, index=list(choices), columns=[*COLUMNS, "text"])


def multiplications(model: PreTrainedModel) -> int:
    """Multiplications by weights for one token: one for each parameter that is not just looked up.

    Embeddings are tables to look up a row in, which costs nothing, unless the table is the output head, too. Left out: what
    attention does with the tokens before, which grows with their number. A mixture of experts counts with all experts.
    """
    head = model.get_output_embeddings()
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    if head is not None:
        tables.pop(id(head.weight), None)
    return parameter_count(model) - sum(table.numel() for table in tables.values())
