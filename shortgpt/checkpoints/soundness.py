"""Is what lies in a folder a whole model? Its config.json makes sense, its weights are all there, its tokenizer knows words.

transformers believes a config.json, fills missing weights with random numbers, and may give a tokenizer that knows no word.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from shortgpt.model.anatomy import COUNT_NAMES, REMOVED_FIELD, REPAIR_FIELD
from shortgpt.pruning.repair_record import KINDS
from shortgpt.utils.untrusted import MOST_LAYERS, in_one_sentence, is_whole, one_line, read_json

_COUNTS = re.compile(r"(.*_)?n?(layers?|blocks?|depths?|stages|codebooks|experts)")  # fields with a number of modules
_OTHER_FORMS = ("*.model", "*.tiktoken", "*vocab*", "*.codes", "tekken.json")  # of a tokenizer, than tokenizer.json


def require_sound_config(name: str | os.PathLike, **options: Any) -> dict:
    """The fields of the model's config.json, if they don't ask for a model too large to be true.

    Args:
        name: a folder or a Hub id.
        options: ``revision=, cache_dir=, token=`` …, for the Hub.

    Raises:
        ValueError: a damaged file, more than `MOST_LAYERS` layers, or fields that nobody can make sense of.
        OSError: from the Hub.
    """
    known = ("revision", "cache_dir", "token", "local_files_only", "subfolder", "force_download")
    path = cached_file(str(name), "config.json", **{key: options[key] for key in known if key in options})
    if path is None:
        raise FileNotFoundError(f"{name} holds no model: it has no file config.json")
    fields = read_json(path, f"{name}'s config.json is damaged: download it again")
    if "configuration_files" in fields:  # transformers would go on with another file
        raise ValueError(f"config.json of {name} points to other configurations: name the right one config.json")
    require_few_layers(fields, name)
    if fields.get("model_type") == "shortgpt_post_norm":  # of ours: transformers has to be told of it
        from shortgpt.checkpoints import post_norm  # noqa: F401
    for section in (fields, *(v for k, v in fields.items() if k.endswith("_config") and isinstance(v, dict))):
        _require_sound_section(section, name)
    return fields


def _require_sound_section(section: dict, name: str | os.PathLike) -> None:
    shadowed = [k for k in section if k.startswith("__") or callable(getattr(PreTrainedConfig, k, None))]
    if shadowed:
        raise ValueError(f"config.json of {name} has a field {one_line(shadowed[0])}, which none can have")
    removed, repair = section.get(REMOVED_FIELD, []), section.get(REPAIR_FIELD)
    depths = [v for k, v in _every_field(section) if COUNT_NAMES.fullmatch(k) and isinstance(v, int) and is_whole(v)]
    if not are_layers(removed) or max(removed, default=0) >= max(depths, default=MOST_LAYERS) + len(removed or [0]):
        raise ValueError(
            f"config.json of {name} says that layers were removed which it can't have had ({REMOVED_FIELD})"
        )
    if repair is not None and not _are_repairs(repair):
        raise ValueError(f"config.json of {name} tells of a repair that there is not ({REPAIR_FIELD})")


def require_few_layers(fields: Mapping[str, object], name: str | os.PathLike) -> None:
    """Raise ValueError if the configuration `fields` of `name` asks for more than `MOST_LAYERS` layers, or parts of them."""
    for key, value in _every_field(fields):
        most = 10 * MOST_LAYERS if key.endswith("experts") else MOST_LAYERS
        if _COUNTS.fullmatch(key) and isinstance(value, int | float) and value > most:
            raise ValueError(
                f"the configuration of {name} asks for {value:,} {key}, and {most:,} is the most that is read: it "
                "is damaged, or no real model"
            )


def _every_field(fields: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Names and values, also of the fields of fields, and of each entry of a list."""
    level = [(str(name), value) for name, value in fields.items()]
    while level:
        yield from level
        level = [
            *((str(name), inner) for _, value in level if isinstance(value, dict) for name, inner in value.items()),
            *((key, entry) for key, value in level if isinstance(value, list) for entry in value),
        ]


def are_layers(value: object) -> bool:
    """Whether `value` is a list of distinct layers."""
    return isinstance(value, list) and all(is_whole(i, most=MOST_LAYERS) for i in value) and len(value) == len({*value})


def _are_repairs(value: object) -> bool:
    """Whether `value` is what `repair_record` writes, or wrote: a list of steps, or one alone."""
    return all(map(_is_repair, value if isinstance(value, list) else [value]))


def _is_repair(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("kind") in KINDS
        and are_layers(value.get("layers"))
        and is_whole(value.get("samples"))
        and is_whole(value.get("tokens", 0))
        and isinstance(value.get("sites", ""), str)
    )


def clear_about_config(name: str | os.PathLike) -> AbstractContextManager[None]:
    """While an empty model is built: `in_one_sentence` that the configuration of `name` makes none."""
    return in_one_sentence(f"the configuration of {name} contradicts itself")


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
        raise ValueError(f"{name} lacks weights that {kind} needs ({some(missing)}): {why}")
    if shapes:
        weight, there, wanted = shapes[0]
        raise ValueError(
            f"{name} holds {weight} of shape {list(there)}, and config.json describes one of {list(wanted)}: is this the "
            "configuration of these weights?"
        )
    beyond = [weight for weight in unexpected if _is_beyond(model, weight)]
    if beyond:
        raise ValueError(
            f"{name} holds weights of more layers than its config.json says ({some(beyond)}): is this the configuration of "
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


def some(names: list[str]) -> str:
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


def read_tokenizer(
    name: str | os.PathLike, folder: str | os.PathLike, config: PreTrainedConfig, **options: Any
) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder` (or Hub id); `name` is what the user called it, `config` the model's configuration.

    Raises:
        ValueError: there is none, or it is damaged, or in a form for which a package is missing.
        OSError: as transformers raises it, for instance without a network.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **options)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each class fails in its own way
        if "trust_remote_code" in str(error):
            raise
        raise ValueError(_why(name, Path(folder), error)) from error
    words = tokenizer.get_vocab().keys() - tokenizer.added_tokens_encoder.keys() - {*tokenizer.all_special_tokens}
    made_up = (
        len(words) < 2 and not Path(folder, "tokenizer.json").is_file()
    )  # without a file; T5's and MBart's know "▁"
    if made_up:
        raise ValueError(_why(name, Path(folder), None))
    return tokenizer


def _why(name: str | os.PathLike, folder: Path, error: Exception | None) -> str:
    """What is wrong with the tokenizer in `folder`, and what to do; `error` is None if it was read and is empty."""
    add = (
        "put the tokenizer of the model it came from there, with tokenizer.save_pretrained(folder) (save(model, folder, "
        "tokenizer=tokenizer) writes it along)"
    )
    for file in sorted(folder.glob("*token*.json")):
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            return f"{file} is damaged: download it again, or {add}"
    if error is not None and (folder / "tokenizer.json").is_file():
        reason = f"{type(error).__name__}: {_first_line(error)}"
        return f"{folder / 'tokenizer.json'} is damaged, or of a newer format ({reason}): download it again, or {add}"
    if folder.is_dir() and not any(any(folder.glob(form)) for form in _OTHER_FORMS):
        return f"{name} holds no tokenizer (no tokenizer.json): {add}"
    reason = "it knows no words" if error is None else _first_line(error)
    return (
        f"{name} holds no tokenizer that can be read here ({reason}): run pip install sentencepiece tiktoken if it has a "
        f"tokenizer.model, or {add}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(" .:")
