"""The tokenizer of a checkpoint, or one sentence on why there is none: transformers may give one that knows no word."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

_OTHER_FORMS = ("*.model", "*.tiktoken", "*vocab*", "*.codes", "tekken.json")  # than tokenizer.json


def read_tokenizer(
    name: str | os.PathLike, folder: str | os.PathLike, config: PreTrainedConfig, **options: object
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
    if (
        len(words) < 2 and not Path(folder, "tokenizer.json").is_file()
    ):  # made without a file; T5's and MBart's know "▁"
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
