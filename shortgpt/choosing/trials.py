"""Try sets of removed layers on calibration batches: what each costs, without computing again what stays the same.

All trials run in one view of the model (`share_weights`), through the model's own forward. A removed layer gets a
``forward`` that passes its input on. The states of a *base* set are kept; where a trial equals the base up to some layer,
the last layer before it returns the base's state and the ones before that do nothing. So trying each layer alone costs
about half of as many forward passes, and the results are those of `remove_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.choosing.cached_prefix import Output, copied, stand_ins
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import NO_TOKENS, check_batches
from shortgpt.model.hooks import hooked, layer_output, logits_of, require_numbers, run_backbone, unpadded
from shortgpt.model.logits import cross_entropy, divergence, log_probabilities
from shortgpt.model.view import share_weights
from shortgpt.pruning.depth import require_removable
from shortgpt.pruning.plan import check_indices
from shortgpt.utils.arguments import check_choice

OBJECTIVES = ("loss", "divergence")
_CHUNK = 32  # tokens whose distributions over the vocabulary are compared at a time


class Trials:
    """Value sets of removed layers: ``trials(removed)`` is a number, lower is better.

    Args:
        model: left as it is: weights, mode, hooks. Its weights must not change while trials are made.
        batches: dicts with ``input_ids`` and ``attention_mask``, ``[batch, tokens]`` (see `calibration_batches`).
        objective: ``"loss"``, the mean cross entropy of the next token over all real tokens that have one before them,
            in nats (the logarithm of the perplexity on the batches); or ``"divergence"``, the mean Kullback-Leibler
            divergence from the model's next-token distribution to the trial's over all real tokens, in nats: 0 for no
            layer removed. The second asks for the model's behaviour and not for the text, so little text says more.

    Attributes:
        depth: number of layers.
        base: the set whose states are kept (see `rebase`); at first, none removed.
        resumes: whether trials resume at the base's states. Not so for an architecture whose layers hand on more than
            their output (shared keys and values, for instance); that is found out on a few tokens.
        evaluations: how many sets were valued.
        forward_passes: layers run, divided by the depth: 1.0 is one ordinary pass over the batches, and making the
            object costs that. Not counted: embeddings and head, which run each time (``"divergence"``: the head twice).

    Memory: the output of every layer for every token, ``depth * tokens * hidden`` numbers in the model's dtype, on the
    device of the layer (30 layers, 576 wide, 2,048 tokens, float32: 142 MB; while `rebase` runs, up to twice that), and
    the logits of one batch, twice for ``"divergence"``.

    >>> trials = Trials(model, calibration_batches(tokenizer, samples=4))
    >>> trials([]), trials([10]), trials([10, 11])

    Raises:
        ValueError: unknown objective, no tokens, logits with NaN (also in a trial).
    """

    def __init__(
        self, model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], *, objective: str = "loss"
    ) -> None:
        self.depth = len(decoder_layers(model))
        check_choice("objective", objective, OBJECTIVES)
        check_batches(batches)
        self.model, self.objective, self.batches = model, objective, list(unpadded(model, batches))
        first_counted = 1 if objective == "loss" else 0
        self.tokens = sum(batch["input_ids"][:, first_counted:].numel() for batch in self.batches)
        if not self.tokens:
            raise ValueError(
                "no sample has two tokens, so there is none to predict: give longer text" if self.batches else NO_TOKENS
            )
        self.base: frozenset[int] = frozenset()
        self.evaluations, self.forward_passes = 0, 0.0
        self._view = share_weights(model).eval()
        self._stack = list(decoder_layers(self._view))
        self._whole = True  # keep attention maps that layers return, too: only where the model reads them
        self._widths = [0] * self.depth  # how many values each layer returns; 0: a tensor, no tuple
        self._outputs: list[list[Output]] = [[] for _ in self.batches]  # of each layer, in the base
        self.resumes = self._can_resume()
        self._keep(self.base)
        self._dense = [outputs[-1] for outputs in self._outputs]

    def __call__(self, removed: Collection[int]) -> float:
        """The objective without the layers `removed` (0-based, as `model` is now); infinite if they can't go.

        Raises:
            ValueError: an unknown or repeated layer, none left, or logits with NaN.
        """
        removed = frozenset(check_indices(removed, self.depth))
        self.evaluations += 1
        try:
            require_removable(self.model, sorted(removed))
        except ValueError:  # a hybrid model's last attention, keys and values that others read
            return float("inf")
        start = self._first_difference(removed)
        self._count(removed, start)
        total = 0.0
        for i, batch in enumerate(self.batches):
            logits = self._logits(batch, removed, self._outputs[i][:start])
            total += self._sum(i, batch, logits)
        return total / self.tokens

    def rebase(self, removed: Collection[int]) -> None:
        """Keep the states of the set `removed`, so that sets that add to it resume there (a round of greedy search)."""
        removed = frozenset(check_indices(removed, self.depth))
        if removed != self.base:
            self._keep(removed)

    @torch.inference_mode()
    def _keep(self, removed: frozenset[int]) -> None:
        start = self._first_difference(removed) if self._outputs[0] else 0
        self._count(removed, start)
        known = [outputs[:start] for outputs in self._outputs]
        new = [self._record(batch, removed, kept) for batch, kept in zip(self.batches, known, strict=True)]
        # only now, so that an interruption leaves the old base whole
        self._outputs = [kept + rest for kept, rest in zip(known, new, strict=True)]
        self.base = removed

    def _record(self, batch: Mapping[str, Tensor], removed: Collection[int], kept: Sequence[Output]) -> list[Output]:
        """The outputs of all layers from ``len(kept)`` on."""
        outputs: list[Output] = []

        def keep(position: int, layer: nn.Module, args: tuple, kwargs: dict, output: Output) -> None:
            outputs.append(copied(output, self._whole))

        with hooked(self._stack[len(kept) :], keep), stand_ins(self._stack, self._widths, removed, kept):
            run_backbone(self._view, batch)
        return outputs

    @torch.inference_mode()
    def _logits(self, batch: Mapping[str, Tensor], removed: Collection[int], kept: Sequence[Output]) -> Tensor:
        """One forward pass without the layers `removed`, resumed behind those whose outputs are `kept`."""
        with stand_ins(self._stack, self._widths, removed, kept):
            return logits_of(self._view, batch)  # [batch, tokens, vocabulary]

    @torch.inference_mode()
    def _sum(self, index: int, batch: Mapping[str, Tensor], logits: Tensor) -> float:
        """The objective summed over the counted tokens of a batch."""
        if self.objective == "loss":
            return loss_sum(self.model, batch, logits)
        return _sum_over_tokens(self.model, _divergence, logits, self._dense_logits(index))

    def _dense_logits(self, index: int) -> Tensor:
        """Of one batch, from the state that left the dense model's last layer: they take too much memory to keep."""
        if self.resumes:
            return self._logits(self.batches[index], (), [*self._outputs[index][:-1], self._dense[index]])
        self.forward_passes += 1 / len(self.batches)
        return self._logits(self.batches[index], (), [])

    def _first_difference(self, removed: frozenset[int]) -> int:
        return min(removed ^ self.base, default=self.depth) if self.resumes else 0

    def _count(self, removed: frozenset[int], start: int) -> None:
        self.forward_passes += len(set(range(start, self.depth)) - removed) / self.depth

    def _can_resume(self) -> bool:
        """Whether a few tokens, resumed at several layers, give the state that they give in one pass.

        All layers would cost many passes: the first, the last, and four in the middle (patterns repeat after so many).
        """
        sample = {name: rows[:1, :4] for name, rows in self.batches[0].items()}
        middle = self.depth // 2
        starts = {1, *range(middle - 2, middle + 2), self.depth - 1} & set(range(1, self.depth))
        with torch.inference_mode():
            for self._whole in (False, True):
                outputs = self._record(sample, (), [])
                self._widths = [0 if isinstance(output, Tensor) else len(output) for output in outputs]
                expected = layer_output(outputs[-1])
                near = 100 * torch.finfo(expected.dtype).eps * expected.abs().max()  # GPU kernels may vary between runs
                try:
                    resumed = [layer_output(self._record(sample, (), outputs[:start])[-1]) for start in starts]
                except Exception:  # something that a skipped layer should have left behind is missing
                    continue
                if all((state - expected).abs().max() <= near for state in resumed):
                    return True
        return False


def loss_sum(model: PreTrainedModel, batch: Mapping[str, Tensor], logits: Tensor) -> float:
    """Cross entropy in nats, summed over all tokens of `batch` (of `unpadded`) that have one before them.

    Raises:
        ValueError: `logits`, ``[batch, tokens, vocabulary]`` from `model`, hold a NaN.
    """
    return _sum_over_tokens(model, cross_entropy, logits[:, :-1], batch["input_ids"][:, 1:])


def _sum_over_tokens(
    model: PreTrainedModel, compare: Callable[[Tensor, Tensor], Tensor], logits: Tensor, references: Tensor
) -> float:
    """A few tokens at a time in float32, the sum in float64."""
    values = [
        compare(some, their_references).cpu().double()
        for row in zip(logits, references.to(logits.device), strict=True)
        for some, their_references in zip(*(each.split(_CHUNK) for each in row), strict=True)
    ]
    require_numbers(model, torch.cat(values))
    return torch.cat(values).sum().item()


def _divergence(logits: Tensor, dense: Tensor) -> Tensor:
    """From the dense model's distribution, ``[tokens, vocabulary] twice -> [tokens]``."""
    return divergence(log_probabilities(dense), log_probabilities(logits))
