"""Questions to tables that are measured already: what was kept, do losses add up, and which models does none beat?

`retention_table` reads tables of `evaluate`, `added_losses` that of `size_quality_grid`, and a frontier is there in any table
with one row a model, a size and a quality.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.evaluation.records import EITHER, GRID_KEY
from shortgpt.utils.arguments import check_number, check_some, shown

AVERAGE = "average"


def retention_table(
    results: Mapping[str, pd.DataFrame] | pd.DataFrame, *, correlation: float = 0.0, least: float = 3.0
) -> pd.DataFrame:
    """Percent of the first (dense) model's scores that every model kept, by task and on average, as in the paper's table 2.

    >>> retention_table({"dense": evaluate(dense, tokenizer), "pruned": evaluate(pruned, tokenizer)})

    Retention is 100 · pruned / dense. On a test with four choices a model that knows nothing scores 25 %, so one that lost
    everything still "retains" a good part. With chance taken off, (pruned - chance) / (dense - chance), it retains 0.

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


def added_losses(grid: pd.DataFrame) -> pd.DataFrame:
    """Is the loss that both add the sum of the losses that each adds? From the table of `size_quality_grid`.

    The paper calls pruning and quantization orthogonal (section 4.5). With l(p, q) for the mean loss (nats a token, the
    logarithm of the perplexity) with pruning p and quantization q, 0 for none,

        interaction = [l(p, q) - l(0, 0)] - [l(p, 0) - l(0, 0)] - [l(0, q) - l(0, 0)]

    is zero where they are, and positive where a pruned model suffers more from rounding than the dense one.

    Returns:
        One row per pruned *and* quantized model: ``removed, method, order, added_by_pruning, added_by_quantization,
        added_by_both, interaction`` (nats a token, see above; in perplexity, losses that add are factors that multiply), each
        followed by its standard error over texts (``…_error``; paired: the same texts for all models), and ``documents``.

    Raises:
        ValueError: not such a table, or a model that is compared with is missing in it.
    """
    if not isinstance(grid, pd.DataFrame) or not {*GRID_KEY, "losses", "tokens"} <= set(grid):
        raise ValueError(f"expected the table of size_quality_grid(), got {shown(grid)}")
    losses = {key: np.array(row) for *key_, row in grid[[*GRID_KEY, "losses"]].values.tolist() if (key := tuple(key_))}
    rows = []
    for (n, method, order), both in losses.items():
        if n == 0 or method == "none":
            continue
        others = [(0, "none", EITHER), (n, "none", EITHER), (0, method, EITHER)]
        for key in others:
            if key not in losses:
                raise ValueError(
                    f"the grid has no model with {key[0]} layers removed and method {key[1]!r} to compare with: add it to "
                    "counts and methods"
                )
        dense, pruned, rounded = (losses[key] for key in others)
        tokens = np.array(grid["tokens"].iloc[0])
        row = {"removed": n, "method": method, "order": order}
        for name, difference in {
            "added_by_pruning": pruned - dense,
            "added_by_quantization": rounded - dense,
            "added_by_both": both - dense,
            "interaction": both - pruned - rounded + dense,
        }.items():
            row[name], row[f"{name}_error"] = mean_and_error(difference, tokens)
        rows.append(row | {"documents": len(tokens)})
    return pd.DataFrame(rows)


def frontier(
    table: pd.DataFrame, x: str = "memory_mb", y: str = "perplexity", *, higher_is_better: bool = False
) -> pd.DataFrame:
    """The rows of `table` that no other row beats, smallest first: what is left to choose from.

    >>> frontier(size_quality_grid(model, tokenizer, order, [0, 3, 6]))

    A row is beaten if another is at most as large in `x` and at least as good in `y`, and better in one of the two. Of
    equal rows the first stays. Rows without a number in `x` or `y` are left out. It is the frontier of what was measured,
    with its errors: two points closer than their standard errors may change places.

    Args:
        table: of `size_quality_grid`, or any with one row a model.
        x: a column with a cost, of which less is better: ``memory_mb``, ``disk_bytes``, seconds a token.
        y: a column with a quality; less is better (perplexity), unless `higher_is_better` (accuracies).

    Raises:
        TypeError: no table. ValueError: a column that it doesn't have, or no row with both numbers.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"expected a table with one row a model, got {shown(table)}")
    for column in (x, y):
        if column not in table:
            raise ValueError(f"the table has no column {shown(column)}: choose out of {', '.join(map(str, table))}")
    rows = table.dropna(subset=[x, y]).sort_values([x, y], ascending=[True, not higher_is_better], kind="stable")
    if rows.empty:
        raise ValueError(f"no row has both {x} and {y}: measure them first")
    quality = rows[y].astype(float) * (-1 if higher_is_better else 1)
    best_so_far = quality.cummin().shift(fill_value=float("inf"))  # of all that are smaller, or as small and better
    return rows[(quality < best_so_far).to_numpy()]


def frontier_steps(
    table: pd.DataFrame, x: str = "memory_mb", y: str = "perplexity", *, higher_is_better: bool = False
) -> pd.DataFrame:
    """The `frontier`, smallest first, with what the step to the next larger model on it costs and brings.

    Two further columns: ``more``, by how much the next one is larger in `x`, and ``change``, its `y` minus this one's (below
    0 is better for a perplexity, above for an accuracy). The last row has no next: NaN. Arguments and errors: `frontier`.
    """
    rows = frontier(table, x, y, higher_is_better=higher_is_better).copy()
    for column, of in (("more", x), ("change", y)):
        rows[column] = rows[of].astype(float).diff().shift(-1)
    return rows


def best_within(
    table: pd.DataFrame,
    budget: float,
    x: str = "memory_mb",
    y: str = "perplexity",
    *,
    higher_is_better: bool = False,
) -> pd.Series:
    """The best model that is no larger than `budget`: a row of `frontier_steps`.

    >>> best_within(size_quality_grid(model, tokenizer, order, [0, 3, 6]), 200)

    Raises:
        ValueError: no model is so small. TypeError, ValueError: see `frontier`.
    """
    budget = check_number("budget", budget)
    steps = frontier_steps(table, x, y, higher_is_better=higher_is_better)
    within = steps[steps[x] <= budget]
    if within.empty:
        raise ValueError(f"no model has {x} of at most {budget:,g}: the smallest has {steps[x].iloc[0]:,.1f}")
    return within.iloc[-1]  # along the frontier larger is better


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
