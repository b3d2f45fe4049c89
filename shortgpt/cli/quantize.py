"""`shortgpt quantize`: fewer bits for the weights that stay, in a checkpoint that plain transformers reloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

import shortgpt
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import FLAG, FROM_1, OUTPUT, Calibration, Loading, Progress
from shortgpt.cli.places import require_room
from shortgpt.cli.printing import Result

if TYPE_CHECKING:
    from shortgpt.model.text import Batch

BITS = Group("Bits", sort_key=1)


def quantize_model(
    model: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], group=OUTPUT)],
    bits: Annotated[Literal[8, 4], Parameter(group=BITS)] = 8,
    method: Annotated[Literal["int8", "nf4", "rtn", "gptq"] | None, Parameter(group=BITS)] = None,
    group_size: Annotated[int | None, FROM_1, Parameter(group=BITS)] = None,
    overwrite: Annotated[bool, FLAG, Parameter(group=OUTPUT)] = False,
    verify: Annotated[bool, Parameter(show_default=False, group=OUTPUT)] = True,
    loading: Loading = Loading(),
    calibration: Calibration = Calibration(),
    progress: Progress = True,
) -> Result:
    """Store the weights of a model in 8 or 4 bits, and save it.

    After prune and heal: a quantized model can still lose layers, but it can't be trained here. The result is an ordinary
    checkpoint: transformers reads it where the library that packed it is installed (torchao, bitsandbytes, gptqmodel).

        shortgpt quantize ./smaller -o ./smaller-8bit
        shortgpt quantize ./smaller -o ./smaller-4bit --bits 4
        shortgpt quantize ./smaller -o ./rounded --bits 4 --method rtn --group-size 32

    int8 costs next to nothing in quality, nf4 some. rtn rounds in the plainest way: its 4 bits take the room of 8. gptq reads
    the calibration text. Embeddings and the head stay as they are, on a small model much of the size.

    Args:
        model: What to quantize: a folder, a Hub id, or a packaged model.
        output: Where the quantized model goes.
        bits: 8 or 4.
        method: Default: int8 for 8 bits, nf4 for 4. rtn has both, gptq 4.
        group_size: Weights that share a scale, for rtn and gptq. Default: the largest of 128, 64, 32 that fits.
        overwrite: Replace what is at OUTPUT.
        verify: Reload and compare logits: some libraries write what reloads as garbage.
    """
    from shortgpt.checkpoints.facts import model_folder
    from shortgpt.checkpoints.own_format import is_own_format
    from shortgpt.pruning.plan_words import plan_beside

    if calibration.text is not None and method != "gptq":
        raise UsageError("only --method gptq reads text: leave --text out")
    require_room(output, overwrite=overwrite)
    if not model.endswith(".gguf") and is_own_format(model_folder(model, accept_terms=loading.accept_terms)):
        raise ValueError(
            f"{model} is saved in shortgpt's own format, which holds no quantized weights: quantize it in Python after load()"
        )
    plan = plan_beside(model)
    text: list[Batch] | None = None
    if method == "gptq":
        loaded, tokenizer, text = calibration.with_model(loading, model)
    else:
        loaded, tokenizer = loading.load(model)
    before = shortgpt.size(loaded)["memory_bytes"]
    small = shortgpt.quantize(loaded, bits, method=method, group_size=group_size, calibration=text, progress=progress)
    after = shortgpt.size(small)["memory_bytes"]
    shortgpt.save(small, output, tokenizer=tokenizer, plan=plan, overwrite=overwrite, verify=verify)
    data: dict[str, object] = {
        "model": model,
        "folder": str(output),
        "bits": bits,
        "method": method or {8: "int8", 4: "nf4"}[bits],
    }
    data |= {"memory_bytes_before": before, "memory_bytes": after, "verified": verify}
    done = (
        f"{data['method']}, {bits} bits: weights of {before / 1e6:,.1f} MB are {after / 1e6:,.1f} MB; saved to {output}"
    )
    return Result(data, done + (" and verified" if verify else ""), [f"next: shortgpt eval {model} {output}"])
