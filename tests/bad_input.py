"""Public functions called wrongly: what tests/<room>/test_bad_input_<room>.py share.

A row is ``(wrong arguments, type of the error, what it says)``; `wrong` puts it among arguments that are right. A lambda
among the arguments is called with a `World` first, so that the model, the files and the tokenizer are fresh ones. What a
helper (`check_count`, `check_batch`, …) says of all kinds of nonsense is tested once, beside the helper; a function's rows
show that it asks, for each of its parameters, and hold what it alone says.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from small import LAYERS, build_tiny, random_batch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import shortgpt

TEXTS = ["the river rose in the night.", "and took the bridge with it."]
CLEAR = (TypeError, ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)
Row = tuple[dict[str, object], type[Exception], str]


# ---- the world that a call sees --------------------------------------------------------------------------------------
@cache
def _shared() -> PreTrainedModel:
    """One model for all rows of this process: that no call changes it is what they test."""
    model = build_tiny().train()
    model.model.layers[1].eval()  # modes may differ from module to module
    model.model.layers[2].requires_grad_(False)
    return model


@cache
def _shared_state() -> dict:
    return state_of(_shared())


class World:
    """What a call may get wrong. `folder` holds the current folder, somebody's work, and a file."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase):
        self.folder, self.tokenizer, self.model, self.batch = folder, tokenizer, _shared(), random_batch()
        (folder / "here").mkdir()  # the current folder
        (folder / "mine").mkdir()
        (folder / "mine" / "thesis.txt").write_text("years of work")
        (folder / "file.txt").write_text("a file, no folder")

    @property
    def new(self) -> Path:
        """A folder that isn't there."""
        return self.folder / "new"

    def file(self, text: str, name: str = "plan.json") -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def checkpoint(self) -> Path:
        build_tiny().save_pretrained(self.folder / "checkpoint")
        return self.folder / "checkpoint"


def of_world(make: Callable) -> Callable:
    """`make` as an argument that is made anew for each call, as every lambda is."""
    make.of_world = True
    return make


@of_world
def MODEL(w: World) -> PreTrainedModel:
    return w.model


@of_world
def TOKENIZER(w: World) -> PreTrainedTokenizerBase:
    return w.tokenizer


@of_world
def BATCHES(w: World) -> list[dict[str, torch.Tensor]]:
    return [w.batch]


@of_world
def gpt2(w: World) -> PreTrainedModel:
    """A model that knows 256 positions."""
    return build_tiny("gpt2")


@of_world
def on_meta(w: World) -> PreTrainedModel:
    with torch.device("meta"):
        return build_tiny()


@of_world
def broken(w: World, value: float = float("nan")) -> PreTrainedModel:
    """A model with one wrong number in layer 3."""
    model = build_tiny()
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0, 0] = value
    return model


@of_world
def with_end(w: World) -> PreTrainedTokenizerBase:
    """The tokenizer with an end token, from which sampling starts."""
    w.tokenizer.eos_token = "?"
    return w.tokenizer


@of_world
def many_tokens(w: World) -> PreTrainedTokenizerBase:
    """The tokenizer of a model with a larger vocabulary."""
    w.tokenizer.add_tokens([f"<{i}>" for i in range(100)] + ["zz"])
    return w.tokenizer


def _value(value: object, w: World) -> object:
    made = getattr(value, "of_world", False) is True or getattr(value, "__name__", "") == "<lambda>"
    return value(w) if made else value


def unreachable(*given: object) -> float:
    raise AssertionError("measured something although a later argument is wrong")


# ---- rows that many functions have -----------------------------------------------------------------------------------
NO_MODEL = "expected a transformers model, got {}: pass what load\\(\\) returned first"
NO_TOKENIZER = "expected a tokenizer, got {}: pass what load\\(\\) returned second"
NO_WEIGHTS = "LlamaForCausalLM holds no weights \\(device meta\\): load it with load\\(\\)"
NAN = "layer 3 gives hidden states with NaN or infinity \\(dtype torch.float32\\): load"
NAN_LOGITS = "the model gives logits with NaN \\(dtype torch.float32\\): load"
NO_NUMBER = "{} must be a number, got '{}'"
OTHER_VOCABULARY = "not in .*vocabulary of 96"
ALL_PADS = {"input_ids": torch.ones(2, 4, dtype=torch.long), "attention_mask": torch.zeros(2, 4, dtype=torch.long)}


def no_model(name: str = "model") -> Row:
    """The likeliest mistake: both things that load() gives."""
    return {name: lambda w: (w.model, w.tokenizer)}, TypeError, NO_MODEL.format("tuple")


def no_tokenizer(name: str = "tokenizer") -> Row:
    return {name: MODEL}, TypeError, NO_TOKENIZER.format("LlamaForCausalLM")


def no_weights(name: str = "model", **more: object) -> Row:
    return {name: on_meta, **more}, ValueError, NO_WEIGHTS


def nan(name: str = "model", says: str = NAN_LOGITS, **more: object) -> Row:
    return {name: broken, **more}, ValueError, says


def count(name: str, least: int = 1, **more: object) -> Row:
    return {name: least - 1, **more}, ValueError, f"{name} must be at least {least}, got {least - 1}"


def layers(name: str = "layers", **more: object) -> Row:
    return {name: [1, LAYERS], **more}, ValueError, "unknown layer 6: this model has layers 0 to 5"


