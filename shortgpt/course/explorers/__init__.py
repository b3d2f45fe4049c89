"""Three explorers for Jupyter: remove layers by hand, follow a token through the depth, trade layers against bits.

Each is a thin widget over functions that work without one (`Ablation`, `token_paths`, `best_within`), uses only what
ipywidgets 7 (Colab) and 8 share, and can be worked by mouse and by keyboard. What it shows is text with a figure whose
alternative text says the same.
"""

from shortgpt.course.explorers.frontier import explore_frontier
from shortgpt.course.explorers.pruning import explore_pruning
from shortgpt.course.explorers.token import explore_token

__all__ = ["explore_frontier", "explore_pruning", "explore_token"]
