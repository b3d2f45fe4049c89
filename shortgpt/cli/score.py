"""`shortgpt score`: a table of all layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import shortgpt
from shortgpt.choosing.names import Metric
from shortgpt.cli.options import CHOICE, FLAG, FROM_0, OUTPUT, Calibration, Loading, Progress, default_model
from shortgpt.cli.places import require_writable
from shortgpt.cli.printing import Result, to_json

if TYPE_CHECKING:
    import pandas as pd

    from shortgpt.scoring.influence import LayerScores


def score_model(
    model: str | None = None,
    /,
    *,
    n: Annotated[int | None, FROM_0, Parameter(name=["--number", "-n"], group=CHOICE)] = None,
    by: Annotated[Metric, Parameter(name=["--by", "--metric"], group=CHOICE)] = "block_influence",
    sublayers: Annotated[bool, FLAG, Parameter(group=CHOICE)] = False,
    output: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    loading: Loading = Loading(),
    calibration: Calibration = Calibration(),
    progress: Progress = True,
) -> Result:
    """Score every layer: low means redundant.

    The model reads some text once, and each layer gets the mean change of direction between what enters and what leaves
    it. Look at this before you prune; nothing is changed or saved.

        shortgpt score
        shortgpt score Qwen/Qwen2.5-0.5B -n 4 --text my_domain.txt
        shortgpt score ./my_model --max-memory cpu=4GiB --output scores.csv

    Columns: layer (from 0), score, standard_error (over samples of text: two scores closer than that are as good as
    equal). With -n also remove, and selection_frequency: how often the layer is among the n lowest when the samples are
    drawn again; 1 or 0 is a sure choice. JSON and files add tokens and samples, what was read.

    Args:
        model: A folder, a Hub id, or a packaged model. Default: smollm2-135m-instruct.
        n: Mark the n lowest: what prune removes.
        by: The measure of change.
        sublayers: Score attention and FFN one by one.
        output: Write all columns here, too: .csv or .json.
    """
    if output is not None:
        require_writable(output, ".csv", ".json")
    loaded, _, batches = calibration.with_model(loading, model or default_model())
    if sublayers:
        table, read = _side_by_side(shortgpt.score_sublayers(loaded, batches, metric=by, progress=progress), n)
    else:
        read = shortgpt.score_layers(loaded, batches, metric=by, progress=progress)
        table = _marked(read, n)
    if output is not None:
        _write(table, output)
    notes = [f"{by} over {read.counts.sum():,} tokens in {len(read.counts)} samples; low means redundant"]
    return Result(table, for_people(table), notes + ([f"written to {output}"] if output else []))


def _write(table: pd.DataFrame, output: Path) -> None:
    from shortgpt.utils.atomic import file_written_beside

    content = to_json(table) + "\n" if output.suffix == ".json" else table.to_csv(index=False)
    with file_written_beside(output) as file:
        file.write_text(content, encoding="utf-8")


def _marked(scores: LayerScores, n: int | None) -> pd.DataFrame:
    """The table of scores, with what choosing `n` would remove and how sure that is."""
    table = scores.table
    if n is not None:
        removed = set(shortgpt.choose_layers(scores, n).removed) - set(scores.removed)
        table.insert(table.columns.get_loc("tokens"), "remove", [i in removed for i in scores.original_layers])
        frequency = scores.selection_frequency(n) if len(scores.counts) > 1 else float("nan")
        table.insert(table.columns.get_loc("tokens"), "selection_frequency", frequency)
    return table


def _side_by_side(scores: dict[str, LayerScores], n: int | None) -> tuple[pd.DataFrame, LayerScores]:
    """One row a layer, the columns of each kind of sublayer beside each other; with `n`, the lowest of each kind."""
    table = next(iter(scores.values())).table.drop(columns=["score", "standard_error"])
    for kind, of_kind in scores.items():
        place = table.columns.get_loc("tokens")
        table.insert(place, kind, of_kind.values)
        table.insert(place + 1, f"{kind}_standard_error", of_kind.standard_errors)
        if n is not None:
            lowest = set(table[kind].nsmallest(n).index)
            table.insert(place + 2, f"{kind}_remove", [i in lowest for i in range(len(table))])
    return table, next(iter(scores.values()))


def for_people(table: pd.DataFrame) -> str:
    """The table without what is the same in every row, at a width that a terminal has."""
    table = table.drop(columns=["tokens", "samples"])
    for column in table:
        if table[column].dtype == bool:
            table[column] = table[column].map({True: "yes", False: ""})
    names = {name: name.replace("standard_error", "error") for name in table if name.endswith("_standard_error")}
    return table.rename(columns=names).to_string(index=False, float_format="%.5f", na_rep="–")
