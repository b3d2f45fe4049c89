"""From the options of `shortgpt prune` to a plan; the model is loaded only if it has to be scored for that."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shortgpt.cli.options import DEFAULT, Calibration, Loading, Metric, parse_layers

if TYPE_CHECKING:
    from shortgpt.pruning.plan import PruningPlan

BASELINES = ("reverse", "sequential", "random")
_CRITERIA = (  # the rest of criteria.CRITERIA, which is slow to import
    *("relative_magnitude", "block_influence", "block_influence_iterative", "angular_span", "angular_span_all_tokens"),
    *("leave_one_out", "greedy", "search"),
)
Order = StrEnum("Order", ["score", *BASELINES, *_CRITERIA])
Kind = StrEnum("Kind", ["attention", "ffn"])
Repair = StrEnum("Repair", ["fold", "all", "linear"])


@dataclass(frozen=True)
class Wish:
    """Which layers the command line asks to remove, and from what."""

    model: str | None
    n: int | None
    ratio: float | None
    layers: str | None
    plan: Path | None
    order: Order
    metric: Metric
    sublayers: Kind | None
    on_disk: bool

    def __post_init__(self) -> None:
        ways = {"-n": self.n, "--ratio": self.ratio, "--layers": self.layers, "--plan": self.plan}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            got = f"got {' and '.join(given)}" if given else "got none"
            raise typer.BadParameter(f"say which layers in one way, -n, --ratio, --layers or --plan: {got}")
        if self.layers is not None:
            parse_layers(self.layers)
        if self.order != "score" and given[0] in ("--layers", "--plan"):
            raise typer.BadParameter(
                f"--order {self.order} chooses layers, and {given[0]} names them: give one of the two"
            )
        if self.sublayers and (self.plan or self.on_disk or self.order != "score"):
            raise typer.BadParameter("--sublayers goes with -n, --ratio or --layers only")
        if self.on_disk and self.order not in BASELINES and given[0] in ("-n", "--ratio"):
            raise typer.BadParameter(
                "--on-disk never builds the model, so it can't score: write a plan first (--plan-only), or give --layers"
            )


def decide(wish: Wish, loading: Loading, calibration: Calibration) -> tuple[PruningPlan, str, Loading, tuple | None]:
    """The plan, the model it is for, how to load that, and ``(model, tokenizer)`` if it is loaded already."""
    from shortgpt.choosing.by_score import choose_layers
    from shortgpt.pruning.plan import PruningPlan

    if wish.plan is not None:
        plan = PruningPlan.from_json(wish.plan)
        name, loading = _model_of(plan, wish, loading)
        return plan, name, loading, None
    name = wish.model or DEFAULT
    if wish.layers is None and wish.order not in BASELINES:
        from shortgpt.scoring.influence import score_layers

        documents = calibration.documents()
        model, tokenizer = loading.load(name)
        batches = calibration.batches(tokenizer, documents)
        if wish.order == "score":
            plan = choose_layers(score_layers(model, batches, metric=wish.metric), wish.n, ratio=wish.ratio)
        else:
            plan = choose_layers(
                model, wish.n, ratio=wish.ratio, by=str(wish.order), batches=batches, seed=calibration.seed
            )
        return plan, name, loading, (model, tokenizer)
    return _without_reading(wish, name, loading, calibration.seed), name, loading, None


def _without_reading(wish: Wish, name: str, loading: Loading, seed: int) -> PruningPlan:
    """By hand or by a baseline order: the number of layers is all one needs to know."""
    from shortgpt.checkpoints.facts import empty_model
    from shortgpt.choosing.by_score import choose_layers
    from shortgpt.choosing.orders import plan_for
    from shortgpt.scoring.provenance import Provenance

    model = loading.load(name)[0] if name.endswith(".gguf") else empty_model(name, **loading.source)
    commit = getattr(model.config, "_commit_hash", None)
    source = replace(Provenance.of(model), model=f"{name}@{commit}" if commit else name)
    if wish.layers is None:
        return choose_layers(source, wish.n, ratio=wish.ratio, by=str(wish.order), seed=seed)
    return plan_for(source, parse_layers(wish.layers))


def _model_of(plan: PruningPlan, wish: Wish, loading: Loading) -> tuple[str, Loading]:
    """The model that the command line names, or else the plan, in the version it was made for."""
    if wish.model is not None:
        return wish.model, loading
    if not plan.model:
        raise typer.BadParameter(f"{wish.plan} names no model: say which one with --model")
    hub_id, _, commit = plan.model.partition("@")
    if re.fullmatch(r"[0-9a-f]{40}", commit):
        return hub_id, replace(loading, revision=loading.revision or commit)
    return plan.model, loading


def lowest_sublayers(wish: Wish, loading: Loading, calibration: Calibration) -> tuple[list[int], str, tuple]:
    """Layers that lose their attention (or FFN), the model's name, and ``(model, tokenizer)``."""
    import numpy as np

    from shortgpt.scoring.sublayers import score_sublayers

    name = wish.model or DEFAULT
    documents = calibration.documents() if wish.layers is None else []
    model, tokenizer = loading.load(name)
    if wish.layers is not None:
        return parse_layers(wish.layers), name, (model, tokenizer)
    scores = score_sublayers(model, calibration.batches(tokenizer, documents), metric=wish.metric)[
        wish.sublayers
    ].values
    there = int(np.isfinite(scores).sum())
    n = wish.n if wish.n is not None else round(wish.ratio * len(scores))
    if not 0 <= n <= there:
        raise ValueError(f"n must be 0 to {there} ({there} layers of this model have such a sublayer), got {n}")
    return np.argsort(scores, kind="stable")[:n].tolist(), name, (model, tokenizer)
