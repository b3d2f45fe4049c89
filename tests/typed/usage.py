"""What users write, as a type checker sees it: `make lint` runs mypy over it; nothing here is executed.

A comment ``type: ignore[...]`` says that mypy must complain there: where it doesn't, the unused comment is the error.
"""

from typing import Any, assert_type

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import shortgpt
from shortgpt import (
    PruningPlan,
    calibration_batches,
    choose_layers,
    compare,
    decoder_layers,
    heal,
    hidden_states,
    load,
    perplexity,
    prune_checkpoint,
    quantize,
    remove_layers,
    save,
    score_layers,
    watch_layers,
)
from shortgpt.evaluation import best_within, frontier
from shortgpt.scoring.influence import LayerScores

model, tokenizer = load("owner/name")
assert_type(model, PreTrainedModel)
assert_type(tokenizer, PreTrainedTokenizerBase)
batches = calibration_batches(tokenizer, samples=2)
scores = score_layers(model, batches)
assert_type(scores, LayerScores)
plan = choose_layers(scores, 6)
assert_type(plan, PruningPlan)
assert_type(plan.kept, tuple[int, ...])
pruned = remove_layers(model, plan)
assert_type(pruned, PreTrainedModel)
assert_type(quantize(pruned), PreTrainedModel)
assert_type(perplexity(pruned, tokenizer), float)
assert_type(hidden_states(model, batches[0]), torch.Tensor)
assert_type(shortgpt.size(model), dict[str, Any])
save(pruned, "smaller", tokenizer=tokenizer, plan=plan)
prune_checkpoint("dense", "smaller", plan)
table: pd.DataFrame = compare({"dense": model, "pruned": pruned}, tokenizer)
healed: PreTrainedModel = heal(model, plan, batches)


def report(layer: int, x_in: torch.Tensor, x_out: torch.Tensor) -> None:
    print(layer, x_in.shape, x_out.shape)


with watch_layers(model, report) as layers:
    assert_type(layers, int)
print(len(decoder_layers(model)), best_within, frontier)

choose_layers(scores, "six")  # type: ignore[arg-type]
remove_layers(model, plan, 3)  # type: ignore[call-arg]
score_layers(model, batches, metrics="block_influence")  # type: ignore[call-arg]
plan.removed = (1, 2)  # type: ignore[misc]


def misspelt() -> None:
    from shortgpt import no_such_name  # type: ignore[attr-defined]

    print(no_such_name)
