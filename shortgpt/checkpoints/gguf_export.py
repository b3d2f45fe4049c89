"""Write a Llama model, pruned or not, as one GGUF file for llama.cpp, with the writer of the package ``gguf``.

Only what can be written without a copy of llama.cpp's converter, and checked here: the architecture ``llama`` with plain
rotary positions, and byte-level BPE tokenizers. For anything else, save the model and run ``convert_hf_to_gguf.py``; to make
the file smaller, run ``llama-quantize`` on it. Both are part of llama.cpp. ``docs/exchange.md`` says what was run there, with
which version, and what came out.

llama.cpp turns pairs of neighbouring numbers of a query or key, transformers turns the first half of a head against the
second: so the rows of these two matrices are put in another order.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.saving import logits_on_probe
from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.arguments import check_tokenizer
from shortgpt.model.offload import accelerate_hooks, input_device
from shortgpt.pruning.recipe import RECIPE
from shortgpt.quantization.methods import is_quantized
from shortgpt.utils.arguments import check_path, check_string
from shortgpt.utils.atomic import clear_about_a_full_disk

TYPES = {torch.float32: gguf.LlamaFileType.ALL_F32, torch.float16: gguf.LlamaFileType.MOSTLY_F16}
_DIGITS = {"type": "Digits", "individual_digits": True}


def save_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.float16,
    pre_tokenizer: str | None = None,
    overwrite: bool = False,
    verify: bool = True,
    progress: bool = True,
) -> Path:
    """Write `model` and `tokenizer` to the file `path` (``….gguf``); return the path.

    Args:
        dtype: ``torch.float16`` or ``torch.float32`` for the matrices; vectors (norms) are always float32.
        pre_tokenizer: llama.cpp's name for how the tokenizer cuts text before it merges bytes, for instance ``"llama-bpe"``.
            None finds out ``"gpt-2"`` and ``"smollm"`` (each digit alone), so llama.cpp sees the same tokens as `tokenizer`.
            The GGUF file of the default model says ``"smollm"``, which transformers doesn't read: pass it to cut as that
            model was trained instead. The two differ rarely: in a number after an empty line, or in digits such as ``½``.
        overwrite: replace an existing file. It is written beside `path` and renamed, so there is never half a file.
        verify: read it back with transformers and compare the logits; needs memory for a second model, in float32.

    Raises:
        ValueError: an architecture, tokenizer or dtype that this can't write; a quantized model; one spread over devices; or
            weights beyond the range of float16. FileExistsError: `path` exists. OSError: what was read back differs, or the
            disk is full.
    """
    require_no_adapter(model, "be written as GGUF")
    check_tokenizer(tokenizer)
    path = check_path(path, "a GGUF file")
    if dtype not in TYPES:
        raise ValueError(f"dtype must be torch.float16 or torch.float32, got {dtype}")
    _require_plain_llama(model)
    if pre_tokenizer is not None:
        check_string("pre_tokenizer", pre_tokenizer)
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(f"{path} exists already: choose another name, or pass overwrite=True to replace a file")
    pre_tokenizer = _cutting(tokenizer, pre_tokenizer)
    tensors = _tensors(model, dtype)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {rows}: use the model's own tokenizer"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with clear_about_a_full_disk(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
        new = Path(beside, "model.gguf")
        writer = gguf.GGUFWriter(new, "llama")
        try:
            _describe(writer, model, path.stem, dtype)
            _add_vocabulary(writer, model, tokenizer, rows, pre_tokenizer)
            for name, weight, kind, _ in tensors:
                writer.add_tensor_info(name, weight.shape, np.dtype(kind), weight.numel() * np.dtype(kind).itemsize)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, weight, kind, heads in tqdm(tensors, desc="writing GGUF", unit="tensor", disable=not progress):
                writer.write_tensor_data(_array(name, weight, kind, heads))
        finally:
            writer.close()
        if verify:
            _require_equal(model, new, dtype)
        os.replace(new, path)
    return path


def _require_plain_llama(model: PreTrainedModel) -> None:
    input_device(model)  # refuses a model without weights
    reason = None
    if type(model).__name__ != "LlamaForCausalLM":
        reason = f"only LlamaForCausalLM can be written, and this is a {type(model).__name__}"
    elif is_quantized(model):
        reason = "this model is quantized: write the unquantized one, and quantize it with llama-quantize"
    elif getattr(model, RECIPE, None) is not None:
        reason = "no configuration describes this pruned model, so llama.cpp can't run it"
    elif accelerate_hooks(model):
        reason = "this model is spread over several devices: load it without device_map and max_memory"
    elif model.config.rope_parameters.get("rope_type", "default") != "default":
        reason = (
            f"its rotary positions are scaled ({model.config.rope_parameters['rope_type']}): save it and convert that"
        )
    elif model.config.attention_bias or model.config.mlp_bias or model.config.hidden_act != "silu":
        reason = "it has biases or another activation than Llama's: save it and convert that with convert_hf_to_gguf.py"
    if reason is not None:
        raise ValueError(f"can't write this as GGUF: {reason}")


def _cutting(tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> str:
    """`name`, or llama.cpp's name for how `tokenizer` cuts text; it must be a kind that can be written."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    cut = parts.get("pre_tokenizer") or {}
    steps = cut.get("pretokenizers", [cut])
    merging = parts.get("model", {})
    plain = steps[-1].get("type") == "ByteLevel" and steps[-1].get("use_regex") and not steps[-1]["add_prefix_space"]
    plain = plain and not merging.get("ignore_merges")  # llama.cpp goes by the name: "gpt-2" and "smollm" always merge
    if merging.get("type") != "BPE" or steps[-1].get("type") != "ByteLevel" or parts.get("normalizer"):
        raise ValueError(
            "can't write this tokenizer as GGUF: only byte-level BPE without a normalizer can be; save the model and convert "
            "that with llama.cpp's convert_hf_to_gguf.py"
        )
    if name is not None or (plain and steps[:-1] in ([], [_DIGITS])):
        return name or ("smollm" if steps[:-1] else "gpt-2")
    raise ValueError(
        "this tokenizer cuts text in a way that isn't known here: pass pre_tokenizer= with llama.cpp's name for it, for "
        "instance 'llama-bpe'"
    )


