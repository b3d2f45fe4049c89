"""Names of decoder layers in a checkpoint: which stack of layers they belong to, and what they are called afterwards.

The names in a file need not be those in the model (``h.0.ln_1.weight`` for ``transformer.h.0…``, one tensor an expert
where the model has one for all), but the layers are a numbered list under the same last name in both.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from shortgpt.utils.untrusted import parse_json


def find_stack(names: Iterable[str], path: str, depth: int, extra: int = 0) -> str:
    """Dotted name of the decoder layers in the files, for instance ``"model.layers"`` or ``"h"``.

    Args:
        names: of all tensors.
        path: of the decoder layers in the model (`decoder_layers_path`); only its last part must be the same.
        depth: number of decoder layers. A stack counts if it has exactly the layers 0 to depth-1 …
        extra: … and possibly this many more behind them (multi-token prediction, which transformers doesn't load).

    Raises:
        ValueError: no such stack, or several that are equally like `path`.
    """
    found: dict[str, set[int]] = defaultdict(set)
    pattern = re.compile(rf"((?:.*?\.)?{re.escape(path.rpartition('.')[2])})\.([0-9]{{1,6}})\.")
    for name in names:
        if match := pattern.match(name):
            found[match[1]].add(int(match[2]))
    behind = set(range(depth, depth + extra))
    candidates = [stack for stack, indices in found.items() if indices - behind == set(range(depth))]
    if not candidates:
        there = "; ".join(f"{stack} has {len(indices)}" for stack, indices in sorted(found.items())) or "there are none"
        raise ValueError(
            f"the files hold no {depth} layers like {path}.0, as the configuration says ({there}): is this the "
            "configuration of these weights?"
        )
    likeness = {stack: _likeness(stack, path) for stack in candidates}
    best = [stack for stack in candidates if likeness[stack] == max(likeness.values())]
    if len(best) > 1:
        raise ValueError(f"the files hold several stacks of {depth} layers that could be {path}: {', '.join(best)}")
    return best[0]


class LayerNames:
    """Old names to new ones, for tensors and for whatever else in a checkpoint names layers.

    Args:
        stack: name of the decoder layers in the files (`find_stack`).
        path: their name in the model, which quantization settings use.
        kept: current indices of the layers that stay, ascending.
    """

    def __init__(self, stack: str, path: str, kept: Sequence[int]) -> None:
        self.stack = stack
        self._new = {old: new for new, old in enumerate(kept)}
        self._list = path.rpartition(".")[2]
        self._in_files = re.compile(rf"({re.escape(stack)})\.([0-9]{{1,6}})(?=\.|$)")
        stacks = "|".join(re.escape(name) for name in sorted({stack, path, self._list}, key=len, reverse=True))
        self._anywhere = re.compile(rf"({stacks})\.([0-9]{{1,6}})(?=\.|$)")

    def tensor(self, name: str) -> str | None:
        """New name of a tensor; None if it goes with its layer."""
        return self._renamed(self._in_files, name)

    def metadata(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """The text in a safetensors header: torchao has an entry a tensor in it, and a list of all their names."""
        new = {}
        for key, text in metadata.items():
            name = self.tensor(key)
            if name is not None:
                listed = _listed(text)
                new[name] = text if listed is None else json.dumps([n for n in map(self.tensor, listed) if n])
        return new

    def inside(self, setting: object) -> object:
        """A quantization setting with every layer name in it changed, those of removed layers left out.

        Raises:
            ValueError: layers are named by a pattern with numbers in it, which can't be renumbered.
        """
        if isinstance(setting, Mapping):
            pairs = [(self.inside(key), self.inside(value)) for key, value in setting.items()]
            return {key: value for key, value in pairs if key is not None}
        if isinstance(setting, list | tuple):
            return [new for old in setting if (new := self.inside(old)) is not None or old is None]
        if not isinstance(setting, str):
            return setting
        if re.fullmatch(r"[\w.]*", setting):
            return self._renamed(self._anywhere, setting)
        if re.search(rf"\b{self._list}\\?\.\W*\d", setting):
            raise ValueError(
                f"the quantization settings name layers by the pattern {setting!r}, which can't be renumbered: remove the "
                "layers before quantizing"
            )
        return setting

    def _renamed(self, pattern: re.Pattern, name: str) -> str | None:
        match = pattern.match(name)
        if match is None:
            return name
        new = self._new.get(int(match[2]))
        return None if new is None else f"{match[1]}.{new}{name[match.end() :]}"


def _listed(text: str) -> list[str] | None:
    """The strings that `text` lists as JSON, or None if it does nothing of the kind."""
    if not text.startswith('["'):
        return None
    wrong = "a weight file has text in its header that is no list of names: download it again"
    listed = parse_json(text, wrong)
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(wrong)
    return listed


def _likeness(a: str, b: str) -> float:
    """Shared parts of two dotted names over all their parts: 1 for equal names."""
    first, second = set(a.split(".")), set(b.split("."))
    return len(first & second) / len(first | second)
