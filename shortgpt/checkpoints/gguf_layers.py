"""Would llama.cpp run this pruned model as another one? A GGUF file may not say what each layer is.

Where layers of a model differ (sliding window or not, rotary positions or not) and a file holds no list of that, llama.cpp
takes it from the layer's number: every sixth layer of a Gemma 3 sees everything, every fourth of a SmolLM3 has no rotary
positions. After a cut the numbers are others. The converter writes such a file without an error, and it is another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from shortgpt.model.anatomy import decoder_layers, removed_so_far, text_config
from shortgpt.pruning.config_slice import per_layer_properties

Kinds = tuple[tuple[str, ...], ...]  # what each layer is, in order
_CLASSES = ("exaone4", "gemma3n_text", "gemma3n")  # llama.cpp counts their layers to know how they work


def unsaid_kinds(model: PreTrainedModel) -> Kinds | None:
    """What each layer of a pruned `model` is, if that isn't what layers with these numbers are in its architecture.

    None: all layers are of one kind, or nothing was removed, or they lie as in an unpruned model with so many layers.

    Raises:
        ValueError: llama.cpp takes more than that from the number of layers.
    """
    if not removed_so_far(model):
        return None
    config = text_config(model.config)
    _require_no_count(config)
    depth = len(decoder_layers(model))
    listed = _per_layer(config, depth)
    usual = _per_layer(_unpruned(config), depth)
    odd = {
        name: values
        for name, values in listed.items()
        if usual.get(name) != values and len({*values, *usual.get(name, ())}) > 1
    }
    named = [[f"{name} {value}" for value in values] for name, values in odd.items()]
    return tuple(zip(*named, strict=True)) if named else None


def require_said(kinds: Kinds, file: Path) -> None:
    """Raise ValueError unless the GGUF `file` tells layers of different `kinds` apart: by a list, or by their tensors."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    lists = [field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")]
    signs: list[Sequence] = [value for value in lists if isinstance(value, list) and len(value) == len(kinds)]
    names = [tensor.name.split(".", 2) for tensor in reader.tensors]
    parts = [frozenset(n[2] for n in names if n[:2] == ["blk", str(i)]) for i in range(len(kinds))]
    seen = list(zip(parts, *signs, strict=True))
    alike = [(i, j) for i in range(len(kinds)) for j in range(i) if kinds[i] != kinds[j] and seen[i] == seen[j]]
    if alike or (len({*kinds}) == 1 and not signs):
        raise _refusal(
            f"its layers differ ({', '.join(sorted({*chain(*kinds)}))}), the file does not say "
            "which ones, and llama.cpp would go by their numbers: remove whole periods of such layers or only the last ones, "
            "or serve it with vLLM or transformers"
        )


def _require_no_count(config: PreTrainedConfig) -> None:
    scalar, width = getattr(config, "query_pre_attn_scalar", None), getattr(config, "head_dim", None)
    if scalar is not None and width is not None and scalar != width:
        raise _refusal(
            "llama.cpp knows the scale of its queries by the number of layers (27B of Gemma 2 and 3), which is another one "
            "now: serve it with vLLM or transformers"
        )
    if config.model_type in _CLASSES and getattr(config, "sliding_window", None):
        raise _refusal(
            f"llama.cpp knows how {config.model_type} works by its number of layers, which is another one now: serve it "
            "with vLLM or transformers"
        )


def _refusal(why: str) -> ValueError:
    return ValueError(f"can't write this pruned model as GGUF: {why}")


def _per_layer(config: PreTrainedConfig | None, depth: int) -> dict[str, tuple[str, ...]]:
    """The lists of `config` with one entry a layer: name → entries that can be compared."""
    if config is None:
        return {}
    found = {**vars(config), **dict(per_layer_properties(config))}
    lists = {name: value for name, value in found.items() if isinstance(value, list | tuple) and len(value) == depth}
    return {
        name: tuple(map(str, value))
        for name, value in lists.items()
        if "token" not in name and not name.startswith("shortgpt")
    }


def _unpruned(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """A configuration of this class with so many layers, as nobody pruned it; None where that can't be made."""
    fields = config.to_dict()
    plain = {name: value for name, value in fields.items() if isinstance(value, int | float | str) or value is None}
    for name in ("model_type", "transformers_version", "dtype"):
        plain.pop(name, None)
    try:
        return AutoConfig.for_model(config.model_type, **plain)
    except Exception:  # each class has its own reasons
        return None
