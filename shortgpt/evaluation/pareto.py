"""The size–quality frontier: models that none beats, the best within a budget, and what the next step costs."""

from __future__ import annotations

import pandas as pd

from shortgpt.utils.arguments import check_number, shown


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
