"""GPTQ in 4 bits (Frantar et al., arXiv 2210.17323), the quantization of the paper's tables 4 and 5.

Each linear layer is rounded column by column, and the columns that are still to come are changed so that its outputs on
calibration text stay what they were. The work is done by gptqmodel, with optimum, by which transformers loads the result:
``pip install gptqmodel==7.6.0 optimum==2.3.0``. That builds with a C compiler and moves numpy to 2.2.6, and the library
changes transformers when it is imported. So it is imported here and nowhere else, when it is asked for.

Several of its traps are stepped around (each was seen with gptqmodel 7.6.0 and transformers 5.23):

* On machines with two processors it doesn't start unless ``GPTQMODEL_CPU_WORKERS`` is set.
* On loading, zero points are changed to version 2 of the format, and the configuration goes on to say version 1: what is
  saved then comes back as garbage. Here the configuration is told the truth, so saving is right, also after pruning.
* Most of its kernels repack the weights, in ways that can't be saved again. The one named ``"torch"`` doesn't, and runs on
  the CPU and on every GPU; the checkpoint names it, so a reloaded model can be pruned and saved too. For a faster one,
  load with ``quantization_config=GPTQConfig(bits=4, backend="auto")`` (and don't save from there).
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from shortgpt.model.anatomy import decoder_layers, runs_own_code
from shortgpt.model.arguments import NO_TOKENS
from shortgpt.model.hooks import unpadded
from shortgpt.model.offload import accelerate_hooks
from shortgpt.pruning.recipe import write_plain

INSTALL = "GPTQ needs gptqmodel and optimum: pip install gptqmodel==7.6.0 optimum==2.3.0"


def to_gptq(
    model: PreTrainedModel, group_size: int, batches: Iterable[Mapping[str, Tensor]], *, progress: bool = True
) -> PreTrainedModel:
    """`model` in 4 bits, calibrated on `batches` (see `quantization.quantize`, which checks the arguments).

    About half a second a linear layer on one CPU core, two minutes for 135 million parameters.

    Raises:
        ImportError: the libraries are missing. ValueError: no real token, or a model spread over several devices.
    """
    samples = [
        {"input_ids": row.tolist(), "attention_mask": [1] * len(row)}
        for batch in unpadded(model, batches)
        for row in batch["input_ids"]
    ]
    if not samples:
        raise ValueError(NO_TOKENS)
    if accelerate_hooks(model):
        raise ValueError("GPTQ needs the model on one device: load it without device_map and max_memory")
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    bar = tqdm(total=len(decoder_layers(model)), desc="GPTQ", unit="layer", disable=not progress)
    temporary = tempfile.TemporaryDirectory(prefix="shortgpt-gptq-", ignore_cleanup_errors=True)
    with bar, _quiet(), temporary as folder:
        quantized = _through(model, samples, group_size, Path(folder), bar)
    quantized.config.quantization_config.format = "gptq_v2"  # what the zero points in memory are now
    quantized.generation_config = copy.deepcopy(model.generation_config)
    return quantized


def _through(
    model: PreTrainedModel, samples: list[dict[str, list[int]]], group_size: int, folder: Path, bar: tqdm
) -> PreTrainedModel:
    """`model` through two checkpoints in `folder`: a plain one, and what gptqmodel makes of it."""
    try:
        import optimum.gptq  # noqa: F401
        from gptqmodel import GPTQModel, QuantizeConfig
        from gptqmodel.looper import loop_processor
        from transformers import GPTQConfig
    except ImportError as error:
        raise ImportError(INSTALL) from error
    dense, packed, trust = str(folder / "dense"), str(folder / "packed"), {"trust_remote_code": runs_own_code(model)}
    loop_processor._PROJECT_LOG_DIR = folder / "logs"  # otherwise a folder where we stand
    write_plain(model, dense)
    _any_tokenizer().save_pretrained(dense)
    # pack_impl: the other ways compile C++ on first use
    scheme = QuantizeConfig(bits=4, group_size=group_size, pack_impl="original", offload_to_disk=False)
    work = GPTQModel.load(dense, scheme, device=str(model.device), dtype=model.dtype, **trust)
    work.layer_callback = lambda layer_idx, submodule_finalized: bar.update(layer_idx + 1 - bar.n)
    work.quantize(samples, batch_size=1, calibration_data_min_length=1)
    work.save(packed)
    del work
    scheme = GPTQConfig(bits=4, backend="torch")
    options = {"dtype": model.dtype, "device_map": {"": model.device}, "quantization_config": scheme, **trust}
    return AutoModelForCausalLM.from_pretrained(packed, **options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """gptqmodel prints screens of tables and bars."""
    out = contextlib.redirect_stdout(io.StringIO())
    with out, contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _any_tokenizer() -> PreTrainedTokenizerFast:
    """gptqmodel loads a tokenizer from the folder; it is given token ids and doesn't use it."""
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<pad>", pad_token="<pad>", eos_token="<pad>")
