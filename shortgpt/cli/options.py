"""Groups of options that several commands share, and what they do: load a model, read calibration text, write a file."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT = "smollm2-135m-instruct"  # packaged.DEFAULT_MODEL, which is slow to import
Dtype = StrEnum("Dtype", ["auto", "float32", "bfloat16", "float16"])
Language = StrEnum("Language", ["en", "zh"])
Metric = StrEnum("Metric", ["block_influence", "angular_distance", "relative_magnitude"])
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a Hub id, or the packaged default.")]
MetricOption = Annotated[
    Metric,
    typer.Option(
        metavar="NAME", help="block_influence, angular_distance or relative_magnitude.", rich_help_panel="Choice"
    ),
]
_LOADING, _TEXT = "Loading the model", "Calibration text"
BOS_HELP = "Begin each text with BOS, or not. Default: as the tokenizer does."


@dataclass(frozen=True)
class Loading:
    """How models are loaded."""

    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto (a GPU, else the CPU), cpu, cuda:1.", rich_help_panel=_LOADING)
    ] = "auto"
    dtype: Annotated[
        Dtype,
        typer.Option(
            metavar="NAME",
            help="auto (on a CPU float32), float32, bfloat16, float16.",
            rich_help_panel=_LOADING,
        ),
    ] = Dtype.auto
    device_map: Annotated[
        str | None, typer.Option(metavar="auto", help="Spread it over GPUs, memory, disk.", rich_help_panel=_LOADING)
    ] = None
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="LIMITS",
            help="For weights: 0=20GiB,cpu=4GiB or JSON; others wait on disk.",
            rich_help_panel=_LOADING,
        ),
    ] = None
    revision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the Hub.", rich_help_panel=_LOADING)
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            metavar=" ",
            help="Run code that comes with the checkpoint.",
            rich_help_panel=_LOADING,
        ),
    ] = False
    sha256: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Checksum of a .gguf file, from its publisher.", rich_help_panel=_LOADING),
    ] = None

    def __post_init__(self) -> None:
        parse_max_memory(self.max_memory)  # a wrong one is told before anything is read
        parse_device_map(self.device_map)

    @property
    def source(self) -> dict[str, object]:
        """What finding a configuration needs of this."""
        return {"trust_remote_code": self.trust_remote_code} | ({"revision": self.revision} if self.revision else {})

    def load(self, name: str) -> tuple:
        """``(model, tokenizer)`` as `shortgpt.load` gives them."""
        import torch

        from shortgpt.checkpoints.facts import empty_model
        from shortgpt.checkpoints.loading import load

        _require_device(self.device)
        if not name.endswith(".gguf"):
            empty_model(name, **self.source)  # says in a second what is wrong with a model that takes minutes to load
        return load(
            name,
            device=self.device,
            dtype="auto" if self.dtype == "auto" else getattr(torch, self.dtype),
            device_map=parse_device_map(self.device_map),
            max_memory=parse_max_memory(self.max_memory),
            sha256=self.sha256,
            **self.source,
        )


@dataclass(frozen=True)
class Calibration:
    """What the model reads while its layers are scored."""

    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='A .txt file, or .jsonl with a "text" field a line. Default: built-in text, 9 genres.',
            rich_help_panel=_TEXT,
        ),
    ] = None
    language: Annotated[
        Language | None, typer.Option(metavar="NAME", help="Of the built-in text: en or zh.", rich_help_panel=_TEXT)
    ] = None
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Read at most so many.", rich_help_panel=_TEXT)
    ] = None
    length: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens in a sample.", rich_help_panel=_TEXT)] = 512
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Samples at a time.", rich_help_panel=_TEXT)] = 4
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Shuffles the documents.", rich_help_panel=_TEXT)] = 0
    bos: Annotated[bool | None, typer.Option("--bos/--no-bos", help=BOS_HELP, rich_help_panel=_TEXT)] = None

    def documents(self) -> list[str]:
        """The text, document by document."""
        return read_documents(self.text, self.language, "calibration")

    def batches(self, tokenizer: object, documents: list[str]) -> list[dict]:
        from shortgpt.model.text import calibration_batches

        return calibration_batches(
            tokenizer,
            documents,
            samples=self.samples,
            length=self.length,
            batch_size=self.batch_size,
            seed=self.seed,
            bos=self.bos,
        )


def read_documents(text: Path | None, language: str | None, part: str) -> list[str]:
    """Documents of the file `text`, or of a part of the built-in text."""
    from shortgpt.model.text import built_in_text, documents_of

    if text is not None and language is not None:
        raise typer.BadParameter("--language chooses among the built-in texts: leave it out with --text")
    documents = documents_of(text) if text is not None else built_in_text(part, language=language or "en")["text"]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise ValueError(f"{text} is empty: give at least one document with a few hundred words")
    return documents


def parse_max_memory(text: str | None) -> dict[int | str, int | str] | None:
    """``"0=20GiB,cpu=4GiB"`` or the same as JSON, to what `load` takes."""
    if text is None:
        return None
    try:
        pairs = json.loads(text) if text.lstrip().startswith("{") else dict(p.split("=") for p in text.split(","))
        limits = {(int(k) if k.strip().isdigit() else k.strip()): v for k, v in pairs.items()}
    except (ValueError, AttributeError, RecursionError):
        limits = {}
    sizes = [isinstance(v, int) or re.fullmatch(r" *\d+(\.\d+)? *[KMGT]i?B *", str(v), re.I) for v in limits.values()]
    if not limits or not all(sizes) or not all(isinstance(k, int) or k in ("cpu", "mps") for k in limits):
        raise typer.BadParameter(
            f"--max-memory {text!r} is not a limit for each device: write it like 0=20GiB,cpu=4GiB (GPU numbers and cpu)"
        )
    return {k: v if isinstance(v, int) else v.replace(" ", "") for k, v in limits.items()}


def parse_device_map(text: str | None) -> str | dict[str, int | str] | None:
    """``"auto"`` and the like as it is, or JSON with a device for each module."""
    try:
        if text in (None, "auto", "balanced", "balanced_low_0", "sequential"):
            return text
        if isinstance(devices := json.loads(text), dict):
            return devices
    except (ValueError, RecursionError):
        pass
    raise typer.BadParameter(
        f"--device-map {text!r} is neither auto, balanced, sequential nor JSON of modules and devices"
    )


def parse_layers(text: str) -> list[int]:
    """``"3,4,10-12"`` to layer numbers."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r" *(\d{1,6})(?: *- *(\d{1,6}))? *", part)
        if not match:
            raise typer.BadParameter(f"--layers {text!r} is not a list of layers: write it like 3,4,10 or 3,8-10")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def require_writable(file: Path, *suffixes: str) -> None:
    """Say before the work begins that its result could not be written to `file`."""
    if suffixes and file.suffix not in suffixes:
        raise typer.BadParameter(f"{file}: the name must end in {' or '.join(suffixes)}")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder: name a file")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {file.parent}; make it first")
    _try_to_write(file.parent)


def require_room(folder: Path, *, overwrite: bool) -> None:
    """Say before the work begins that a model could not be saved to `folder`."""
    from shortgpt.utils.atomic import check_target

    check_target(folder, overwrite=overwrite)
    _try_to_write(next(p for p in folder.absolute().parents if p.exists()))


def _try_to_write(folder: Path) -> None:
    try:
        os.rmdir(tempfile.mkdtemp(dir=folder, prefix=".shortgpt-"))
    except OSError as error:
        raise OSError(f"{folder} can't be written to ({error.strerror}): save the result elsewhere") from error


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Yield the name of a file beside `file` that takes its place if the block ends well: never half a file."""
    from shortgpt.utils.atomic import file_written_beside

    with file_written_beside(file) as beside:
        yield beside


def _require_device(name: str) -> None:
    import torch

    if name == "auto":
        return
    try:
        works = torch.empty(1, device=name).cpu().numel() == 1  # meta holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError):
        works = False
    if not works:
        gpus = torch.accelerator.device_count()
        raise ValueError(
            f"there is no device {name!r} on this machine (it has a CPU and {gpus} GPUs for torch {torch.__version__}): use "
            "--device auto or cpu"
        )
