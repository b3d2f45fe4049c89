from .benchmarks import OFFLINE_TASKS as OFFLINE_TASKS, paper_benchmarks as paper_benchmarks
from .comparing import compare as compare, evaluate as evaluate
from .cost import size as size, speed as speed, speed_table as speed_table
from .generation import (
    generation_report as generation_report,
    generation_summary as generation_summary,
    side_by_side as side_by_side,
)
from .grid import read_grid as read_grid, size_quality_grid as size_quality_grid
from .likelihood import (
    mean_and_error as mean_and_error,
    perplexity as perplexity,
    perplexity_table as perplexity_table,
    token_losses as token_losses,
)
from .memory import key_value_bytes as key_value_bytes
from .sweeping import cliff as cliff, removal_sweep as removal_sweep
from .tables import (
    added_losses as added_losses,
    best_within as best_within,
    frontier as frontier,
    frontier_steps as frontier_steps,
    retention_table as retention_table,
)
from .writing import continue_text as continue_text, repetition as repetition