def batches(name: str = "batches", **more: object) -> list[Row]:
    """What is no list, what is no batch when its turn comes, and what holds nothing to read."""
    empty = "hold no token: give calibration_batches\\(\\) some text"
    return [
        ({name: lambda w: w.batch, **more}, TypeError, "batches must be a list .*got dict: put it in a list"),
        ({name: lambda w: iter([w.batch, {}]), **more}, ValueError, "the batch has no input_ids"),
        ({name: lambda w: (b for b in ()), **more}, ValueError, empty),
        ({name: [ALL_PADS], **more}, ValueError, empty),
    ]


def prompts(name: str = "prompts") -> list[Row]:
    return [
        ({name: "the"}, TypeError, f"{name} must be a list of strings, got 'the': put it in"),
        ({name: []}, ValueError, f"{name} is empty: give at least one"),
        ({name: ["the", ""]}, ValueError, "the prompt is empty: give it at least one word"),
    ]


def folder(name: str) -> list[Row]:
    """Rows for a folder to write."""
    return [
        ({name: None}, TypeError, "expected the path of a folder, got None"),
        ({name: ""}, ValueError, "the path of the folder is empty"),
        ({name: lambda w: w.folder / "file.txt"}, FileExistsError, "file.txt is a file: name a folder"),
        (
            {name: lambda w: w.folder / "file.txt" / "x"},
            OSError,
            "file.txt.* is a file, .*choose another folder",
        ),
        ({name: lambda w: w.folder / "mine"}, FileExistsError, "mine is not empty: choose another folder, or"),
    ]


# ---- a case and what it must show ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    name: str  # of the public function; "Trials.rebase" is a method of one
    call: Callable
    right: Mapping[str, object]
    wrong: Mapping[str, object]
    kind: type[Exception]
    says: str

    def __str__(self) -> str:
        return f"{self.name}-{'-'.join(self.wrong)}"


def wrong(call: Callable, right: Mapping[str, object], *rows: Row, name: str | None = None) -> list[Case]:
    """A case a row; `name` if `call` is not itself the public function that is tested."""
    return [Case(name or call.__name__, call, right, *row) for row in rows]


def check(case: Case, w: World) -> None:
    """One sentence that names the fault, and models and files as they were."""
    given = {name: _value(value, w) for name, value in (case.right | case.wrong).items()}
    others = [value for value in _flat(given.values()) if isinstance(value, PreTrainedModel) and value is not w.model]
    before = [(w.model, _shared_state()), *((model, state_of(model)) for model in others)]
    files = listing(w.folder)
    with pytest.raises(case.kind) as caught:
        case.call(**given)
    sentence = str(caught.value)
    assert type(caught.value) in CLEAR
    assert re.search(case.says, sentence), sentence
    assert "\n" not in sentence and 20 <= len(sentence) <= 330, sentence
    try:
        for model, state in before:
            assert_same_state(model, state)
    except AssertionError:
        _shared.cache_clear()  # the next row is not to blame
        _shared_state.cache_clear()
        raise
    assert listing(w.folder) == files


def _flat(values: Iterable) -> Iterable:
    for value in values:
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]


def state_of(model: PreTrainedModel) -> dict:
    return {
        "weights": {n: (t.clone(), t._version) for n, t in model.state_dict().items()},
        "config": str(vars(model.config)),
        "generation": str(vars(model.generation_config)),
        "modes, hooks, forwards": {
            n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m))
            for n, m in model.named_modules()
        },
        "gradients": {n: (p.requires_grad, p.grad) for n, p in model.named_parameters()},
        "attributes": sorted(k for k in vars(model) if not k.startswith("_forward")),
    }


def assert_same_state(model: PreTrainedModel, before: dict) -> None:
    after = state_of(model)
    for part in before.keys() - {"weights"}:
        assert after[part] == before[part], f"{part} changed"
    assert after["weights"].keys() == before["weights"].keys()
    for name, (tensor, version) in before["weights"].items():
        now, version_now = after["weights"][name]
        readable = type(tensor) is torch.Tensor and not tensor.is_meta  # torchao's have no ==
        same = not readable or torch.equal(tensor.nan_to_num(), now.nan_to_num())
        assert version == version_now and same, f"{name} changed"


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in sorted(folder.rglob("*"))}


# ---- nothing is forgotten --------------------------------------------------------------------------------------------
PUBLIC = {  # name -> room, of the one list of public names
    alias.name: node.module.partition(".")[0]
    for node in ast.parse(Path(shortgpt.__file__).with_name("__init__.pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.level and node.module
    for alias in node.names
}
YES_OR_NO = "any value is read as yes or no"
UNASKED = {  # parameters that ask nothing in any function, each with its reason
    "progress": YES_OR_NO,
    "overwrite": YES_OR_NO,
    "verify": YES_OR_NO,
    "bos": "any value is read as yes or no, None as the tokenizer's own way",
    "higher_is_better": YES_OR_NO,
}


def parameters(name: str) -> list[str]:
    return list(inspect.signature(getattr(shortgpt, name)).parameters)


def forgotten(room: str, cases: Iterable[Case], unasked: Mapping[str, str]) -> list[str]:
    """Public functions of a room without a row, parameters of theirs that none gets wrong, and reasons that are stale.

    Args:
        unasked: ``function.parameter`` -> why there is no row; `UNASKED` holds for all functions.
    """
    cases = list(cases)
    there = [name for name, its in PUBLIC.items() if its == room]
    named = {case.name.partition(".")[0] for case in cases}
    asked = {f"{case.name.partition('.')[0]}.{parameter}" for case in cases for parameter in case.wrong}
    wanted = {f"{name}.{p}" for name in there for p in parameters(name) if p not in UNASKED}
    return sorted({*there} - named) + sorted(wanted - asked - {*unasked}) + sorted({*unasked} - (wanted - asked))
