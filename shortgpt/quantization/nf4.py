"""NF4 in 4 bits, by bitsandbytes: every linear layer in blocks of 64 weights, the scales of the blocks quantized in turn.

On CPUs with bfloat16 arithmetic (AVX-512) bitsandbytes 0.50 packs the weights anew in the first forward pass, for a kernel
of its own. That pass rounds the scales, so the model is another one after it is saved (logits moved by a tenth of their
scale); it gives wrong results for inputs that are not contiguous (Mamba, Jamba); and other CPUs give other numbers. So
`without_repacking` turns it off. Plain ``from_pretrained`` doesn't: it loads the same weights, and rounds them when it runs.

That kernel also fails on layers that are no blocks of 64 inputs and 32 outputs, such as the gate of Qwen-MoE's shared expert
(one output). So that a checkpoint runs everywhere, those layers stay as they are if the model is on the CPU.
"""

from __future__ import annotations

import re
import tempfile

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shortgpt.model.anatomy import runs_own_code
from shortgpt.pruning.recipe import write_plain
from shortgpt.utils.quieting import quiet

_INPUTS, _OUTPUTS = 64, 32
_REPACKS = "support_avx512bf16_for_cpu"  # an attribute of bitsandbytes' 4-bit layers


def to_nf4(model: PreTrainedModel) -> PreTrainedModel:
    """`model` in 4 bits, reloaded from a temporary folder; the head stays in the model's dtype.

    Raises:
        ImportError: the extra ``[quant]`` is missing. ValueError: no configuration describes the model.
    """
    with quiet("bitsandbytes"), tempfile.TemporaryDirectory(prefix="shortgpt-nf4-") as folder:
        try:
            import bitsandbytes  # noqa: F401
            from transformers import BitsAndBytesConfig
        except ImportError as error:
            raise ImportError("4-bit weights need bitsandbytes: pip install 'shortgpt-pruning[quant]'") from error
        scheme = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=model.dtype if model.dtype.is_floating_point else torch.float32,
            llm_int8_skip_modules=_left_out(model),  # for 4 bits too, despite its name
        )
        write_plain(model, folder)
        quantized = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=model.dtype,
            quantization_config=scheme,
            device_map={"": model.device},
            trust_remote_code=runs_own_code(model),
        )
    return without_repacking(quantized)


def without_repacking(model: PreTrainedModel) -> PreTrainedModel:
    """`model`, with its 4-bit layers (if there are any) told to leave their weights in the form in which they are stored.

    It writes slower on the CPUs concerned (a quarter of the tokens a second, on two cores), and as fast as on all others.
    """
    for module in model.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)
    return model


def _left_out(model: PreTrainedModel) -> list[str] | None:
    """Patterns for the names of layers that stay, and of the head; None, which transformers takes for the head, if none do.

    The patterns hold no layer numbers: those change when layers are removed.
    """
    if model.device.type != "cpu":
        return None
    head = model.get_output_embeddings()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    uneven = [name for name, module in layers.items() if module is not head and not _fits(module)]
    if not uneven:
        return None
    names = uneven + [name for name, module in layers.items() if module is head]
    return sorted({re.sub(r"\.\d+\.", r".\\d+.", name) for name in names})


def _fits(layer: nn.Linear | Conv1D) -> bool:
    outputs, inputs = layer.weight.shape[::-1] if isinstance(layer, Conv1D) else layer.weight.shape
    return inputs % _INPUTS == 0 and outputs % _OUTPUTS == 0
