"""A plan for a person to read: as a few sentences, and the one that was saved beside a model. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

from shortgpt.pruning.plan import PLAN_FILE, PruningPlan
from shortgpt.utils.untrusted import one_line


def plan_in_words(plan: PruningPlan) -> str:
    """The plan as a few sentences: what goes, what chose it, and how close the choice was."""
    removed = ", ".join(map(str, sorted(plan.removed))) or "none"
    of = f" of {one_line(plan.model)}" if plan.model else ""
    lines = [f"Removes {len(plan.removed)} of {plan.layers} layers{of}: {removed}. {len(plan.kept)} stay."]
    read = plan.calibration
    text = f", over {read['tokens']:,} tokens in {read['samples']} samples" if {"tokens", "samples"} <= {*read} else ""
    criterion = one_line(plan.criterion.removeprefix("by ").replace("_", " "))
    lines.append(f"Chosen by {criterion}{text if plan.scores else ''}.")
    gone = [i for i in plan.removed if i in plan.scores]
    left = [i for i in plan.scores if i not in plan.removed]
    if gone and left:
        last, following = max(gone, key=plan.scores.__getitem__), min(left, key=plan.scores.__getitem__)
        lines.append(
            f"The last one chosen, layer {last}, scores {plan.scores[last]:.5f}; the next would have been layer "
            f"{following} with {plan.scores[following]:.5f}."
        )
    if plan.versions:
        versions = ", ".join(f"{package} {version}" for package, version in plan.versions.items())
        lines.append(f"Written with {one_line(versions)}.")
    return "\n".join(lines)


def plan_beside(name: str | os.PathLike) -> PruningPlan | None:
    """The plan that was saved in the folder `name` along with the model, if there is one."""
    file = Path(name).expanduser() / PLAN_FILE
    return PruningPlan.from_json(file) if file.is_file() else None
