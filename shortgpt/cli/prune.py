"""`shortgpt prune`: choose, remove, save, verify. The deciding is in `deciding`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shortgpt.cli.deciding import Kind, Order, Repair, Wish, decide, lowest_sublayers
from shortgpt.cli.options import (
    Calibration,
    Loading,
    Metric,
    MetricOption,
    require_room,
    require_writable,
    written_whole,
)
from shortgpt.cli.run import Result

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shortgpt.pruning.plan import PruningPlan


def _choice(help: str, *names: str, **options: object) -> typer.models.OptionInfo:
    return typer.Option(*names, help=help, rich_help_panel="Choice", **options)


def _output(help: str, *names: str, **options: object) -> typer.models.OptionInfo:
    return typer.Option(*names, help=help, rich_help_panel="Output", **options)


def prune(
    loading: Loading,
    calibration: Calibration,
    output: Annotated[
        Path | None, typer.Argument(metavar="OUTPUT", help="Folder for the pruned model: new, or empty.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A folder or Hub id. Default: the plan's, or the packaged one.",
            rich_help_panel="Choice",
        ),
    ] = None,
    n: Annotated[int | None, _choice("Remove n layers, as --order says.", "--number", "-n", metavar="N", min=0)] = None,
    ratio: Annotated[float | None, _choice("Or a fraction of the layers: 0.25.", metavar="R")] = None,
    layers: Annotated[str | None, _choice("Or these layers: 3,4,8-10.", metavar="LIST")] = None,
    plan: Annotated[Path | None, _choice("Or those of a plan, pruning_plan.json.", metavar="FILE")] = None,
    order: Annotated[
        Order,
        _choice(
            "score: lowest first; by trying: leave_one_out, greedy, search; or any other of criteria.CRITERIA; "
            "baselines: reverse, sequential, random (--seed).",
            metavar="NAME",
        ),
    ] = Order.score,
    metric: MetricOption = Metric.block_influence,
    sublayers: Annotated[
        Kind | None, _choice("Remove only the attention of layers, or only the ffn.", metavar="KIND")
    ] = None,
    repair: Annotated[
        Repair | None,
        _choice(
            "Repair without training: fold (an ordinary checkpoint), all (folded into every later layer), linear (a module).",
            metavar="KIND",
        ),
    ] = None,
    plan_only: Annotated[Path | None, _output("Write the plan and stop.", metavar="FILE")] = None,
    to_mergekit: Annotated[Path | None, _output("Write the plan for mergekit-yaml.", metavar="FILE")] = None,
    to_llama_cpp: Annotated[
        bool, _output("Print the list for llama-quantize --prune-layers.", "--to-llama-cpp", metavar=" ")
    ] = False,
    on_disk: Annotated[
        bool,
        _output("Copy files without ever building the model: any size in 1 GB of memory.", "--on-disk", metavar=" "),
    ] = False,
    overwrite: Annotated[bool, _output("Replace what is at OUTPUT.", "--overwrite", metavar=" ")] = False,
    verify: Annotated[bool, _output("Reload and compare logits.", "--verify/--no-verify", metavar=" ")] = True,
) -> Result:
    """Remove layers and save a model that plain transformers reloads.

    Say which layers in one way: -n or --ratio (the model is scored first), --layers, or --plan. OUTPUT then holds the
    weights, the tokenizer, pruning_plan.json and a model card; it appears when it is complete.

        shortgpt prune ./smaller -n 3
        shortgpt prune ./smaller --model Qwen/Qwen2.5-0.5B --ratio 0.2
        shortgpt prune ./by_hand --model ./my_model --layers 3,4,8-10
        shortgpt prune ./repaired --layers 3-6 --repair fold

    Decide first, then prune a checkpoint of any size file by file, or hand the plan to other tools. --on-disk needs a
    local folder and can't score: it takes --plan, --layers or a baseline order. --order greedy and search run the text
    through many pruned models: give them little of it (--samples 8 --length 256).

        shortgpt prune --plan-only plan.json --model ./big -n 8
        shortgpt prune ./smaller --model ./big --plan plan.json --on-disk
        shortgpt prune --plan plan.json --to-mergekit merge.yml
        shortgpt prune --plan plan.json --to-llama-cpp
    """
    wish = Wish(model, n, ratio, layers, plan, order, metric, sublayers, on_disk)
    _check(output, plan_only, to_mergekit, to_llama_cpp, sublayers, overwrite)
    if repair and (output is None or on_disk or sublayers):
        raise typer.BadParameter(
            "--repair fits the pruned model that goes to OUTPUT: not with --on-disk or --sublayers"
        )
    if sublayers is not None:
        return _prune_sublayers(wish, loading, calibration, output, overwrite, verify)
    decision, name, loading, ready = decide(wish, loading, calibration)
    if plan_only is not None:
        with written_whole(plan_only) as file:
            decision.to_json(file)
    if to_mergekit is not None:
        with written_whole(to_mergekit) as file:
            decision.to_mergekit(file, model=model)
    if output is not None and on_disk:
        _prune_files(name, output, decision, overwrite)
    elif output is not None:
        from shortgpt.checkpoints.saving import save

        dense, tokenizer = ready or loading.load(name)
        pruned = _prune_in_memory(dense, tokenizer, decision, repair, calibration)
        save(pruned, output, tokenizer=tokenizer, plan=decision, overwrite=overwrite, verify=verify)
    files = {"folder": output, "plan": plan_only, "mergekit": to_mergekit}
    return _report(decision, name, files, verified=output is not None and verify and not on_disk, listed=to_llama_cpp)


def _check(
    output: Path | None,
    plan_only: Path | None,
    to_mergekit: Path | None,
    to_llama_cpp: bool,
    sublayers: Kind | None,
    overwrite: bool,
) -> None:
    """Whether results have a place to go, before any work."""
    if output is None and plan_only is None and to_mergekit is None and not to_llama_cpp:
        raise typer.BadParameter("name the OUTPUT folder (or only write the plan: --plan-only FILE)")
    if output is not None and plan_only is not None:
        raise typer.BadParameter("--plan-only stops before anything is removed: leave OUTPUT out")
    if sublayers and (output is None or to_mergekit or to_llama_cpp):
        raise typer.BadParameter("--sublayers saves to OUTPUT: plans name whole layers and can't describe the result")
    for file in (plan_only, to_mergekit):
        if file is not None:
            require_writable(file)
    if output is not None:
        require_room(output, overwrite=overwrite)


def _prune_files(name: str, output: Path, plan: PruningPlan, overwrite: bool) -> None:
    from shortgpt.checkpoints.facts import model_folder
    from shortgpt.checkpoints.on_disk import prune_checkpoint
    from shortgpt.checkpoints.own_format import is_own_format

    folder = model_folder(name)
    if is_own_format(folder):
        raise ValueError(
            f"{name} is saved in shortgpt's own format, which only the built model can be: leave --on-disk out"
        )
    prune_checkpoint(folder, output, plan, overwrite=overwrite)


def _prune_in_memory(
    dense: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: PruningPlan,
    repair: Repair | None,
    calibration: Calibration,
) -> PreTrainedModel:
    if repair is None:
        from shortgpt.pruning.depth import remove_layers

        return remove_layers(dense, plan)
    from shortgpt.repair.healing import heal

    kind, sites = ("fold", "all") if repair == "all" else (str(repair), "gaps")
    return heal(dense, plan, calibration.batches(tokenizer, calibration.documents()), kind=kind, sites=sites)


def _prune_sublayers(
    wish: Wish, loading: Loading, calibration: Calibration, output: Path, overwrite: bool, verify: bool
) -> Result:
    from shortgpt.checkpoints.saving import save
    from shortgpt.pruning.sublayers import remove_sublayers

    chosen, name, (model, tokenizer) = lowest_sublayers(wish, loading, calibration)
    pruned = remove_sublayers(model, **{str(wish.sublayers): chosen})
    save(pruned, output, tokenizer=tokenizer, overwrite=overwrite, verify=verify)
    data = {"model": name, f"removed_{wish.sublayers}": chosen, "folder": str(output), "verified": verify}
    listed = ", ".join(map(str, chosen)) or "none"
    return Result(
        data,
        f"removed the {wish.sublayers} of layers {listed}; saved to {output}{' and verified' if verify else ''}",
        [
            "note: saved in shortgpt's own format, for no transformers configuration can describe it; load it with "
            "shortgpt.load() or name it in these commands"
        ],
    )


def _report(plan: PruningPlan, name: str, files: dict[str, Path | None], *, verified: bool, listed: bool) -> Result:
    removed = ", ".join(map(str, sorted(plan.removed))) or "none"
    data = {"model": name, "removed": list(plan.removed), "kept": len(plan.kept), "layers": plan.layers}
    data |= {"criterion": plan.criterion, **{key: str(file) if file else None for key, file in files.items()}}
    data |= {"verified": verified, "llama_cpp": plan.to_llama_cpp()}
    done = "removed" if files["folder"] else "to remove:"
    text = f"{done} layers {removed} of {plan.layers} ({plan.criterion.replace('_', ' ')})"
    text += "".join(f"; {key} {file}" for key, file in files.items() if file) + ("; verified" if verified else "")
    notes = [f"next: shortgpt eval {name} {files['folder']}"] if files["folder"] else []
    if plan.model and plan.model.partition("@")[0] != name.partition("@")[0]:
        notes.append(f"note: the plan was made for {plan.model}; it fits {name} because both have {plan.layers} layers")
    return Result(data, plan.to_llama_cpp(), [text, *notes]) if listed else Result(data, text, notes)
