"""Each function on a model whose layers are on disk: it gives what it gives in memory, or refuses in one sentence.

python tests/test_spread.py     writes the table in docs/your-own-model.md
"""

import inspect
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import PUBLIC, TEXTS
from small import build_tiny, letters_tokenizer, random_batch
from transformers import AutoModelForCausalLM, PreTrainedModel

import shortgpt as s
from shortgpt.model.offload import layers_on_disk

PAGE = Path(__file__).parents[1] / "docs" / "your-own-model.md"
START, END = "<!-- spread -->\n", "<!-- end of spread -->"
QUIET = {"progress": False}
SPEED = {"prompt_tokens": 4, "new_tokens": 1, "repeats": 1}


def watched(m):
    seen = []
    with s.watch_layers(m, lambda layer, x_in, x_out: seen.append(x_out.clone())):
        logits(m)
    return seen


CALLS = {  # m: the model; w: a tokenizer, a new folder, batches
    "Trials": lambda m, w: s.Trials(m, w.batches)([1]),
    "choose_by": lambda m, w: s.choose_by(m, w.batches, "greedy", 1).removed,
    "choose_layers": lambda m, w: s.choose_layers(m, 2, by="greedy", batches=w.batches, **QUIET).removed,
    "choose_repaired": lambda m, w: s.choose_repaired(m, w.batches, 1, **QUIET).removed,
    "compare": lambda m, w: s.compare({"dense": m}, w.tokenizer, tasks=[], texts=TEXTS, **QUIET),
    "compare_criteria": lambda m, w: s.compare_criteria(m, w.batches, counts=[1], criteria=["reverse"], measure=loss),
    "continue_text": lambda m, w: s.continue_text(m, w.tokenizer, "the", new_tokens=3),
    "decoder_layers": lambda m, w: len(s.decoder_layers(m)),
    "describe": lambda m, w: s.describe(m),
    "distill": lambda m, w: s.distill(
        s.remove_layers(m, [2]), m, w.tokenizer, TEXTS * 9, tokens=64, length=16, batch_size=2, **QUIET
    ),
    "equal_parameters": lambda m, w: s.equal_parameters(m, 1),
    "evaluate": lambda m, w: s.evaluate(m, w.tokenizer, ["grammar"], limit=1, **QUIET),
    "generation_report": lambda m, w: s.generation_report({"dense": m}, w.tokenizer, ["the"], new_tokens=3, **QUIET),
    "heal": lambda m, w: s.heal(m, [2], w.batches, **QUIET),
    "hidden_states": lambda m, w: s.hidden_states(m, w.batches[0]),
    "key_value_bytes": lambda m, w: s.key_value_bytes(m, 8),
    "leave_one_out": lambda m, w: s.leave_one_out(s.Trials(m, w.batches), **QUIET),
    "merge_layers": lambda m, w: s.merge_layers(m, [3]),
    "perplexity": lambda m, w: s.perplexity(m, w.tokenizer, TEXTS),
    "perplexity_table": lambda m, w: s.perplexity_table(m, w.tokenizer, pd.DataFrame({"text": TEXTS})),
    "prune_prefill": lambda m, w: s.prune_prefill(m, [1]),
    "quantize": lambda m, w: s.quantize(m),
    "remove_channels": lambda m, w: s.remove_channels(m, 1),
    "remove_heads": lambda m, w: s.remove_heads(m, 1),
    "remove_layers": lambda m, w: s.remove_layers(m, [1]),
    "remove_sublayers": lambda m, w: s.remove_sublayers(m, ffn=[1]),
    "removal_sweep": lambda m, w: s.removal_sweep(m, [1, 2], loss, counts=[0, 1]),
    "sampled_text": lambda m, w: s.sampled_text(m, w.tokenizer, samples=1, length=4, **QUIET),
    "save": lambda m, w: AutoModelForCausalLM.from_pretrained(s.save(m, w.folder / "new")),
    "score_layers": lambda m, w: s.score_layers(m, w.batches, **QUIET).values,
    "score_sublayers": lambda m, w: s.score_sublayers(m, w.batches, **QUIET)["ffn"].values,
    "size": lambda m, w: s.size(m)["parameters"],
    "size_quality_grid": lambda m, w: s.size_quality_grid(m, w.tokenizer, [1], [1], ["none"], texts=TEXTS, **QUIET),
    "span_distances": lambda m, w: s.span_distances(m, w.batches),
    "speed": lambda m, w: s.speed(m, **SPEED) is None,
    "speed_table": lambda m, w: s.speed_table({"m": m}, **SPEED, batch_sizes=[1], warm_up=0, **QUIET) is None,
    "watch_layers": lambda m, w: watched(m),
    "width_scores": lambda m, w: s.width_scores(m, "heads"),
}
ELSEWHERE = {"save_gguf": "it is `save`, and llama.cpp's converter", "PruningPlan": "its model is a name"}


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**random_batch()).logits


