"""Remove decoder layers from a model, and save the result as an ordinary checkpoint.

Removing is cheap: the pruned model is a *view*, a new tree of modules over the very same weights. So a plan can be
tried and thrown away, and the original model is never touched.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.choose import PruningPlan, check_indices
from shortgpt.layers import (
    REMOVED_FIELD,
    decoder_layers,
    decoder_layers_path,
    keep_in_config,
    removed_so_far,
    renumber,
)
from shortgpt.placement import (
    accelerate_hooks,
    device_map_of,
    forget_replaced_movers,
    input_device,
    keep_in_device_map,
)

PLAN_FILE = "pruning_plan.json"


def remove_layers(model: PreTrainedModel, layers: Sequence[int] | PruningPlan) -> PreTrainedModel:
    """Return `model` without some decoder layers: a new model that shares all weights with it.

    Args:
        layers: 0-based indices in `model` as it is now; or a plan, whose indices are those of the dense model, so that
            a plan fits a model that part of the plan has been applied to already.

    The input is unchanged. The result computes what `model` would compute if those layers passed their input on
    unchanged. Its configuration records the original indices of all removed layers (`removed_so_far`). Because weights
    are shared, training one model trains the other: `copy.deepcopy` the result first if you don't want that.

    Raises:
        ValueError: an unknown or repeated index, no layer left, or a plan made for another model.
    """
    already = removed_so_far(model)
    original = [i for i in range(len(decoder_layers(model)) + len(already)) if i not in already]
    if isinstance(layers, PruningPlan):
        if layers.layers != len(original) + len(already) or not set(already) <= set(layers.removed):
            raise ValueError(
                f"this plan is for a dense model of {layers.layers} layers without {sorted(layers.removed)}; the model at "
                f"hand comes from one of {len(original) + len(already)} layers and already lacks {list(already) or 'none'}"
            )
        layers = [original.index(i) for i in layers.removed if i not in already]
    check_indices(layers, len(original))
    kept = [i for i in range(len(original)) if i not in set(layers)]

    pruned = share_weights(model)
    path = decoder_layers_path(pruned)
    parent, _, name = path.rpartition(".")
    survivors = nn.ModuleList(decoder_layers(pruned)[i] for i in kept)
    renumber(survivors)
    setattr(pruned.get_submodule(parent), name, survivors)
    keep_in_device_map(pruned, path, kept)
    keep_in_config(pruned.config, kept)
    setattr(
        pruned.config, REMOVED_FIELD, sorted(set(range(len(original) + len(already))) - {original[i] for i in kept})
    )
    return pruned


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree and configuration whose parameters and buffers are the model's own tensors."""
    # accelerate's hooks hold weights too, or know by their old names where these are on disk
    shared = {id(it): it for it in (*model.parameters(), *model.buffers(), *accelerate_hooks(model))}
    copied = copy.deepcopy(model, shared)  # the memo tells deepcopy that these are copied already
    forget_replaced_movers(copied)
    return copied


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
        tokenizer, plan: saved along, the plan as ``pruning_plan.json``.
        overwrite: replace an existing folder; otherwise an existing, non-empty one is refused.
        verify: reload what was written and compare its logits with the model's; needs memory for a second model.
            Several quantization libraries write checkpoints that reload as garbage: keep it on for quantized models.

    Raises:
        FileExistsError: `path` exists and is not empty.
        OSError: the disk is full, or the reloaded checkpoint doesn't give the same logits (nothing is left at `path`).
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: name a folder to save the model in")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileExistsError(f"{path} is not empty: choose another folder, or pass overwrite=True to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-", ignore_cleanup_errors=True) as beside:
        new = Path(beside) / "model"
        with _disk_full_is_one_sentence(path):
            before = _logits_on_probe(model) if verify else None
            # weights on disk pass through memory shard by shard: small shards, a small part of the model at a time
            model.save_pretrained(new, **({"max_shard_size": "1GB"} if accelerate_hooks(model) else {}))
            if tokenizer is not None:
                tokenizer.save_pretrained(new)
            if plan is not None:
                plan.to_json(new / PLAN_FILE)
        if verify:
            _require_equal_reload(model, before, new)
        if path.exists():  # its old content goes only when the new one is complete
            os.replace(path, Path(beside) / "old")
        os.replace(new, path)
    return path


def _logits_on_probe(model: PreTrainedModel) -> torch.Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, 33)[None] * 997 % vocabulary  # [1, 32], spread over the vocabulary
    with torch.inference_mode():
        return model(input_ids=ids.to(input_device(model)), use_cache=False).logits.float().cpu()


def _require_equal_reload(model: PreTrainedModel, before: torch.Tensor, folder: Path) -> None:
    reloaded, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=model.dtype,
        device_map=device_map_of(model),
        offload_folder=folder.parent / "offload",  # goes with the temporary folder
        output_loading_info=True,
    )
    broken = {
        name: sorted(keys)[:3] for name, keys in report.items() if keys and name in ("missing_keys", "unexpected_keys")
    }
    after = _logits_on_probe(reloaded.eval())
    difference = (after - before).abs().max().item()
    scale = before.abs().max().item()
    # quantization kernels may pack their scales anew on reload (measured: 1e-3 of the scale); plain weights come back equal
    tolerance = 1e-2 if getattr(model, "hf_quantizer", None) is not None else 1e-5
    if broken or not difference <= tolerance * scale:
        raise OSError(
            f"the saved checkpoint does not reload as the same model (largest logit difference {difference:.3g} on a scale "
            f"of {scale:.3g}{', ' + str(broken) if broken else ''}); nothing was written to the folder you named"
        )


@contextlib.contextmanager
def _disk_full_is_one_sentence(path: Path):
    try:
        yield
    except Exception as error:  # safetensors wraps the operating system's error in its own class
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            free = shutil.disk_usage(path.parent).free / 1e9
            raise OSError(errno.ENOSPC, f"the disk is full ({free:.1f} GB free): {path} was not written") from error
        raise
