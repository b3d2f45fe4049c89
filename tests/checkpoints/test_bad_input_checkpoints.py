"""What loading, saving and pruning of files say when they are called wrongly."""

import pytest
import torch
from bad_input import (
    MODEL,
    NAN_LOGITS,
    NO_TOKENIZER,
    TOKENIZER,
    broken,
    check,
    folder,
    forgotten,
    layers,
    many_tokens,
    nan,
    no_model,
    no_tokenizer,
    no_weights,
    wrong,
)
from small import LAYERS

from shortgpt import PruningPlan, describe, load, prune_checkpoint, quantize, save, save_gguf


def half(w, config: str | None):
    """A checkpoint with another config.json, or with nothing but its own."""
    src = w.folder / "half"
    src.mkdir()
    for file in w.checkpoint().iterdir():
        if config is not None or file.name == "config.json":
            (src / file.name).write_bytes(file.read_bytes())
    if config is not None:
        (src / "config.json").write_text(config)
    return src


CASES = [
    *wrong(
        load,
        {"name": lambda w: w.checkpoint()},
        ({"name": None}, TypeError, "expected a Hub id or the path of a folder, got None"),
        ({"name": 3}, TypeError, "expected a Hub id .*got 3"),
        ({"name": MODEL}, TypeError, "expected a Hub id .*got LlamaForCausalLM"),
        ({"name": ""}, ValueError, "expected a Hub id or the path of a folder, got ''"),
        ({"name": lambda w: w.folder / "nowhere"}, FileNotFoundError, "no such folder: .*nowhere"),
        ({"name": lambda w: w.folder / "mine"}, FileNotFoundError, "mine holds no model: it has no config.json"),
        ({"name": lambda w: w.folder / "file.txt"}, FileNotFoundError, "no such folder: .*file.txt"),
        ({"device": "gpu0"}, ValueError, "unknown device 'gpu0': .*'cpu'"),
        ({"device": "cuda:77"}, ValueError, "no device 'cuda:77' on this machine"),
        ({"dtype": "float99"}, ValueError, "unknown dtype 'float99': .*float32"),
        ({"dtype": 3}, ValueError, "unknown dtype 3: "),
        ({"max_memory": "4GiB"}, TypeError, "max_memory .*for instance .*got '4GiB'"),
        ({"trust_remote_code": 1}, TypeError, "trust_remote_code must be True or False, got 1"),
        ({"accept_terms": "yes"}, TypeError, "accept_terms must be True or False, got 'yes'"),
        ({"name": lambda w: w.file("GGUF", "a.gguf"), "sha256": None}, ValueError, "a.gguf.*sha256"),
        (
            {"name": lambda w: w.file("GGUF", "a.gguf"), "device_map": "auto"},
            ValueError,
            "a.gguf: a GGUF file is unpacked in memory, so device_map and max_memory do not apply",
        ),
    ),
    *wrong(describe, {}, no_model()),
    *wrong(
        save,
        {"model": MODEL, "path": lambda w: w.new},
        no_model(),
        *folder("path"),
        ({"path": ".", "overwrite": True}, ValueError, "current folder"),
        ({"path": "..", "overwrite": True}, ValueError, "current folder"),
        ({"path": lambda w: w.folder / "file.txt", "overwrite": True}, FileExistsError, "is a file"),
        ({"tokenizer": "gpt2"}, TypeError, NO_TOKENIZER.format("str")),
        ({"plan": [1]}, TypeError, "plan must be a PruningPlan, got list"),
        ({"plan": PruningPlan(6, (1,))}, ValueError, "plan removes layers \\[1\\] of 6.*\\[\\]"),
        no_weights(),
        no_weights(verify=False),
        nan(says=f"{NAN_LOGITS}.*verify=False"),
        ({"model": broken, "path": lambda w: w.new / "a" / "b"}, ValueError, NAN_LOGITS),
    ),
    *wrong(
        prune_checkpoint,
        {"src": lambda w: w.checkpoint(), "dst": lambda w: w.new, "plan": [1], "progress": False},
        layers("plan"),
        *folder("dst"),
        ({"src": None}, TypeError, "expected the path of a folder, got None"),
        ({"src": MODEL}, TypeError, "path of a folder, got LlamaForCausalLM"),
        ({"src": lambda w: w.folder / "no"}, FileNotFoundError, "no such folder: .*no "),
        ({"src": lambda w: w.folder / "mine"}, FileNotFoundError, "no config.json"),
        ({"src": lambda w: half(w, "{")}, (ValueError, OSError), "config.json|damaged"),
        ({"src": lambda w: half(w, "[1]")}, ValueError, "config.json is damaged: "),
        ({"src": lambda w: half(w, None)}, FileNotFoundError, "holds no weights: neither"),
        ({"plan": range(LAYERS)}, ValueError, "leaves none: keep"),
        ({"plan": PruningPlan(30, (1,))}, ValueError, "30 layers"),
        ({"repaired": lambda w: w.model}, ValueError, "the repaired model is a LlamaForCausalLM without layers"),
        ({"repaired": 3}, TypeError, "expected a transformers model, got int"),
        ({"dst": lambda w: w.folder / "checkpoint" / "x"}, FileExistsError, "lies inside"),
    ),
    *wrong(
        save_gguf,
        {"model": MODEL, "tokenizer": TOKENIZER, "path": lambda w: w.new, "converter": "/nowhere"},
        no_model(),
        no_tokenizer(),
        ({"path": None}, TypeError, "expected the path of a GGUF file, got None"),
        ({"path": lambda w: w.folder / "mine"}, FileExistsError, "mine exists already"),
        ({"path": lambda w: w.folder / "file.txt"}, FileExistsError, "file.txt exists already"),
        ({"outtype": torch.int8}, TypeError, "outtype must be a string, got dtype"),
        ({"converter": 3}, TypeError, "expected the path of llama.cpp's converter, got 3"),
        ({"converter": lambda w: w.folder / "mine"}, FileNotFoundError, "is not there: name llama.cpp's convert_hf"),
        ({"model": lambda w: quantize(w.model)}, ValueError, "can't write this as GGUF: this model is quantized"),
        ({"tokenizer": many_tokens}, ValueError, "the tokenizer has 1.. tokens and the model 96: use the model's own"),
        no_weights(converter=lambda w: w.file("", "converter")),
    ),
]
REASONS = {"load.from_pretrained": "passed on to transformers, which says what it does not know"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("checkpoints", CASES, REASONS)
