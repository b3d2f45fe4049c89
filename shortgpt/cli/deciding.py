"""From the options of `shortgpt prune` to a plan; the model is loaded only if it has to be scored for that."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import shortgpt
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import Calibration, Loading, default_model
from shortgpt.cli.way import fitting_way
from shortgpt.cli.wish import Wish

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shortgpt.pruning.plan import PruningPlan

Loaded = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]


@dataclass
class Decision:
    """The plan, the model it is for, how to load that, whether layers stay on disk, and the model if it is loaded already."""

    plan: PruningPlan
    name: str
    loading: Loading
    on_disk: bool = False
    loaded: Loaded | None = None

    def take(self) -> Loaded:
        """``(model, tokenizer)``, which is not held here any more: its layers go when the caller lets go of them."""
        loaded, self.loaded = self.loaded, None
        return loaded or self.loading.load(self.name)

    def folder(self) -> Path:
        """Where its files are: what was loaded from the Hub is in the cache."""
        from huggingface_hub import try_to_load_from_cache

        from shortgpt.checkpoints.facts import model_folder

        folder = model_folder(self.name, accept_terms=self.loading.accept_terms)
        cached = (
            None
            if Path(folder).is_dir()
            else try_to_load_from_cache(folder, "config.json", revision=self.loading.revision)
        )
        return Path(cached).parent if isinstance(cached, str) else Path(folder)


def decide(
    wish: Wish, loading: Loading, calibration: Calibration, *, saved: bool, on_disk: bool, progress: bool, hints: bool
) -> Decision:
    """Read the plan, or choose as the wish says; `saved`: the pruned model will be, not the plan alone."""
    plan = None if wish.plan is None else shortgpt.PruningPlan.from_json(wish.plan)
    name, loading = (wish.model or default_model(), loading) if plan is None else _model_of(plan, wish, loading)
    built = wish.scores or (saved and (wish.repair is not None or not on_disk))
    loading, on_disk = fitting_way(name, loading, wish, calibration, built=built, on_disk=on_disk, hints=hints)
    if plan is not None:
        return Decision(plan, name, loading, on_disk)
    if wish.scores:
        model, tokenizer, batches = calibration.with_model(loading, name)
        plan = shortgpt.choose_layers(
            model,
            wish.n,
            ratio=wish.ratio,
            by=wish.criterion,
            batches=batches,
            kind="linear" if wish.repair == "linear" else "fold",  # of repaired_search
            seed=calibration.seed,
            progress=progress,
        )
        return Decision(plan, name, loading, on_disk, (model, tokenizer))
    return Decision(_without_reading(wish, name, loading, calibration.seed), name, loading, on_disk)


def _without_reading(wish: Wish, name: str, loading: Loading, seed: int) -> PruningPlan:
    """By hand or by a baseline order: the number of layers is all one needs to know."""
    from shortgpt.checkpoints.facts import empty_model
    from shortgpt.choosing.orders import plan_for
    from shortgpt.scoring.provenance import Provenance

    model = loading.load(name)[0] if name.endswith(".gguf") else empty_model(name, **loading.source)
    commit = getattr(model.config, "_commit_hash", None)
    source = replace(Provenance.of(model), model=f"{name}@{commit}" if commit else name)
    if wish.layers is not None:
        return plan_for(source, wish.layers)
    return shortgpt.choose_layers(source, wish.n, ratio=wish.ratio, by=wish.criterion, seed=seed)


def _model_of(plan: PruningPlan, wish: Wish, loading: Loading) -> tuple[str, Loading]:
    """The model that the command line names, or else the plan, in the version it was made for."""
    if wish.model is not None:
        return wish.model, loading
    if not plan.model:
        raise UsageError(f"{wish.plan} names no model: say which one with --model")
    return dense_of(plan, loading)


def dense_of(plan: PruningPlan, loading: Loading) -> tuple[str, Loading]:
    """The model that a plan was made for, and how to load it in the version that it was made for."""
    hub_id, _, commit = plan.model.partition("@")
    if re.fullmatch(r"[0-9a-f]{40}", commit):
        return hub_id, replace(loading, revision=loading.revision or commit)
    return plan.model, loading


def lowest_sublayers(
    kind: str, wish: Wish, loading: Loading, calibration: Calibration, *, progress: bool
) -> tuple[list[int], str, Loaded]:
    """Layers that lose their attention (or FFN), the model's name, and ``(model, tokenizer)``."""
    import numpy as np

    name = wish.model or default_model()
    if wish.layers is not None:
        return wish.layers, name, loading.load(name)
    model, tokenizer, batches = calibration.with_model(loading, name)
    scores = shortgpt.score_sublayers(model, batches, metric=wish.criterion, progress=progress)[kind].values
    there = int(np.isfinite(scores).sum())
    n = round(wish.ratio * len(scores)) if wish.ratio is not None else wish.n
    if n is None or not 0 <= n <= there:
        raise ValueError(f"n must be 0 to {there} ({there} layers of this model have such a sublayer), got {n}")
    return np.argsort(scores, kind="stable")[:n].tolist(), name, (model, tokenizer)
