"""`shortgpt export`: a pruned model as a GGUF file, or the same cut as a recipe for mergekit or llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

import shortgpt
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import FLAG, OUTPUT, Loading
from shortgpt.cli.places import require_writable
from shortgpt.cli.printing import Result

if TYPE_CHECKING:
    from shortgpt.pruning.plan import PruningPlan

WHERE = Group("Where it goes", sort_key=1)
LLAMA_CPP_WARNING = (
    "warning: llama-quantize --prune-layers leaves lists with one entry a layer as they were (llama.cpp issue 27976): "
    "models that have such lists (LFM2, Gemma 4) fail to load or come out as other models, and so do those where "
    "llama.cpp takes what a layer does from its number (Gemma 2 and 3, SmolLM3): use shortgpt export --gguf, which looks"
)


def export_model(
    model: str,
    /,
    *,
    gguf: Annotated[Path | None, Parameter(group=WHERE)] = None,
    mergekit: Annotated[Path | None, Parameter(group=WHERE)] = None,
    llama_cpp: Annotated[bool, FLAG, Parameter(group=WHERE)] = False,
    outtype: Annotated[str, Parameter(group=OUTPUT)] = "f16",
    converter: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    overwrite: Annotated[bool, FLAG, Parameter(group=OUTPUT)] = False,
    verify: Annotated[bool, Parameter(show_default=False, group=OUTPUT)] = True,
    loading: Loading = Loading(),
) -> Result:
    """Hand a pruned model, or the cut that made it, to other tools.

    --gguf runs llama.cpp's own converter, from a checkout of it (--converter, or the variable LLAMA_CPP). --mergekit and
    --llama-cpp need only the plan beside the model, or MODEL may be a plan: they repeat the cut, not a repair.

        shortgpt export ./smaller --gguf smaller.gguf --converter llama.cpp
        shortgpt export ./smaller --mergekit cut.yml
        shortgpt export plan.json --llama-cpp

    A quantized model can't become GGUF: export the model before, and run llama-quantize on the file. Where llama.cpp takes
    what a layer does from its number (sliding windows of Gemma 2 and 3, rotary positions of SmolLM3), most cuts can't be
    written; one sentence says so.

    Args:
        model: A folder, a Hub id, a packaged model, or a plan.
        gguf: Write this file for llama.cpp, Ollama, LM Studio.
        mergekit: Write this file for mergekit-yaml.
        llama_cpp: Print the list for llama-quantize --prune-layers.
        outtype: What the matrices become: f32, f16, bf16, q8_0, auto.
        converter: llama.cpp's convert_hf_to_gguf.py, or a checkout of it.
        overwrite: Replace the files.
        verify: Reload what the converter is given, and compare logits.
    """
    if gguf is None and mergekit is None and not llama_cpp:
        raise UsageError("say where it goes: --gguf FILE, --mergekit FILE or --llama-cpp")
    for file, suffixes in ((gguf, [".gguf"]), (mergekit, [".yml", ".yaml"])):
        if file is not None:
            require_writable(file, *suffixes)
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file} exists already: choose another name, or pass --overwrite")
    if gguf is not None and model.endswith(".json"):
        raise UsageError("--gguf needs the pruned model, and a plan has no weights: name the folder that prune wrote")
    plan = _plan_of(model) if mergekit or llama_cpp else None
    if plan is not None and mergekit is not None:
        plan.to_mergekit(mergekit)
    if gguf is not None:
        loaded, tokenizer = loading.load(model)
        shortgpt.save_gguf(
            loaded, tokenizer, gguf, converter=converter, outtype=outtype, overwrite=overwrite, verify=verify
        )
    return _report(model, plan, gguf, mergekit, llama_cpp)


def _plan_of(model: str) -> PruningPlan:
    """The plan that `model` is, or that lies beside it."""
    from shortgpt.pruning.plan import PruningPlan
    from shortgpt.pruning.plan_words import plan_beside

    plan = PruningPlan.from_json(model) if model.endswith(".json") else plan_beside(model)
    if plan is None:
        raise ValueError(f"{model} holds no pruning_plan.json: name a folder that prune wrote, or a plan")
    return plan


def _report(model: str, plan: PruningPlan | None, gguf: Path | None, mergekit: Path | None, llama_cpp: bool) -> Result:
    listed = plan.to_llama_cpp() if plan is not None else None
    data = {"model": model, "gguf": str(gguf) if gguf else None, "mergekit": str(mergekit) if mergekit else None}
    done = [f"written to {file}" for file in (gguf, mergekit) if file is not None]
    notes = [f"next: llama-completion -m {gguf} -no-cnv -n 40 -p 'The capital of France is'"] if gguf else []
    if mergekit is not None:
        notes.append(f"next: mergekit-yaml {mergekit} ./merged  (the cut alone: no repair, no training)")
    if llama_cpp:
        return Result(data | {"llama_cpp": listed}, str(listed), [*done, *notes, LLAMA_CPP_WARNING])
    return Result(data | {"llama_cpp": listed}, "; ".join(done), notes)
