"""Where does a model without some layers lose what it needs? The dense model's states put back, and the lens.

*Patching*: one state of the dense model, of one token at one depth, takes the place of the pruned model's there. If the
answer is then right, everything the answer still lacked was in that one state. *Lens*: final norm and output head on the
state at each depth (`logit_lens`). Depths count layers of the dense model: depth l is where its layer l is entered, and the
last depth is behind its last layer. A pruned model has the depths of its layers, and the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.course.studies.controlled import answer_ids, right_padded
from shortgpt.course.studies.logit_lens import MOST_TOKENS, layer_outputs, read_out
from shortgpt.course.studies.steps import answer_steps
from shortgpt.model.anatomy import decoder_layers, original_layers, removed_so_far
from shortgpt.model.hooks import hidden_states, hooked, layer_input, logits_of
from shortgpt.model.view import share_weights


class Case(NamedTuple):
    """A text up to where a token of an answer is asked for.

    Attributes:
        task, step, size: of `answer_steps`; item, position: which token of which answer.
        ids: the tokens up to the asked one, which is the last. right: the token that should come.
        rival: the token that it is compared with (the other verb's); None: with all others.
        places: tokens where what is needed stands, by role; ``"asked"`` is the last, under this name only.
    """

    task: str
    step: str
    size: int
    item: int
    position: int
    ids: list[int]
    right: int
    rival: int | None
    places: dict[str, int]


def cases(tokenizer: PreTrainedTokenizerBase, items: Sequence[Mapping[str, Any]]) -> list[Case]:
    """A case for each token of each answer, of a verb for the first only (none if both verbs begin with the same token).

    Raises:
        ValueError: digits or brackets that are no single tokens.
    """
    found = []
    for number, item in enumerate(items):
        ids, start = answer_ids(tokenizer, item["prompt"], item["answer"])
        steps = answer_steps(item)
        if len(ids) - start != len(steps) and "other" not in item:
            raise ValueError(
                f"the answer {item['answer']!r} must have one token a character, and has {len(ids) - start}"
            )
        rival = answer_ids(tokenizer, item["prompt"], item["other"])[0][start] if "other" in item else None
        if rival == ids[start]:
            continue
        where = _tokens_at(tokenizer, item["prompt"] + item["answer"], ids)
        for position, (step, size, places) in enumerate(steps):
            end = start + position
            at = {role: where[place] for role, place in places.items()}
            at = {role: token for role, token in at.items() if token != end - 1} | {"asked": end - 1}
            found.append(Case(item["task"], step, size, number, position, ids[:end], ids[end], rival, at))
    return found


def _tokens_at(tokenizer: PreTrainedTokenizerBase, text: str, ids: Sequence[int]) -> list[int]:
    """For each character of `text`, the token that it is in."""
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    first = len(ids) - len(spans)  # behind the begin token
    return [max(first + i for i, (begin, _) in enumerate(spans) if begin <= place) for place in range(len(text))]


def is_right(logits: Tensor, some: Sequence[Case]) -> Tensor:
    """Whether each case is answered right: ``[cases, vocabulary] -> [cases]``, bool."""
    best = logits.argmax(-1).tolist()
    pairs = zip(some, logits, best, strict=True)
    return torch.tensor(
        [
            bool(row[case.right] > row[case.rival]) if case.rival is not None else case.right == top
            for case, row, top in pairs
        ]
    )


@torch.inference_mode()
def answered(model: PreTrainedModel, some: Sequence[Case]) -> Tensor:
    """Logits behind the asked token of each case, ``[cases, vocabulary]``."""
    logits = logits_of(model, right_padded(model, [case.ids for case in some]))
    return logits[torch.arange(len(some)), [len(case.ids) - 1 for case in some]].cpu()


def states_by_depth(model: PreTrainedModel, some: Sequence[Case]) -> tuple[list[int], Tensor]:
    """The depths that `model` has, and its states there: ``[depths, cases, tokens, hidden]``."""
    view = share_weights(model)  # RWKV halves its states every few layers; in a view it doesn't
    return depths_of(view), hidden_states(view, right_padded(view, [case.ids for case in some]))


def depths_of(model: PreTrainedModel) -> list[int]:
    """Where each layer of `model` is entered, and the last: in layers of the dense model."""
    layers = original_layers(model)
    return [*layers, len(layers) + len(removed_so_far(model))]


def put_back(model: PreTrainedModel, depth: int, states: Tensor, places: Sequence[int]) -> AbstractContextManager[int]:
    """While open, at that depth ``states[row]`` stands in place of the state of token ``places[row]`` of each row.

    Args:
        depth: one of `depths_of`. states: ``[rows, hidden]``.
    """

    def put(x: Tensor) -> Tensor:
        changed = x.clone()
        changed[torch.arange(len(places)), list(places)] = states.to(x)
        return changed

    def before(_: int, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        new = put(layer_input(args, kwargs))
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    def behind(_: int, layer: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        return put(output) if isinstance(output, Tensor) else (put(output[0]), *output[1:])

    stack, at = decoder_layers(model), depths_of(model).index(depth)
    return hooked([stack[at]], before, before=True) if at < len(stack) else hooked([stack[-1]], behind)


def restored(model: PreTrainedModel, pruned: PreTrainedModel, some: Sequence[Case]) -> pd.DataFrame:
    """Of the cases that `model` answers right and `pruned` does not: which does one state of `model` make right again?

    Args:
        pruned: `model` without some layers, also repaired.

    Returns:
        A row for each task, step, role of the token and depth: ``task, step, role, depth, restored`` (share), ``n``. Put
        behind the last layer at the asked token, the answer is the dense model's; put before the first removed layer, or at
        a token on which nothing hangs, nothing changes.
    """
    lost = [c for c, a, b in zip(some, _right(model, some), _right(pruned, some), strict=True) if a and not b]
    rows: list[dict[str, Any]] = []
    for role in dict.fromkeys(role for case in lost for role in case.places):
        chosen = [case for case in lost if role in case.places]
        for depth, again in _patched(model, pruned, chosen, role):
            named = pd.DataFrame({"task": [c.task for c in chosen], "step": [c.step for c in chosen], "right": again})
            for (task, step), group in named.groupby(["task", "step"]):
                found = {"restored": float(group["right"].mean()), "n": len(group)}
                rows.append({"task": task, "step": step, "role": role, "depth": depth} | found)
    return pd.DataFrame(rows, columns=["task", "step", "role", "depth", "restored", "n"])


def _right(model: PreTrainedModel, some: Sequence[Case]) -> list[bool]:
    return is_right(answered(model, some), some).tolist() if some else []


def _patched(
    model: PreTrainedModel, pruned: PreTrainedModel, some: Sequence[Case], role: str
) -> Iterator[tuple[int, list[bool]]]:
    """For each depth of `pruned`: which cases are right with the dense state of the token `role` put there."""
    pruned, (depths, states) = share_weights(pruned), states_by_depth(model, some)
    places = [case.places[role] for case in some]
    rows = torch.arange(len(some))
    for depth in depths_of(pruned):
        with put_back(pruned, depth, states[depths.index(depth)][rows, places], places):
            yield depth, _right(pruned, some)


def readable(model: PreTrainedModel, some: Sequence[Case]) -> pd.DataFrame:
    """At which depth is the right token the likeliest, as the lens reads the asked token's state? See `token_paths`.

    Args:
        model: dense or pruned, not repaired by patches behind layers.

    Returns:
        A row for each task, step and depth: ``task, step, depth, right`` (share), ``n``. At the last depth the lens is the
        model itself.
    """
    parts = []
    for first in range(0, len(some), MOST_TOKENS):
        few = some[first : first + MOST_TOKENS]
        named = {"task": [case.task for case in few], "step": [case.step for case in few]}
        parts += [pd.DataFrame(named | {"depth": depth, "right": right}) for depth, right in _read_by_depth(model, few)]
    groups = pd.concat(parts).groupby(["task", "step", "depth"])["right"]
    return pd.DataFrame({"right": groups.mean(), "n": groups.size()}).reset_index()


def _read_by_depth(model: PreTrainedModel, some: Sequence[Case]) -> Iterator[tuple[int, list[bool]]]:
    depths, states = states_by_depth(model, some)
    ids = torch.zeros(
        1, len(some), dtype=torch.long
    )  # whatever they are: only the states are read, a case in each place
    _, after, view = layer_outputs(model, ids)
    for depth, state in zip(depths, states, strict=True):
        asked = state[torch.arange(len(some)), [len(case.ids) - 1 for case in some]]  # [cases, hidden]
        yield depth, is_right(read_out(view, ids, after, asked[None]), some).tolist()
