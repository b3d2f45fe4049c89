"""Store the weights of the linear layers in 8 or 4 bits, before or after layers are removed.

The work is done by libraries that were measured to reload correctly. All methods but the last need the extra ``[quant]``:

* ``"int8"`` (what 8 bits mean): torchao, one scale per output channel. Nearly free in quality; exact after a reload.
* ``"nf4"`` (what 4 bits mean): bitsandbytes NF4 with double quantization, blocks of 64 weights. Without double
  quantization some CPUs write checkpoints that reload as garbage, so there is no option for that.
* ``"rtn"``, 8 or 4 bits: torchao, each weight rounded to the nearest multiple of its group's scale; the plain method
  that others are compared with. The 4-bit values are stored one a byte: the *quality* is that of 4 bits, the size is
  not (it is what 8 bits take).
* ``"gptq"``, 4 bits: the paper's method (tables 4 and 5), see `gptq`. It needs calibration text, and a
  library of its own. The grid is that of ``"rtn"``, symmetric per group; the rounding makes up for errors already made.

Embeddings and the (often tied) language-model head stay in the model's dtype; on small models that is much of the size.
So do weights outside linear layers. In transformers 5 those are most of a mixture of experts, whose experts are one tensor:
`quantize` warns of it. GPT-2's layers (`Conv1D`) are linear to ``"nf4"`` alone.
Save with `save`, which reloads and compares: for quantized models that check has caught real faults.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import decoder_layers, forget_checkpoint, model_name
from shortgpt.model.arguments import check_batches
from shortgpt.model.offload import input_device, require_in_memory
from shortgpt.model.view import share_weights
from shortgpt.quantization.gptq import to_gptq
from shortgpt.quantization.nf4 import to_nf4
from shortgpt.utils.arguments import check_choice, check_count, shown

METHODS = {"int8": (8,), "nf4": (4,), "rtn": (8, 4), "gptq": (4,)}  # name -> bits
DEFAULTS = {8: "int8", 4: "nf4"}
GROUP_SIZES = (128, 64, 32)


def quantize(
    model: PreTrainedModel,
    bits: int = 8,
    *,
    method: str | None = None,
    group_size: int | None = None,
    calibration: Iterable[Mapping[str, Tensor]] | None = None,
    progress: bool = True,
) -> PreTrainedModel:
    """Return a quantized model; the input is unchanged.

    Args:
        model: a dense or pruned model in float32, bfloat16 or float16, on the CPU or a CUDA GPU. To quantize first and
            prune afterwards, give the result to `remove_layers`.
        bits: 8 or 4.
        method: ``"int8"``, ``"nf4"``, ``"rtn"`` or ``"gptq"``, see above; None is ``"int8"`` for 8 bits, ``"nf4"`` for 4.
        group_size: for ``"rtn"`` and ``"gptq"``: how many weights of a row share a scale. It must divide the number of
            inputs of each linear layer; None is the largest of 128, 64 and 32 that does.
        calibration: for ``"gptq"``: batches as `calibration_batches` gives them, not text that is measured afterwards.
        progress: for ``"gptq"``: show a bar. The others take seconds.

    With ``"int8"`` and ``"rtn"`` the unquantized weights (embeddings, norms) are shared with the input. With the others the
    model passes through a temporary folder, which takes its size on disk for a moment.

    Warns:
        UserWarning: more than half of the decoder layers' weights stay as they are, in no linear layer that the method takes.

    Raises:
        ValueError: another number of bits, an unknown method or one without these bits, an argument that the method
            doesn't have, a group size that doesn't fit, a model that is quantized already or holds an adapter, or one without
            linear layers or with such that the method can't run.
        ImportError: the library is missing; the message has the install line.
    """
    require_no_adapter(model, "be quantized")
    method = _method(bits, method, group_size, calibration)
    require_in_memory(model)
    if is_quantized(model):
        raise ValueError("this model is quantized already: quantize the original, or only remove layers from this one")
    if method == "nf4":
        quantized = to_nf4(model)
    elif method == "gptq":
        check_batches(calibration)
        assert calibration is not None  # as check_batches found
        quantized = to_gptq(model, fitting_group_size(model, group_size), calibration, progress=progress)
    else:
        quantized = _by_torchao(model, _scheme(model, bits, method, group_size))
    forget_checkpoint(quantized, model_name(model))  # two methods load it from a temporary folder
    _tell_what_is_left(model, quantized, method)
    return quantized.eval()


def _method(bits: int, method: str | None, group_size: int | None, calibration: object) -> str:
    """The method that is meant, if it has these bits and takes these arguments."""
    if not isinstance(bits, int | float) or bits not in DEFAULTS:
        raise ValueError(f"bits must be 8 or 4, got {shown(bits)}")
    method = DEFAULTS[bits] if method is None else method
    check_choice("method", method, METHODS)
    if bits not in METHODS[method]:
        raise ValueError(f"method {method!r} has {METHODS[method][0]} bits, got bits={bits}: pass the bits that it has")
    if method == "gptq" and calibration is None:
        raise ValueError("method 'gptq' needs text: pass calibration=calibration_batches(tokenizer)")
    if method != "gptq" and calibration is not None:
        raise ValueError(f"method {method!r} uses no calibration text: leave calibration out, or choose method='gptq'")
    if group_size is not None and method not in ("rtn", "gptq"):
        raise ValueError(f"method {method!r} has groups of its own: leave group_size out, or choose 'rtn' or 'gptq'")
    return method


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether transformers or `quantize` marked this model as quantized."""
    return getattr(model, "hf_quantizer", None) is not None or hasattr(model.config, "quantization_config")


