"""Groups of options that several commands share, and what they do: load a model, read calibration text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter, validators

import shortgpt
from shortgpt.cli.failing import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shortgpt.model.text import Batch

CHOICE, MEASURES, OUTPUT = Group("Choice", sort_key=1), Group("Measures", sort_key=2), Group("Output", sort_key=3)
LOADING, TEXT = Group("Loading the model", sort_key=4), Group("Calibration text", sort_key=5)
FLAG = Parameter(negative=(), show_default=False)
FROM_0, FROM_1 = (Parameter(validator=validators.Number(gte=least)) for least in (0, 1))
Progress = Annotated[bool, Parameter(parse=False)]  # --quiet and the terminal decide
Hints = Annotated[bool, Parameter(parse=False)]  # --quiet decides


def spelt(parse: Callable[[str], object], shape: str) -> Parameter:
    """An option whose one word means what `parse` makes of it; its ValueError says what is wrong with the word."""
    converter = lambda _, words: parse(words[0].value)  # noqa: E731
    return Parameter(converter=converter, n_tokens=1, accepts_keys=False, metavar=shape, negative=())


def parse_max_memory(text: str) -> dict[int | str, int | str]:
    """``"0=20GiB,cpu=4GiB"`` or the same as JSON, to what `load` takes."""
    try:
        pairs = json.loads(text) if text.lstrip().startswith("{") else dict(p.split("=") for p in text.split(","))
        limits = {(int(k) if k.strip().isdigit() else k.strip()): v for k, v in pairs.items()}
    except (ValueError, AttributeError, RecursionError):
        limits = {}
    sizes = [isinstance(v, int) or re.fullmatch(r" *\d+(\.\d+)? *[KMGT]i?B *", str(v), re.I) for v in limits.values()]
    if not limits or not all(sizes) or not all(isinstance(k, int) or k in ("cpu", "mps") for k in limits):
        raise ValueError(
            f"{text!r} is not a limit for each device: write it like 0=20GiB,cpu=4GiB (GPU numbers and cpu)"
        )
    return {k: v if isinstance(v, int) else v.replace(" ", "") for k, v in limits.items()}


def parse_device_map(text: str) -> str | dict[str, int | str]:
    """``"auto"`` and the like as it is, or JSON with a device for each module."""
    try:
        if text in ("auto", "balanced", "balanced_low_0", "sequential"):
            return text
        if isinstance(devices := json.loads(text), dict):
            return devices
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"{text!r} is neither auto, balanced, sequential nor JSON of modules and devices")


@Parameter(name="*", group=LOADING)
@dataclass(frozen=True)
class Loading:
    """How models are loaded."""

    device: str = "auto"
    """auto (a GPU, else the CPU), cpu, cuda:1."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is the checkpoint's own, and on a CPU float32."""
    device_map: Annotated[str | dict[str, int | str] | None, spelt(parse_device_map, "MAP")] = None
    """auto: spread it over GPUs, memory, disk."""
    max_memory: Annotated[dict[int | str, int | str] | None, spelt(parse_max_memory, "LIMITS")] = None
    """For weights: 0=20GiB,cpu=4GiB or JSON; others wait on disk."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    trust_remote_code: Annotated[bool, FLAG] = False
    """Run code that comes with the checkpoint."""
    sha256: str | None = None
    """Checksum of a .gguf file, from its publisher."""
    accept_terms: Annotated[bool, FLAG] = False
    """Of a packaged model that has some: gemma-3-270m."""

    @property
    def source(self) -> dict[str, Any]:
        """What finding a configuration needs of this."""
        consent = {"trust_remote_code": self.trust_remote_code, "accept_terms": self.accept_terms}
        return consent | ({"revision": self.revision} if self.revision else {})

    def load(self, name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load a model as `shortgpt.load` does."""
        import torch

        from shortgpt.checkpoints.facts import empty_model

        require_device(self.device)
        if not name.endswith(".gguf"):
            empty_model(name, **self.source)  # says in a second what is wrong with a model that takes minutes to load
        return shortgpt.load(
            name,
            device=self.device,
            dtype="auto" if self.dtype == "auto" else getattr(torch, self.dtype),
            device_map=self.device_map,
            max_memory=self.max_memory,
            sha256=self.sha256,
            **self.source,
        )


@dataclass(frozen=True)
class Texts:
    """What the model reads."""

    text: Path | None = None
    """A .txt file, or .jsonl with a "text" field a line. Default: built-in text."""
    language: Literal["en", "zh"] | None = None
    """Of the built-in text."""
    bos: bool | None = None
    """Begin each text with BOS, or not. Default: as the tokenizer does."""

    def __post_init__(self) -> None:
        if self.text is not None and self.language is not None:
            raise UsageError("--language chooses among the built-in texts: leave it out with --text")

    def documents(self, part: str) -> list[str]:
        """Documents of the file, or of a part of the built-in text."""
        from shortgpt.model.text import calibration_documents, documents_of

        if self.text is not None:
            documents = documents_of(self.text)
        elif part == "calibration":
            documents = calibration_documents(self.language or "en")
        else:
            documents = shortgpt.built_in_text(part, language=self.language or "en")["text"]
        documents = [document for document in documents if document.strip()]
        if not documents:
            raise ValueError(f"{self.text} is empty: give at least one document with a few hundred words")
        return documents


@Parameter(name="*", group=TEXT)
@dataclass(frozen=True)
class Calibration(Texts):
    """What the model reads while its layers are scored."""

    samples: Annotated[int | None, FROM_1] = None
    """Read at most so many."""
    length: Annotated[int, FROM_1] = 512
    """Tokens in a sample."""
    batch_size: Annotated[int, FROM_1] = 4
    """Samples at a time."""
    seed: Annotated[int, FROM_0] = 0
    """Shuffles the documents, and draws for --by random and search."""

    def batches(self, tokenizer: PreTrainedTokenizerBase, documents: list[str], *, spread: bool = False) -> list[Batch]:
        """The documents in samples, as `shortgpt.calibration_batches` makes them."""
        shape: dict[str, Any] = {
            "samples": self.samples,
            "length": self.length,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "spread": spread,
        }
        return shortgpt.calibration_batches(tokenizer, documents, bos=self.bos, **shape)

    def with_model(
        self, loading: Loading, name: str, *, spread: bool = False
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[Batch]]:
        """The model, its tokenizer, and the batches; what is wrong with the text is told before the model is loaded."""
        documents = self.documents("calibration")
        model, tokenizer = loading.load(name)
        return model, tokenizer, self.batches(tokenizer, documents, spread=spread)


def default_model() -> str:
    """The name of the packaged model that a command takes when none is named."""
    from shortgpt.checkpoints.packaged import DEFAULT_MODEL

    return DEFAULT_MODEL


def require_device(name: str) -> None:
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
