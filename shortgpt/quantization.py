"""Store the weights of the linear layers in 8 or 4 bits, before or after layers are removed.

The work is done by two libraries that were measured to reload correctly (they are the extra ``[quant]``):

* 8 bits: torchao, one scale per output channel, weights only. Nearly free in quality; exact after a reload.
* 4 bits: bitsandbytes NF4 with double quantization, blocks of 64 weights. No calibration text needed. Without double
  quantization some CPUs write checkpoints that reload as garbage, so there is no option for that.

Embeddings and the (often tied) language-model head stay in the model's dtype; on small models that is much of the size.
Save with `pruning.save`, which reloads and compares: for quantized models that check has caught real faults.
"""

from __future__ import annotations

import logging
import tempfile

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from shortgpt.arguments import check_model, shown
from shortgpt.placement import input_device
from shortgpt.pruning import share_weights

METHODS = {8: "torchao int8 weight-only", 4: "bitsandbytes NF4, double quantization"}


def quantize(model: PreTrainedModel, bits: int = 8) -> PreTrainedModel:
    """Return a quantized model; the input is unchanged.

    Args:
        model: a dense or pruned model in float32, bfloat16 or float16, on the CPU or a CUDA GPU. To quantize first and
            prune afterwards, give the result to `remove_layers`.
        bits: 8 or 4 (see `METHODS`).

    With 8 bits the unquantized weights (embeddings, norms) are shared with the input. With 4 bits the model passes
    through a temporary folder, which takes its size on disk for a moment.

    Raises:
        ValueError: another number of bits, or a model that is quantized already.
        ImportError: the library is missing; the message has the install line.
    """
    check_model(model)
    if not isinstance(bits, int | float) or bits not in METHODS:
        raise ValueError(f"bits must be 8 or 4, got {shown(bits)}")
    input_device(model)  # refuses a model without weights
    if is_quantized(model):
        raise ValueError("this model is quantized already: quantize the original, or only remove layers from this one")
    quantized = _to_int8(model) if bits == 8 else _to_nf4(model)
    return quantized.eval()


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether transformers or `quantize` marked this model as quantized."""
    return getattr(model, "hf_quantizer", None) is not None or hasattr(model.config, "quantization_config")


def _to_int8(model: PreTrainedModel) -> PreTrainedModel:
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
        from transformers import TorchAoConfig
        from transformers.quantizers.auto import AutoHfQuantizer
    except ImportError as error:
        raise ImportError("8-bit weights need torchao: pip install 'shortgpt-pruning[quant]'") from error
    quantized = share_weights(model)  # torchao replaces weights in place: let it do so in a view
    head = quantized.get_output_embeddings()
    scheme = Int8WeightOnlyConfig()
    # quantizing a tied head would untie it and make the model larger
    quantize_(quantized, scheme, filter_fn=lambda module, name: isinstance(module, nn.Linear) and module is not head)
    quantized.config.quantization_config = TorchAoConfig(scheme)
    quantized.hf_quantizer = AutoHfQuantizer.from_config(
        quantized.config.quantization_config
    )  # so that it can be saved
    quantized.hf_quantizer.pre_quantized = True
    return quantized


def _to_nf4(model: PreTrainedModel) -> PreTrainedModel:
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise ImportError("4-bit weights need bitsandbytes: pip install 'shortgpt-pruning[quant]'") from error
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line per layer call otherwise
    scheme = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=model.dtype if model.dtype.is_floating_point else torch.float32,
    )
    with tempfile.TemporaryDirectory(prefix="shortgpt-nf4-") as folder:
        model.save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=model.dtype, quantization_config=scheme, device_map={"": model.device}
        )
