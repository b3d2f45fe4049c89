"""`shortgpt score`: a table of all layers, and how many can go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

import shortgpt
from shortgpt.choosing.names import Metric
from shortgpt.cli.failing import UsageError
from shortgpt.cli.options import CHOICE, FLAG, FROM_0, OUTPUT, Calibration, Loading, Progress, Texts, default_model
from shortgpt.cli.places import require_writable
from shortgpt.cli.printing import Result, to_json

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shortgpt.scoring.influence import LayerScores

SHARE = Parameter(validator=validators.Number(gt=0, lt=1))


def score_model(
    model: str | None = None,
    /,
    *,
    n: Annotated[int | None, FROM_0, Parameter(name=["--number", "-n"], group=CHOICE)] = None,
    by: Annotated[Metric, Parameter(name=["--by", "--metric"], group=CHOICE)] = "block_influence",
    sublayers: Annotated[bool, FLAG, Parameter(group=CHOICE)] = False,
    until_stable: Annotated[bool, FLAG, Parameter(group=CHOICE)] = False,
    confidence: Annotated[float, SHARE, Parameter(group=CHOICE)] = 0.95,
    sweep: Annotated[bool, FLAG, Parameter(group=CHOICE)] = False,
    sweep_text: Annotated[Path | None, Parameter(group=CHOICE)] = None,
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
        shortgpt score -n 6 --until-stable
        shortgpt score --sweep
        shortgpt score ./my_model --max-memory cpu=4GiB --output scores.csv

    Columns: layer (from 0), score, standard_error (over documents: two scores closer than that are as good as equal).
    With -n also remove, and selection_frequency: how often the layer is among the n lowest when the documents are drawn
    again; 1 or 0 is a sure choice. JSON and files add tokens and samples, what was read.

    --sweep then removes one layer after the other, lowest first, up to half of them, measures perplexity each time (some
    minutes), and prints that table instead: removed, layer (the last to go), its score, perplexity, times_dense, and stop,
    the last row before the cliff. The cliff is one layer more that at least doubles perplexity and costs at least three
    times what the median one before it did.

    Args:
        model: A folder, a Hub id, or a packaged model. Default: smollm2-135m-instruct.
        n: Mark the n lowest: what prune removes.
        by: The measure of change.
        sublayers: Score attention and FFN one by one.
        until_stable: Stop reading when the choice of n is stable; windows of many documents come first.
        confidence: For that: which share of the n is chosen again when the documents are drawn again.
        sweep: How many can go? Remove more and more, and find the cliff.
        sweep_text: What perplexity is measured on, .txt or .jsonl. Default: built-in text by people, of other origin.
        output: Write all columns here, too: .csv or .json.
    """
    if output is not None:
        require_writable(output, ".csv", ".json")
    _check(n, sublayers=sublayers, until_stable=until_stable, sweep=sweep, sweep_text=sweep_text)
    measured_on = _sweep_documents(sweep_text, calibration) if sweep else []
    loaded, tokenizer, batches = calibration.with_model(loading, model or default_model(), spread=until_stable)
    read: LayerScores
    if sublayers:
        table, read = _side_by_side(shortgpt.score_sublayers(loaded, batches, metric=by, progress=progress), n)
    else:
        stop = n if until_stable else None
        read = shortgpt.score_layers(
            loaded, batches, metric=by, until_stable=stop, confidence=confidence, progress=progress
        )
        table = _marked(read, n)
    notes = [f"{by} over {read.counts.sum():,} tokens in {len(read.counts)} samples; low means redundant"]
    if until_stable and n is not None:
        notes.append(_how_stable(read, n, confidence, sum(int(batch["attention_mask"].sum()) for batch in batches)))
    if sweep:
        table, found = _swept(loaded, tokenizer, read, measured_on, calibration.bos, progress=progress)
        notes.append(found)
    if output is not None:
        _write(table, output)
    return Result(table, for_people(table), notes + ([f"written to {output}"] if output else []))


def _check(n: int | None, *, sublayers: bool, until_stable: bool, sweep: bool, sweep_text: Path | None) -> None:
    """Raise UsageError for options that don't go together."""
    if until_stable and (not n or sublayers):
        raise UsageError(
            "--until-stable stops when the choice of -n layers is stable: give -n from 1, and no --sublayers"
        )
    if sweep and (n is not None or sublayers):
        raise UsageError("--sweep tries every number of layers: leave out -n and --sublayers")
    if sweep_text is not None and not sweep:
        raise UsageError("--sweep-text is what --sweep measures on: add --sweep")


def _how_stable(scores: LayerScores, n: int, confidence: float, there: int) -> str:
    """What stopping saved; or why it did not stop."""
    again, read = scores.stability(n), int(scores.counts.sum())
    share = f"{again:.0%} of the {n} layers are chosen again when the documents are drawn again"
    if read < there:
        return f"stopped after {read:,} of {there:,} tokens: {share}"
    if again >= confidence:
        return f"all {read:,} tokens were needed: {share}"
    frequency = scores.selection_frequency(n)
    torn = ", ".join(map(str, frequency.index[(frequency > 1 - confidence) & (frequency < confidence)]))
    undecided = f"of layers {torn}, this text can't tell which are lower: measure both plans"
    return f"not stable after all {read:,} tokens: only {share}; {undecided}"


def _sweep_documents(text: Path | None, calibration: Calibration) -> list[str]:
    """All of a file, or two documents of each genre that people wrote: text of another origin than what is calibrated on."""
    if text is not None:
        return Texts(text=text).documents("perplexity")
    table = shortgpt.built_in_text("natural_test", language=calibration.language or "en")
    return table.groupby("genre").head(2)["text"].tolist()


def _swept(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    scores: LayerScores,
    documents: list[str],
    bos: bool | None,
    *,
    progress: bool,
) -> tuple[pd.DataFrame, str]:
    """A row for each number of removed layers, and a sentence about the cliff."""
    order = shortgpt.removal_order(scores)

    def measure(pruned: PreTrainedModel) -> float:
        return shortgpt.perplexity(pruned, tokenizer, documents, bos=bos)

    sweep = shortgpt.removal_sweep(model, order, measure, progress=progress)
    last, values = shortgpt.cliff(sweep), sweep["value"]
    table = sweep[["removed"]].assign(layer=[None, *order[: len(sweep) - 1]]).astype({"layer": "Int64"})
    table["score"] = [float("nan"), *scores.values[order[: len(sweep) - 1]]]
    table["perplexity"], table["times_dense"] = values, values / values[0]
    table["stop"] = table["removed"] == last
    if last is None:
        return table, f"no cliff up to n = {len(sweep) - 1}: each layer more costs about as much as those before it"
    jump = values[last + 1] / values[last]
    return table, f"stop at n = {last}: at n = {last + 1} perplexity jumps by a factor of {jump:,.1f}"


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
    table = table.drop(columns=["tokens", "samples"], errors="ignore")
    for column in table:
        if table[column].dtype == bool:
            table[column] = table[column].map({True: "yes", False: ""})
    names = {name: name.replace("standard_error", "error") for name in table if name.endswith("_standard_error")}
    return table.rename(columns=names).to_string(index=False, float_format="%.5f", na_rep="–")
