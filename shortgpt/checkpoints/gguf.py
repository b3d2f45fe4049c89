"""GGUF files, llama.cpp's format: read into an ordinary model, and written by llama.cpp's own converter."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.gguf_header import number_of_weights
from shortgpt.checkpoints.gguf_layers import require_said, unsaid_kinds
from shortgpt.checkpoints.saving import save
from shortgpt.checkpoints.soundness import require_few_layers
from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.arguments import check_tokenizer, vocabulary_size
from shortgpt.pruning.recipe import RECIPE
from shortgpt.quantization.methods import is_quantized
from shortgpt.utils.arguments import check_path, check_string
from shortgpt.utils.atomic import clear_about_a_full_disk
from shortgpt.utils.untrusted import in_one_sentence, one_line

CONVERTER = "convert_hf_to_gguf.py"
_INSTALLED = (CONVERTER, "llama-convert-hf-to-gguf")  # what packages of llama.cpp put on the PATH


def save_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | os.PathLike,
    *,
    converter: str | os.PathLike | None = None,
    outtype: str = "f16",
    overwrite: bool = False,
    verify: bool = True,
) -> Path:
    """Write `model` and `tokenizer` to the file `path` (``….gguf``) with llama.cpp's converter; return the path.

    What can be written is what the converter knows: nearly every architecture, dense or pruned. It gets a checkpoint in a
    temporary folder beside `path`, which takes the model's size on disk for a moment.

    Args:
        converter: llama.cpp's ``convert_hf_to_gguf.py``, or a checkout of llama.cpp. None: the environment variable
            ``LLAMA_CPP`` (either of them), else the script on the PATH. A script is run by this Python, and needs its
            packages ``sentencepiece`` and ``protobuf``.
        outtype: the converter's name for what the matrices become: ``"f32"``, ``"f16"``, ``"bf16"``, ``"q8_0"``, ``"auto"``
            (the checkpoint's own 16 bits) … For fewer bits run ``llama-quantize`` on the file.
        overwrite: replace an existing file. It is written beside `path` and renamed, so there is never half a file.
        verify: reload the checkpoint that the converter is given and compare logits, as `save` does.

    Raises:
        FileNotFoundError: no converter. FileExistsError: `path` exists.
        ValueError: a quantized model, one with an adapter, one that no configuration describes, one that the converter
            refuses, or a pruned one that llama.cpp would run as another (see `gguf_layers`); a tokenizer of another model.
        OSError: the disk is full, or the checkpoint doesn't reload as the same model.
    """
    require_no_adapter(model, "be written as GGUF")
    check_tokenizer(tokenizer)
    check_string("outtype", outtype)
    path = check_path(path, "a GGUF file").absolute()
    _require_plain(model, tokenizer)
    kinds = unsaid_kinds(model)
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(f"{path} exists already: choose another name, or pass overwrite=True to replace a file")
    command = _converter(converter)
    path.parent.mkdir(parents=True, exist_ok=True)
    with clear_about_a_full_disk(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
        save(model, Path(beside, "checkpoint"), tokenizer=tokenizer, verify=verify)
        # relative names: in a path, the converter would take {…} for fields to fill in
        command += ["checkpoint", "--outfile", "model.gguf", "--outtype", outtype, "--model-name", path.stem]
        run = subprocess.run(command, cwd=beside, capture_output=True, encoding="utf-8", errors="replace")
        if run.returncode:
            raise ValueError(f"llama.cpp's converter stopped: {_last_error(run.stderr)}")
        if kinds is not None:
            require_said(kinds, Path(beside, "model.gguf"))
        os.replace(Path(beside, "model.gguf"), path)
    return path


def _require_plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError for a model of which the converter could make nothing, or another one."""
    rows, reason = vocabulary_size(model), None
    if is_quantized(model):
        reason = "this model is quantized: write the unquantized one, and quantize it with llama-quantize"
    elif getattr(model, RECIPE, None) is not None:
        reason = "no configuration describes this pruned model, so llama.cpp can't run it"
    elif len(tokenizer) > rows:
        reason = f"the tokenizer has {len(tokenizer)} tokens and the model {rows}: use the model's own tokenizer"
    if reason is not None:
        raise ValueError(f"can't write this as GGUF: {reason}")


def _converter(named: str | os.PathLike | None) -> list[str]:
    """The command that runs the converter: the one that was named, or that ``LLAMA_CPP`` names, or one on the PATH."""
    place = check_path(named, "llama.cpp's converter") if named is not None else os.environ.get("LLAMA_CPP")
    if place:
        script = Path(place).expanduser().absolute()
        script = script / CONVERTER if script.is_dir() else script
        if not script.is_file():
            raise FileNotFoundError(f"{script} is not there: name llama.cpp's {CONVERTER}, or a checkout of llama.cpp")
        return [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    found = next(filter(None, map(shutil.which, _INSTALLED)), None)
    if found is None:
        raise FileNotFoundError(
            "llama.cpp's converter is not on this machine: run git clone --depth 1 https://github.com/ggml-org/llama.cpp and "
            "pip install sentencepiece protobuf, then pass converter='llama.cpp', or set LLAMA_CPP to that folder"
        )
    return [found]


def _last_error(log: str) -> str:
    """What the converter said last that looks like a reason, in one line."""
    lines = [line for line in log.splitlines() if line.strip()] or ["it gave no reason"]
    errors = [line for line in lines if re.match(r"ERROR\b|[\w.]*(Error|Exception)\b|.*: error: ", line)]
    return one_line((errors or lines)[-1].removeprefix("ERROR:hf-to-gguf:"), 300)


def read_gguf(
    path: Path, sha256: str | None, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """De-quantize a GGUF file into an ordinary model that can be saved.

    The GGUF loader marks its model as quantized, and `save_pretrained` then refuses: so take its configuration without
    the mark and its weights, and put them into a fresh model.
    """
    require_checksum(path, sha256)
    with in_one_sentence(f"{path.name} is no GGUF file that transformers can read"), _header_parsed_once():
        return _read_gguf(path, dtype)


def require_checksum(path: Path, sha256: str | None) -> None:
    """Raise FileNotFoundError if there is no such file, and ValueError if its checksum isn't the one that was given."""
    if not path.exists():
        raise FileNotFoundError(f"no such GGUF file: {path}")
    actual = sha256_of(path)
    if sha256 != actual:
        asked = "no sha256 was given" if sha256 is None else f"sha256 {sha256!r} was expected"
        raise ValueError(f"{path.name} has SHA-256 {actual}, but {asked}: pass the checksum that its publisher states")


@contextlib.contextmanager
def _header_parsed_once() -> Iterator[None]:
    """transformers has the header parsed for the configuration, the tokenizer and the weights: 10 seconds each time."""
    import gguf

    parse = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(parse)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = parse  # type: ignore[misc]


def _read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict = {"gguf_file": path.name, "trust_remote_code": False}  # whatever lies beside the file
    weights = number_of_weights(path)
    config = AutoConfig.from_pretrained(path.parent, **options)
    require_few_layers(config.to_dict(), path.name)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if sum(parameter.numel() for parameter in empty.parameters()) > 2 * weights:
        raise ValueError(
            f"{path.name} holds {weights:,} weights, and its header describes a larger model: it is damaged"
        )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    tokenizer.clean_up_tokenization_spaces = False  # not for byte-pair tokenizers: it eats spaces before punctuation
    with contextlib.suppress(ImportError):  # transformers < 5.20 always de-quantizes and has no such class
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    packed = AutoModelForCausalLM.from_pretrained(path.parent, config=config, dtype=dtype, **options)
    return _without_mark(packed).eval(), tokenizer


def _without_mark(packed: PreTrainedModel) -> PreTrainedModel:
    """The weights of `packed` in a model that isn't marked as quantized."""
    fields = packed.config.to_dict()
    for field in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version"):
        fields.pop(field, None)
    with torch.device("meta"):
        model = type(packed)(type(packed.config)(**fields))
    model.load_state_dict(packed.state_dict(), assign=True)
    for name, buffer in packed.named_buffers():  # rotary frequencies are not in the state dict
        parent, _, leaf = name.rpartition(".")
        model.get_submodule(parent).register_buffer(leaf, buffer, persistent=False)
    model.tie_weights()
    model.generation_config = packed.generation_config
    return model


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
