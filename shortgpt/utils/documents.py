"""Text files as people have them: plain or JSON Lines, from Windows, browsers and Excel as well."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

from shortgpt.utils.arguments import shown


def documents_in(path: Path) -> list[str]:
    """The documents in a ``.txt`` file (one) or a ``.jsonl`` file (one a line, under ``"text"``).

    Raises:
        FileNotFoundError: no such file. ValueError: another suffix, or no text, with the line. TypeError: no string.
    """
    if path.suffix.lower() not in (".txt", ".jsonl"):
        raise ValueError(f"text must be a .txt or .jsonl file or a list of strings, got {str(path)[:60]!r}")
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no such calibration file: {path}")
    content = _decoded(path)
    if path.suffix.lower() == ".txt":
        return [content]
    lines = enumerate(content.split("\n"), start=1)  # not splitlines(): a JSON string may hold U+2028
    return [_document(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte-order mark, as Windows writes it; line ends as ``\\n``."""
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        content = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(
            f"{path}, line {line}, is not {name} text (byte {data[error.start]:#04x}): save it as UTF-8, for instance with "
            "iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    if "\0" in content:
        raise ValueError(f"{path} holds zero bytes, as UTF-16 without a byte-order mark does: save it as UTF-8")
    return content.replace("\r\n", "\n").replace("\r", "\n")


def _document(line: str, place: str) -> str:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{place}: every line must be a JSON object with a "text" field, and this is no JSON'
        ) from error
    if not isinstance(fields, dict) or "text" not in fields:
        has = f"has {', '.join(map(shown, fields))[:80] or 'none'}" if isinstance(fields, dict) else "is no object"
        raise ValueError(f'{place}: every line must be a JSON object with a "text" field, and this {has}')
    if not isinstance(fields["text"], str):
        raise TypeError(f"{place}: texts must be strings, got {shown(fields['text'])}")
    return fields["text"]
