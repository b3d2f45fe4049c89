"""Self-speculative decoding: the pruned model drafts, the full model checks. The text is exactly the full model's.

A draft of γ tokens is written by the pruned view, one pass each; the full model reads all of them in *one* pass, keeps
those it would have written itself, and adds one of its own (a *round*). The view shares its weights, so a second model
costs no memory. The method is that of Leviathan et al. (arXiv 2211.17192); a model as its own draft is in arXiv
2309.08168. transformers' assisted generation does the work, and this module counts. When it pays is in `speedup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from shortgpt.model.arguments import check_model, check_tokenizer, vocabulary_size
from shortgpt.model.hooks import eval_mode, hooked
from shortgpt.model.sampling import write_tokens
from shortgpt.model.tokens import prompt_tokens
from shortgpt.model.view import share_weights
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import PruningPlan
from shortgpt.pruning.prefill import prefill_is_pruned
from shortgpt.utils.arguments import check_count
from shortgpt.utils.quieting import quiet

Draft = Sequence[int] | PruningPlan | PreTrainedModel  # layers to leave out, or a model with the same vocabulary


@dataclass(frozen=True)
class DraftedText:
    """What was written with a draft, and how.

    Attributes:
        text, ids: the new tokens, ids as ``[tokens]``; those that the model would have written alone.
        drafted, written: tokens that each round drafted, and that it added to the text (its accepted ones and one more).
        draft_passes: forward passes of the draft.
    """

    text: str
    ids: Tensor
    drafted: tuple[int, ...]
    written: tuple[int, ...]
    draft_passes: int
    ended: bool  # by an end token: then we can't know whether the last round rejected anything

    @property
    def target_passes(self) -> int:
        """Forward passes of the full model, one a round; the first reads the prompt too."""
        return len(self.written)

    @property
    def accepted(self) -> int:
        """Tokens of the text that the draft wrote. The full model wrote the others, one a round."""
        return sum(self.written) - self.target_passes

    @property
    def tokens_per_pass(self) -> float:
        """Tokens of the text per forward pass of the full model; alone it would be 1."""
        return sum(self.written) / self.target_passes

    @property
    def rejected(self) -> int:
        """Rounds that ended in a drafted token that the full model would not have written."""
        wrong = [w - 1 < d for d, w in zip(self.drafted, self.written, strict=True)]
        return sum(wrong[:-1] if self.ended else wrong)

    @property
    def acceptance(self) -> float:
        """Share of the *tested* drafted tokens that were accepted: the α of the arithmetic.

        What was drafted behind a rejected token is not tested. NaN if nothing was.
        """
        return share(self.accepted, self.rejected)


@torch.inference_mode()
def generate_with_draft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    draft: Draft,
    *,
    new_tokens: int = 40,
    draft_tokens: int = 4,
    bos: bool | None = None,
) -> DraftedText:
    """What `model` writes after `prompt`, greedily (see `continue_text`), written with the help of a draft.

    >>> generate_with_draft(model, tokenizer, "The river", [20, 21, 22]).tokens_per_pass

    Args:
        draft: layers that the draft does without (indices or a plan, as for `remove_layers`); or a model with the same
            vocabulary, for instance a repaired one (`heal`).
        draft_tokens: tokens a round drafts (γ). The number stays; transformers' own default is to let it vary.
        bos: whether a begin token stands in front of the prompt; None: as the tokenizer itself does it.

    In float32 the text is that of `continue_text`, token by token. In half precision a pass over several tokens may
    round otherwise than passes over one, and two tokens that are almost equally likely may change places.

    Raises:
        ValueError: an empty prompt, a draft with another vocabulary, a model whose state can't be taken back (state-space
            models), NaN in the logits, or what `remove_layers` refuses. TypeError: a wrong argument.
    """
    check_drafting(model, tokenizer, new_tokens, draft_tokens)
    batch = prompt_tokens(tokenizer, prompt, bos)
    return write_drafted(model, tokenizer, batch, draft_view(model, draft), new_tokens, draft_tokens)


# ---- writing ---------------------------------------------------------------------------------------------------------
class _Rounds(BaseStreamer):
    """transformers hands the prompt to a streamer, and then what each round adds to the text."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def put(self, value: Tensor) -> None:
        self.sizes.append(value.numel())

    def end(self) -> None:
        pass


def write_drafted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: dict,
    draft: PreTrainedModel,
    new_tokens: int,
    draft_tokens: int,
) -> DraftedText:
    """`generate_with_draft` with everything prepared: `prompt` from `prompt_tokens`, and a view that may be changed."""
    draft.generation_config.num_assistant_tokens = draft_tokens
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0  # else a draft stops where it is unsure of itself
    rounds = _Rounds()
    read: tuple[list[int], list[int]] = [], []  # tokens that each pass of the model, and of the draft, reads

    def note(which: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        read[which].append((args[0] if args else kwargs["input_ids"]).shape[1])

    with hooked([model, draft], note, before=True), eval_mode(draft), quiet("transformers"):
        new = write_alone(model, tokenizer, prompt, new_tokens, assistant_model=draft, streamer=rounds)
    drafted = (read[0][0] - prompt["input_ids"].shape[1], *(tokens - 1 for tokens in read[0][1:]))
    ended = int(new[-1]) in _end_tokens(model)
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    return DraftedText(text, new, drafted, tuple(rounds.sizes[1:]), len(read[1]), ended)


def write_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: dict, new_tokens: int, **draft: object
) -> Tensor:
    """The new tokens ``[tokens]`` that `model` writes after `prompt` (from `prompt_tokens`), on the CPU."""
    # A draft guesses its attention mask: it takes tokens that look like padding for padding, also those that the model
    # wrote itself, unless an end token serves as padding. There is none here: a text is alone in its batch.
    pad = next(iter(_end_tokens(model)), -1)
    return write_tokens(model, tokenizer, prompt, new_tokens, pad_token_id=pad, **draft)[0]


def _end_tokens(model: PreTrainedModel) -> list[int]:
    ends = model.generation_config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


# ---- arguments -------------------------------------------------------------------------------------------------------
def check_drafting(model: PreTrainedModel, tokenizer: object, new_tokens: object, draft_tokens: object) -> None:
    check_model(model)
    check_tokenizer(tokenizer)
    check_count("new_tokens", new_tokens)
    check_count("draft_tokens", draft_tokens)
    if prefill_is_pruned(model):
        raise ValueError(
            "this model skips layers where several tokens come at once, so it would judge a draft without them: pass the "
            "model that prune_prefill() was given"
        )
    if model._is_stateful:
        raise ValueError(
            f"{type(model).__name__} can't be helped by a draft: its state can't be taken back to before a rejected token"
        )


def draft_view(model: PreTrainedModel, draft: Draft) -> PreTrainedModel:
    """A view of our own, whose generation settings may be changed."""
    if not isinstance(draft, PreTrainedModel):
        return remove_layers(model, draft)
    sizes = [vocabulary_size(each) for each in (model, draft)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the draft has a vocabulary of {sizes[1]} tokens and the model one of {sizes[0]}: a draft must use the same"
        )
    return share_weights(draft)


def share(accepted: int, rejected: int) -> float:
    return accepted / (accepted + rejected) if accepted + rejected else float("nan")
