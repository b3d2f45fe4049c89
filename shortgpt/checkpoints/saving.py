"""Write a model to disk so that it comes back as the same model: it is read again, and the logits are compared.

Nearly always that is an ordinary transformers checkpoint. A pruned model that no configuration describes is written in a
format of ours, see `own_format`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.card import CARD_FILE, model_card
from shortgpt.checkpoints.own_format import is_own_format, restore
from shortgpt.checkpoints.soundness import enough_layers
from shortgpt.model.adapters import require_no_adapter
from shortgpt.model.anatomy import decoder_layers, removed_so_far, runs_own_code
from shortgpt.model.arguments import check_tokenizer, vocabulary_size
from shortgpt.model.hooks import eval_mode, hooked, require_numbers
from shortgpt.model.offload import accelerate_hooks, device_map_of, input_device, layers_on_disk, require_not_read_from
from shortgpt.model.view import share_weights
from shortgpt.pruning.plan import PLAN_FILE, PruningPlan
from shortgpt.pruning.recipe import RECIPE, write_own_format
from shortgpt.pruning.repair_record import repairs_so_far
from shortgpt.quantization.nf4 import without_repacking
from shortgpt.utils.arguments import check_path, shown
from shortgpt.utils.atomic import written_beside
from shortgpt.utils.quieting import quiet
from shortgpt.utils.untrusted import inside

_CONVERSIONS = "_weight_conversions"  # of a loaded model: how its checkpoint's weights became the module's


def save(
    model: PreTrainedModel,
    path: str | os.PathLike,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    plan: PruningPlan | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> Path:
    """Write `model` to the folder `path` as a checkpoint that plain ``from_pretrained`` reloads; return the folder.

    Everything is written to a folder beside `path` and renamed at the end, so there is never half a checkpoint.

    Args:
        tokenizer, plan: saved along, the plan as ``pruning_plan.json`` and as a model card (``README.md``).
        overwrite: replace an existing folder; otherwise an existing, non-empty one is refused.
        verify: reload what was written, its layers one by one from the disk, and compare its logits with the model's.
            What can't be read like that (quantized models, our own format) needs memory for a second model. Several
            quantization libraries write checkpoints that reload as garbage: keep it on for quantized models.

    Raises:
        FileExistsError: `path` exists and is not empty.
        ValueError: a plan that says something else than what was removed; a model without weights, with NaN in them, or
            with an adapter.
        OSError: the disk is full, or the reloaded checkpoint doesn't give the same logits (nothing is left at `path`).
    """
    require_no_adapter(model, "be saved")
    path = check_path(path)
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    if plan is not None:
        _require_own_plan(model, plan)
    input_device(model)  # refuses a model without weights
    require_not_read_from(model, path)
    with written_beside(path, overwrite=overwrite) as new:
        before = [_logits_to_compare(model)] if verify else []
        write_model(model, new)
        if tokenizer is not None:
            _save_tokenizer(tokenizer, new)
        if plan is not None:
            plan.to_json(new / PLAN_FILE)
            own = is_own_format(new) or model.config.model_type.startswith("shortgpt")  # a type of ours
            card = model_card(plan, repairs=repairs_so_far(model.config), own_format=own)
            (new / CARD_FILE).write_text(card, encoding="utf-8")
        for logits, autocast in before:
            _require_equal_reload(model, logits, autocast, new)
    return path


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """With the SentencePiece file that it came from: transformers 5 leaves that out, and llama.cpp's converter reads it."""
    tokenizer.save_pretrained(folder)
    source = Path(getattr(tokenizer, "vocab_file", None) or "")
    if source.suffix == ".model" and source.is_file():
        shutil.copyfile(inside(source.parent, source.name), folder / source.name)


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Weights and configuration into `folder`: as transformers does it, or in our format if the model has a recipe."""
    require_savable(model.config)
    if any(name.endswith("_orig_mod") for name, _ in model.named_modules()):
        model = share_weights(model)  # layers that went through torch.compile have other names
    recipe = getattr(model, RECIPE, None)
    if recipe is not None:
        return write_own_format(model, recipe, folder)
    # weights on disk pass through memory shard by shard: small shards, a small part of the model at a time
    with one_way_conversions_left_out(model):
        small: dict[str, Any] = {"max_shard_size": "1GB"} if accelerate_hooks(model) else {}
        model.save_pretrained(folder, **small)


def read_model(
    folder: Path, *, dtype: torch.dtype, device_map: Mapping[str, object], trust_remote_code: bool = False
) -> tuple[PreTrainedModel, dict[str, list[str]]]:
    """What `write_model` wrote, and which weights plain transformers found missing or unexpected (by kind; three each)."""
    if is_own_format(folder):
        model: Any = restore(folder, dtype=dtype)
        return model.to(device_map.get("", "cpu")), {}
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    known = trust_remote_code or type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    # Emu 3's text part has no automatic class
    loader: Any = AutoModelForCausalLM if known else getattr(transformers, saved_class(folder))
    options: dict[str, Any] = {
        "device_map": device_map,
        "offload_folder": folder.parent / "offload",
    }  # goes with the temporary folder
    options |= {"output_loading_info": True, "trust_remote_code": trust_remote_code}
    with quiet("accelerate"):  # it tells that layers are on disk
        model, report = loader.from_pretrained(folder, dtype=dtype, **options)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return without_repacking(model).eval(), {
        kind: sorted(map(str, report[kind]))[:3] for kind in kinds if report.get(kind)
    }


def saved_class(folder: str | os.PathLike) -> str:
    """Name of the transformers class of the model saved in `folder`."""
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["architectures"][0]


def logits_on_probe(model: PreTrainedModel) -> torch.Tensor:
    vocabulary = vocabulary_size(model)
    ids = torch.arange(1, 33)[None] * 997 % vocabulary  # [1, 32], spread over the vocabulary
    with torch.inference_mode(), eval_mode(model), torch.compiler.set_stance("force_eager"):
        return model(input_ids=ids.to(input_device(model)), use_cache=False).logits.float().cpu()


def _logits_to_compare(model: PreTrainedModel) -> tuple[torch.Tensor, torch.autocast]:
    """The logits of `model`, and the autocast that they were computed with: Trainer leaves one around ``forward``."""
    device = input_device(model).type
    seen: list[Any] = [torch.get_autocast_dtype(device), False]

    def note(*_: object) -> None:
        seen[:] = [torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)]

    with hooked([model.get_input_embeddings()], note):
        logits = logits_on_probe(model)
    try:
        require_numbers(model, logits)
    except ValueError as error:
        raise ValueError(f"{error}; verify=False saves it as it is") from None
    return logits, torch.autocast(device, *seen)


def _require_own_plan(model: PreTrainedModel, plan: PruningPlan) -> None:
    if not isinstance(plan, PruningPlan):
        raise TypeError(f"plan must be a PruningPlan, got {shown(plan)}")
    removed, depth = removed_so_far(model), len(decoder_layers(model)) + len(removed_so_far(model))
    if sorted(plan.removed) != list(removed) or plan.layers != depth:
        raise ValueError(
            f"the plan removes layers {sorted(plan.removed)} of {plan.layers}, and from this model {list(removed)} of "
            f"{depth} are gone: save it with the plan that made it"
        )


def _require_equal_reload(model: PreTrainedModel, before: torch.Tensor, autocast: torch.autocast, folder: Path) -> None:
    """The dense model's memory is all there may be: layers pass through it one by one, or if that fails, all at once."""
    places = device_map_of(model)
    if getattr(model, "hf_quantizer", None) is None and len(places) == 1 and not is_own_format(folder):
        with contextlib.suppress(OSError):
            return _require_equal(model, before, autocast, folder, layers_on_disk(model, input_device(model)))
    _require_equal(model, before, autocast, folder, places)


