"""Every public function, called wrongly: one sentence that names the fault, and model and files as they were.

The table `WRONG` is the test: one line a call. `w` is a fresh `World` for each.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from architectures import tiny_model
from small import LAYERS, VOCABULARY, build_tiny, random_batch

import shortgpt
from shortgpt import (
    Ablation,
    PruningPlan,
    Trials,
    added_losses,
    best_within,
    block_influence,
    built_in_text,
    calibration_batches,
    choice_and_generation,
    choice_summary,
    choose_by,
    choose_layers,
    choose_repaired,
    compare,
    compare_criteria,
    continue_text,
    decoder_layers,
    describe,
    divergence_along,
    equal_parameters,
    evaluate,
    frontier,
    frontier_steps,
    generate_with_draft,
    generation_report,
    generation_summary,
    heal,
    hidden_states,
    key_value_bytes,
    leave_one_out,
    load,
    merge_layers,
    paper_benchmarks,
    perplexity,
    perplexity_table,
    plan_agreement,
    prefill_report,
    prune_checkpoint,
    prune_prefill,
    quantize,
    read_grid,
    removal_order,
    removal_sweep,
    remove_channels,
    remove_heads,
    remove_layers,
    remove_sublayers,
    repetition,
    retention_table,
    sampled_text,
    save,
    save_gguf,
    score_layers,
    score_sublayers,
    side_by_side,
    size,
    size_quality_grid,
    span_distances,
    speculative_report,
    speed,
    speed_table,
    suggested_models,
    token_paths,
    tokens_needed,
    watch_layers,
    width_scores,
)
from shortgpt.scoring.influence import LayerScores

SCORES = pd.DataFrame({"task": ["x"], "metric": "acc", "value": 50.0, "standard_error": 5.0, "chance": 25.0})
TEXTS = ["the river rose in the night.", "and took the bridge with it."]


@dataclass
class World:
    """What a call may get wrong, and what must not change because of it."""

    folder: Path
    tokenizer: object
    model: object = field(default_factory=build_tiny)
    batch: dict = field(default_factory=random_batch)

    def __post_init__(self) -> None:
        self.scores = LayerScores(np.random.default_rng(0).random((4, LAYERS)), np.full(4, 8))
        self.model.train()
        self.model.model.layers[1].eval()  # modes may differ from module to module
        self.model.model.layers[2].requires_grad_(False)
        (self.folder / "here").mkdir()  # the current folder
        (self.folder / "mine").mkdir()
        (self.folder / "mine" / "thesis.txt").write_text("years of work")
        (self.folder / "file.txt").write_text("a file, no folder")
        self.remember()

    def remember(self) -> None:
        """What the calls must leave as it is; a call that prepares something remembers again."""
        self.before = state_of(self.model), listing(self.folder)

    def assert_unchanged(self) -> None:
        state, files = self.before
        assert_same_state(self.model, state)
        assert listing(self.folder) == files

    @property
    def new(self) -> Path:
        """A folder that isn't there."""
        return self.folder / "new"

    def file(self, text: str, name: str = "plan.json") -> Path:
        (self.folder / name).write_text(text)
        self.remember()
        return self.folder / name

    def checkpoint(self) -> Path:
        """The tiny model on disk (one for all calls; nobody may write there)."""
        return CHECKPOINT.folder

    def broken(self, value: float = float("nan")) -> object:
        """The model with one wrong number in layer 3."""
        with torch.no_grad():
            self.model.model.layers[3].mlp.down_proj.weight[0, 0] = value
        self.remember()
        return self.model

    def with_mask(self, mask) -> dict:
        return self.batch | {"attention_mask": mask}

    def with_ids(self, ids) -> dict:
        return {"input_ids": ids, "attention_mask": torch.ones(ids.shape, dtype=torch.long)}


CHECKPOINT = SimpleNamespace(folder=None)


@pytest.fixture(scope="module", autouse=True)
def checkpoint(tmp_path_factory):
    CHECKPOINT.folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    build_tiny().save_pretrained(CHECKPOINT.folder)


GRID = pd.DataFrame(
    [(0, "none", "either"), (2, "none", "either"), (0, "nf4", "either"), (2, "nf4", "prune first")],
    columns=["removed", "method", "order"],
).assign(losses=[[1.0]] * 4, tokens=[[2]] * 4)


def on_meta():
    with torch.device("meta"):
        return build_tiny()


def state_of(model) -> dict:
    return {
        "weights": {n: (t.clone(), t._version) for n, t in model.state_dict().items()},
        "config": model.config.to_json_string(),
        "generation": model.generation_config.to_json_string(),
        "modes": {n: m.training for n, m in model.named_modules()},
        "hooks": {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
        "forwards": [n for n, m in model.named_modules() if "forward" in vars(m)],
        "gradients": {n: (p.requires_grad, p.grad) for n, p in model.named_parameters()},
        "attributes": sorted(k for k in vars(model) if not k.startswith("_forward")),
    }


def assert_same_state(model, before: dict) -> None:
    after = state_of(model)
    for part in before.keys() - {"weights"}:
        assert after[part] == before[part], f"{part} changed"
    assert after["weights"].keys() == before["weights"].keys()
    for name, (tensor, version) in before["weights"].items():
        now, version_now = after["weights"][name]
        assert version == version_now and torch.equal(tensor, now) | tensor.isnan().any(), f"{name} changed"


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in sorted(folder.rglob("*"))}


# ---- arguments that many functions share -----------------------------------------------------------------------------
NO_MODEL = "expected a transformers model, got {}: pass what load\\(\\) returned first"
NO_TOKENIZER = "expected a tokenizer, got {}: pass what load\\(\\) returned second"
NO_WEIGHTS = "LlamaForCausalLM holds no weights \\(device meta\\): load it with load\\(\\)"
Row = tuple[str, Callable, type, str]


def changed_layer(what: str) -> torch.nn.Module:
    """A model whose layer 2 or 3 can't take part in sums of weights."""
    model = build_tiny()
    two, three = model.model.layers[2].mlp.up_proj, model.model.layers[3].mlp
    if what == "sharing":
        three.up_proj.weight = two.weight
    elif what == "uneven":
        three.gate = torch.nn.Linear(2, 2)
    else:
        two.weight = torch.nn.Parameter(two.weight.detach().to(torch.int8), requires_grad=False)
    return model


def no_model(call: Callable) -> list[Row]:
    """Rows for a function that is given something else for a model; `call` takes the world and that thing."""
    others = {
        "NoneType": lambda w: None,
        "str": lambda w: "gpt2",
        "dict": lambda w: {},
        "PreTrainedTokenizerFast|TokenizersBackend": lambda w: w.tokenizer,
        "tuple": lambda w: (w.model, w.tokenizer),
        "Linear": lambda w: torch.nn.Linear(2, 2),
    }
    return [
        (
            f"{name} for a model",
            partial(lambda w, make: call(w, make(w)), make=make),
            TypeError,
            NO_MODEL.format(f"({name})"),
        )
        for name, make in others.items()
    ]


def no_tokenizer(call: Callable) -> list[Row]:
    others = {"NoneType": lambda w: None, "str": lambda w: "gpt2", "LlamaForCausalLM": lambda w: w.model}
    return [
        (
            f"{n} for a tokenizer",
            partial(lambda w, make: call(w, make(w)), make=make),
            TypeError,
            NO_TOKENIZER.format(n),
        )
        for n, make in others.items()
    ]


def bad_count(call: Callable, name: str, least: int = 1) -> list[Row]:
    """Rows for a whole number; `call` takes the world and a value."""
    wrong_type = [("3", "'3'"), (2.5, "2.5"), (True, "True"), ([1], "list"), (torch.tensor(2), "Tensor")]
    return [
        *(
            (
                f"{name}={shown}",
                partial(lambda w, v: call(w, v), v=value),
                TypeError,
                f"{name} must be a whole number, got {shown}",
            )
            for value, shown in wrong_type
        ),
        (
            f"{name} too low",
            lambda w: call(w, least - 1),
            ValueError,
            f"{name} must be at least {least}, got {least - 1}",
        ),
    ]


def bad_layers(call: Callable) -> list[Row]:
    """Rows for a list of layers; `call` takes the world and the list."""
    return [
        (
            "layers None",
            lambda w: call(w, None),
            TypeError,
            "layers are a list of numbers, for instance \\[3, 4\\], got None",
        ),
        ("one number", lambda w: call(w, 3), TypeError, "layers are a list of numbers, for instance \\[3, 4\\], got 3"),
        ("a model for layers", lambda w: call(w, w.model), TypeError, "a list of numbers.*got LlamaForCausalLM"),
        ("a float", lambda w: call(w, [1.0]), ValueError, "a layer is named by its number, 0 to 5, got 1.0"),
        ("a string", lambda w: call(w, "23"), ValueError, "a layer is named by its number, 0 to 5, got '2'"),
        ("a bool", lambda w: call(w, [True]), ValueError, "a layer is named by its number, 0 to 5, got True"),
        (
            "a tensor",
            lambda w: call(w, torch.tensor([1, 2])),
            ValueError,
            "a layer is named by its number, 0 to 5, got.*tolist",
        ),
        ("negative", lambda w: call(w, [-1]), ValueError, "unknown layer -1: this model has layers 0 to 5"),
        ("out of range", lambda w: call(w, [1, LAYERS]), ValueError, "unknown layer 6: this model has layers 0 to 5"),
        ("huge", lambda w: call(w, [10**30]), ValueError, f"unknown layer {10**30}: this model"),
        (
            "twice",
            lambda w: call(w, (np.int64(2), 2)),
            ValueError,
            "layer 2 is named twice: name each layer to remove once",
        ),
    ]


def bad_batches(call: Callable, one: bool = False) -> list[Row]:
    """Rows for token batches; `call` takes the world and the batches (`one`: a single batch)."""

    def row(name: str, make: Callable, kind: type, says: str) -> Row:
        return name, lambda w: call(w, make(w) if one else [make(w)]), kind, says

    a_dict = "a batch is a dict with input_ids and attention_mask, got "
    rows = [
        row("None for a batch", lambda w: None, TypeError, f"{a_dict}None"),
        row("a string for a batch", lambda w: "the river", TypeError, f"{a_dict}'the river'"),
        row("ids for a batch", lambda w: w.batch["input_ids"], TypeError, f"{a_dict}Tensor"),
        row(
            "no mask",
            lambda w: {"input_ids": w.batch["input_ids"]},
            ValueError,
            "the batch has no attention_mask: .*return_tensors",
        ),
        row("no ids", lambda w: {"attention_mask": w.batch["input_ids"]}, ValueError, "the batch has no input_ids: "),
        row(
            "lists",
            lambda w: {"input_ids": [[1, 2]], "attention_mask": [[1, 1]]},
            TypeError,
            "input_ids must be a tensor .*got list",
        ),
        row(
            "numpy",
            lambda w: {k: v.numpy() for k, v in w.batch.items()},
            TypeError,
            "input_ids must be a tensor .*got ndarray",
        ),
        row(
            "1-D ids",
            lambda w: w.with_ids(torch.arange(1, 9)),
            ValueError,
            "input_ids must be .*\\[batch, tokens\\], got shape \\[8\\]",
        ),
        row(
            "float ids",
            lambda w: w.with_ids(torch.rand(2, 8)),
            ValueError,
            "input_ids must be whole numbers.*torch.float32",
        ),
        row(
            "bool ids",
            lambda w: w.with_ids(torch.ones(2, 8) > 0),
            ValueError,
            "input_ids must be whole numbers.*torch.bool",
        ),
        row(
            "shapes differ",
            lambda w: w.with_mask(torch.ones(3, 15)),
            ValueError,
            "attention_mask has shape \\[3, 15\\].*\\[3, 16\\]",
        ),
        row(
            "4-D mask",
            lambda w: w.with_mask(torch.ones(3, 1, 16, 16)),
            ValueError,
            "attention_mask has shape \\[3, 1, 16, 16\\]",
        ),
        row(
            "mask of lists",
            lambda w: w.with_mask([[1] * 16] * 3),
            TypeError,
            "attention_mask must be a tensor .*got list",
        ),
        row(
            "additive mask",
            lambda w: w.with_mask(torch.full((3, 16), -1e9)),
            ValueError,
            "attention_mask must hold 1 for .*and 0",
        ),
        row(
            "NaN mask",
            lambda w: w.with_mask(torch.full((3, 16), float("nan"))),
            ValueError,
            "attention_mask must hold 1 for",
        ),
        row(
            "id beyond",
            lambda w: w.with_ids(torch.full((1, 8), VOCABULARY)),
            ValueError,
            "token 96 is not in .*vocabulary of 96.*tokenizer",
        ),
        row(
            "negative id",
            lambda w: w.with_ids(torch.full((1, 8), -100)),
            ValueError,
            "token -100 is not in .*vocabulary of 96",
        ),
        row("no tokens", lambda w: w.with_ids(torch.ones(2, 0, dtype=torch.long)), ValueError, "hold.? no token"),
        row("no rows", lambda w: w.with_ids(torch.ones(0, 4, dtype=torch.long)), ValueError, "hold.? no token"),
    ]
    if one:
        return rows
    all_pads = {"input_ids": torch.ones(2, 4, dtype=torch.long), "attention_mask": torch.zeros(2, 4, dtype=torch.long)}
    return [
        *rows,
        (
            "None for batches",
            lambda w: call(w, None),
            TypeError,
            "batches must be a list .*calibration_batches\\(\\).*got None",
        ),
        ("a number for batches", lambda w: call(w, 3), TypeError, "batches must be a list .*got 3"),
        (
            "a batch for batches",
            lambda w: call(w, w.batch),
            TypeError,
            "batches must be a list .*got dict: put it in a list",
        ),
        ("no batch", lambda w: call(w, []), ValueError, "hold no token: give calibration_batches\\(\\) some text"),
        ("an empty generator", lambda w: call(w, (b for b in ())), ValueError, "hold no token"),
        ("all pads", lambda w: call(w, [all_pads]), ValueError, "hold no token"),
        ("a bad batch late", lambda w: call(w, iter([w.batch, w.batch, {}])), ValueError, "the batch has no input_ids"),
    ]


