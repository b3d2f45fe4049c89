"""Where scores, and choices without scores, come from: which model, without which layers, and what it read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from shortgpt.model.anatomy import decoder_layers, model_name, removed_so_far, surviving, text_config
from shortgpt.model.arguments import NO_TOKENS
from shortgpt.model.hooks import unpadded
from shortgpt.model.text import sample_digests

Calibration = dict[str, int | str | bool]


@dataclass(frozen=True)
class Provenance:
    """What a plan says about its origin; enough to choose layers by a rule that reads no scores, or by hand.

    Attributes:
        layers: how many layers the model has, as it is now.
        removed: original indices of layers that had been removed before (empty for a dense model).
        model: name under which the model was loaded, with ``@commit`` if it came from the Hub.
        calibration: what was read, as `calibration_record` gives it; empty if nothing was.
    """

    layers: int
    removed: tuple[int, ...] = ()
    model: str = ""
    calibration: Calibration = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]] | None = None) -> Provenance:
        """That of `model`, and of `batches` if there are any. Raises ValueError if they hold no token."""
        depth = len(decoder_layers(model))
        read = [] if batches is None else list(unpadded(model, batches))
        if batches is not None and not read:
            raise ValueError(NO_TOKENS)
        counts = np.array([len(sample) for batch in read for sample in batch["input_ids"]])
        digests = [digest for batch in read for digest in sample_digests(batch)]
        bos = all(begins_with_bos(model, batch) for batch in read)
        calibration = calibration_record(counts, digests, bos) if read else {}
        return cls(depth, removed_so_far(model), model_name(model), calibration)

    @property
    def original_layers(self) -> list[int]:
        """The index that each layer has in the dense model."""
        return surviving(self.layers, self.removed)


def calibration_record(counts: np.ndarray, digests: Sequence[bytes], bos: bool) -> Calibration:
    """``tokens, samples``, the fingerprint ``sha256`` of all samples in order, and whether each began with BOS (``bos``)."""
    sha256 = hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""
    return {"tokens": int(counts.sum()), "samples": len(counts), "sha256": sha256, "bos": bos}


def begins_with_bos(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> bool:
    """Whether every sample of `batch`, one of `unpadded`, has the model's begin token in front."""
    bos = text_config(model.config).bos_token_id
    return bos is not None and bool((batch["input_ids"][:, 0] == bos).all())
