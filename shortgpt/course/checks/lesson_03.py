"""Checks for lesson 03: removing layers from a list, their numbers, the configuration's lists, and a greedy search."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare
from shortgpt.course.checks.verdict import CHANGED_INPUT, CheckFailed, call, failure, passed

SHIFTED = "each deletion moves the layers behind it: decide by the original numbers which layers stay, then take those"
TOO_FAR = (
    "either a list without an entry for each layer was cut, too, or entries were deleted one by one, and each deletion "
    "moves those behind it"
)
PER_LAYER = ("layer_types", "intermediate_sizes")
LAYERS_TO_REMOVE = ((6, [1, 3]), (8, [5, 0, 2]), (5, [4]), (9, [2, 3, 4, 7]))


def check_without_layers(without_layers: Callable[[nn.ModuleList, list[int]], nn.ModuleList]) -> None:
    """Check ``without_layers(layers, removed)``: a new ModuleList of the surviving layers, the old one as it was."""
    name = "without_layers"
    for depth, removed in LAYERS_TO_REMOVE:
        layers, words = nn.ModuleList(nn.Identity() for _ in range(depth)), f"{depth} layers without {removed}"
        before, asked = list(layers), list(removed)
        got = call(name, without_layers, layers, asked, hints={IndexError: SHIFTED})
        if list(layers) != before:
            hint = "you deleted from the list that you were given: build a new one and leave that list alone"
            raise failure(name, words, f"the old list still of {depth} layers", f"one of {len(layers)}", hint)
        if asked != removed:
            raise failure(name, words, f"removed = {removed} as it was", asked, CHANGED_INPUT)
        if not isinstance(got, nn.ModuleList):
            hint = "PyTorch finds the layers' parameters in a ModuleList only"
            hint = hint if got is not None else "is a return missing?"
            raise failure(name, words, "a ModuleList", type(got).__name__, hint)
        numbers = [before.index(layer) if layer in before else None for layer in got]
        if numbers != (kept := _kept(depth, removed)):
            raise failure(name, words, f"layers {kept}", f"layers {numbers}", _list_hint(numbers, depth, removed))
    passed(name, without_layers, len(LAYERS_TO_REMOVE))


def _list_hint(numbers: list, depth: int, removed: list[int]) -> str:
    if numbers in (_shifted(range(depth), removed), _shifted(range(depth), sorted(removed))):
        return SHIFTED
    if numbers in (sorted(removed), removed):
        return "these are the layers that should go"
    if None in numbers:
        return "these are copies of layers, with weights of their own: use the layers themselves"
    if numbers == list(range(depth - len(removed))):
        return "that takes away as many layers, but from the end"
    return ""


def check_number_layers(number_layers: Callable[[nn.ModuleList], object]) -> None:
    """Check ``number_layers(layers)``: in every layer, each module that has a ``layer_idx`` gets the layer's position."""
    name = "number_layers"
    tried = [(deep, *each) for deep in (False, True) for each in LAYERS_TO_REMOVE]
    for deep, depth, removed in tried:
        layers = nn.ModuleList(_layer(i, deep) for i in _kept(depth, removed))
        before = _numbers_in(layers)
        wanted = {place: int(place.split(".")[0]) for place in before}
        call(name, number_layers, layers)
        after = _numbers_in(layers)
        if after != wanted:
            place = next(place for place in wanted | after if after.get(place, "none") != wanted.get(place, "none"))
            expected, got = (f"layers.{place}.layer_idx = {some.get(place, 'none')}" for some in (wanted, after))
            words = f"{depth} layers without {removed}"
            raise failure(name, words, expected, got, _number_hint(before, wanted, after))
    passed(name, number_layers, len(tried))