def no_prompts(call: Callable) -> list[Row]:
    """Rows for a list of prompts; `call` takes the world and the list."""
    return [
        ("prompts None", lambda w: call(w, None), TypeError, "prompts must be a list of strings, got None"),
        ("one prompt", lambda w: call(w, "the"), TypeError, "prompts must be a list of strings, got 'the': put it in"),
        ("numbers", lambda w: call(w, ["the", 3]), TypeError, "prompts must be strings, got 3 among them"),
        ("no prompt", lambda w: call(w, []), ValueError, "prompts is empty: give at least one"),
        ("an empty one", lambda w: call(w, ["the", ""]), ValueError, "the prompt is empty: give it at least one word"),
    ]


def no_report(call: Callable) -> list[Row]:
    """Rows for a function of the table that `generation_report` gives."""
    wrong = {"None": None, "'dense'": "dense", "DataFrame": pd.DataFrame({"text": TEXTS}), "dict": {}}
    rows = [
        (
            f"{shown} for a report",
            partial(lambda w, v: call(v), v=value),
            TypeError,
            f"report must be a table from generation_report\\(\\), got {shown}",
        )
        for shown, value in wrong.items()
    ]
    empty = "the report has no rows: give generation_report\\(\\) at least one prompt"
    return [*rows, ("no rows", lambda w: call(report(w, new_tokens=1).iloc[:0]), ValueError, empty)]


def report(w, prompts=("the",), models=None, **options):
    models = {"dense": w.model} if models is None else models
    return generation_report(models, w.tokenizer, prompts, progress=False, **options)


def along(w, prompts=("the",), **changed):
    arguments = {"dense": w.model, "pruned": w.model, "tokenizer": w.tokenizer} | changed
    return divergence_along(**arguments, prompts=prompts, progress=False)


def quick(w, models=None, **options):
    few = {"prompt_tokens": 4, "new_tokens": 1, "batch_sizes": [1], "repeats": 1, "warm_up": 0, "progress": False}
    return speed_table({"dense": w.model} if models is None else models, **few | options)


def wider(w):
    model = build_tiny()
    model.resize_token_embeddings(100)
    return model


def bad_folder(call: Callable) -> list[Row]:
    """Rows for a folder to write; `call` takes the world and the path."""
    return [
        ("folder None", lambda w: call(w, None), TypeError, "expected the path of a folder, got None"),
        ("folder 3", lambda w: call(w, 3), TypeError, "expected the path of a folder, got 3"),
        ("folder empty", lambda w: call(w, ""), ValueError, "the path of the folder is empty"),
        (
            "folder a file",
            lambda w: call(w, w.folder / "file.txt"),
            FileExistsError,
            "file.txt is a file: name a folder",
        ),
        (
            "folder in a file",
            lambda w: call(w, w.folder / "file.txt" / "x"),
            OSError,
            "file.txt.* is a file, .*choose another folder",
        ),
        (
            "folder not empty",
            lambda w: call(w, w.folder / "mine"),
            FileExistsError,
            "mine is not empty: choose another folder, or",
        ),
    ]


NAN = "layer 3 gives hidden states with NaN or infinity \\(dtype torch.float32\\): load"


def bad_draft(call: Callable) -> list[Row]:
    """Rows for the layers of a draft, which may also be a model."""
    return [row for row in bad_layers(call) if row[0] != "a model for layers"]


NAN_LOGITS = "the model gives logits with NaN \\(dtype torch.float32\\): load"
NOT_AN_OBJECTIVE = "unknown objective .*: choose one of loss, divergence"
NOT_A_METRIC = "unknown metric .*: choose one of block_influence, angular_distance, relative_magnitude"


def gpt2(w):
    return build_tiny("gpt2")  # knows 256 positions


def long_text(n: int) -> str:
    return "a" * n


def endless(model: object) -> object:
    model.generation_config.eos_token_id = None
    return model


def with_end(w: World) -> object:
    """The tokenizer with an end token, from which sampling starts."""
    w.tokenizer.eos_token = "?"
    return w.tokenizer


