"""Prune a checkpoint on disk, file by file: for models of any size, because the model is never built.

Which layers stay and what the configuration then says is decided on an empty model (no weights, "meta" device) by the
same `remove_layers` as in memory. What is left to do is bookkeeping: copy the bytes of the surviving tensors under
their new names (`shards.py`) into a folder that appears when it is complete (`beside.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from shortgpt.checkpoints.card import CARD_FILE, MARK, licence_lines, model_card
from shortgpt.checkpoints.completeness import matched, require_whole
from shortgpt.checkpoints.shards import INDEX_FILE, Shard, read_index, read_shard, tensor_bytes, write_tensors
from shortgpt.checkpoints.sound_config import clear_about_config, require_sound_config
from shortgpt.model.adapters import require_no_adapter_beside
from shortgpt.model.anatomy import decoder_layers, decoder_layers_path, removed_so_far
from shortgpt.model.names import LayerNames, find_stack
from shortgpt.pruning.depth import remove_layers
from shortgpt.pruning.plan import PLAN_FILE, PruningPlan
from shortgpt.pruning.recipe import RECIPE
from shortgpt.pruning.repair_record import repairs_so_far
from shortgpt.utils.arguments import check_path, shown
from shortgpt.utils.atomic import check_target, written_beside
from shortgpt.utils.untrusted import inside

SINGLE_FILE = "model.safetensors"
_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|onnx_data|gguf|npz|tflite)$|.*\.index\.json$")
_REWRITTEN = ("config.json", PLAN_FILE, CARD_FILE)
_TEMPLATES = "additional_chat_templates"  # the one subfolder that transformers' tokenizers write


def prune_checkpoint(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    plan: PruningPlan | Sequence[int],
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write the checkpoint in folder `src` without some layers to folder `dst`; return `dst`.

    The result is what ``save(remove_layers(load(src), plan), dst)`` would write, in the time of copying the weights that
    stay and less than 1 GB of memory, Python and torch included. `src` is only read.

    Args:
        src: a transformers checkpoint in safetensors, one file or several with an index, quantized or not.
        plan: a plan (indices of the dense model), or indices in the checkpoint as it is, as for `remove_layers`.
        overwrite: replace what is at `dst`; otherwise an existing, non-empty folder is refused.
        progress: show a bar.

    Small files (tokenizer, generation settings, licence, code if the configuration names it) come along, subfolders and
    weights in other formats don't. A plan and a model card are added; the card that was there becomes
    ``README.original.md``. Layers for multi-token prediction, which `transformers` never loads, are left out.

    Raises:
        FileNotFoundError: no such folder, or files missing in it.
        FileExistsError: `dst` is not empty, or is inside `src` or around it.
        ValueError: damaged or truncated files, pickled weights, weights that aren't all there or not those that
            config.json describes, an adapter beside them, unknown architecture, a plan made for another model.
        OSError: the disk is full, or the result would not load.
    """
    src, dst = check_path(src).resolve(), check_path(dst).resolve()
    _check_folders(src, dst, overwrite)
    shards = _read_shards(src)
    plan = plan if isinstance(plan, PruningPlan) or not isinstance(plan, Iterable) else list(plan)
    with clear_about_config(src.name):
        config, kept, stack, path, plan = _decide(src, shards, plan)
    names = LayerNames(stack, path, kept)
    work: list[tuple[Shard, dict[str, str]]] = []  # files to write: where from, and old name to new name
    for shard in shards:
        renamed = {old: new for old in shard.tensors if (new := names.tensor(old)) is not None}
        if renamed:  # no empty files
            work.append((shard, renamed))
    total = sum(tensor_bytes(shard, name) for shard, renamed in work for name in renamed)
    quantized = any(getattr(c, "quantization_config", None) for c in (config, config.get_text_config()))
    require_whole(src, *matched(src, quantized=quantized))
    files = _other_files(src, config)
    needed = total + sum(source.stat().st_size for source in files.values()) + (1 << 20)  # headers, index, card
    with written_beside(dst, overwrite=overwrite, needed_bytes=needed) as new:
        with tqdm(total=total, unit="B", unit_scale=True, desc="writing", disable=not progress) as bar:
            _write_weights(work, names, total, new, bar.update)
        config.save_pretrained(new)
        for name, source in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, new / name)
        plan.to_json(new / PLAN_FILE)
        _write_card(src, new, plan, config)
        if not quantized:  # quantization libraries can't load without the data
            _require_complete(new)
    return dst


def _check_folders(src: Path, dst: Path, overwrite: bool) -> None:
    if not src.is_dir():
        raise FileNotFoundError(
            f"no such folder: {src} (download a Hub model first: hf download owner/name --local-dir …)"
        )
    require_no_adapter_beside(src, src)
    if not inside(src, "config.json").is_file():
        raise FileNotFoundError(f"{src} holds no model: it has no config.json")
    if src == dst or src in dst.parents or dst in src.parents:
        raise FileExistsError(
            f"{dst} is, contains or lies inside the checkpoint that is read: choose a folder elsewhere"
        )
    check_target(dst, overwrite=overwrite)