def _require_equal(
    model: PreTrainedModel, before: torch.Tensor, autocast: torch.autocast, folder: Path, places: Mapping[str, object]
) -> None:
    try:
        options: dict[str, Any] = {"device_map": places, "trust_remote_code": runs_own_code(model)}
        with enough_layers():
            reloaded, broken = read_model(folder, dtype=model.dtype, **options)
        with autocast:
            after = logits_on_probe(reloaded.eval())
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # quantization libraries stumble over missing weights, each in its own way
        raise OSError(
            f"the saved checkpoint can't be loaded again ({type(error).__name__}: {error}); nothing was written to the "
            "folder you named"
        ) from error
    difference = (after - before).abs().max().item()
    scale = before.abs().max().item()
    # quantization kernels may pack their scales anew on reload (measured: 1e-3 of the scale); plain weights come back equal
    tolerance = 1e-2 if getattr(model, "hf_quantizer", None) is not None else 1e-5
    if broken or not difference <= tolerance * scale:
        raise OSError(
            f"the saved checkpoint does not reload as the same model (largest logit difference {difference:.3g} on a scale "
            f"of {scale:.3g}{', ' + str(broken) if broken else ''}); nothing was written to the folder you named"
        )


def require_savable(config: PreTrainedConfig) -> None:
    """Raise ValueError for a GPTQ model that transformers loaded from version 1 of the format (see `gptq`)."""
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


def _can_be_undone(conversion: Any) -> bool:
    try:
        conversion.reverse_transform()
    except (NotImplementedError, ValueError):
        return False
    return True