# ---- the table -------------------------------------------------------------------------------------------------------
WRONG: dict[str, list[Row]] = {
    "load": [
        ("None", lambda w: load(None), TypeError, "expected a Hub id or the path of a folder, got None"),
        ("3", lambda w: load(3), TypeError, "expected a Hub id .*got 3"),
        ("a model", lambda w: load(w.model), TypeError, "expected a Hub id .*got LlamaForCausalLM"),
        ("empty", lambda w: load(""), ValueError, "expected a Hub id or the path of a folder, got ''"),
        ("no folder", lambda w: load(w.folder / "nowhere"), FileNotFoundError, "no such folder: .*nowhere"),
        (
            "no model in it",
            lambda w: load(w.folder / "mine"),
            FileNotFoundError,
            "mine holds no model: it has no config.json",
        ),
        ("a file", lambda w: load(w.folder / "file.txt"), FileNotFoundError, "no such folder: .*file.txt"),
        ("device", lambda w: load(w.checkpoint(), device="gpu0"), ValueError, "unknown device 'gpu0': .*'cpu'"),
        (
            "no such GPU",
            lambda w: load(w.checkpoint(), device="cuda:77"),
            ValueError,
            "no device 'cuda:77' on this machine",
        ),
        ("dtype", lambda w: load(w.checkpoint(), dtype="float99"), ValueError, "unknown dtype 'float99': .*float32"),
        ("dtype 3", lambda w: load(w.checkpoint(), dtype=3), ValueError, "unknown dtype 3: "),
        (
            "memory",
            lambda w: load(w.checkpoint(), max_memory="4GiB"),
            TypeError,
            "max_memory .*for instance .*got '4GiB'",
        ),
    ],
    "describe": no_model(lambda w, m: describe(m)),
    "decoder_layers": no_model(lambda w, m: decoder_layers(m)),
    "built_in_text": [
        (
            "part",
            lambda w: built_in_text("all"),
            ValueError,
            "no part 'all' here: choose one of calibration, perplexity",
        ),
        ("part 3", lambda w: built_in_text(3), ValueError, "no part 3 here: choose one of"),
        ("language", lambda w: built_in_text(language="fr"), ValueError, "no language 'fr' here: choose one of en, zh"),
        ("genre", lambda w: built_in_text(genre=[1]), ValueError, "no genre .*choose one of"),
    ],
    "calibration_batches": [
        *no_tokenizer(lambda w, t: calibration_batches(t, TEXTS)),
        *bad_count(lambda w, n: calibration_batches(w.tokenizer, TEXTS, samples=n), "samples"),
        *bad_count(lambda w, n: calibration_batches(w.tokenizer, TEXTS, length=n), "length"),
        *bad_count(lambda w, n: calibration_batches(w.tokenizer, TEXTS, batch_size=n), "batch_size"),
        *bad_count(lambda w, n: calibration_batches(w.tokenizer, TEXTS, seed=n), "seed", least=0),
        (
            "no text",
            lambda w: calibration_batches(w.tokenizer, []),
            ValueError,
            "text is empty: give at least one document",
        ),
        ("blank text", lambda w: calibration_batches(w.tokenizer, ["", " \n"]), ValueError, "text is empty: give"),
        (
            "a sentence",
            lambda w: calibration_batches(w.tokenizer, "the river"),
            ValueError,
            "list of strings, got 'the river'",
        ),
        ("numbers", lambda w: calibration_batches(w.tokenizer, ["a", 1]), TypeError, "text must be strings, got 1"),
        ("a number", lambda w: calibration_batches(w.tokenizer, 3), TypeError, "text must be a list of strings.*got 3"),
        ("bytes", lambda w: calibration_batches(w.tokenizer, b"the"), TypeError, "text must be .*got bytes"),
        (
            "no file",
            lambda w: calibration_batches(w.tokenizer, w.folder / "no.txt"),
            FileNotFoundError,
            "no such .*no.txt",
        ),
        (
            "a folder",
            lambda w: calibration_batches(w.tokenizer, w.folder / "mine"),
            ValueError,
            "must be a .txt or .jsonl",
        ),
        (
            "bad JSON",
            lambda w: calibration_batches(w.tokenizer, w.file("{", "a.jsonl")),
            ValueError,
            "every line must be a JSON",
        ),
        (
            "JSON numbers",
            lambda w: calibration_batches(w.tokenizer, w.file('{"text": 3}', "a.jsonl")),
            TypeError,
            "strings, got 3",
        ),
        ("no pad", lambda w: unpaddable(w), ValueError, "the tokenizer has no pad token: set `tokenizer.pad_token"),
    ],
    "hidden_states": [
        *no_model(lambda w, m: hidden_states(m, w.batch)),
        *bad_batches(lambda w, b: hidden_states(w.model, b), one=True),
        (
            "all pads",
            lambda w: hidden_states(w.model, w.with_mask(torch.zeros(3, 16, dtype=torch.long))),
            ValueError,
            "the batch holds no token: its attention_mask is 0 everywhere",
        ),
        ("on meta", lambda w: hidden_states(on_meta(), w.batch), ValueError, NO_WEIGHTS),
        (
            "too long",
            lambda w: hidden_states(gpt2(w), random_batch(tokens=257)),
            ValueError,
            "257 tokens .*256 positions: ",
        ),
    ],
    "watch_layers": [
        *no_model(lambda w, m: watch_layers(m, print).__enter__()),
        ("no function", lambda w: watch_layers(w.model, 3).__enter__(), TypeError, "report must be a function .*got 3"),
    ],
    "block_influence": [
        ("lists", lambda w: block_influence([1.0], [1.0]), TypeError, "states must be tensors, got list"),
        ("None", lambda w: block_influence(torch.ones(3), None), TypeError, "states must be tensors, got None"),
        (
            "shapes",
            lambda w: block_influence(torch.ones(3), torch.ones(4)),
            ValueError,
            "one shape, got \\[3\\] and \\[4\\]",
        ),
        (
            "broadcast",
            lambda w: block_influence(torch.ones(2, 3), torch.ones(3)),
            ValueError,
            "one shape, got \\[2, 3\\] and",
        ),
        (
            "numbers",
            lambda w: block_influence(torch.tensor(1.0), torch.tensor(1.0)),
            ValueError,
            "at least one axis.*got \\[\\]",
        ),
    ],
    "score_layers": [
        *no_model(lambda w, m: score_layers(m, [w.batch], progress=False)),
        *bad_batches(lambda w, b: score_layers(w.model, b, progress=False)),
        ("metric", lambda w: score_layers(w.model, [w.batch], metric="cosine"), ValueError, NOT_A_METRIC),
        ("metric list", lambda w: score_layers(w.model, [w.batch], metric=["a"]), ValueError, NOT_A_METRIC),
        ("metric None", lambda w: score_layers(w.model, [w.batch], metric=None), ValueError, NOT_A_METRIC),
        ("NaN", lambda w: score_layers(w.broken(), [w.batch], progress=False), ValueError, NAN),
        ("inf", lambda w: score_layers(w.broken(float("inf")), [w.batch], progress=False), ValueError, NAN),
        ("on meta", lambda w: score_layers(on_meta(), [w.batch], progress=False), ValueError, NO_WEIGHTS),
        (
            "too long",
            lambda w: score_layers(gpt2(w), [random_batch(tokens=257)], progress=False),
            ValueError,
            "257 tokens",
        ),
    ],
    "span_distances": [
        (
            "metric",
            lambda w: span_distances(w.model, [w.batch], metric="relative_magnitude"),
            ValueError,
            "unknown metric 'relative_magnitude': choose one of block_influence, angular_distance",
        ),
        (
            "tokens",
            lambda w: span_distances(w.model, [w.batch], tokens="first"),
            ValueError,
            "unknown tokens 'first': choose one of all, last",
        ),
        *no_model(lambda w, m: span_distances(m, [w.batch])),
        *bad_batches(lambda w, b: span_distances(w.model, b)),
        ("NaN", lambda w: span_distances(w.broken(), [w.batch]), ValueError, NAN),
        ("on meta", lambda w: span_distances(on_meta(), [w.batch]), ValueError, NO_WEIGHTS),
    ],
    "choose_layers": [
        ("no scores", lambda w: choose_layers(None, 2), TypeError, "expected scores from score_layers\\(\\), got None"),
        (
            "an array",
            lambda w: choose_layers(w.scores.values, 2),
            TypeError,
            "expected scores from score_layers\\(\\), got ndarray",
        ),
        ("sublayers", lambda w: choose_layers({"ffn": w.scores}, 2), TypeError, "expected scores .*got dict"),
        *bad_count(lambda w, n: choose_layers(w.scores, n), "n", least=0)[:-1],
        ("negative", lambda w: choose_layers(w.scores, -1), ValueError, "n must be 0 to 5 .*got -1"),
        ("all", lambda w: choose_layers(w.scores, LAYERS), ValueError, "n must be 0 to 5 .*got 6"),
        ("huge", lambda w: choose_layers(w.scores, 10**30), ValueError, "n must be 0 to 5"),
        ("nothing said", lambda w: choose_layers(w.scores), ValueError, "give either n .* or ratio"),
        ("both", lambda w: choose_layers(w.scores, 1, ratio=0.2), ValueError, "give either n .* or ratio"),
        ("ratio 1", lambda w: choose_layers(w.scores, ratio=1.0), ValueError, "ratio is a fraction .*got 1.0"),
        (
            "ratio NaN",
            lambda w: choose_layers(w.scores, ratio=float("nan")),
            ValueError,
            "ratio is a fraction .*got nan",
        ),
        ("ratio text", lambda w: choose_layers(w.scores, ratio="25%"), TypeError, "ratio must be a number, got '25%'"),
        ("ratio bool", lambda w: choose_layers(w.scores, ratio=False), TypeError, "ratio must be a number, got False"),
        (
            "order",
            lambda w: choose_layers(w.scores, 1, order="best"),
            ValueError,
            "unknown order 'best': choose one of score",
        ),
        (
            "order list",
            lambda w: choose_layers(w.scores, 1, order=[]),
            ValueError,
            "unknown order list: choose one of score",
        ),
        *bad_count(lambda w, n: choose_layers(w.scores, 1, order="random", seed=n), "seed", least=0),
        ("no score", lambda w: choose_layers(nan_scores(), 6 - 1), ValueError, "layer 2 has no score \\(NaN\\)"),
    ],
    "removal_order": [
        ("no scores", lambda w: removal_order(None), TypeError, "expected scores from score_layers\\(\\), got None"),
        ("order", lambda w: removal_order(w.scores, "best"), ValueError, "unknown order 'best': choose one of score"),
        *bad_count(lambda w, n: removal_order(w.scores, "random", seed=n), "seed", least=0),
    ],
    "Trials": [
        *no_model(lambda w, m: Trials(m, [w.batch])),
        *bad_batches(lambda w, batches: Trials(w.model, batches)),
        *bad_layers(lambda w, layers: Trials(w.model, [w.batch])(layers)),
        *bad_layers(lambda w, layers: Trials(w.model, [w.batch]).rebase(layers)),
        ("all", lambda w: Trials(w.model, [w.batch])(range(LAYERS)), ValueError, "removing 6 of 6 layers leaves none"),
        ("objective", lambda w: Trials(w.model, [w.batch], objective="mmlu"), ValueError, NOT_AN_OBJECTIVE),
        (
            "one token a sample",
            lambda w: Trials(w.model, [{k: v[:, :1] for k, v in w.batch.items()}]),
            ValueError,
            "no sample has two tokens, so there is none to predict: give longer text",
        ),
        ("on meta", lambda w: Trials(on_meta(), [w.batch]), ValueError, NO_WEIGHTS),
        ("NaN", lambda w: Trials(w.broken(), [w.batch])([2]), ValueError, NAN_LOGITS),
        ("too long", lambda w: Trials(gpt2(w), [random_batch(1, 257)]), ValueError, "257 tokens .*256 positions"),
    ],
    "leave_one_out": [
        (
            "no function",
            lambda w: leave_one_out(w.model.config, 6),
            TypeError,
            "value must be a function of the removed",
        ),
        ("None", lambda w: leave_one_out(None, 6), TypeError, "for instance Trials\\(...\\), got None"),
        *bad_count(lambda w, n: leave_one_out(unreachable, n), "depth"),
    ],
    "remove_channels": [
        *no_model(lambda w, m: remove_channels(m, 1)),
        *bad_count(lambda w, n: remove_channels(w.model, n), "n", least=0),
        ("neither", lambda w: remove_channels(w.model), ValueError, "give either n .* or ratio"),
        ("both", lambda w: remove_channels(w.model, 1, ratio=0.5), ValueError, "give either n .* or ratio"),
        ("too many", lambda w: remove_channels(w.model, 64), ValueError, "n must be 0 to .*got 64"),
        ("ratio 1", lambda w: remove_channels(w.model, ratio=1), ValueError, "ratio is a fraction of the .*got 1"),
        (
            "ratio text",
            lambda w: remove_channels(w.model, ratio="half"),
            TypeError,
            "ratio must be a number, got 'half'",
        ),
        (
            "scores",
            lambda w: remove_channels(w.model, 1, scores="taylor"),
            ValueError,
            "unknown scores 'taylor': .*magnitude",
        ),
        ("no batches", lambda w: remove_channels(w.model, 1, scores="activation"), TypeError, "batches must be a list"),
        *bad_batches(lambda w, b: remove_channels(w.model, 1, scores="activation", batches=b)),
    ],
    "remove_heads": [
        *no_model(lambda w, m: remove_heads(m, 1)),
        *bad_count(lambda w, n: remove_heads(w.model, n), "n", least=0),
        ("neither", lambda w: remove_heads(w.model), ValueError, "give either n .* or ratio"),
        ("both", lambda w: remove_heads(w.model, 1, ratio=0.5), ValueError, "give either n .* or ratio"),
        ("too many", lambda w: remove_heads(w.model, 64), ValueError, "n must be 0 to .*got 64"),
        ("ratio 1", lambda w: remove_heads(w.model, ratio=1), ValueError, "ratio is a fraction of the .*got 1"),
        ("ratio text", lambda w: remove_heads(w.model, ratio="half"), TypeError, "ratio must be a number, got 'half'"),
        (
            "scores",
            lambda w: remove_heads(w.model, 1, scores="taylor"),
            ValueError,
            "unknown scores 'taylor': .*magnitude",
        ),
        ("no batches", lambda w: remove_heads(w.model, 1, scores="activation"), TypeError, "batches must be a list"),
        *bad_batches(lambda w, b: remove_heads(w.model, 1, scores="activation", batches=b)),
    ],
    "width_scores": [
        *no_model(lambda w, m: width_scores(m, "heads")),
        ("kind", lambda w: width_scores(w.model, "rows"), ValueError, "unknown kind 'rows': .*channels, heads"),
        ("scores", lambda w: width_scores(w.model, "heads", scores=1), ValueError, "unknown scores 1: "),
        *bad_batches(lambda w, b: width_scores(w.model, "heads", scores="activation", batches=b)),
    ],
    "equal_parameters": [
        *no_model(lambda w, m: equal_parameters(m, 1)),
        *bad_count(lambda w, n: equal_parameters(w.model, n), "layers"),
    ],
    "merge_layers": [
        *no_model(lambda w, m: merge_layers(m, [2])),
        *bad_layers(lambda w, layers: merge_layers(w.model, layers)),
        ("first layer", lambda w: merge_layers(w.model, [0, 3]), ValueError, "layer 0 is removed.*keep layer 0"),
        (
            "shared",
            lambda w: merge_layers(changed_layer("sharing"), [3]),
            ValueError,
            "layers 2 and 3 share weights.*shortgpt.heal",
        ),
        (
            "other weights",
            lambda w: merge_layers(changed_layer("uneven"), [3]),
            ValueError,
            "layer 3 has other weights than layer 2",
        ),
        (
            "quantized",
            lambda w: merge_layers(changed_layer("quantized"), [3]),
            ValueError,
            "the weights of layer 2 are quantized or not in memory",
        ),
    ],
    "heal": [
        *no_model(lambda w, m: heal(m, [2], [w.batch], progress=False)),
        *bad_layers(lambda w, layers: heal(w.model, layers, [w.batch], progress=False)),
        *bad_batches(lambda w, batches: heal(w.model, [2], batches, progress=False)),
        (
            "kind",
            lambda w: heal(w.model, [2], [w.batch], kind="lora"),
            ValueError,
            "unknown kind 'lora': .*fold, linear",
        ),
        ("sites", lambda w: heal(w.model, [2], [w.batch], sites=[1]), ValueError, "unknown sites list: .*gaps, all"),
        (
            "linear everywhere",
            lambda w: heal(w.model, [2], [w.batch], kind="linear", sites="all"),
            ValueError,
            "sites='all' .*needs kind='fold'",
        ),
        ("first layer", lambda w: heal(w.model, [0, 3], [w.batch]), ValueError, "layer 0 is removed.*keep layer 0"),
        (
            "one sample",
            lambda w: heal(w.model, [2], [random_batch(rows=1)], progress=False),
            ValueError,
            "at least two samples",
        ),
        (
            "NaN",
            lambda w: heal(w.broken(), [4], [w.batch], progress=False),
            ValueError,
            "layer 3 can't be patched: hidden states hold NaN or infinity",
        ),
        ("on meta", lambda w: heal(on_meta(), [2], [w.batch], progress=False), ValueError, NO_WEIGHTS),
    ],
    "choose_repaired": [
        *no_model(lambda w, m: choose_repaired(m, [w.batch] * 2, 1, progress=False)),
        *bad_batches(lambda w, batches: choose_repaired(w.model, batches, 1, progress=False)),
        ("one batch", lambda w: choose_repaired(w.model, [w.batch], 1), ValueError, "at least two batches"),
        ("all", lambda w: choose_repaired(w.model, [w.batch] * 2, 6), ValueError, "n must be 0 to 5 .*got 6"),
        ("float", lambda w: choose_repaired(w.model, [w.batch] * 2, 1.5), TypeError, "n must be a whole number"),
        ("kind", lambda w: choose_repaired(w.model, [w.batch] * 2, 1, kind=1), ValueError, "unknown kind 1: "),
        *bad_count(lambda w, v: choose_repaired(w.model, [w.batch] * 2, 1, budget=v), "budget"),
        *bad_count(lambda w, v: choose_repaired(w.model, [w.batch] * 2, 1, seed=v), "seed", least=0),
        (
            "on meta",
            lambda w: choose_repaired(on_meta(), [w.batch] * 2, 1, progress=False),
            ValueError,
            NO_WEIGHTS,
        ),
    ],
    "choose_by": [
        *no_model(lambda w, m: choose_by(m, [w.batch], "greedy", 1)),
        *bad_batches(lambda w, batches: choose_by(w.model, batches, "reverse", 1)),
        ("criterion", lambda w: choose_by(w.model, [w.batch], "score", 1), ValueError, "unknown criterion 'score': .*"),
        (
            "no criterion",
            lambda w: choose_by(w.model, [w.batch], None, 1),
            ValueError,
            "unknown criterion None: choose",
        ),
        *bad_count(lambda w, n: choose_by(w.model, [w.batch], "search", n), "n", least=0)[:-1],
        ("negative", lambda w: choose_by(w.model, [w.batch], "search", -1), ValueError, "n must be 0 to 5 .*got -1"),
        ("all", lambda w: choose_by(w.model, [w.batch], "reverse", 6), ValueError, "n must be 0 to 5 .*got 6"),
        *bad_count(lambda w, n: choose_by(w.model, [w.batch], "search", 1, budget=n), "budget"),
        *bad_count(lambda w, n: choose_by(w.model, [w.batch], "random", 1, seed=n), "seed", least=0),
        (
            "objective",
            lambda w: choose_by(w.model, [w.batch], "greedy", 1, objective=None),
            ValueError,
            "unknown objective None",
        ),
        ("NaN state", lambda w: choose_by(w.broken(), [w.batch], "block_influence_iterative", 1), ValueError, NAN),
        ("NaN", lambda w: choose_by(w.broken(), [w.batch], "greedy", 1), ValueError, NAN_LOGITS),
    ],
    "compare_criteria": [
        *no_model(lambda w, m: compare_criteria(m, [w.batch], [1], ["reverse"], unreachable)),
        *bad_batches(lambda w, batches: compare_criteria(w.model, batches, [1], ["reverse"], unreachable)),
        (
            "measure",
            lambda w: compare_criteria(w.model, [w.batch], [1], ["reverse"], "perplexity"),
            TypeError,
            "measure must be a function .*'perplexity'",
        ),
        (
            "one name",
            lambda w: compare_criteria(w.model, [w.batch], [1], "reverse", unreachable),
            TypeError,
            "criteria must be a list of strings, got 'reverse'",
        ),
        (
            "criterion",
            lambda w: compare_criteria(w.model, [w.batch], [1], ["reverse", "x"], unreachable),
            ValueError,
            "unknown criterion 'x': choose one of random, ",
        ),
        (
            "one count",
            lambda w: compare_criteria(w.model, [w.batch], 1, ["reverse"], unreachable),
            TypeError,
            "counts must be a list of whole numbers, .*got 1",
        ),
        (
            "count",
            lambda w: compare_criteria(w.model, [w.batch], [1, 6], ["reverse"], unreachable),
            ValueError,
            "n must be 0 to 5 .*got 6",
        ),
        (
            "no counts",
            lambda w: compare_criteria(w.model, [w.batch], [], ["greedy"], unreachable),
            ValueError,
            "counts is empty: give at least one",
        ),
        (
            "seeds",
            lambda w: compare_criteria(w.model, [w.batch], [1], ["random"], unreachable, seeds=[-1]),
            ValueError,
            "seed must be at least 0, got -1",
        ),
        (
            "one seed",
            lambda w: compare_criteria(w.model, [w.batch], [1], ["random"], unreachable, seeds=0),
            TypeError,
            "seeds must be a list of whole numbers.*got 0",
        ),
        (
            "no seeds",
            lambda w: compare_criteria(w.model, [w.batch], [1], ["random"], unreachable, seeds=()),
            ValueError,
            "seeds is empty: give at least one",
        ),
    ],
    "PruningPlan": [
        ("search", lambda w: PruningPlan(6, (1,), search=[3]), TypeError, "search must be a dict .*got list"),
        *bad_layers(lambda w, layers: PruningPlan(LAYERS, layers)),
        *bad_count(lambda w, n: PruningPlan(n, ()), "layers"),
        ("all", lambda w: PruningPlan(2, (0, 1)), ValueError, "removing 2 of 2 layers leaves none: keep at least one"),
        (
            "scores",
            lambda w: PruningPlan(6, (1,), scores=[0.1]),
            TypeError,
            "scores must be a dict from layer to score, got list",
        ),
        ("score of no layer", lambda w: PruningPlan(6, (1,), scores={9: 0.1}), ValueError, "unknown layer 9: "),
        (
            "no file",
            lambda w: PruningPlan.from_json(w.folder / "no.json"),
            FileNotFoundError,
            "no such plan: .*no.json",
        ),
        ("a folder", lambda w: PruningPlan.from_json(w.folder / "mine"), ValueError, "mine is not a pruning plan: "),
        ("path None", lambda w: PruningPlan.from_json(None), TypeError, "expected the path of a plan, got None"),
        (
            "half a file",
            lambda w: PruningPlan.from_json(w.file('{"schema": 1, ')),
            ValueError,
            "not a pruning plan: .*to_json",
        ),
        ("a list", lambda w: PruningPlan.from_json(w.file("[1, 2]")), ValueError, "not a pruning plan: "),
        ("a number", lambda w: PruningPlan.from_json(w.file("3")), ValueError, "not a pruning plan: "),
        ("no layers", lambda w: plan_file(w, layers=...), ValueError, "not a pruning plan: "),
        ("a field too many", lambda w: plan_file(w, author="me"), ValueError, "not a pruning plan: .*'author'"),
        ("scores a list", lambda w: plan_file(w, scores=[1]), ValueError, "not a pruning plan: "),
        (
            "layer 9 of 6",
            lambda w: plan_file(w, removed=[9]),
            ValueError,
            "plan.json is not a pruning plan: .*unknown layer 9",
        ),
        ("removed a number", lambda w: plan_file(w, removed=3), ValueError, "plan.json is not a pruning plan: "),
        (
            "the future",
            lambda w: PruningPlan.from_json(w.file('{"schema": 2, "drop": []}')),
            ValueError,
            "schema 2, .*update",
        ),
        (
            "write to None",
            lambda w: PruningPlan(6, (1,)).to_json(None),
            TypeError,
            "expected the path of a file, got None",
        ),
        ("write nowhere", lambda w: PruningPlan(6, (1,)).to_json(w.new / "p.json"), FileNotFoundError, "new"),
        (
            "mergekit",
            lambda w: PruningPlan(6, (1,)).to_mergekit(),
            ValueError,
            "names no model: pass model='owner/name'",
        ),
    ],
    "remove_layers": [
        *no_model(lambda w, m: remove_layers(m, [1])),
        *bad_layers(lambda w, layers: remove_layers(w.model, layers)),
        (
            "all",
            lambda w: remove_layers(w.model, range(LAYERS)),
            ValueError,
            "removing 6 of 6 layers leaves none: keep",
        ),
        (
            "another's plan",
            lambda w: remove_layers(w.model, PruningPlan(30, (1,))),
            ValueError,
            "a dense model of 30 layers",
        ),
    ],
    "prune_prefill": [
        *no_model(lambda w, m: prune_prefill(m, [1])),
        *bad_layers(lambda w, layers: prune_prefill(w.model, layers)),
        ("another's plan", lambda w: prune_prefill(w.model, PruningPlan(30, (1,))), ValueError, "model of 30 layers"),
        ("on meta", lambda w: prune_prefill(on_meta(), [1]), ValueError, NO_WEIGHTS),
        (
            "no cache",
            lambda w: prune_prefill(w.model, [1])(**w.batch, use_cache=False),
            ValueError,
            "needs a cache.*leave use_cache on",
        ),
    ],
    "prefill_report": [
        *no_model(lambda w, m: prefill_report(m, w.tokenizer, [[1]], TEXTS)),
        *no_tokenizer(lambda w, t: prefill_report(w.model, t, [[1]], TEXTS)),
        *bad_layers(
            lambda w, layers: prefill_report(w.model, w.tokenizer, [layers], TEXTS, prompt_tokens=8, new_tokens=4)
        ),
        (
            "one number for sets",
            lambda w: prefill_report(w.model, w.tokenizer, 3, TEXTS),
            TypeError,
            "layer_sets must be a list of lists.*got 3",
        ),
        (
            "one list for sets",
            lambda w: prefill_report(w.model, w.tokenizer, [1, 2], TEXTS, prompt_tokens=8, new_tokens=4),
            TypeError,
            "layers are a list of numbers, for instance \\[3, 4\\], got 1",
        ),
        (
            "no set",
            lambda w: prefill_report(w.model, w.tokenizer, [], TEXTS, prompt_tokens=8, new_tokens=4),
            ValueError,
            "layer_sets is empty: give at least one",
        ),
        (
            "one string",
            lambda w: prefill_report(w.model, w.tokenizer, [[1]], "ab"),
            TypeError,
            "texts must be a list of strings",
        ),
        (
            "short texts",
            lambda w: prefill_report(w.model, w.tokenizer, [[1]], TEXTS),
            ValueError,
            "no text has 320 tokens .the longest has 28.: give longer texts",
        ),
        ("no text", lambda w: prefill_report(w.model, w.tokenizer, [[1]], []), ValueError, "the longest has 0"),
        *bad_count(
            lambda w, n: prefill_report(w.model, w.tokenizer, [[1]], TEXTS, prompt_tokens=n), "prompt_tokens", 3
        ),
        *bad_count(lambda w, n: prefill_report(w.model, w.tokenizer, [[1]], TEXTS, new_tokens=n), "new_tokens"),
        *bad_count(lambda w, n: prefill_report(w.model, w.tokenizer, [[1]], TEXTS, repeats=n), "repeats"),
        (
            "NaN",
            lambda w: prefill_report(
                w.broken(), w.tokenizer, [[1]], TEXTS, prompt_tokens=8, new_tokens=4, progress=False
            ),
            ValueError,
            NAN_LOGITS,
        ),
        (
            "tokenizer of another",
            lambda w: prefill_report(w.model, many_tokens(w), [[1]], ["zz" * 9], prompt_tokens=4, new_tokens=4),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "generate_with_draft": [
        *no_model(lambda w, m: generate_with_draft(m, w.tokenizer, "the", [1])),
        *no_tokenizer(lambda w, t: generate_with_draft(w.model, t, "the", [1])),
        *bad_draft(lambda w, layers: generate_with_draft(w.model, w.tokenizer, "the", layers)),
        (
            "empty",
            lambda w: generate_with_draft(w.model, w.tokenizer, "", [1]),
            ValueError,
            "the prompt is empty: give",
        ),
        (
            "a list of prompts",
            lambda w: generate_with_draft(w.model, w.tokenizer, ["a"], [1]),
            TypeError,
            "prompt must be a string, got list",
        ),
        *bad_count(lambda w, n: generate_with_draft(w.model, w.tokenizer, "the", [1], new_tokens=n), "new_tokens"),
        *bad_count(lambda w, n: generate_with_draft(w.model, w.tokenizer, "the", [1], draft_tokens=n), "draft_tokens"),
        ("NaN", lambda w: generate_with_draft(w.broken(), w.tokenizer, "the", [1]), ValueError, NAN_LOGITS),
        ("on meta", lambda w: generate_with_draft(on_meta(), w.tokenizer, "the", [1]), ValueError, NO_WEIGHTS),
        (
            "another vocabulary",
            lambda w: generate_with_draft(w.model, w.tokenizer, "the", tiny_model("llama")),
            ValueError,
            "the draft has a vocabulary of 128 tokens and the model one of 96",
        ),
        (
            "too long",
            lambda w: generate_with_draft(gpt2(w), w.tokenizer, long_text(300), [1]),
            ValueError,
            "340 tokens .*256 positions",
        ),
        (
            "a view with pruned prefill",
            lambda w: generate_with_draft(prune_prefill(w.model, [2]), w.tokenizer, "the", [1]),
            ValueError,
            "skips layers where several tokens come at once.*pass the model",
        ),
        (
            "a state that can't be taken back",
            lambda w: generate_with_draft(tiny_model("mamba"), w.tokenizer, "the", [1]),
            ValueError,
            "MambaForCausalLM can't be helped by a draft: its state",
        ),
        (
            "tokenizer of another",
            lambda w: generate_with_draft(w.model, many_tokens(w), "zz", [1]),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "speculative_report": [
        *no_model(lambda w, m: speculative_report(m, w.tokenizer, [[1]], ["the"])),
        *no_tokenizer(lambda w, t: speculative_report(w.model, t, [[1]], ["the"])),
        *bad_draft(lambda w, layers: speculative_report(w.model, w.tokenizer, [layers], ["the"])),
        (
            "one list",
            lambda w: speculative_report(w.model, w.tokenizer, [1, 2], ["the"]),
            TypeError,
            "layers are a list of numbers, for instance \\[3, 4\\], got 1",
        ),
        (
            "a plan alone",
            lambda w: speculative_report(w.model, w.tokenizer, PruningPlan(6, (1,)), ["the"]),
            TypeError,
            "drafts must be a list .* got PruningPlan",
        ),
        (
            "no draft",
            lambda w: speculative_report(w.model, w.tokenizer, {}, ["the"]),
            ValueError,
            "drafts is empty: give at least one",
        ),
        (
            "one prompt",
            lambda w: speculative_report(w.model, w.tokenizer, [[1]], "the"),
            TypeError,
            "prompts must be a list of strings",
        ),
        (
            "no prompt",
            lambda w: speculative_report(w.model, w.tokenizer, [[1]], []),
            ValueError,
            "prompts is empty: give at least one",
        ),
        (
            "draft_tokens",
            lambda w: speculative_report(w.model, w.tokenizer, [[1]], ["the"], draft_tokens="3"),
            TypeError,
            "each of draft_tokens must be a whole number, got '3'",
        ),
        (
            "draft_tokens too low",
            lambda w: speculative_report(w.model, w.tokenizer, [[1]], ["the"], draft_tokens=[2, 0]),
            ValueError,
            "each of draft_tokens must be at least 1, got 0",
        ),
        (
            "no draft_tokens",
            lambda w: speculative_report(w.model, w.tokenizer, [[1]], ["the"], draft_tokens=[]),
            ValueError,
            "draft_tokens is empty",
        ),
        *bad_count(lambda w, n: speculative_report(w.model, w.tokenizer, [[1]], ["the"], new_tokens=n), "new_tokens"),
        *bad_count(lambda w, n: speculative_report(w.model, w.tokenizer, [[1]], ["the"], repeats=n), "repeats"),
        (
            "NaN",
            lambda w: speculative_report(w.broken(), w.tokenizer, [[1]], ["the"], progress=False),
            ValueError,
            NAN_LOGITS,
        ),
    ],
    "remove_sublayers": [
        *no_model(lambda w, m: remove_sublayers(m, ffn=[1])),
        *bad_layers(lambda w, layers: remove_sublayers(w.model, attention=layers)),
        *bad_layers(lambda w, layers: remove_sublayers(w.model, ffn=layers)),
        ("on meta", lambda w: remove_sublayers(on_meta(), ffn=[1]), ValueError, NO_WEIGHTS),
    ],
    "score_sublayers": [
        *no_model(lambda w, m: score_sublayers(m, [w.batch], progress=False)),
        *bad_batches(lambda w, b: score_sublayers(w.model, b, progress=False)),
        ("metric", lambda w: score_sublayers(w.model, [w.batch], metric=3), ValueError, NOT_A_METRIC),
        (
            "NaN",
            lambda w: score_sublayers(w.broken(), [w.batch], progress=False),
            ValueError,
            "layer 3 .*NaN or infinity",
        ),
        ("on meta", lambda w: score_sublayers(on_meta(), [w.batch], progress=False), ValueError, NO_WEIGHTS),
    ],
    "save": [
        *no_model(lambda w, m: save(m, w.new)),
        *bad_folder(lambda w, path: save(w.model, path)),
        ("onto this folder", lambda w: save(w.model, ".", overwrite=True), ValueError, "current folder"),
        ("onto a parent", lambda w: save(w.model, "..", overwrite=True), ValueError, "current folder"),
        (
            "overwriting a file",
            lambda w: save(w.model, w.folder / "file.txt", overwrite=True),
            FileExistsError,
            "is a file",
        ),
        ("tokenizer", lambda w: save(w.model, w.new, tokenizer="gpt2"), TypeError, NO_TOKENIZER.format("str")),
        ("plan", lambda w: save(w.model, w.new, plan=[1]), TypeError, "plan must be a PruningPlan, got list"),
        (
            "not its plan",
            lambda w: save(w.model, w.new, plan=PruningPlan(6, (1,))),
            ValueError,
            "plan removes layers \\[1\\] of 6.*\\[\\]",
        ),
        ("on meta", lambda w: save(on_meta(), w.new), ValueError, NO_WEIGHTS),
        ("on meta, unverified", lambda w: save(on_meta(), w.new, verify=False), ValueError, NO_WEIGHTS),
        ("NaN", lambda w: save(w.broken(), w.new), ValueError, f"{NAN_LOGITS}.*verify=False"),
        ("deep", lambda w: save(w.broken(), w.new / "a" / "b"), ValueError, NAN_LOGITS),
    ],
    "prune_checkpoint": [
        *bad_layers(lambda w, layers: prune_checkpoint(w.checkpoint(), w.new, layers, progress=False)),
        *bad_folder(lambda w, path: prune_checkpoint(w.checkpoint(), path, [1], progress=False)),
        (
            "from None",
            lambda w: prune_checkpoint(None, w.new, [1]),
            TypeError,
            "expected the path of a folder, got None",
        ),
        (
            "from a model",
            lambda w: prune_checkpoint(w.model, w.new, [1]),
            TypeError,
            "path of a folder, got LlamaForCausalLM",
        ),
        (
            "from nowhere",
            lambda w: prune_checkpoint(w.folder / "no", w.new, [1]),
            FileNotFoundError,
            "no such folder: .*no ",
        ),
        (
            "from no model",
            lambda w: prune_checkpoint(w.folder / "mine", w.new, [1]),
            FileNotFoundError,
            "no config.json",
        ),
        ("bad JSON", lambda w: half_checkpoint(w, "{"), (ValueError, OSError), "config.json|damaged"),
        ("JSON list", lambda w: half_checkpoint(w, "[1]"), ValueError, "config.json is damaged: "),
        ("no weights", lambda w: half_checkpoint(w, None), FileNotFoundError, "holds no weights: neither"),
        ("all", lambda w: prune_checkpoint(w.checkpoint(), w.new, range(LAYERS)), ValueError, "leaves none: keep"),
        (
            "other plan",
            lambda w: prune_checkpoint(w.checkpoint(), w.new, PruningPlan(30, (1,))),
            ValueError,
            "30 layers",
        ),
        (
            "in itself",
            lambda w: prune_checkpoint(w.checkpoint(), w.checkpoint() / "x", [1]),
            FileExistsError,
            "lies inside",
        ),
    ],
    "quantize": [
        *no_model(lambda w, m: quantize(m)),
        ("3 bits", lambda w: quantize(w.model, 3), ValueError, "bits must be 8 or 4, got 3"),
        ("text", lambda w: quantize(w.model, "8"), ValueError, "bits must be 8 or 4, got '8'"),
        ("list", lambda w: quantize(w.model, [8]), ValueError, "bits must be 8 or 4, got list"),
        ("twice", lambda w: quantize(quantize(w.model)), ValueError, "quantized already: quantize the original"),
        (
            "weight without layer",
            lambda w: quantize(tiny_model("mamba")),
            ValueError,
            "MambaForCausalLM uses the .*nf4",
        ),
        ("on meta", lambda w: quantize(on_meta()), ValueError, NO_WEIGHTS),
        ("on meta, 4", lambda w: quantize(on_meta(), 4), ValueError, NO_WEIGHTS),
        (
            "unknown method",
            lambda w: quantize(w.model, method="awq"),
            ValueError,
            "unknown method 'awq': choose .*gptq",
        ),
        ("no method", lambda w: quantize(w.model, method=8), ValueError, "unknown method 8: choose one of int8"),
        ("bits it hasn't", lambda w: quantize(w.model, method="nf4"), ValueError, "'nf4' has 4 bits, got bits=8"),
        ("8-bit GPTQ", lambda w: quantize(w.model, method="gptq"), ValueError, "'gptq' has 4 bits, got bits=8"),
        ("GPTQ of nothing", lambda w: quantize(w.model, 4, method="gptq"), ValueError, "'gptq' needs text: pass calib"),
        (
            "text for nothing",
            lambda w: quantize(w.model, 4, calibration=[w.batch]),
            ValueError,
            "uses no calibration text",
        ),
        ("groups for nothing", lambda w: quantize(w.model, group_size=32), ValueError, "has groups of its own"),
        *bad_count(lambda w, v: quantize(w.model, method="rtn", group_size=v), "group_size"),
        (
            "groups that don't fit",
            lambda w: quantize(w.model, 4, method="rtn", group_size=48),
            ValueError,
            "groups of 48 weights don't fit model.layers.0.self_attn.q_proj, which has 32 inputs",
        ),
        (
            "no linear layers",
            lambda w: quantize(build_tiny("gpt2"), 4, method="rtn"),
            ValueError,
            "GPT2LMHeadModel keeps its weights in other modules than linear layers",
        ),
        (
            "no linear layers for 8 bits",
            lambda w: quantize(build_tiny("gpt2")),
            ValueError,
            "nothing would be quantized: use bits=4, method='nf4'",
        ),
        *(
            row
            for row in bad_batches(lambda w, b: quantize(w.model, 4, method="gptq", calibration=b))
            if row[0] != "None for batches"  # above: "GPTQ of nothing"
        ),
    ],
    "save_gguf": [
        *no_model(lambda w, m: save_gguf(m, w.tokenizer, w.new)),
        *no_tokenizer(lambda w, t: save_gguf(w.model, t, w.new)),
        (
            "no path",
            lambda w: save_gguf(w.model, w.tokenizer, None),
            TypeError,
            "expected the path of a GGUF file, got None",
        ),
        (
            "a torch dtype",
            lambda w: save_gguf(w.model, w.tokenizer, w.new, outtype=torch.float16),
            TypeError,
            "outtype must be a string, got",
        ),
        (
            "a number for a converter",
            lambda w: save_gguf(w.model, w.tokenizer, w.new, converter=3),
            TypeError,
            "expected the path of llama.cpp's converter, got 3",
        ),
        ("on meta", lambda w: save_gguf(on_meta(), w.tokenizer, w.new, converter=__file__), ValueError, NO_WEIGHTS),
        *(
            (
                f"onto a {name}",
                partial(lambda w, p: save_gguf(w.model, w.tokenizer, w.folder / p, converter=__file__), p=place),
                FileExistsError,
                f"{place} exists already",
            )
            for name, place in {"folder": "mine", "file": "file.txt"}.items()
        ),
    ],
    "size_quality_grid": [
        *no_model(lambda w, m: size_quality_grid(m, w.tokenizer, [1], [0])),
        *no_tokenizer(lambda w, t: size_quality_grid(w.model, t, [1], [0])),
        *bad_layers(lambda w, layers: size_quality_grid(w.model, w.tokenizer, layers, [0])),
        (
            "counts too high",
            lambda w: size_quality_grid(w.model, w.tokenizer, [1], [0, 2]),
            ValueError,
            "0 to 1 .*got 2",
        ),
        ("no counts", lambda w: size_quality_grid(w.model, w.tokenizer, [1], []), ValueError, "counts is empty"),
        *(
            (
                name,
                partial(lambda w, o: size_quality_grid(w.model, w.tokenizer, [1], [0, 1], **o), o=options),
                kind,
                says,
            )
            for name, options, kind, says in [
                ("no methods", {"methods": []}, ValueError, "methods is empty"),
                ("one method", {"methods": "nf4"}, TypeError, "methods must be a list of strings, got 'nf4'"),
                (
                    "unknown method",
                    {"methods": ["none", "rtn"]},
                    ValueError,
                    "unknown method 'rtn': choose one of none",
                ),
                ("unknown order", {"orders": ["both"]}, ValueError, "unknown order 'both': choose one of prune first"),
                ("no orders", {"orders": []}, ValueError, "orders is empty"),
                ("no calibration", {"methods": ["gptq"]}, ValueError, "'gptq' needs text: pass calibration"),
                ("one text", {"texts": "the river"}, TypeError, "texts must be a list of strings"),
                ("short texts", {"texts": ["a", ""]}, ValueError, "every document needs at least two tokens"),
                ("stride 0", {"stride": 0}, ValueError, "stride must be at least 1"),
                (
                    "stride too long",
                    {"stride": 8, "window": 8},
                    ValueError,
                    "stride must be 1 to window - 1, got stride 8",
                ),
                ("limit 0", {"limit": 0}, ValueError, "limit must be at least 1, got 0"),
                ("no path", {"path": 3}, TypeError, "expected the path of a CSV file, got 3"),
                ("empty path", {"path": ""}, ValueError, "the path of the CSV file is empty"),
            ]
        ),
        (
            "quantized",
            lambda w: size_quality_grid(quantize(w.model), w.tokenizer, [1], [0]),
            ValueError,
            "quantized already: the grid starts from the original",
        ),
        (
            "a folder",
            lambda w: size_quality_grid(w.model, w.tokenizer, [1], [0], path=w.folder / "mine"),
            ValueError,
            "mine is a folder: name a CSV file in it",
        ),
        *(
            (
                f"a file of {name}",
                partial(
                    lambda w, text: size_quality_grid(w.model, w.tokenizer, [1], [0], path=w.file(text, "a.csv")),
                    text=text,
                ),
                ValueError,
                "a.csv is no table of size_quality_grid",
            )
            for name, text in {
                "nothing": "",
                "words": "years of work",
                "another table": "removed,method\n1,none\n",
            }.items()
        ),
    ],
    "read_grid": [
        ("None", lambda w: read_grid(None), TypeError, "expected the path of a CSV file, got None"),
        ("no file", lambda w: read_grid(w.folder / "no.csv"), FileNotFoundError, "there is no grid at .*no.csv"),
        ("a folder", lambda w: read_grid(w.folder / "mine"), ValueError, "mine is a folder"),
        (
            "words",
            lambda w: read_grid(w.file("years of work", "a.csv")),
            ValueError,
            "a.csv is no table of size_quality",
        ),
    ],
    "frontier": [
        ("None", lambda w: frontier(None), TypeError, "expected a table with one row a model, got None"),
        (
            "no such x",
            lambda w: frontier(GRID),
            ValueError,
            "the table has no column 'memory_mb': choose out of removed",
        ),
        ("no such y", lambda w: frontier(GRID, "removed", "speed"), ValueError, "has no column 'speed'"),
        (
            "no rows",
            lambda w: frontier(GRID[:0], "removed", "removed"),
            ValueError,
            "no row has both removed and removed",
        ),
    ],
    "frontier_steps": [
        ("None", lambda w: frontier_steps(None), TypeError, "expected a table with one row a model, got None"),
        ("no such y", lambda w: frontier_steps(GRID, "removed", "speed"), ValueError, "has no column 'speed'"),
    ],
    "best_within": [
        ("None", lambda w: best_within(None, 200), TypeError, "expected a table with one row a model, got None"),
        ("a budget in words", lambda w: best_within(GRID, "200"), TypeError, "budget must be a number, got '200'"),
        ("no such x", lambda w: best_within(GRID, 200), ValueError, "the table has no column 'memory_mb'"),
        (
            "too small",
            lambda w: best_within(GRID, -1, "removed", "removed"),
            ValueError,
            "no model has removed of at most -1: the smallest has 0.0",
        ),
    ],
    "Ablation": [
        *no_model(lambda w, m: Ablation(m, w.tokenizer, TEXTS[0])),
        *no_tokenizer(lambda w, t: Ablation(w.model, t, TEXTS[0])),
        *bad_layers(lambda w, layers: Ablation(w.model, w.tokenizer, TEXTS[0])(layers)),
        *bad_layers(lambda w, layers: Ablation(w.model, w.tokenizer, TEXTS[0]).writes(layers)),
        *bad_count(lambda w, n: Ablation(w.model, w.tokenizer, TEXTS[0], tokens=n), "tokens", least=2),
        *bad_count(lambda w, n: Ablation(w.model, w.tokenizer, TEXTS[0], new_tokens=n), "new_tokens"),
        ("all", lambda w: Ablation(w.model, w.tokenizer, TEXTS[0])(range(LAYERS)), ValueError, "leaves none"),
        ("texts", lambda w: Ablation(w.model, w.tokenizer, TEXTS), TypeError, "text must be a string, got list"),
        ("one token", lambda w: Ablation(w.model, w.tokenizer, "a"), ValueError, "no sample has two tokens"),
        ("empty", lambda w: Ablation(w.model, w.tokenizer, " "), ValueError, "the calibration text is empty"),
        (
            "no prompt",
            lambda w: Ablation(w.model, w.tokenizer, TEXTS[0], prompt=""),
            ValueError,
            "the prompt is empty: give it at least one word",
        ),
        (
            "choices",
            lambda w: Ablation(w.model, w.tokenizer, TEXTS[0]).table([[1]]),
            TypeError,
            "choices must be a dict from name to layers, got list",
        ),
        ("NaN", lambda w: Ablation(w.broken(), w.tokenizer, TEXTS[0]), ValueError, NAN_LOGITS),
        ("on meta", lambda w: Ablation(on_meta(), w.tokenizer, TEXTS[0]), ValueError, NO_WEIGHTS),
    ],
    "token_paths": [
        *no_model(lambda w, m: token_paths(m, w.tokenizer, "the door")),
        *no_tokenizer(lambda w, t: token_paths(w.model, t, "the door")),
        *bad_count(lambda w, n: token_paths(w.model, w.tokenizer, "the door", top=n), "top"),
        ("None", lambda w: token_paths(w.model, w.tokenizer, None), TypeError, "text must be a string, got None"),
        ("empty", lambda w: token_paths(w.model, w.tokenizer, ""), ValueError, "the prompt is empty"),
        (
            "too long",
            lambda w: token_paths(w.model, w.tokenizer, "a" * 65),
            ValueError,
            "has 65 tokens, and 64 are the",
        ),
        ("NaN", lambda w: token_paths(w.broken(), w.tokenizer, "the door"), ValueError, NAN_LOGITS),
        ("on meta", lambda w: token_paths(on_meta(), w.tokenizer, "the door"), ValueError, NO_WEIGHTS),
        (
            "tokenizer of another",
            lambda w: token_paths(w.model, many_tokens(w), "zz"),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "added_losses": [
        ("None", lambda w: added_losses(None), ValueError, "expected the table of size_quality_grid.*got None"),
        (
            "another table",
            lambda w: added_losses(pd.DataFrame({"removed": [1]})),
            ValueError,
            "expected the table of size",
        ),
        *(
            (
                f"without {name}",
                partial(lambda w, keep: added_losses(GRID[GRID.index.isin(keep)]), keep=keep),
                ValueError,
                f"no model with {n} layers removed and method '{method}' to compare with",
            )
            for name, keep, n, method in [
                ("the dense model", [1, 2, 3], 0, "none"),
                ("the pruned model", [0, 2, 3], 2, "none"),
                ("the quantized model", [0, 1, 3], 0, "nf4"),
            ]
        ),
    ],
    "perplexity": [
        *no_model(lambda w, m: perplexity(m, w.tokenizer, TEXTS)),
        *no_tokenizer(lambda w, t: perplexity(w.model, t, TEXTS)),
        (
            "one string",
            lambda w: perplexity(w.model, w.tokenizer, "the river"),
            TypeError,
            "texts must be a list of strings.*'the river'",
        ),
        (
            "a number",
            lambda w: perplexity(w.model, w.tokenizer, 3),
            TypeError,
            "texts must be a list of strings.*got 3",
        ),
        (
            "numbers",
            lambda w: perplexity(w.model, w.tokenizer, ["ab", None]),
            TypeError,
            "texts must be strings, got None",
        ),
        (
            "no text",
            lambda w: perplexity(w.model, w.tokenizer, []),
            ValueError,
            "no text to measure .*at least two tokens",
        ),
        ("short text", lambda w: perplexity(w.model, w.tokenizer, ["", "a"]), ValueError, "no text to measure"),
        *bad_count(lambda w, n: perplexity(w.model, w.tokenizer, TEXTS, window=n), "window", least=2),
        *bad_count(lambda w, n: perplexity(w.model, w.tokenizer, TEXTS, stride=n), "stride"),
        (
            "stride",
            lambda w: perplexity(w.model, w.tokenizer, TEXTS, window=8, stride=8),
            ValueError,
            "1 to window - 1.* 8 .* 8",
        ),
        ("on meta", lambda w: perplexity(on_meta(), w.tokenizer, TEXTS), ValueError, NO_WEIGHTS),
        ("NaN", lambda w: perplexity(w.broken(), w.tokenizer, TEXTS), ValueError, NAN_LOGITS),
        (
            "too long",
            lambda w: perplexity(gpt2(w), w.tokenizer, [long_text(257)]),
            ValueError,
            "257 tokens .*256 positions",
        ),
        (
            "tokenizer of another",
            lambda w: perplexity(w.model, many_tokens(w), ["zz" * 4]),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "perplexity_table": [
        *no_model(lambda w, m: perplexity_table(m, w.tokenizer, pd.DataFrame({"text": TEXTS}))),
        *no_tokenizer(lambda w, t: perplexity_table(w.model, t, pd.DataFrame({"text": TEXTS}))),
        (
            "a list",
            lambda w: perplexity_table(w.model, w.tokenizer, TEXTS),
            TypeError,
            "documents must be a DataFrame .*got list",
        ),
        (
            "no text",
            lambda w: perplexity_table(w.model, w.tokenizer, pd.DataFrame({"a": TEXTS})),
            ValueError,
            "no column 'text'.* a",
        ),
        (
            "by",
            lambda w: perplexity_table(w.model, w.tokenizer, pd.DataFrame({"text": TEXTS}), by="x"),
            ValueError,
            "no column 'x'.* text",
        ),
        (
            "NaN text",
            lambda w: perplexity_table(w.model, w.tokenizer, pd.DataFrame({"text": [None]})),
            TypeError,
            "strings, got None|nan",
        ),
        (
            "empty",
            lambda w: perplexity_table(w.model, w.tokenizer, pd.DataFrame({"text": []})),
            ValueError,
            "no text to measure",
        ),
    ],
    "removal_sweep": [
        *no_model(lambda w, m: removal_sweep(m, [1, 2], count_layers, [0, 1])),
        *bad_layers(lambda w, layers: removal_sweep(w.model, layers, count_layers, [0, 1])),
        (
            "measure",
            lambda w: removal_sweep(w.model, [1], "perplexity", [0]),
            TypeError,
            "measure must be a function .*'perplexity'",
        ),
        (
            "counts",
            lambda w: removal_sweep(w.model, [1], count_layers, 3),
            TypeError,
            "counts must be a list of whole numbers.*got 3",
        ),
        (
            "float",
            lambda w: removal_sweep(w.model, [1], count_layers, [0.5]),
            TypeError,
            "each of counts must be a whole number, got 0.5",
        ),
        (
            "negative",
            lambda w: removal_sweep(w.model, [1, 2], count_layers, [-1]),
            ValueError,
            "counts must be 0 to 2 .*got -1",
        ),
        (
            "too many",
            lambda w: removal_sweep(w.model, [1, 2], count_layers, [0, 3]),
            ValueError,
            "counts must be 0 to 2 .*got 3",
        ),
        (
            "all",
            lambda w: removal_sweep(w.model, range(6), unreachable, [0, 6]),
            ValueError,
            "counts must be 0 to 5 .*got 6",
        ),
    ],
    "evaluate": [
        *no_model(lambda w, m: evaluate(m, w.tokenizer, ["grammar"])),
        *no_tokenizer(lambda w, t: evaluate(w.model, t, ["grammar"])),
        (
            "no task",
            lambda w: evaluate(w.model, w.tokenizer, []),
            ValueError,
            "unknown task \\(none given\\): offline there are",
        ),
        (
            "None",
            lambda w: evaluate(w.model, w.tokenizer, None),
            TypeError,
            "tasks must be a list of strings.*got None",
        ),
        ("numbers", lambda w: evaluate(w.model, w.tokenizer, [3]), TypeError, "tasks must be strings, got 3"),
        *bad_count(lambda w, n: evaluate(w.model, w.tokenizer, ["grammar"], limit=n), "limit"),
        *bad_count(lambda w, n: evaluate(w.model, w.tokenizer, ["grammar"], batch_size=n), "batch_size"),
        *bad_count(lambda w, n: evaluate(w.model, w.tokenizer, ["grammar"], shots=n), "shots", least=0),
        *bad_count(lambda w, n: evaluate(w.model, w.tokenizer, ["grammar"], seed=n), "seed", least=0),
        (
            "file",
            lambda w: evaluate(w.model, w.tokenizer, ["grammar"], results=3),
            TypeError,
            "the path of a file, got 3",
        ),
        (
            "folder for a file",
            lambda w: evaluate(w.model, with_end(w), ["grammar"], results=w.folder / "mine"),
            ValueError,
            "mine is a folder: name a file",
        ),
        (
            "file in a file",
            lambda w: evaluate(w.model, with_end(w), ["grammar"], results=w.folder / "file.txt" / "r.jsonl"),
            NotADirectoryError,
            "file.txt is a file, so .* can't be a file in it",
        ),
        (
            "damaged file",
            lambda w: evaluate(w.model, with_end(w), ["grammar"], results=w.file("{", "r.jsonl")),
            ValueError,
            "r.jsonl, line 1, is no result of evaluate\\(\\)",
        ),
        ("on meta", lambda w: evaluate(on_meta(), w.tokenizer, ["grammar"], limit=2), ValueError, NO_WEIGHTS),
        ("NaN", lambda w: evaluate(w.broken(), with_end(w), ["grammar"], limit=2), ValueError, NAN_LOGITS),
        ("no end", lambda w: evaluate(w.model, w.tokenizer, ["grammar"]), ValueError, "no begin and no end token"),
    ],
    "paper_benchmarks": [
        ("arguments", lambda w: paper_benchmarks("mmlu"), TypeError, "takes 0 positional arguments"),
    ],
    "suggested_models": [
        ("machine", lambda w: suggested_models("phone"), ValueError, "unknown machine 'phone': choose one of laptop"),
        ("a list", lambda w: suggested_models(["laptop"]), ValueError, "unknown machine list: choose one of laptop"),
    ],
    "retention_table": [
        ("a list", lambda w: retention_table([1]), TypeError, "dict from model name to evaluate.*got list"),
        ("no model", lambda w: retention_table({}), ValueError, "results is empty: give at least one"),
        ("no table", lambda w: retention_table({"dense": 3}), TypeError, "results of dense must be a table.*got 3"),
        ("no name", lambda w: retention_table(SCORES), ValueError, "no column 'model'"),
        ("no scores", lambda w: retention_table({"a": SCORES.drop(columns="value")}), ValueError, "no column 'value'"),
        ("empty", lambda w: retention_table({"a": SCORES[:0]}), ValueError, "results of a are empty"),
        ("twice", lambda w: retention_table({"a": pd.concat([SCORES, SCORES])}), ValueError, "hold a task twice"),
        (
            "other tasks",
            lambda w: retention_table({"a": SCORES, "b": SCORES.assign(task="y")}),
            ValueError,
            "b and a have different tasks \\(x, y\\)",
        ),
        ("nothing", lambda w: retention_table({"a": SCORES.assign(value=0)}), ValueError, "scores 0 on x"),
        ("correlation", lambda w: retention_table({"a": SCORES}, correlation=2), ValueError, "from -1 to 1, got 2"),
        ("least", lambda w: retention_table({"a": SCORES}, least="x"), ValueError, "least must be a number.*got 'x'"),
    ],
    "choice_and_generation": [
        *no_model(lambda w, m: choice_and_generation(m, w.tokenizer)),
        *no_tokenizer(lambda w, t: choice_and_generation(w.model, t)),
        *bad_count(lambda w, n: choice_and_generation(w.model, w.tokenizer, limit=n), "limit"),
        *bad_count(lambda w, n: choice_and_generation(w.model, w.tokenizer, new_tokens=n), "new_tokens"),
        (
            "task",
            lambda w: choice_and_generation(w.model, w.tokenizer, "grammar"),
            ValueError,
            "unknown task 'grammar': choose one of science, physical",
        ),
        (
            "no template",
            lambda w: choice_and_generation(w.model, w.tokenizer, chat=True),
            ValueError,
            "no chat template: pass chat=False",
        ),
        ("on meta", lambda w: choice_and_generation(on_meta(), w.tokenizer, limit=1), ValueError, NO_WEIGHTS),
    ],
    "choice_summary": [
        ("a list", lambda w: choice_summary([1]), TypeError, "table of choice_and_generation.*got list"),
        ("another table", lambda w: choice_summary(SCORES), ValueError, "no column 'choice_right'"),
        (
            "empty",
            lambda w: choice_summary(pd.DataFrame(columns=["choice_right", "written_right", "read"])),
            ValueError,
            "the table is empty: give it at least one",
        ),
    ],
    "continue_text": [
        *no_model(lambda w, m: continue_text(m, w.tokenizer, "the")),
        *no_tokenizer(lambda w, t: continue_text(w.model, t, "the")),
        (
            "empty",
            lambda w: continue_text(w.model, w.tokenizer, ""),
            ValueError,
            "the prompt is empty: give it at least one word",
        ),
        ("None", lambda w: continue_text(w.model, w.tokenizer, None), TypeError, "prompt must be a string, got None"),
        (
            "a list",
            lambda w: continue_text(w.model, w.tokenizer, ["a", "b"]),
            TypeError,
            "prompt must be a string, got list",
        ),
        *bad_count(lambda w, n: continue_text(w.model, w.tokenizer, "the", new_tokens=n), "new_tokens"),
        ("NaN", lambda w: continue_text(w.broken(), w.tokenizer, "the"), ValueError, NAN_LOGITS),
        ("on meta", lambda w: continue_text(on_meta(), w.tokenizer, "the"), ValueError, NO_WEIGHTS),
        (
            "too long",
            lambda w: continue_text(gpt2(w), w.tokenizer, long_text(300)),
            ValueError,
            "340 tokens .*256 positions",
        ),
        (
            "tokenizer of another",
            lambda w: continue_text(w.model, many_tokens(w), "zz"),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "sampled_text": [
        *no_model(lambda w, m: sampled_text(m, with_end(w))),
        *no_tokenizer(lambda w, t: sampled_text(w.model, t)),
        (
            "no begin token",
            lambda w: sampled_text(w.model, w.tokenizer),
            ValueError,
            "no begin and no end token, which",
        ),
        *bad_count(lambda w, n: sampled_text(w.model, with_end(w), n), "samples"),
        *bad_count(lambda w, n: sampled_text(w.model, with_end(w), 1, n), "length"),
        *bad_count(lambda w, n: sampled_text(w.model, with_end(w), batch_size=n), "batch_size"),
        ("seed", lambda w: sampled_text(w.model, with_end(w), seed=-1), ValueError, "seed must be at least 0"),
        (
            "temperature 0",
            lambda w: sampled_text(w.model, with_end(w), temperature=0),
            ValueError,
            "temperature must be above 0 and finite, got 0",
        ),
        (
            "temperature NaN",
            lambda w: sampled_text(w.model, with_end(w), temperature=float("nan")),
            ValueError,
            "temperature must be above 0 and finite, got nan",
        ),
        (
            "temperature in words",
            lambda w: sampled_text(w.model, with_end(w), temperature="high"),
            TypeError,
            "temperature must be a number, got 'high'",
        ),
        ("NaN", lambda w: sampled_text(w.broken(), with_end(w), progress=False), ValueError, NAN_LOGITS),
        ("on meta", lambda w: sampled_text(on_meta(), with_end(w), progress=False), ValueError, NO_WEIGHTS),
        (
            "too long",
            lambda w: sampled_text(endless(gpt2(w)), with_end(w), 1, 300, progress=False),
            ValueError,
            "301 tokens .*256 positions",
        ),
    ],
    "plan_agreement": [
        ("scores alone", lambda w: plan_agreement(w.scores, 2), TypeError, "scores must be a dict from name to scores"),
        ("a list", lambda w: plan_agreement([w.scores] * 2, 2), TypeError, "scores must be a dict .* got list"),
        ("a table", lambda w: plan_agreement({"a": w.scores.table}, 2), TypeError, "expected scores .* got DataFrame"),
        ("one", lambda w: plan_agreement({"a": w.scores}, 2), ValueError, "at least two texts, got 1"),
        (
            "another model",
            lambda w: plan_agreement({"a": w.scores, "b": LayerScores(np.ones((2, 4)), np.ones(2))}, 2),
            ValueError,
            "the scores 'b' are of other layers than the first",
        ),
        *bad_count(lambda w, n: plan_agreement({"a": w.scores, "b": w.scores}, n), "n"),
        (
            "all layers",
            lambda w: plan_agreement({"a": w.scores, "b": w.scores}, LAYERS),
            ValueError,
            f"n must be 1 to {LAYERS - 1} .*, got {LAYERS}",
        ),
    ],
    "tokens_needed": [
        ("a dict", lambda w: tokens_needed({"a": w.scores}, 2), TypeError, "expected scores .* got dict"),
        (
            "one sample",
            lambda w: tokens_needed(LayerScores(np.ones((1, 4)), np.ones(1)), 2),
            ValueError,
            "of one sample only: score at least two",
        ),
        *bad_count(lambda w, n: tokens_needed(w.scores, n), "n"),
        *bad_count(lambda w, n: tokens_needed(w.scores, 2, resamples=n), "resamples"),
        ("seed", lambda w: tokens_needed(w.scores, 2, seed=-1), ValueError, "seed must be at least 0"),
        ("all layers", lambda w: tokens_needed(w.scores, LAYERS), ValueError, f"n must be 1 to {LAYERS - 1} "),
    ],
    "repetition": [
        ("None", lambda w: repetition(None), TypeError, "text must be a string, got None"),
        ("a list", lambda w: repetition(["a b c"]), TypeError, "text must be a string, got list"),
        *bad_count(lambda w, n: repetition("a b c d", n), "n"),
    ],
    "generation_report": [
        *no_model(lambda w, m: report(w, models={"dense": w.model, "x": m})),
        *no_model(lambda w, m: report(w, reference=m))[2:],  # None is the first, a string a name
        *no_tokenizer(lambda w, t: generation_report({"a": w.model}, t, ["the"], progress=False)),
        *no_prompts(lambda w, prompts: report(w, prompts)),
        ("a model", lambda w: report(w, models=w.model), TypeError, "models must be a dict .*got LlamaForCausalLM"),
        ("no models", lambda w: report(w, models={}), ValueError, "models is empty: give at least one"),
        (
            "unknown reference",
            lambda w: report(w, reference="dens"),
            ValueError,
            "no model 'dens' to be the reference: there are dense",
        ),
        *bad_count(lambda w, n: report(w, new_tokens=n), "new_tokens"),
        *bad_count(lambda w, n: report(w, seed=n), "seed", least=0),
        (
            "cold",
            lambda w: report(w, temperature=-1),
            ValueError,
            "temperature must be 0 .*or above and finite, got -1",
        ),
        ("temperature NaN", lambda w: report(w, temperature=float("nan")), ValueError, "temperature must be 0 .*nan"),
        ("in words", lambda w: report(w, temperature="high"), TypeError, "temperature must be a number, got 'high'"),
        ("NaN", lambda w: report(w, models={"a": w.broken()}), ValueError, NAN_LOGITS),
        (
            "NaN in the reference",
            lambda w: report(w, models={"a": build_tiny()}, reference=w.broken()),
            ValueError,
            NAN_LOGITS,
        ),
        ("on meta", lambda w: report(w, models={"a": on_meta()}), ValueError, NO_WEIGHTS),
        (
            "too long",
            lambda w: report(w, [long_text(300)], models={"a": gpt2(w)}, new_tokens=40),
            ValueError,
            "340 tokens .*256 positions",
        ),
        (
            "tokenizer of another",
            lambda w: generation_report({"a": w.model}, many_tokens(w), ["zz"], progress=False),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "generation_summary": no_report(generation_summary),
    "side_by_side": [
        *no_report(side_by_side),
        *bad_count(lambda w, n: side_by_side(report(w, new_tokens=1), width=n), "width", least=40),
    ],
    "divergence_along": [
        *no_model(lambda w, m: along(w, dense=m)),
        *no_model(lambda w, m: along(w, pruned=m)),
        *no_tokenizer(lambda w, t: divergence_along(w.model, w.model, t, ["the"], progress=False)),
        *no_prompts(lambda w, prompts: along(w, prompts)),
        *bad_count(lambda w, n: along(w, new_tokens=n), "new_tokens"),
        (
            "of two sizes",
            lambda w: along(w, pruned=wider(w)),
            ValueError,
            "the models have vocabularies of 96 and 100 tokens: compare two that came from one model",
        ),
        ("NaN", lambda w: along(w, pruned=w.broken(), dense=build_tiny()), ValueError, NAN_LOGITS),
        ("on meta", lambda w: along(w, pruned=on_meta()), ValueError, NO_WEIGHTS),
        (
            "too long",
            lambda w: along(w, [long_text(300)], pruned=gpt2(w), dense=gpt2(w)),
            ValueError,
            "tokens .*256 positions",
        ),
        (
            "tokenizer of another",
            lambda w: divergence_along(w.model, w.model, many_tokens(w), ["zz"], progress=False),
            ValueError,
            "not in .*vocabulary of 96",
        ),
    ],
    "compare": [
        *no_tokenizer(lambda w, t: compare({"dense": w.model}, t, tasks=(), texts=TEXTS)),
        *no_model(lambda w, m: compare({"dense": w.model, "x": m}, w.tokenizer, tasks=(), texts=TEXTS)),
        (
            "a model",
            lambda w: compare(w.model, w.tokenizer),
            TypeError,
            "models must be a dict from name to model, got LlamaForCausalLM",
        ),
        (
            "a list",
            lambda w: compare([w.model], w.tokenizer),
            TypeError,
            "models must be a dict from name to model, got list",
        ),
        ("no model", lambda w: compare({}, w.tokenizer), ValueError, "models is empty: give at least one"),
        (
            "one string",
            lambda w: compare({"a": w.model}, w.tokenizer, tasks=(), texts="ab"),
            TypeError,
            "texts must be a list of strings",
        ),
        (
            "None",
            lambda w: compare({"a": w.model}, w.tokenizer, tasks=None, texts=TEXTS),
            TypeError,
            "tasks must be a list of strings",
        ),
        *(
            row
            for name, least in (("limit", 1), ("batch_size", 1), ("shots", 0), ("seed", 0))
            for row in bad_count(
                partial(
                    lambda w, n, name: compare({"a": w.model}, w.tokenizer, tasks="grammar", texts=TEXTS, **{name: n}),
                    name=name,
                ),
                name,
                least,
            )
        ),
        (
            "file",
            lambda w: compare({"a": w.model}, w.tokenizer, tasks=["grammar"], texts=TEXTS, results=3),
            TypeError,
            "expected the path of a file, got 3",
        ),
        (
            "folder of results",
            lambda w: compare({"a": w.model}, with_end(w), tasks="grammar", texts=TEXTS, results=w.folder / "mine"),
            ValueError,
            "mine is a folder: name a file in it for the results",
        ),
    ],
    "size": [
        *no_model(lambda w, m: size(m)),
        (
            "no folder",
            lambda w: size(w.model, w.new),
            FileNotFoundError,
            "no such folder: .*new; save the model there first",
        ),
        ("a file", lambda w: size(w.model, w.folder / "file.txt"), FileNotFoundError, "no such folder: .*file.txt"),
        ("a number", lambda w: size(w.model, 3), TypeError, "expected the path of a folder, got 3"),
    ],
    "speed": [
        *no_model(lambda w, m: speed(m, prompt_tokens=4, new_tokens=1, repeats=1)),
        *bad_count(lambda w, n: speed(w.model, prompt_tokens=n), "prompt_tokens"),
        *bad_count(lambda w, n: speed(w.model, new_tokens=n), "new_tokens"),
        *bad_count(lambda w, n: speed(w.model, batch_size=n), "batch_size"),
        *bad_count(lambda w, n: speed(w.model, repeats=n), "repeats"),
        *bad_count(lambda w, n: speed(w.model, seed=n), "seed", least=0),
        ("on meta", lambda w: speed(on_meta()), ValueError, NO_WEIGHTS),
        ("too long", lambda w: speed(gpt2(w), prompt_tokens=250), ValueError, "tokens .*256 positions"),
    ],
    "speed_table": [
        *no_model(lambda w, m: quick(w, {"dense": w.model, "x": m})),
        ("a model", lambda w: quick(w, w.model), TypeError, "models must be a dict .*got LlamaForCausalLM"),
        ("no model", lambda w: quick(w, {}), ValueError, "models is empty: give at least one"),
        *bad_count(lambda w, n: quick(w, prompt_tokens=n), "prompt_tokens"),
        *bad_count(lambda w, n: quick(w, new_tokens=n), "new_tokens"),
        *bad_count(lambda w, n: quick(w, repeats=n), "repeats"),
        *bad_count(lambda w, n: quick(w, warm_up=n), "warm_up", least=0),
        *bad_count(lambda w, n: quick(w, seed=n), "seed", least=0),
        *bad_count(lambda w, n: quick(w, batch_sizes=[1, n]), "each of batch_sizes"),
        (
            "one size",
            lambda w: quick(w, batch_sizes=8),
            TypeError,
            "batch_sizes must be a list of whole numbers.*got 8",
        ),
        ("no size", lambda w: quick(w, batch_sizes=()), ValueError, "batch_sizes is empty: give at least one"),
        ("on meta", lambda w: quick(w, {"a": w.model, "b": on_meta()}), ValueError, NO_WEIGHTS),
        ("too long", lambda w: quick(w, {"a": gpt2(w)}, prompt_tokens=256), ValueError, "tokens .*256 positions"),
    ],
    "key_value_bytes": [
        *no_model(lambda w, m: key_value_bytes(m)),
        *bad_count(lambda w, n: key_value_bytes(w.model, n), "tokens", least=2),
        (
            "a cache in words",
            lambda w: key_value_bytes(w.model, cache="static"),
            TypeError,
            "cache must be a cache of transformers, for instance DynamicCache\\(\\), got 'static'",
        ),
        ("on meta", lambda w: key_value_bytes(on_meta()), ValueError, NO_WEIGHTS),
        ("too long", lambda w: key_value_bytes(gpt2(w), 300), ValueError, "300 tokens .*256 positions"),
    ],
}


def count_layers(model) -> float:
    return float(len(decoder_layers(model)))


def unreachable(model) -> float:
    raise AssertionError("measured a model although a later count is impossible")


def nan_scores() -> LayerScores:
    sums = np.ones((2, LAYERS))
    sums[:, 2:4] = np.nan
    return LayerScores(sums, np.ones(2, dtype=int))


def unpaddable(w):
    w.tokenizer.pad_token = None
    return calibration_batches(w.tokenizer, [*TEXTS, "short"], pack=False)


def many_tokens(w):
    """The tokenizer of a model with a larger vocabulary."""
    w.tokenizer.add_tokens([f"<{i}>" for i in range(100)] + ["zz"])
    return w.tokenizer


def plan_file(w, **changed):
    fields = {"schema": 1, "layers": 6, "removed": [1]} | changed
    path = w.file(json.dumps({k: v for k, v in fields.items() if v is not ...}))
    return PruningPlan.from_json(path)


def half_checkpoint(w, config: str | None):
    src = w.folder / "half"
    src.mkdir()
    for file in w.checkpoint().iterdir():
        if config is not None or file.name == "config.json":
            (src / file.name).write_bytes(file.read_bytes())
    if config is not None:
        (src / "config.json").write_text(config)
    w.remember()
    return prune_checkpoint(src, w.new, [1], progress=False)


CLEAR = (TypeError, ValueError, FileNotFoundError, FileExistsError, NotADirectoryError)
CALLS = [pytest.param(*row, id=f"{name}: {row[0]}") for name, rows in WRONG.items() for row in rows]


def test_every_public_name_is_in_the_table():
    assert sorted(WRONG) == sorted(shortgpt.__all__) and all(WRONG.values())


@pytest.mark.parametrize(("name", "call", "kind", "says"), CALLS)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(name, call, kind, says, tmp_path, tokenizer, monkeypatch):
    w = World(tmp_path, tokenizer)
    monkeypatch.chdir(tmp_path / "here")
    written = listing(CHECKPOINT.folder)
    with pytest.raises(kind) as caught:
        call(w)
    sentence = str(caught.value)
    assert type(caught.value) in CLEAR
    assert re.search(says, sentence), sentence
    assert "\n" not in sentence and 20 <= len(sentence) <= 330, sentence
    w.assert_unchanged()
    assert listing(CHECKPOINT.folder) == written


# ---- right calls leave no trace either -------------------------------------------------------------------------------
MEASURES = {
    "Trials": lambda w, m: Trials(m, [w.batch])([1]),
    "choose_by": lambda w, m: choose_by(m, [w.batch], "greedy", 2).search["value"],
    "heal": lambda w, m: heal(m, [2], [w.batch], progress=False).lm_head(torch.ones(1, 32)).detach().numpy(),
    "hidden_states": lambda w, m: hidden_states(m, w.batch).numpy(),
    "score_layers": lambda w, m: score_layers(m, [w.batch], progress=False).sums,
    "score_sublayers": lambda w, m: score_sublayers(m, [w.batch], progress=False)["ffn"].sums,
    "span_distances": lambda w, m: span_distances(m, [w.batch])["score"].to_numpy(),
    "perplexity": lambda w, m: perplexity(m, w.tokenizer, TEXTS),
    "generate_with_draft": lambda w, m: generate_with_draft(m, w.tokenizer, "the", [3], new_tokens=8).ids.numpy(),
    "speculative_report": lambda w, m: speculative_report(m, w.tokenizer, [[3]], ["the"], new_tokens=8, progress=False)[
        "acceptance"
    ],
    "prefill_report": lambda w, m: prefill_report(
        m, w.tokenizer, [[3]], TEXTS, prompt_tokens=8, new_tokens=4, progress=False
    )["perplexity"],
    "prune_prefill": lambda w, m: prune_prefill(m, [3]).eval()(**w.batch).logits.detach().numpy(),
    "generation_report": lambda w, m: report(w, models={"a": m}, new_tokens=8)["perplexity"].to_numpy(),
    "divergence_along": lambda w, m: along(w, dense=m, pruned=gpt2(w), new_tokens=8)["loss"].to_numpy(),
    "key_value_bytes": lambda w, m: key_value_bytes(m, 8),
    "continue_text": lambda w, m: [ord(letter) for letter in continue_text(m, w.tokenizer, "the", new_tokens=8)],
    "evaluate": lambda w, m: evaluate(m, w.tokenizer, ["grammar"], limit=4)["value"].to_numpy(),
    "choice_and_generation": lambda w, m: choice_and_generation(m, w.tokenizer, limit=2, new_tokens=2, progress=False)[
        "choice_right"
    ].to_numpy(),
    "save": lambda w, m: len(os.listdir(save(m, w.folder / f"saved-{m.training}"))),
    "quantize": lambda w, m: quantize(m, 4)(**w.batch).logits.detach().numpy(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_training_mode_changes_no_result_and_is_left_on(name, tmp_path, tokenizer):
    """GPT-2 has dropout: a measure that forgot about it would differ from run to run."""
    tokenizer.eos_token = "?"
    model, w = build_tiny("gpt2"), World(tmp_path, tokenizer)
    expected = MEASURES[name](w, model)
    model.train()
    model.transformer.h[1].eval()
    before = state_of(model)
    np.testing.assert_array_equal(MEASURES[name](w, model), expected)
    assert_same_state(model, before)


def test_the_harness_gets_a_tokenizer_of_its_own(tiny, tokenizer):
    tokenizer.pad_token, tokenizer.eos_token = None, "?"
    evaluate(tiny, tokenizer, ["grammar"], limit=2)
    assert tokenizer.pad_token is None


def test_a_document_without_a_label_is_measured(tiny, tokenizer):
    documents = pd.DataFrame({"text": TEXTS, "genre": ["news", None]})
    table = perplexity_table(tiny, tokenizer, documents, by="genre")
    assert table["tokens"].sum() == sum(len(text) - 1 for text in TEXTS) and len(table) == 2
