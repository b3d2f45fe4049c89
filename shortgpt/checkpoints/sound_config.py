"""A model's config.json from elsewhere: it may ask for no more than a model can have, and must make sense."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from shortgpt.utils.untrusted import MOST_LAYERS, in_one_sentence, is_whole, one_line, read_json

_COUNTS = re.compile(r"(.*_)?n?(layers?|blocks?|depths?|stages|codebooks|experts)")  # fields with a number of modules


def require_sound_config(name: str | os.PathLike, **options: object) -> dict:
    """The fields of the model's config.json, if they don't ask for a model too large to be true.

    Args:
        name: a folder or a Hub id.
        options: ``revision=, cache_dir=, token=`` …, for the Hub.

    Raises:
        ValueError: a damaged file, more than `MOST_LAYERS` layers, or fields that nobody can make sense of.
        OSError: from the Hub.
    """
    from transformers import PreTrainedConfig
    from transformers.utils import cached_file

    from shortgpt.model.anatomy import COUNT_NAMES, REMOVED_FIELD, REPAIR_FIELD

    known = ("revision", "cache_dir", "token", "local_files_only", "subfolder", "force_download")
    path = cached_file(str(name), "config.json", **{key: options[key] for key in known if key in options})
    if path is None:
        raise FileNotFoundError(f"{name} holds no model: it has no file config.json")
    fields = read_json(path, f"{name}'s config.json is damaged: download it again")
    if "configuration_files" in fields:  # transformers would go on with another file
        raise ValueError(f"config.json of {name} points to other configurations: name the right one config.json")
    require_few_layers(fields, name)
    for section in (fields, *(v for k, v in fields.items() if k.endswith("_config") and isinstance(v, dict))):
        shadowed = [k for k in section if k.startswith("__") or callable(getattr(PreTrainedConfig, k, None))]
        if shadowed:
            raise ValueError(f"config.json of {name} has a field {one_line(shadowed[0])}, which none can have")
        removed, repair = section.get(REMOVED_FIELD, []), section.get(REPAIR_FIELD)
        depths = [v for k, v in _every_field(section) if COUNT_NAMES.fullmatch(k) and is_whole(v)]
        if not are_layers(removed) or max(removed, default=0) >= max(depths, default=MOST_LAYERS) + len(removed or [0]):
            raise ValueError(
                f"config.json of {name} says that layers were removed which it can't have had ({REMOVED_FIELD})"
            )
        if repair is not None and not _are_repairs(repair):
            raise ValueError(f"config.json of {name} tells of a repair that there is not ({REPAIR_FIELD})")
    return fields


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
        and value.get("kind") in ("fold", "linear", "merge")
        and are_layers(value.get("layers"))
        and is_whole(value.get("samples"))
    )


def clear_about_config(name: str | os.PathLike) -> AbstractContextManager[None]:
    """While an empty model is built: `in_one_sentence` that the configuration of `name` makes none."""
    return in_one_sentence(f"the configuration of {name} contradicts itself")