def loss(model: PreTrainedModel) -> float:
    return float(logits(model).float().logsumexp(-1).mean())


def numbers(value: object) -> list[float]:
    """All numbers in what a function gives; of a model, its logits."""
    value = logits(value) if isinstance(value, PreTrainedModel) else value
    if isinstance(value, pd.DataFrame):
        value = value.select_dtypes("number").filter(regex="^(?!.*(second|memory|bytes|_mb|time))")
    if isinstance(value, torch.Tensor | np.ndarray | pd.DataFrame | pd.Series):
        return (
            pd.to_numeric(pd.Series(np.asarray(value).ravel()))
            .astype("Float64")
            .to_numpy(float, na_value=np.nan)
            .tolist()
        )
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


def outcome(name: str, model: PreTrainedModel, folder: Path) -> object:
    """What the function gives, or the sentence that it refuses with."""
    tokenizer = letters_tokenizer()
    tokenizer.eos_token = "?"
    world = SimpleNamespace(tokenizer=tokenizer, folder=folder, batches=[random_batch(seed=seed) for seed in (0, 1)])
    torch.manual_seed(0)
    try:
        return CALLS[name](model, world)
    except (TypeError, ValueError) as error:
        return error


def row(name: str, folder: Path) -> str:
    """The row of the table, with what really happens."""
    build_tiny().save_pretrained(folder / "source")
    for where in ("a", "b"):
        (folder / where).mkdir()
    places, options = layers_on_disk(build_tiny(), "cpu"), {"offload_folder": folder / "offload"}
    spread = AutoModelForCausalLM.from_pretrained(folder / "source", device_map=places, **options).eval()
    expected, got = (outcome(name, model, folder / where) for where, model in (("a", build_tiny()), ("b", spread)))
    assert not isinstance(expected, Exception), expected
    if isinstance(got, Exception):
        assert "\n" not in str(got)
        return f"| `{name}` | refuses: {got} |"
    np.testing.assert_allclose(numbers(got), numbers(expected), rtol=1e-5, atol=1e-6)
    return f"| `{name}` | as in memory |"


def table() -> list[str]:
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0].strip().splitlines()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_the_table_says_what_happens(name, tmp_path):
    assert row(name, tmp_path) in table()


def test_no_function_that_takes_a_model_is_forgotten():
    takes = {"model", "models", "trials", "pruned", "teacher"}
    rooms = {name for name, room in PUBLIC.items() if room != "course"}  # studies for the notebooks
    assert {name for name in rooms if takes & {*inspect.signature(getattr(s, name)).parameters}} <= {*CALLS, *ELSEWHERE}
    assert {*CALLS, *ELSEWHERE} <= rooms and len(table()) == len(CALLS) + 2


if __name__ == "__main__":
    rows = []
    for each in sys.argv[1:] or sorted(CALLS, key=str.lower):
        with tempfile.TemporaryDirectory() as temporary:
            try:
                rows.append(row(each, Path(temporary)))
            except Exception as error:
                rows.append(f"| `{each}` | **{type(error).__name__}: {error}** |".replace("\n", " "))
        print(rows[-1], flush=True)
    if not sys.argv[1:]:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(START)
        text = "\n".join(["| function | with layers on disk |", "|---|---|", *rows])
        PAGE.write_text(f"{before}{START}{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
