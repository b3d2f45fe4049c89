"""What a pruned model kept of the dense one's benchmark scores, as table 2 of the paper puts it, and with chance taken off.

Retention is 100 · pruned / dense. On a test with four choices a model that knows nothing scores 25 %, so one that lost
everything still "retains" a good part. With chance taken off, (pruned - chance) / (dense - chance), such a model retains 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from shortgpt.utils.arguments import check_some, shown

AVERAGE = "average"


def retention_table(
    results: Mapping[str, pd.DataFrame] | pd.DataFrame, *, correlation: float = 0.0, least: float = 3.0
) -> pd.DataFrame:
    """Percent of the first (dense) model's scores that every model kept, by task and on average.

    >>> retention_table({"dense": evaluate(dense, tokenizer), "pruned": evaluate(pruned, tokenizer)})

    Args:
        results: from a model's name to its table from `evaluate`, the dense model first; or those tables in one, with a
            column ``model``. Of several metrics of a task the first counts.
        correlation: between the errors of a model's score and the dense one's. 0 treats them as if each had answered other
            items. They answered the same ones, so they are usually right together, the true correlation is above 0 and
            the true errors are smaller than stated with 0.
        least: with chance taken off a ratio says something only where the dense model is above chance by that many
            standard errors; elsewhere it is empty.

    Returns:
        A row per model and task, and a row per model for the ``average``: ``model, task, value, standard_error, chance,
        retention, retention_error, above_chance, above_chance_error``. The last four are percent of the dense model; the
        dense rows are 100 without an error. `average` is the ratio of the averages (as in the paper), not the average of
        the ratios, and its chance is the average chance. Errors by the delta method: for a ratio r = p / d,
        r² (s_p² / p² + s_d² / d² - 2 ρ s_p s_d / (p d)).

    Raises:
        ValueError: no model, another set of tasks than the dense model's, a task twice, a dense score of 0, a correlation
        outside -1 to 1. TypeError: no tables.
    """
    tables = _tables(results)
    if isinstance(correlation, bool) or not isinstance(correlation, int | float) or not -1 <= correlation <= 1:
        raise ValueError(
            f"correlation must be a number from -1 to 1, got {shown(correlation)}: 0 is the cautious choice"
        )
    if isinstance(least, bool) or not isinstance(least, int | float) or not least >= 0:
        raise ValueError(f"least must be a number of standard errors, 0 or more, got {shown(least)}")
    dense_name, dense = next(iter(tables.items()))
    rows = []
    for name, table in tables.items():
        if list(table.index) != list(dense.index):
            other = set(table.index) ^ set(dense.index)
            raise ValueError(
                f"{name} and {dense_name} have different tasks ({', '.join(sorted(other))}): run the same ones"
            )
        itself = name == dense_name
        kept, kept_error = _ratio(table, dense, 0, correlation, itself)
        chance = dense["chance"]
        above, above_error = _ratio(table, dense, chance, correlation, itself)
        known = dense["value"] - chance > least * dense["standard_error"].fillna(0)
        rows.append(
            table.assign(
                model=name, retention=kept, retention_error=kept_error,
                above_chance=above.where(known), above_chance_error=above_error.where(known),
            )
        )  # fmt: skip
    order = ["model", "task", "value", "standard_error", "chance", "retention", "retention_error"]
    return pd.concat(rows).reset_index()[[*order, "above_chance", "above_chance_error"]]


def _tables(results: object) -> dict[str, pd.DataFrame]:
    """For each model ``value, standard_error, chance``, a row per task and one for the average."""
    if isinstance(results, pd.DataFrame):
        if "model" not in results:
            raise ValueError("the table has no column 'model': add one, or pass a dict from model name to table")
        results = {name: rows for name, rows in results.groupby("model", sort=False)}
    if not isinstance(results, Mapping):
        raise TypeError(f"results must be a dict from model name to evaluate()'s table, got {shown(results)}")
    check_some("results", list(results))
    tables = {}
    for name, table in results.items():
        columns = ["task", "value", "standard_error", "chance"]
        if not isinstance(table, pd.DataFrame):
            raise TypeError(f"the results of {name} must be a table from evaluate(), got {shown(table)}")
        missing = [column for column in (*columns, "metric") if column not in table]
        if missing:
            raise ValueError(f"the results of {name} have no column {missing[0]!r}: pass a table from evaluate()")
        if table.duplicated(["task", "metric"]).any():
            raise ValueError(f"the results of {name} hold a task twice: keep one run of it")
        first = table.drop_duplicates("task").set_index("task")[columns[1:]].astype(float)
        if first.empty:
            raise ValueError(f"the results of {name} are empty: run evaluate() first")
        average = first.mean()
        average["standard_error"] = np.linalg.norm(first["standard_error"]) / len(
            first
        )  # tasks have items of their own
        average["chance"] = first["chance"].mean(skipna=False)
        first.loc[AVERAGE] = average
        tables[name] = first
    return tables


def _ratio(
    table: pd.DataFrame, dense: pd.DataFrame, chance: pd.Series | float, correlation: float, itself: bool
) -> tuple[pd.Series, pd.Series]:
    """``100 (value - chance) / (dense - chance)`` and its standard error, by task."""
    above, full = table["value"] - chance, dense["value"] - chance
    if isinstance(chance, int) and (full == 0).any():
        raise ValueError(
            f"the first model scores 0 on {full.index[full == 0][0]}, of which nothing can be retained: leave it out"
        )
    s, s_full = table["standard_error"], dense["standard_error"]
    ratio = above / full
    # the same as r² (s_p²/p² + s_d²/d² - 2 ρ s_p s_d / (p d)), without dividing by a p that may be 0
    variance = (s**2 + ratio**2 * s_full**2 - 2 * correlation * ratio * s * s_full) / full**2
    error = np.sqrt(variance.clip(lower=0))
    return 100 * ratio, error * 0 if itself else 100 * error
