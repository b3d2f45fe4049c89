"""What must be seen to when a model that transformers loaded is saved again, quantized or with code of its own (seen with
transformers 5.23).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transformers import PreTrainedConfig, PreTrainedModel

_CONVERSIONS = "_weight_conversions"  # of a loaded model: how its checkpoint's weights became the module's


def require_savable(config: PreTrainedConfig) -> None:
    """Raise ValueError for a GPTQ model that transformers loaded from version 1 of the format (see `quantization_gptq`)."""
    settings = getattr(config, "quantization_config", None) or {}
    settings = settings if isinstance(settings, dict) else vars(settings)
    if settings.get("quant_method") == "gptq" and settings.get("format", "gptq") == "gptq":
        raise ValueError(
            "transformers changed the zero points of this GPTQ model when it loaded it, and would save them as what they "
            "were, which reloads as garbage: remove layers from the files with prune_checkpoint, or prune the unquantized "
            "model and quantize that"
        )


@contextlib.contextmanager
def one_way_conversions_left_out(model: PreTrainedModel) -> Iterator[None]:
    """While open, saving `model` doesn't try to undo what loading did to quantized weights.

    transformers would undo it step by step, and has no way back for those of torchao and bitsandbytes: it raises an error
    without a message. None is needed: both write their weights in the form in which they are read.
    """
    conversions = getattr(model, _CONVERSIONS, None)
    if getattr(model, "hf_quantizer", None) is None or not conversions:
        yield
        return
    setattr(model, _CONVERSIONS, [conversion for conversion in conversions if _can_be_undone(conversion)])
    try:
        yield
    finally:
        setattr(model, _CONVERSIONS, conversions)


def _can_be_undone(conversion: object) -> bool:
    try:
        conversion.reverse_transform()
    except (NotImplementedError, ValueError):
        return False
    return True
