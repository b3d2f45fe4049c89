"""`shortgpt prune`: choose, remove, save, verify. The deciding is in `deciding`."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shortgpt
from shortgpt.cli.cost_of_cut import CutCost, cut_cost
from shortgpt.cli.deciding import Decision, decide, lowest_sublayers
from shortgpt.cli.export import LLAMA_CPP_WARNING
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import FLAG, OUTPUT, Calibration, Hints, Loading, Progress, default_model
from shortgpt.cli.places import require_room, require_writable
from shortgpt.cli.printing import Result
from shortgpt.cli.way import fitting_way
from shortgpt.cli.wish import Wish

if TYPE_CHECKING:
    from shortgpt.pruning.plan import PruningPlan


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True)
class Writing:
    """What is written."""

    plan_only: Path | None = None
    """Write the plan and stop."""
    to_mergekit: Path | None = None
    """Write the plan for mergekit-yaml."""
    to_llama_cpp: Annotated[bool, FLAG] = False
    """Print the list for llama-quantize --prune-layers."""
    on_disk: Annotated[bool, FLAG] = False
    """Leave layers on disk and copy files: any size in little memory."""
    overwrite: Annotated[bool, FLAG] = False
    """Replace what is at OUTPUT."""
    verify: Annotated[bool, Parameter(show_default=False)] = True
    """Reload and compare logits."""
    cost: Annotated[bool, Parameter(show_default=False)] = True
    """Measure perplexity before and after, on a small text."""

    def check(self, output: Path | None) -> None:
        """Raise if results have no place to go, before any work."""
        files = [file for file in (self.plan_only, self.to_mergekit) if file is not None]
        if output is None and not files and not self.to_llama_cpp:
            raise UsageError("name the OUTPUT folder (or only write the plan: --plan-only FILE)")
        if output is not None and self.plan_only is not None:
            raise UsageError("--plan-only stops before anything is removed: leave OUTPUT out")
        for file in files:
            require_writable(file)
        if output is not None:
            require_room(output, overwrite=self.overwrite)


def prune_model(
    output: Path | None = None,
    /,
    *,
    wish: Wish = Wish(),
    writing: Writing = Writing(),
    loading: Loading = Loading(),
    calibration: Calibration = Calibration(),
    progress: Progress = True,
    hints: Hints = True,
) -> Result:
    """Remove layers and save a model that plain transformers reloads.

    Say which layers in one way: -n or --ratio (the model is scored first), --layers, or --plan. OUTPUT then holds the
    weights, the tokenizer, pruning_plan.json and a model card; it appears when it is complete.

        shortgpt prune ./smaller -n 3
        shortgpt prune ./smaller --model Qwen/Qwen2.5-0.5B --ratio 0.2
        shortgpt prune ./by_hand --model ./my_model --layers 3,4,8-10
        shortgpt prune ./repaired --layers 3-6 --repair fold

    It says first how much memory it will need. What is too large stays on disk: its layers are read one by one, and its
    files are copied (--on-disk asks for that). Or decide first and prune later, or hand the plan to other tools. --by greedy
    and search run the text through many pruned models: give them little of it (--samples 8 --length 256).

        shortgpt prune ./smaller --model ./big --layers 3-6 --repair fold --on-disk
        shortgpt prune --plan-only plan.json --model ./big -n 8
        shortgpt prune ./smaller --model ./big --plan plan.json
        shortgpt prune --plan plan.json --to-mergekit merge.yml
        shortgpt prune --plan plan.json --to-llama-cpp

    Args:
        output: Folder for the pruned model: new, or empty.
    """
    wish.check(on_disk=writing.on_disk)
    if wish.sublayers and (output is None or writing.to_mergekit or writing.to_llama_cpp):
        raise UsageError("--sublayers saves to OUTPUT: plans name whole layers and can't describe the result")
    if wish.repair and (output is None or wish.sublayers):
        raise UsageError("--repair fits the pruned model that goes to OUTPUT: not with --sublayers")
    writing.check(output)
    if wish.sublayers and output is not None:
        name = wish.model or default_model()
        fitting_way(name, loading, wish, calibration, built=True, on_disk=False, hints=hints)
        return _without_sublayers(wish.sublayers, wish, loading, calibration, output, writing, progress)
    how = {"saved": output is not None, "on_disk": writing.on_disk, "progress": progress, "hints": hints}
    decision = decide(wish, loading, calibration, **how)
    _write_plans(decision.plan, writing, wish.model)
    cost = None if output is None else _prune(decision, output, wish.repair, calibration, writing, progress)
    return _report(decision, output, writing, cost)


def _write_plans(plan: PruningPlan, writing: Writing, model: str | None) -> None:
    from shortgpt.utils.atomic import file_written_beside

    if writing.plan_only is not None:
        with file_written_beside(writing.plan_only) as file:
            plan.to_json(file)
    if writing.to_mergekit is not None:
        with file_written_beside(writing.to_mergekit) as file:
            plan.to_mergekit(file, model=model)


def _prune(
    decision: Decision, output: Path, repair: str | None, calibration: Calibration, writing: Writing, progress: bool
) -> CutCost | None:
    plan, cost, repaired = decision.plan, None, None
    if repair or decision.loaded or not decision.on_disk:
        dense, tokenizer = decision.take()
        if repair is None:
            pruned = shortgpt.remove_layers(dense, plan)
        else:
            kind, sites = ("fold", "all") if repair == "all" else (repair, "gaps")
            batches = calibration.batches(tokenizer, calibration.documents("calibration"))
            repaired = pruned = shortgpt.heal(dense, plan, batches, kind=kind, sites=sites, progress=progress)
        cost = cut_cost(dense, pruned, tokenizer, calibration) if writing.cost else None
        del dense
        gc.collect()  # removed layers go before anything is written
        if not decision.on_disk:
            how = {"overwrite": writing.overwrite, "verify": writing.verify}
            shortgpt.save(pruned, output, tokenizer=tokenizer, plan=plan, **how)
            return cost
    how = {"overwrite": writing.overwrite, "progress": progress}
    shortgpt.prune_checkpoint(decision.folder(), output, plan, repaired=repaired, **how)
    return cost


def _without_sublayers(
    kind: str,
    wish: Wish,
    loading: Loading,
    calibration: Calibration,
    output: Path,
    writing: Writing,
    progress: bool,
) -> Result:
    chosen, name, (model, tokenizer) = lowest_sublayers(kind, wish, loading, calibration, progress=progress)
    pruned = shortgpt.remove_sublayers(model, **{kind: chosen})  # type: ignore[arg-type]
    del model
    gc.collect()
    shortgpt.save(pruned, output, tokenizer=tokenizer, overwrite=writing.overwrite, verify=writing.verify)
    data = {"model": name, f"removed_{kind}": chosen, "folder": str(output), "verified": writing.verify}
    listed, done = ", ".join(map(str, chosen)) or "none", " and verified" if writing.verify else ""
    note = (
        "note: saved in shortgpt's own format, for no transformers configuration can describe it; load it with "
        "shortgpt.load() or name it in these commands"
    )
    return Result(data, f"removed the {kind} of layers {listed}; saved to {output}{done}", [note])


def _report(decision: Decision, output: Path | None, writing: Writing, cost: CutCost | None) -> Result:
    plan, name = decision.plan, decision.name
    files = {"folder": output, "plan": writing.plan_only, "mergekit": writing.to_mergekit}
    verified = output is not None and writing.verify and not decision.on_disk
    removed = ", ".join(map(str, sorted(plan.removed))) or "none"
    data = {"model": name, "removed": list(plan.removed), "kept": len(plan.kept), "layers": plan.layers}
    data |= {"criterion": plan.criterion, **{key: str(file) if file else None for key, file in files.items()}}
    data |= {
        "on_disk": decision.on_disk,
        "verified": verified,
        "llama_cpp": plan.to_llama_cpp(),
        "cost": cost._asdict() if cost else None,
    }
    done = "removed" if output else "to remove:"
    text = f"{done} layers {removed} of {plan.layers} ({plan.criterion.replace('_', ' ')})"
    text += "".join(f"; {key} {file}" for key, file in files.items() if file) + ("; verified" if verified else "")
    text += f"\n{cost.in_words()}" if cost else ""
    notes = [f"next: shortgpt eval {name} {output}"] if output else []
    if plan.model and plan.model.partition("@")[0] != name.partition("@")[0]:
        notes.append(f"note: the plan was made for {plan.model}; it fits {name} because both have {plan.layers} layers")
    if writing.to_llama_cpp:
        return Result(data, plan.to_llama_cpp(), [text, *notes, LLAMA_CPP_WARNING])
    return Result(data, text, notes)