def _tensors(model: PreTrainedModel, dtype: torch.dtype) -> list[tuple[str, torch.Tensor, str, int]]:
    """Of each weight, once if tied: its name in GGUF, itself, its NumPy dtype there, and of query and key the heads."""
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return [
        (
            names.get_name(name.removesuffix(".weight")) + ".weight",
            weight.detach(),
            "float32" if weight.ndim == 1 or dtype == torch.float32 else "float16",
            heads.get(name.split(".")[-2], 0),
        )
        for name, weight in model.named_parameters()
    ]


def _array(name: str, weight: torch.Tensor, kind: str, heads: int) -> np.ndarray:
    if heads:  # [heads, 2, half, inputs] -> [heads, half, 2, inputs]
        weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    array = weight.float().cpu().contiguous().numpy()
    if kind == "float16" and np.abs(array).max() > np.finfo(np.float16).max:
        raise ValueError(f"{name} has weights beyond the range of float16: pass dtype=torch.float32")
    return array.astype(kind, copy=False)


def _describe(writer: gguf.GGUFWriter, model: PreTrainedModel, name: str, dtype: torch.dtype) -> None:
    config = model.config
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_file_type(TYPES[dtype])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    for add_length in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add_length(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_vocabulary(
    writer: gguf.GGUFWriter, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int, pre_tokenizer: str
) -> None:
    kinds, words = gguf.TokenType, {i: token for token, i in tokenizer.get_vocab().items()}
    added = {i: kinds.CONTROL if t.special else kinds.USER_DEFINED for i, t in tokenizer.added_tokens_decoder.items()}
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list([words.get(i, f"[PAD{i}]") for i in range(rows)])
    writer.add_token_types([added.get(i, kinds.NORMAL if i in words else kinds.UNUSED) for i in range(rows)])
    with tempfile.TemporaryDirectory(prefix="shortgpt-gguf-") as folder:
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)  # it may know the special tokens that the tokenizer doesn't
        special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=rows)
    ids = tokenizer("a")["input_ids"]  # say both: what the file leaves open, llama.cpp concludes from `pre_tokenizer`
    for name, outer in (("bos", ids[:1]), ("eos", ids[-1:])):
        special.add_special_token[name] = outer == [special.special_token_ids.get(name)]
    special.add_to_gguf(writer, quiet=True)


def _require_equal(model: PreTrainedModel, file: Path, dtype: torch.dtype) -> None:
    options: dict = {"gguf_file": file.name, "dtype": torch.float32, "trust_remote_code": False}
    with contextlib.suppress(ImportError):  # transformers < 5.20 always reads plain weights and has no such class
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    before = logits_on_probe(model)
    after = logits_on_probe(AutoModelForCausalLM.from_pretrained(file.parent, **options).eval())
    difference, scale = (after - before).abs().max().item(), before.abs().max().item()
    half = torch.float16 in (dtype, model.dtype) or model.dtype == torch.bfloat16  # either may compute or store in half
    if after.shape != before.shape or not difference <= (3e-2 if half else 1e-4) * scale:
        raise OSError(
            f"the GGUF file does not read back as the same model (largest logit difference {difference:.3g} on a scale of "
            f"{scale:.3g}); nothing was written"
        )
