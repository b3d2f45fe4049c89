"""Prune a checkpoint on disk, file by file: for models of any size, because the model is never built.

Which layers stay and what the configuration then says is decided on an empty model (no weights, "meta" device) by the
same `remove_layers` as in memory. What is left to do is bookkeeping: copy the bytes of the surviving tensors under
their new names (`shards.py`) into a folder that appears when it is complete (`atomic.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from shortgpt.checkpoints.card import CARD_FILE, write_card
from shortgpt.checkpoints.changed import Data, changed_weights, require_made_of
from shortgpt.checkpoints.facts import empty_model
from shortgpt.checkpoints.shards import INDEX_FILE, SINGLE_FILE, Shard, read_shards, tensor_bytes, write_tensors
from shortgpt.checkpoints.soundness import clear_about_config, enough_layers, require_sound_config, require_whole
from shortgpt.model.adapters import require_no_adapter_beside
from shortgpt.model.anatomy import REPAIR_FIELD, decoder_layers_path, original_layers, removed_so_far
from shortgpt.model.names import LayerNames, find_stack
from shortgpt.pruning.depth import kept_layers, remove_layers
from shortgpt.pruning.plan import PLAN_FILE, PruningPlan
from shortgpt.pruning.recipe import MODEL_TYPE, RECIPE
from shortgpt.pruning.repair_record import repairs_so_far
from shortgpt.utils.arguments import check_path, shown
from shortgpt.utils.atomic import check_target, written_beside
from shortgpt.utils.quieting import quiet
from shortgpt.utils.untrusted import in_one_sentence, inside

_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|onnx_data|gguf|npz|tflite)$|.*\.index\.json$")
_REWRITTEN = ("config.json", PLAN_FILE, CARD_FILE)
_TEMPLATES = "additional_chat_templates"  # the one subfolder that transformers' tokenizers write


def prune_checkpoint(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    plan: PruningPlan | Sequence[int],
    *,
    repaired: PreTrainedModel | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write the checkpoint in folder `src` without some layers to folder `dst`; return `dst`.

    The result is what ``save(remove_layers(load(src), plan), dst)`` would write, in the time of copying the weights that
    stay and less than 1 GB of memory, Python and torch included. `src` is only read.

    Args:
        src: a transformers checkpoint in safetensors, one file or several with an index, quantized or not.
        plan: a plan (indices of the dense model), or indices in the checkpoint as it is, as for `remove_layers`.
        repaired: what `heal` made of the model in `src` by the same plan, its layers perhaps still on disk. The weights in
            it that were fitted are written in place of those in the files, in the dtype of the files.
        overwrite: replace what is at `dst`; otherwise an existing, non-empty folder is refused.
        progress: show a bar.

    Small files (tokenizer, generation settings, licence, code if the configuration names it) come along, subfolders and
    weights in other formats don't. A plan and a model card are added; the card that was there becomes
    ``README.original.md``. Layers for multi-token prediction, which `transformers` never loads, are left out.

    Raises:
        FileNotFoundError: no such folder, or files missing in it.
        FileExistsError: `dst` is not empty, or is inside `src` or around it.
        ValueError: damaged or truncated files, pickled weights, weights that aren't all there or not those that
            config.json describes, an adapter beside them, unknown architecture, a plan made for another model, a
            repaired model that is not described by a configuration or comes of another plan.
        OSError: the disk is full, or the result would not load.
    """
    src, dst = check_path(src).resolve(), check_path(dst).resolve()
    _check_folders(src, dst, overwrite)
    shards = read_shards(src)
    plan = plan if isinstance(plan, PruningPlan) or not isinstance(plan, Iterable) else list(plan)
    with clear_about_config(src.name):
        config, names, plan = _decide(src, shards, plan, repaired)
    # files to write: where from, and old name to new name; no empty ones
    renamed = [{old: name for old in shard.tensors if (name := names.tensor(old)) is not None} for shard in shards]
    work = [(shard, new_names) for shard, new_names in zip(shards, renamed, strict=True) if new_names]
    changed = {} if repaired is None else changed_weights(repaired, decoder_layers_path(repaired), names.stack, work)
    total = sum(tensor_bytes(shard, name) for shard, new_names in work for name in new_names)
    quantized = any(getattr(c, "quantization_config", None) for c in (config, config.get_text_config()))
    require_whole(src, *_matched(src, quantized=quantized))
    files = _other_files(src, config)
    needed = total + sum(source.stat().st_size for source in files.values()) + (1 << 20)  # headers, index, card
    with written_beside(dst, overwrite=overwrite, needed_bytes=needed) as new:
        with tqdm(total=total, unit="B", unit_scale=True, desc="writing", disable=not progress) as bar:
            _write_weights(work, names, changed, total, new, bar.update)
        config.save_pretrained(new)
        for name, source in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, new / name)
        plan.to_json(new / PLAN_FILE)
        write_card(src, new, plan, repairs_so_far(config))
        if not quantized:  # quantization libraries can't load without the data
            _require_complete(new)
    return dst


def _check_folders(src: Path, dst: Path, overwrite: bool) -> None:
    if not src.is_dir():
        raise FileNotFoundError(f"no such folder: {src} (download a Hub model: hf download owner/name --local-dir …)")
    require_no_adapter_beside(src, src)
    if not inside(src, "config.json").is_file():
        raise FileNotFoundError(f"{src} holds no model: it has no config.json")
    if src == dst or src in dst.parents or dst in src.parents:
        raise FileExistsError(
            f"{dst} is, contains or lies inside the checkpoint that is read: choose a folder elsewhere"
        )
    check_target(dst, overwrite=overwrite)


