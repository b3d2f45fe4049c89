"""What a cut cost: perplexity of the dense and of the pruned model on a small text, before the pruned one is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import shortgpt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shortgpt.cli.options import Texts

CHARACTERS = 1500  # of each document


class CutCost(NamedTuple):
    """Perplexity before and after, on how many tokens; or why it was not measured."""

    before: float | None = None
    after: float | None = None
    tokens: int = 0
    why_not: str = ""

    def in_words(self) -> str:
        """One sentence."""
        if self.before is None or self.after is None:
            return f"what it cost was not measured: {self.why_not}"
        times = self.after / self.before
        return (
            f"perplexity {self.before:,.1f} before, {self.after:,.1f} after ({times:,.2f} times), on {self.tokens:,} tokens "
            "by people: a first look"
        )


def cut_cost(
    dense: PreTrainedModel, pruned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts
) -> CutCost:
    """Perplexity of both on the beginnings of documents that nothing was chosen or fitted on; never an exception.

    Both must be in memory together, which a view of the dense model's weights is for free. About a tenth of the time that
    scoring took.
    """
    table = shortgpt.built_in_text("natural_test", language=texts.language or "en")
    small = table.groupby("genre").head(2)
    small = small.assign(text=small["text"].str[:CHARACTERS])
    try:
        before, after = (shortgpt.perplexity_table(m, tokenizer, small, bos=texts.bos).iloc[0] for m in (dense, pruned))
    except ValueError as error:  # NaN, or a tokenizer that knows no letter of it: no reason not to save
        return CutCost(why_not=str(error))
    return CutCost(float(before["perplexity"]), float(after["perplexity"]), int(before["tokens"]))
