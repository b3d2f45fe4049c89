"""Do the losses of pruning and quantization add up? (The paper's orthogonality, section 4.5.)

With l(p, q) for the mean loss (nats a token, the logarithm of the perplexity) with pruning p and quantization q, 0 for none,

    interaction = [l(p, q) - l(0, 0)] - [l(p, 0) - l(0, 0)] - [l(0, q) - l(0, 0)]

is zero where the two are orthogonal, and positive where a pruned model suffers more from rounding than the dense one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from shortgpt.evaluation.grid import EITHER
from shortgpt.evaluation.grid_file import KEY
from shortgpt.evaluation.likelihood import mean_and_error
from shortgpt.utils.arguments import shown


def added_losses(grid: pd.DataFrame) -> pd.DataFrame:
    """Is the loss that both add the sum of the losses that each adds? From the table of `size_quality_grid`.

    Returns:
        One row per pruned *and* quantized model: ``removed, method, order, added_by_pruning, added_by_quantization,
        added_by_both, interaction`` (nats a token, see above; in perplexity, losses that add are factors that multiply), each
        followed by its standard error over texts (``…_error``; paired: the same texts for all models), and ``documents``.

    Raises:
        ValueError: not such a table, or a model that is compared with is missing in it.
    """
    if not isinstance(grid, pd.DataFrame) or not {*KEY, "losses", "tokens"} <= set(grid):
        raise ValueError(f"expected the table of size_quality_grid(), got {shown(grid)}")
    losses = {key: np.array(row) for *key_, row in grid[[*KEY, "losses"]].values.tolist() if (key := tuple(key_))}
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