class _Numbered(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.layer_idx = number


def _layer(number: int, deep: bool) -> nn.Module:
    """A decoder layer of which only the number matters; in some families a module deep inside knows it, too."""
    layer = _Numbered(number) if deep else nn.Module()
    layer.self_attn, layer.mlp = _Numbered(number), nn.Identity()
    if deep:
        layer.mixer = nn.ModuleDict({"inner": _Numbered(number)})
    return layer


def _numbers_in(layers: nn.ModuleList) -> dict[str, object]:
    """The ``layer_idx`` of every module that has one, by its place in the list."""
    return {place: module.layer_idx for place, module in layers.named_modules() if hasattr(module, "layer_idx")}


def _number_hint(before: dict, wanted: dict, after: dict) -> str:
    if set(after) != set(wanted):
        return "only modules that had a layer_idx should have one"
    if after == before:
        return "every layer still has its number in the dense model: the cache has no slot for the high ones"
    if all(after[place] == number + 1 for place, number in wanted.items()):
        return "slots are counted from 0"
    attention = [place for place in wanted if place.endswith("self_attn")]
    if all(after[place] == wanted[place] for place in attention):
        return "self_attn is right, but other modules in a layer may have a layer_idx: look at all of layer.modules()"
    if all(after[place] == before[place] for place in attention):
        return "the number is needed where the cache is used, in the modules inside the layer"
    return "the number is the position that the layer has now"


def check_sliced_config(sliced_config: Callable[[dict, list[int]], dict]) -> None:
    """Check ``sliced_config(config, removed)``: the configuration of the pruned model, the old one as it was."""
    cases = []
    for seed, (depth, removed) in enumerate(LAYERS_TO_REMOVE):
        random = np.random.default_rng(seed)
        config = {
            "num_hidden_layers": depth,
            "hidden_size": 64,
            "layer_types": [str(kind) for kind in random.choice(["full_attention", "sliding_attention"], depth)],
            "intermediate_sizes": random.permutation(depth * 16)[:depth].tolist(),
            "eos_token_id": list(range(1, depth - 1)),
        }
        cases.append(Case(f"{depth} layers without {removed}", (config, removed)))
    compare("sliced_config", sliced_config, cases, _sliced_config, hints={IndexError: TOO_FAR})


def _sliced_config(config: dict, removed: list[int]) -> Answers:
    depth = config["num_hidden_layers"]
    kept = _kept(depth, removed)

    def sliced(keep: Sequence[int], count: int = len(kept), lists: Sequence[str] = PER_LAYER) -> dict:
        cut = {key: [config[key][i] for i in keep if i < len(config[key])] for key in lists}
        return config | cut | {"num_hidden_layers": count}

    return sliced(kept), {
        "the lists have the right length and the wrong entries: take the entries of the layers that stay":
            sliced(range(len(kept))),
        "the number of layers, num_hidden_layers, is still the old one": sliced(kept, depth),
        "lists with one entry per layer are still as long as before": sliced(kept, lists=()),
        "not every list has one entry per layer: leave lists of another length alone":
            sliced(kept, lists=(*PER_LAYER, "eos_token_id")),
        "these are the entries of the layers that go: those of the others should stay": sliced(sorted(removed)),
        SHIFTED: config | {key: _shifted(config[key], removed) for key in PER_LAYER} | {"num_hidden_layers": len(kept)},
    }  # fmt: skip


def check_greedy(greedy: Callable[[Callable, list[int], int], list[int]]) -> None:
    """Check ``greedy(cost, candidates, n)``: n layers, in order, each the cheapest to remove after those before it."""
    tried = [[3, 5, 6, 9], [1, 2, 4, 7, 8, 11], [0, 1, 2, 3, 4], [9, 4, 2, 6]]
    cases = [
        Case(f"candidates {candidates} and n = {n}", (_cost(seed, candidates), candidates, n))
        for seed, (candidates, n) in enumerate(zip(tried, (2, 3, 2, 3), strict=True))
    ]
    compare("greedy", greedy, cases, _greedy)


def _greedy(cost: Callable[[Any], float], candidates: list[int], n: int) -> Answers:
    def alone(sign: int = 1) -> list[int]:
        return sorted(candidates, key=lambda layer: sign * cost([layer]))[:n]

    def step_by_step(sign: int = 1) -> list[int]:
        chosen: list[int] = []
        for _ in range(n):
            rest = [layer for layer in candidates if layer not in chosen]
            chosen.append(min(rest, key=lambda layer: sign * cost([*chosen, layer])))
        return chosen

    right = step_by_step()
    return right, {
        "these are the layers that are cheapest to remove alone: after each removal, ask again for what the rest costs":
            alone(),
        "that removes what costs most: a low cost is good": AnyOf(step_by_step(-1), alone(-1)),
        "that is the best set of all, for far more evaluations: greedy never goes back on a choice":
            list(min(itertools.combinations(candidates, n), key=cost)),
        "the right layers, but the first one removed should come first": sorted(right),
        "these are positions in the list of candidates, not layers": [candidates.index(layer) for layer in right],
        "the answer should list every layer removed, not the last one again": right[-1:] * n,
    }  # fmt: skip


def _cost(seed: int, candidates: Sequence[int]) -> Callable[[Sequence[int]], float]:
    """A cost of removing layers, in which layers that are cheap alone are dear together."""
    random, size = np.random.default_rng(seed), max(candidates) + 1
    single, pairs = random.uniform(1, 3, size), random.uniform(0, 1, (size, size))
    first, second = sorted(candidates, key=lambda layer: single[layer])[:2]
    pairs[first, second] += 5
    pairs[second, first] += 5

    def cost(layers: Sequence[int]) -> float:
        layers = [int(layer) for layer in layers]
        asked = f"greedy asks for the cost without layers {layers}"
        if len(set(layers)) < len(layers):
            raise CheckFailed(f"{asked}: a layer can go only once")
        if not set(layers) <= set(candidates):
            raise CheckFailed(f"{asked}, but the candidates are {list(candidates)}")
        both = itertools.combinations(sorted(layers), 2)
        return float(sum(single[i] for i in layers) + sum(pairs[i, j] for i, j in both))

    return cost


def _kept(depth: int, removed: Sequence[int]) -> list[int]:
    return [i for i in range(depth) if i not in removed]


def _shifted(values: Sequence, removed: Sequence[int]) -> list | None:
    """What is left if entries are deleted one after the other although each deletion moves those behind it."""
    left = list(values)
    for i in removed:
        if i >= len(left):
            return None
        del left[i]
    return left
