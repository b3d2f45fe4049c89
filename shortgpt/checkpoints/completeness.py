"""Did a checkpoint hold the model that its configuration describes? transformers would fill gaps with random numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging
from transformers.utils.logging import is_progress_bar_enabled

from shortgpt.utils.untrusted import in_one_sentence


def matched(folder: str | os.PathLike, *, quantized: bool = False) -> tuple[PreTrainedModel, Mapping[str, Collection]]:
    """An empty model of the checkpoint in `folder`, and how its files fit it, for `require_whole`; no weights are read.

    Quantization libraries can't load without the data. With `quantized` the packed matrices are passed over: the report is
    about the vectors (norms, biases), which no method packs.
    """
    config, showed_bars = AutoConfig.from_pretrained(folder, trust_remote_code=False), is_progress_bar_enabled()
    for part in (config, config.get_text_config()) if quantized else ():
        part.__dict__.pop("quantization_config", None)
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report is a table; ours is one sentence
    try:
        with in_one_sentence(f"the weights in {folder} can't be loaded"), enough_layers():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to be told about them
                trust_remote_code=False,
            )
    finally:
        logging.set_verbosity(verbosity)
        if showed_bars:
            logging.enable_progress_bar()
    if quantized:
        vectors = {name for name, weight in model.named_parameters() if weight.ndim == 1}
        report = report | {"missing_keys": vectors & {*report["missing_keys"]}, "mismatched_keys": ()}
    return model, report


def require_whole(name: str | os.PathLike, model: PreTrainedModel, report: Mapping[str, Collection]) -> None:
    """Raise ValueError if files lacked a weight of `model`, or held one of another shape, or layers beyond its last.

    Args:
        name: of the checkpoint.
        report: ``output_loading_info`` of a ``from_pretrained`` with ``ignore_mismatched_sizes=True``.
    """
    kind, unexpected = type(model).__name__, sorted(map(str, report["unexpected_keys"]))
    missing, shapes = sorted(map(str, report["missing_keys"])), sorted(report["mismatched_keys"], key=str)
    if missing:
        before = next((n.removesuffix(m) for m in missing[:3] for n in unexpected if n.endswith("." + m)), None)
        why = "the checkpoint is incomplete, or of another architecture than its config.json says"
        if before is not None:
            why = (
                f"its names begin with {before!r}, which a wrapper such as DataParallel or torch.compile put there; take it "
                "off with safetensors' load_file and save_file"
            )
        raise ValueError(f"{name} lacks weights that {kind} needs ({_some(missing)}): {why}")
    if shapes:
        weight, there, wanted = shapes[0]
        raise ValueError(
            f"{name} holds {weight} of shape {list(there)}, and config.json describes one of {list(wanted)}: is this the "
            "configuration of these weights?"
        )
    beyond = [weight for weight in unexpected if _is_beyond(model, weight)]
    if beyond:
        raise ValueError(
            f"{name} holds weights of more layers than its config.json says ({_some(beyond)}): is this the configuration of "
            "these weights?"
        )


@contextmanager
def enough_layers() -> Iterator[None]:
    """While transformers builds a pruned model: say clearly that it can't with so few layers."""
    try:
        yield
    except ZeroDivisionError as error:
        raise OSError(
            "transformers divides by zero when it builds this architecture with so few layers (RWKV: by the number of layers "
            "less one): keep more"
        ) from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)


def _is_beyond(model: PreTrainedModel, weight: str) -> bool:
    """Whether `weight` is of a layer behind the last of a list of layers, and not one for multi-token prediction."""
    extra = getattr(model.config.get_text_config(), "num_nextn_predict_layers", None) or 0
    for number in re.finditer(r"\.(\d+)\.", weight):
        for path in (weight[: number.start()], f"{model.base_model_prefix}.{weight[: number.start()]}"):
            try:
                layers = model.get_submodule(path)
            except AttributeError:
                continue
            if isinstance(layers, nn.ModuleList) and int(number[1]) >= len(layers) + extra:
                return True
    return False