def fitting_group_size(model: PreTrainedModel, wanted: int | None = None) -> int:
    """`wanted`, if it divides the inputs of each linear layer; for None the largest of `GROUP_SIZES` that does.

    Raises:
        ValueError: none does (the message names a layer), or there are no linear layers to quantize.
    """
    sizes = GROUP_SIZES if wanted is None else (check_count("group_size", wanted),)
    linears = _require_linears(model)
    for size in sizes:
        misfits = [(name, linear) for name, linear in linears.items() if linear.in_features % size]
        if not misfits:
            return size
    name, linear = misfits[0]
    raise ValueError(
        f"groups of {size} weights don't fit {name}, which has {linear.in_features} inputs: "
        + ("pass a group_size that divides them" if wanted is None else "choose another group_size, or leave it out")
    )


def _linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers that are quantized: all but the head. (Quantizing a tied head would untie it: a larger model.)"""
    head = model.get_output_embeddings()
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}


def _require_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    if not (linears := _linears(model)):
        raise ValueError(
            f"{type(model).__name__} keeps its weights in other modules than linear layers, so nothing would be quantized: "
            "use bits=4, method='nf4'"
        )
    return linears


def _tell_what_is_left(model: PreTrainedModel, quantized: PreTrainedModel, method: str) -> None:
    """Warn if it is most, raise if it is all. Counted in the result: libraries differ in what they call a linear layer."""
    try:
        before, after = decoder_layers(model), decoder_layers(quantized)
    except ValueError:  # no decoder-only model: quantized all the same
        return
    left = [weight for weight in after.parameters() if type(weight) is nn.Parameter and weight.is_floating_point()]
    share = sum(weight.numel() for weight in left) / sum(weight.numel() for weight in before.parameters())
    if share == 1:
        raise ValueError(
            f"nothing in the decoder layers of this {type(model).__name__} is a linear layer that {method!r} takes: leave "
            "the model as it is, or try another method"
        )
    if share > 0.5:
        warnings.warn(
            f"{method!r} left {share:.0%} of the weights in the decoder layers of this {type(model).__name__} as they were: "
            "they are in no linear layer that it takes (a mixture of experts keeps all its experts in one tensor)",
            stacklevel=3,
        )


def _scheme(model: PreTrainedModel, bits: int, method: str, group_size: int | None) -> object:
    """torchao's configuration of ``"int8"`` or ``"rtn"``."""
    if method == "int8":
        _require_linears(model)
    else:
        group_size = fitting_group_size(model, group_size)
    try:
        from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
    except ImportError as error:
        raise ImportError(f"{method!r} needs torchao: pip install 'shortgpt-pruning[quant]'") from error
    if method == "int8":
        return Int8WeightOnlyConfig()
    dtype = torch.int8 if bits == 8 else torch.int4  # type: ignore[attr-defined]
    return IntxWeightOnlyConfig(weight_dtype=dtype, granularity=PerGroup(group_size))


def _by_torchao(model: PreTrainedModel, scheme: object) -> PreTrainedModel:
    from torchao.quantization import quantize_
    from transformers import TorchAoConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    quantized = share_weights(model)  # torchao replaces weights in place: let it do so in a view
    chosen = set(_linears(quantized).values())
    quantize_(quantized, scheme, filter_fn=lambda module, name: module in chosen)
    quantized.config.quantization_config = TorchAoConfig(scheme)
    quantizer: Any = AutoHfQuantizer.from_config(quantized.config.quantization_config)
    quantizer.pre_quantized = True
    quantized.hf_quantizer = quantizer  # so that it can be saved
    _require_running(quantized)
    return quantized


@torch.no_grad()
def _require_running(quantized: PreTrainedModel) -> None:
    """Some models multiply by a linear layer's weight without calling the layer (Mamba, Falcon): torchao can't follow."""
    try:
        quantized(input_ids=torch.zeros(1, 2, dtype=torch.long, device=input_device(quantized)))
    except NotImplementedError as error:
        raise ValueError(
            f"{type(quantized).__name__} uses the weights of some linear layers in a way that torchao's quantized weights "
            "don't have: try bits=4, method='nf4'"
        ) from error
