"""Which layers the command line asks `shortgpt prune` to remove."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import Parameter

from shortgpt.choosing.names import Baseline, Criterion, Metric
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import CHOICE, FROM_0, spelt

BASELINES, METRICS = get_args(Baseline), get_args(Metric)
HIDDEN = Parameter(show=False)


def parse_layers(text: str) -> list[int]:
    """``"3,4,10-12"`` to layer numbers."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r" *(\d{1,6})(?: *- *(\d{1,6}))? *", part)
        if not match:
            raise ValueError(f"{text!r} is not a list of layers: write it like 3,4,10 or 3,8-10")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


@Parameter(name="*", group=CHOICE)
@dataclass(frozen=True)
class Wish:
    """Which layers the command line asks to remove, and from what."""

    model: str | None = None
    """A folder or Hub id. Default: the plan's, or the packaged one."""
    n: Annotated[int | None, FROM_0, Parameter(name=["--number", "-n"])] = None
    """Remove n layers, as --by says."""
    ratio: float | None = None
    """Or a fraction of the layers: 0.25."""
    layers: Annotated[list[int] | None, spelt(parse_layers, "LIST")] = None
    """Or these layers: 3,4,8-10."""
    plan: Path | None = None
    """Or those of a plan, pruning_plan.json."""
    by: Criterion | None = None
    """What chooses: lowest score first, by default block_influence; a search (repaired_search fits --repair); a baseline."""
    sublayers: Literal["attention", "ffn"] | None = None
    """Remove only the attention of layers, or only the ffn."""
    repair: Literal["fold", "all", "linear"] | None = None
    """Without training: fold (an ordinary checkpoint), all (folded into every later layer), linear (a module)."""
    order: Annotated[Literal["score", Criterion], HIDDEN] = "score"  # older names of `by`
    metric: Annotated[Metric | None, HIDDEN] = None

    @property
    def criterion(self) -> str:
        """What chooses, whichever of its names was used."""
        return self.by or (self.order if self.order != "score" else self.metric or "block_influence")

    @property
    def scores(self) -> bool:
        """Whether the model has to read text before it is known which layers go."""
        return self.plan is None and self.layers is None and self.criterion not in BASELINES

    def number_of(self, depth: int) -> int:
        """How many of `depth` layers go, at most."""
        return self.n or round((self.ratio or 0) * depth) or len(self.layers or ()) or depth

    def check(self, *, on_disk: bool) -> None:
        """Raise UsageError if it is no wish, or two."""
        ways = {"-n": self.n, "--ratio": self.ratio, "--layers": self.layers, "--plan": self.plan}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            got = f"got {' and '.join(given)}" if given else "got none"
            raise UsageError(f"say which layers in one way, -n, --ratio, --layers or --plan: {got}")
        chosen = self.by or (self.order if self.order != "score" else None)
        if self.by and (self.order != "score" or self.metric):
            raise UsageError("--order and --metric are older names of --by: give one of them")
        if chosen and given[0] in ("--layers", "--plan"):
            raise UsageError(f"--by {chosen} chooses layers, and {given[0]} names them: give one of the two")
        if self.sublayers and (self.plan or on_disk or self.criterion not in METRICS):
            raise UsageError(f"--sublayers goes with -n, --ratio or --layers, and --by {', '.join(METRICS)} only")
