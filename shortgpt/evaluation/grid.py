"""Fewer layers and fewer bits together: how small is each combination, and how good?

`size_quality_grid` measures every combination of a number of removed layers, a quantization method and an order of the
two. What can be asked of its table is in `tables.py`: which models none beats, and whether the two losses add up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.checkpoints.saving import save
from shortgpt.evaluation.comparing import check_request, evaluate
from shortgpt.evaluation.cost import size, speed
from shortgpt.evaluation.likelihood import scored_documents, token_losses
from shortgpt.evaluation.records import EITHER, GRID_KEY, digest, fingerprint, read_rows, write_rows
from shortgpt.evaluation.sweeping import check_removals
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_tokenizer
from shortgpt.model.text import built_in_text
from shortgpt.pruning.depth import remove_layers
from shortgpt.quantization.methods import is_quantized, quantize
from shortgpt.utils.arguments import check_choice, check_path, check_some, check_strings

METHODS: dict[str, tuple[int, str] | None] = {  # name in the grid -> bits and method of `quantize`
    "none": None,
    "int8": (8, "int8"),
    "rtn8": (8, "rtn"),
    "nf4": (4, "nf4"),
    "rtn4": (4, "rtn"),
    "gptq": (4, "gptq"),
}
ORDERS = ("prune first", "quantize first")
MEASURED = ("memory_bytes", "disk_bytes", "tokens_per_second", "losses", "tokens")
NOT_TASKS = {*GRID_KEY, *MEASURED, "gone", "layers", "bits", "settings"}  # the other columns of a file are accuracies
Key = tuple[int, str, str]  # layers removed, method, order


def size_quality_grid(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    order: Sequence[int],
    counts: Iterable[int],
    methods: Iterable[str] = ("none", "int8", "nf4"),
    *,
    orders: Iterable[str] = ("prune first",),
    texts: Iterable[str] | None = None,
    window: int = 1024,
    stride: int = 512,
    bos: bool | None = None,
    tasks: Sequence[str] = (),
    limit: int | None = None,
    calibration: Iterable[Mapping[str, Tensor]] | None = None,
    disk: bool = False,
    speeds: bool = False,
    path: str | os.PathLike | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure `model` with the first 0, 1, 2, … layers of `order` removed, quantized in several ways, in several orders.

    Args:
        order, counts: as for `removal_sweep`: which layers go first (see `removal_order`), and the numbers to try.
        methods: of `METHODS`: ``"none"``, ``"int8"``, ``"rtn8"``, ``"nf4"``, ``"rtn4"``, ``"gptq"`` (see `quantize`).
        orders: ``"prune first"``, ``"quantize first"``, or both: only `gptq` gives another model in the other order.
        texts, window, stride, bos: what perplexity is measured on, see `perplexity_table`.
        tasks, limit: benchmarks, see `evaluate`: a column with the accuracy in percent for each.
        calibration: batches for ``"gptq"``; not of `texts`.
        disk, speeds: also save each model, into a temporary folder, for ``disk_bytes``; and time it (see `speed`).
        path: a CSV file that gets each row as soon as it is measured. A further call with the same model, text and
            settings measures only what is not there yet; it may have other `counts`, `methods` and `orders`.

    Returns:
        One row a model: ``removed, layers, method, bits, order, perplexity``, the tasks, ``memory_mb`` (10^6 bytes),
        ``memory_bytes, disk_bytes, tokens_per_second`` (decode), and for `added_losses` the sum of the ``losses`` (nats)
        and the number of ``tokens`` of each text, as lists. Without a second step ``order`` is ``"either"``.
        `plot_frontier` of the course draws the rows of one order.

    Raises:
        ValueError: an unknown method or order, wrong counts, a quantized model, GPTQ without calibration, or a `path` that
            holds something else; before anything is measured.
    """
    check_tokenizer(tokenizer)
    removal, counts = check_removals(model, order, counts)
    counts = check_some("counts", sorted(set(counts)))
    methods, orders = _chosen("method", methods, METHODS), _chosen("order", orders, ORDERS)
    calibration = _check_start(model, methods, calibration)
    texts = check_strings("texts", built_in_text("perplexity")["text"] if texts is None else texts)
    begin, documents = scored_documents(tokenizer, texts, window, stride, bos)
    documents = [ids for ids in documents if len(ids)]
    tasks, request, _ = check_request(tokenizer, tasks, limit=limit)  # before anything is measured
    limit = request["limit"]
    loss = partial(token_losses, window=window, stride=stride, begin=begin)
    answer = partial(evaluate, tokenizer=tokenizer, tasks=tasks, limit=limit, bos=bos, progress=progress)
    scores = answer if tasks else None

    read = [[*begin, *ids.tolist()] for ids in documents]
    options = [int(window), int(stride), tasks, limit, bool(disk), bool(speeds), read]
    settings = "s" + digest(fingerprint(model, tokenizer, bos), options)  # a letter: CSV readers take some for numbers
    have = {tuple(row[name] for name in GRID_KEY): row for row in _read_same(path, settings, removal)}
    read = [(batch["input_ids"] * batch["attention_mask"]).tolist() for batch in calibration]
    marks = {method: settings + (digest(read) if method == "gptq" else "") for method in methods}
    wanted = [(n, m, o if n and m != "none" else EITHER) for m in methods for o in orders for n in counts]
    wanted = list(dict.fromkeys(wanted))  # without a second step one order is as good as the other
    todo = [key for key in wanted if key not in have or have[key]["settings"] != marks[key[1]]]
    with tqdm(total=len(todo), desc="measuring the grid", unit="model", disable=not progress) as bar:
        for key, candidate in _candidates(model, removal, todo, calibration):
            row: dict[str, object] = dict(zip(GRID_KEY, key, strict=True))
            row |= {"gone": removal[: key[0]], "layers": len(decoder_layers(candidate))}
            row["bits"], _ = METHODS[key[1]] or (8 * model.dtype.itemsize, None)
            row |= _measured(candidate, documents, loss, scores, disk=disk, speeds=speeds)
            have[key] = row | {"settings": marks[key[1]]}
            write_rows(path, have.values())
            del candidate
            bar.update()
    return _table([have[key] for key in wanted], tasks)