def _read_shards(src: Path) -> list[Shard]:
    """The headers of all weight files, each with the tensors that the index says are there."""
    if (src / SINGLE_FILE).is_file():  # transformers prefers it to an index, too
        return [read_shard(inside(src, SINGLE_FILE))]
    if not (src / INDEX_FILE).is_file():
        if any(src.glob("*.bin")) or any(src.glob("*.pt*")):
            raise ValueError(f"{src} has pickled weights, which can run code: convert them to safetensors first")
        raise FileNotFoundError(f"{src} holds no weights: neither {SINGLE_FILE} nor {INDEX_FILE}")
    home = read_index(inside(src, INDEX_FILE))
    shards = []
    for file in dict.fromkeys(home.values()):
        if not (src / file).is_file():
            raise FileNotFoundError(
                f"{src} is incomplete: {file}, which its index names, is missing; download it again"
            )
        shard = read_shard(inside(src, file))
        missing = sorted({name for name, place in home.items() if place == file} - shard.tensors.keys())
        if missing:
            raise ValueError(f"{src / file} lacks {missing[0]}, which the index says is there: download both again")
        # a tensor in two files: the index tells which one counts
        tensors = {name: tensor for name, tensor in shard.tensors.items() if home.get(name, file) == file}
        shards.append(replace(shard, tensors=tensors))
    return shards


def _decide(
    src: Path, shards: list[Shard], plan: PruningPlan | Sequence[int]
) -> tuple[PreTrainedConfig, list[int], str, str, PruningPlan]:
    """The new configuration, the layers kept (current indices), the stack's name in the files and in the model, the plan."""
    kind = require_sound_config(src).get("model_type")
    try:
        config = AutoConfig.from_pretrained(src, trust_remote_code=False)
        with torch.device("meta"):
            dense = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError) as error:
        if isinstance(kind, str) and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise
        raise ValueError(
            f"transformers has no causal language model for {src.name} (model_type {shown(kind)}): update transformers; if "
            "the checkpoint brings its own code, load it with trust_remote_code, then remove_layers and save"
        ) from error
    already = removed_so_far(dense)
    depth, path = len(decoder_layers(dense)), decoder_layers_path(dense)
    pruned = remove_layers(dense, plan)
    if getattr(pruned, RECIPE, None) is not None:
        raise ValueError(
            f"no configuration of {type(dense).__name__} describes it without these layers, so the files alone can't be "
            "pruned: use remove_layers() on the loaded model, and save()"
        )
    gone = removed_so_far(pruned)
    original = [i for i in range(depth + len(already)) if i not in already]
    kept = [position for position, i in enumerate(original) if i not in gone]
    extra = getattr(config.get_text_config(), "num_nextn_predict_layers", None) or 0
    stack = find_stack((name for shard in shards for name in shard.tensors), path, depth, extra)
    if not isinstance(plan, PruningPlan):
        newly = [original[int(i)] for i in plan]
        plan = PruningPlan(layers=len(original) + len(already), removed=(*already, *newly), model=_base_model(src))
    return pruned.config, kept, stack, path, plan


def _base_model(src: Path) -> str:
    """Name of the dense model: of the plan that made `src`, if one did."""
    return (PruningPlan.from_json(inside(src, PLAN_FILE)).model if (src / PLAN_FILE).is_file() else "") or str(src)


def _write_weights(
    work: list[tuple[Shard, dict[str, str]]], names: LayerNames, total: int, folder: Path, report: Callable
) -> None:
    weight_map: dict[str, str] = {}
    for number, (shard, renamed) in enumerate(work, start=1):
        file = SINGLE_FILE if len(work) == 1 else f"model-{number:05d}-of-{len(work):05d}.safetensors"
        write_tensors(shard, renamed, folder / file, metadata=names.metadata(shard.metadata), report=report)
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


def _write_card(src: Path, new: Path, plan: PruningPlan, config: PreTrainedConfig) -> None:
    """Ours is README.md, because the Hub reads its front matter; theirs speaks of another model, and stays beside it."""
    card = inside(src, CARD_FILE)
    old = ""
    if card.is_file():
        with card.open(encoding="utf-8", errors="replace") as file:
            old = file.read(1 << 20)
    ours = model_card(plan, inherited=licence_lines(old), repairs=repairs_so_far(config))
    (new / CARD_FILE).write_text(ours, encoding="utf-8")
    if old and MARK not in old:
        free = (f"README.original{suffix}.md" for suffix in ("", *range(2, 100)))
        shutil.copyfile(card, new / next(name for name in free if not (new / name).exists()))


def _require_complete(new: Path) -> None:
    """Of a result from whole files: a missing tensor would be filled with random numbers."""
    _, report = matched(new)
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise OSError(
            f"without these layers the checkpoint would not load as the same model (no fitting {', '.join(missing[:3])}): in "
            "this architecture layers share weights, or their kind follows from their number; choose other layers. Nothing "
            "was written"
        )