def _decide(
    src: Path, shards: list[Shard], plan: PruningPlan | Sequence[int], repaired: PreTrainedModel | None
) -> tuple[PreTrainedConfig, LayerNames, PruningPlan]:
    """The new configuration, what becomes of the names in the files, and the plan."""
    dense = _dense(src)
    pruned = remove_layers(dense, plan)
    if getattr(pruned, RECIPE, None) is not None:
        raise ValueError(
            f"no configuration of {type(dense).__name__} describes it without these layers, so the files alone can't be "
            "pruned: use remove_layers() on the loaded model, and save()"
        )
    if repaired is not None:
        require_made_of(repaired, type(dense), removed_so_far(pruned))
        setattr(pruned.config, REPAIR_FIELD, repairs_so_far(repaired.config))
    original, already, path = original_layers(dense), removed_so_far(dense), decoder_layers_path(dense)
    extra = getattr(dense.config.get_text_config(), "num_nextn_predict_layers", None) or 0
    stack = find_stack((name for shard in shards for name in shard.tensors), path, len(original), extra)
    if not isinstance(plan, PruningPlan):
        newly = [original[int(i)] for i in plan]
        plan = PruningPlan(layers=len(original) + len(already), removed=(*already, *newly), model=_base_model(src))
    return pruned.config, LayerNames(stack, path, kept_layers(dense, pruned)), plan


def _dense(src: Path) -> PreTrainedModel:
    """The model in `src` without its weights."""
    kind = require_sound_config(src).get("model_type")
    try:
        return empty_model(src)
    except (ValueError, KeyError) as error:
        if isinstance(kind, str) and kind in (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_TYPE):
            raise
        raise ValueError(
            f"transformers has no causal language model for {src.name} (model_type {shown(kind)}): update transformers; if "
            "the checkpoint brings its own code, load it with trust_remote_code, then remove_layers and save"
        ) from error


def _base_model(src: Path) -> str:
    """Name of the dense model: of the plan that made `src`, if one did."""
    return (PruningPlan.from_json(inside(src, PLAN_FILE)).model if (src / PLAN_FILE).is_file() else "") or str(src)


def _write_weights(
    work: list[tuple[Shard, dict[str, str]]],
    names: LayerNames,
    changed: Mapping[str, Data],
    total: int,
    folder: Path,
    report: Callable,
) -> None:
    weight_map: dict[str, str] = {}
    for number, (shard, renamed) in enumerate(work, start=1):
        file = SINGLE_FILE if len(work) == 1 else f"model-{number:05d}-of-{len(work):05d}.safetensors"
        metadata = names.metadata(shard.metadata)
        write_tensors(shard, renamed, folder / file, metadata=metadata, changed=changed, report=report)
        weight_map |= dict.fromkeys(renamed.values(), file)
    if len(work) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _other_files(src: Path, config: PreTrainedConfig) -> dict[str, Path]:
    """What comes along unchanged: name in the new folder, file to copy."""
    has_code = getattr(config, "auto_map", None) is not None
    found = {}
    for file in sorted([*src.iterdir(), *(src / _TEMPLATES).glob("*")]):
        if not file.is_file() or file.name.startswith(".") or _WEIGHTS.match(file.name) or file.name in _REWRITTEN:
            continue
        if file.suffix != ".py" or has_code:
            found[str(file.relative_to(src))] = inside(src, str(file.relative_to(src)))
    return found


def _require_complete(new: Path) -> None:
    """Of a result from whole files: a missing tensor would be filled with random numbers."""
    _, report = _matched(new)
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise OSError(
            f"without these layers the checkpoint would not load as the same model (no fitting {', '.join(missing[:3])}): in "
            "this architecture layers share weights, or their kind follows from their number; choose other layers. Nothing "
            "was written"
        )


def _matched(folder: str | os.PathLike, *, quantized: bool = False) -> tuple[PreTrainedModel, Mapping[str, Collection]]:
    """An empty model of the checkpoint in `folder`, and how its files fit it, for `require_whole`; no weights are read.

    Quantization libraries can't load without the data. With `quantized` the packed matrices are passed over: the report is
    about the vectors (norms, biases), which no method packs.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for part in (config, config.get_text_config()) if quantized else ():
        part.__dict__.pop("quantization_config", None)
    loader: Any = AutoModelForCausalLM  # with loading info it gives a pair
    options = {"trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}  # to be told
    with _silent(), in_one_sentence(f"the weights in {folder} can't be loaded"), enough_layers():
        model, report = loader.from_pretrained(folder, config=config, device_map="meta", **options)
    if quantized:
        vectors = {name for name, weight in model.named_parameters() if weight.ndim == 1}
        report = report | {"missing_keys": vectors & {*report["missing_keys"]}, "mismatched_keys": ()}
    return model, report


@contextmanager
def _silent() -> Iterator[None]:
    """transformers tells in a table what fits, with a bar; we, in one sentence, what doesn't."""
    showed = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet("transformers"):
            yield
    finally:
        if showed:
            logging.enable_progress_bar()
