"""Write a model to disk so that it comes back as the same model, and get it back.

Nearly always that is an ordinary transformers checkpoint. A pruned model that no configuration describes (see
`blueprint`) is written in a format of ours: the weights, the configuration of the model it came from, and the steps that
led from there. `models.load` replays them. Plain ``from_pretrained`` refuses such a folder: its ``model_type`` is
unknown to transformers, so it can't reload as another model by mistake.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.arguments import check_model, check_path, check_tokenizer, shown
from shortgpt.beside import written_beside
from shortgpt.capture import eval_mode, require_numbers
from shortgpt.card import CARD_FILE, model_card
from shortgpt.choose import PLAN_FILE, PruningPlan
from shortgpt.layers import REPAIR_FIELD, decoder_layers, removed_so_far
from shortgpt.placement import accelerate_hooks, device_map_of, input_device
from shortgpt.pruning import RECIPE, remove_layers
from shortgpt.quantization_nf4 import without_repacking
from shortgpt.resaving import one_way_conversions_left_out, require_savable

MODEL_TYPE = "shortgpt_pruned"  # in config.json of our own format; transformers knows no such type
WEIGHTS = "pruned{suffix}.safetensors"  # not the name that transformers looks for


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
        verify: reload what was written and compare its logits with the model's; needs memory for a second model.
            Several quantization libraries write checkpoints that reload as garbage: keep it on for quantized models.

    Raises:
        FileExistsError: `path` exists and is not empty.
        ValueError: a plan that says something else than what was removed, a model without weights or with NaN in them.
        OSError: the disk is full, or the reloaded checkpoint doesn't give the same logits (nothing is left at `path`).
    """
    check_model(model)
    path = check_path(path)
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    if plan is not None:
        _require_own_plan(model, plan)
    input_device(model)  # refuses a model without weights
    with written_beside(path, overwrite=overwrite) as new:
        before = _logits_to_compare(model) if verify else None
        write_model(model, new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        if plan is not None:
            plan.to_json(new / PLAN_FILE)
            repair = getattr(model.config, REPAIR_FIELD, None)
            card = model_card(plan, repair=repair, own_format=is_own_format(new))
            (new / CARD_FILE).write_text(card, encoding="utf-8")
        if verify:
            _require_equal_reload(model, before, new)
    return path


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Weights and configuration into `folder`: as transformers does it, or in our format if the model has a recipe."""
    require_savable(model.config)
    recipe = getattr(model, RECIPE, None)
    if recipe is None:
        # weights on disk pass through memory shard by shard: small shards, a small part of the model at a time
        with one_way_conversions_left_out(model):
            model.save_pretrained(folder, **({"max_shard_size": "1GB"} if accelerate_hooks(model) else {}))
        return
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and our own format holds no "
            "quantized weights: save the pruned model first, and quantize it after loading"
        )
    if accelerate_hooks(model):
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and our own format is written "
            "from memory: load the model without device_map and max_memory to save it"
        )
    if not hasattr(transformers, type(model).__name__):
        raise ValueError(
            f"transformers' configuration can't describe this pruned {type(model).__name__}, and its class is not part of "
            "transformers: there is no checkpoint from which it could be loaded again"
        )
    from huggingface_hub import save_torch_state_dict

    seen: set[int] = set()
    state = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in seen:  # tied weights once; rebuilding ties them again
            state[name] = tensor.detach().contiguous()
        seen.add(id(tensor))
    save_torch_state_dict(state, folder, filename_pattern=WEIGHTS, metadata={"format": "pt"})
    config = {
        "model_type": MODEL_TYPE,
        "architectures": [type(model).__name__],
        "dtype": str(model.dtype).removeprefix("torch."),
        "base_config": recipe["config"],
        "steps": recipe["steps"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def is_own_format(folder: str | os.PathLike) -> bool:
    """Whether `folder` holds a model in our own format."""
    try:
        return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False


def saved_class(folder: str | os.PathLike) -> str:
    """Name of the transformers class of the model saved in `folder`."""
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["architectures"][0]


def restore(folder: str | os.PathLike, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model that `write_model` wrote to `folder` in our own format, on the CPU, in eval mode.

    Raises:
        ValueError: the weights on disk are not those of the model that the recipe gives.
    """
    from safetensors import safe_open

    folder = Path(folder)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields = saved["base_config"]
    config = CONFIG_MAPPING[fields["model_type"]].from_dict(fields)
    with _no_random_weights():  # pages that nobody writes to cost no memory
        dtype = dtype or getattr(torch, saved["dtype"])
        model = getattr(transformers, saved["architectures"][0])._from_config(config, dtype=dtype)
    model.tie_weights()
    for step in saved["steps"]:
        model = replay(model, step)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    missing = {id(tensor) for tensor in model.parameters()}
    for file in sorted(folder.glob(WEIGHTS.format(suffix="*"))):
        with safe_open(file, framework="pt") as weights, torch.no_grad():
            for name in weights.keys():  # noqa: SIM118 (not a dict)
                if name not in tensors or list(tensors[name].shape) != weights.get_slice(name).get_shape():
                    raise ValueError(f"{folder}: {name} is not a weight of the model that config.json describes")
                tensors[name].copy_(weights.get_tensor(name))
                missing.discard(id(tensors[name]))
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing; copy the folder again from where it was saved")
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


def replay(model: PreTrainedModel, step: dict[str, list[int]]) -> PreTrainedModel:
    """Apply one step of a recipe."""
    if "layers" in step:
        return remove_layers(model, step["layers"])
    if "patches" in step:
        from shortgpt.patches import add_patches, empty_patches

        return add_patches(model, empty_patches(step["patches"], step["width"]))
    from shortgpt.sublayers import remove_sublayers

    return remove_sublayers(model, **step)


def read_model(
    folder: Path, *, dtype: torch.dtype, device_map: dict[str, object]
) -> tuple[PreTrainedModel, dict[str, list[str]]]:
    """What `write_model` wrote, and which weights plain transformers found missing or unexpected (by kind; three each)."""
    if is_own_format(folder):
        return restore(folder, dtype=dtype).to(device_map.get("", "cpu")), {}
    config = transformers.AutoConfig.from_pretrained(folder)
    known = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    loader = (
        AutoModelForCausalLM if known else getattr(transformers, saved_class(folder))
    )  # Emu 3's text part has no automatic class
    options = {"device_map": device_map, "offload_folder": folder.parent / "offload"}  # goes with the temporary folder
    model, report = loader.from_pretrained(folder, dtype=dtype, output_loading_info=True, **options)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return without_repacking(model).eval(), {
        kind: sorted(map(str, report[kind]))[:3] for kind in kinds if report.get(kind)
    }


@contextlib.contextmanager
def _no_random_weights() -> Iterator[None]:
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # an older transformers: slower, same result
        yield
        return
    with no_init_weights():
        yield


def logits_on_probe(model: PreTrainedModel) -> torch.Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, 33)[None] * 997 % vocabulary  # [1, 32], spread over the vocabulary
    with torch.inference_mode(), eval_mode(model):
        return model(input_ids=ids.to(input_device(model)), use_cache=False).logits.float().cpu()


def _logits_to_compare(model: PreTrainedModel) -> torch.Tensor:
    logits = logits_on_probe(model)
    try:
        require_numbers(model, logits)
    except ValueError as error:
        raise ValueError(f"{error}; verify=False saves it as it is") from None
    return logits


def _require_own_plan(model: PreTrainedModel, plan: PruningPlan) -> None:
    if not isinstance(plan, PruningPlan):
        raise TypeError(f"plan must be a PruningPlan, got {shown(plan)}")
    removed, depth = removed_so_far(model), len(decoder_layers(model)) + len(removed_so_far(model))
    if sorted(plan.removed) != list(removed) or plan.layers != depth:
        raise ValueError(
            f"the plan removes layers {sorted(plan.removed)} of {plan.layers}, and from this model {list(removed)} of "
            f"{depth} are gone: save it with the plan that made it"
        )


def _require_equal_reload(model: PreTrainedModel, before: torch.Tensor, folder: Path) -> None:
    try:
        reloaded, broken = read_model(folder, dtype=model.dtype, device_map=device_map_of(model))
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