def read_grid(path: str | os.PathLike) -> pd.DataFrame:
    """The table that `size_quality_grid(..., path=path)` measured, whatever the model was: all rows of the file.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no table of `size_quality_grid`.
    """
    rows = read_rows(check_path(path, "a CSV file"))
    if not rows:
        raise FileNotFoundError(f"there is no grid at {path}: size_quality_grid(..., path=...) writes one")
    return _table(rows, [name for name in rows[0] if name not in NOT_TASKS])


def _chosen(kind: str, names: Iterable[str], known: Collection[str]) -> list[str]:
    """`names`, each once, if all of them are known."""
    names = check_some(f"{kind}s", list(dict.fromkeys(check_strings(f"{kind}s", names))))
    for name in names:
        check_choice(kind, name, known)
    return names


def _check_start(
    model: PreTrainedModel, methods: list[str], calibration: Iterable[Mapping[str, Tensor]] | None
) -> list[Mapping[str, Tensor]]:
    """The batches, if the model can be quantized with them in all these ways."""
    if is_quantized(model):
        raise ValueError("this model is quantized already: the grid starts from the original")
    batches = [] if calibration is None else list(calibration)
    if "gptq" in methods and not batches:
        raise ValueError("method 'gptq' needs text: pass calibration=calibration_batches(tokenizer)")
    return batches


def _read_same(path: str | os.PathLike | None, settings: str, removal: list[int]) -> list[dict]:
    """The rows of the file, if they were measured with these settings and this order of removal."""
    rows = read_rows(path)
    for row in rows:
        if not row["settings"].startswith(settings) or row["gone"] != removal[: row["removed"]]:
            raise ValueError(
                f"{path} holds measurements of another model, with other text, settings or order of removal: name another "
                "file"
            )
    return rows


def _candidates(
    model: PreTrainedModel, removal: list[int], todo: list[Key], calibration: list
) -> Iterator[tuple[Key, PreTrainedModel]]:
    """The models of the grid; of a method that comes first there is one quantized model, shared by all that need it."""
    whole: tuple[str, PreTrainedModel] | None = None
    for n, method, order in todo:
        scheme = METHODS[method]
        if scheme is None:
            yield (n, method, order), remove_layers(model, removal[:n])
            continue
        rounded = partial(
            quantize,
            bits=scheme[0],
            method=scheme[1],
            calibration=calibration if method == "gptq" else None,
            progress=False,
        )
        if n and order == "prune first":
            yield (n, method, order), rounded(remove_layers(model, removal[:n]))
            continue
        if whole is None or whole[0] != method:
            whole = None  # let go of the last one first
            whole = method, rounded(model)
        yield (n, method, order), remove_layers(whole[1], removal[:n])


def _measured(
    candidate: PreTrainedModel,
    documents: list[Tensor],
    loss: Callable[[PreTrainedModel, Tensor], Tensor],
    scores: Callable[[PreTrainedModel], pd.DataFrame] | None,
    *,
    disk: bool,
    speeds: bool,
) -> dict[str, object]:
    cost = size(candidate)  # before it runs: some kernels repack their weights
    if disk:
        with tempfile.TemporaryDirectory(prefix="shortgpt-grid-") as folder:
            cost = size(candidate, save(candidate, Path(folder, "model")))
    losses = [loss(candidate, ids) for ids in documents]
    row: dict[str, Any] = {name: cost[name] for name in ("memory_bytes", "disk_bytes")}
    row |= {"losses": [float(each.sum()) for each in losses], "tokens": [len(each) for each in losses]}
    if scores:
        row |= scores(candidate).drop_duplicates("task").set_index("task")["value"].to_dict()
    if speeds:
        row["tokens_per_second"] = float(speed(candidate).set_index("phase")["tokens_per_second"]["decode"])
    return row


def _table(rows: list[dict], tasks: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    loss, tokens = ([np.sum(row[name]) for row in rows] for name in ("losses", "tokens"))
    table["perplexity"] = np.exp(np.divide(loss, tokens))
    table["memory_mb"] = table["memory_bytes"] / 1e6
    columns = ["removed", "layers", "method", "bits", "order", "perplexity", *tasks]
    columns += ["memory_mb", *MEASURED]
    table = table.reindex(columns=columns)
    return table.astype({"disk_bytes": "Int64", "tokens_per_second": float})
