"""The names of the ways to choose, where the command line and type checkers find them without torch.

`criteria` holds the functions behind them, `scoring.influence` those of the metrics.
"""

from __future__ import annotations

from typing import Literal

Metric = Literal["block_influence", "angular_distance", "relative_magnitude"]  # scores of one pass
Baseline = Literal["reverse", "sequential", "random"]  # read nothing
Criterion = Literal[
    Metric,
    "block_influence_iterative",
    "angular_span",
    "angular_span_all_tokens",
    "leave_one_out",
    "greedy",
    "search",
    "repaired_search",
    Baseline,
]
