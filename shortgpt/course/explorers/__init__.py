"""Four explorers for Jupyter: read without some layers, prune by hand, follow a token through the depth, layers or bits.

Each is a thin widget over functions that work without one (`Ablation`, `token_paths`, `best_within`), uses only what
ipywidgets 7 (Colab) and 8 share, and can be worked by mouse and by keyboard. What it shows is text with a figure whose
alternative text says the same.
"""

from shortgpt.course.explorers.frontier import explore_frontier
from shortgpt.course.explorers.pruning import explore_pruning
from shortgpt.course.explorers.token import explore_token
from shortgpt.course.explorers.writing import explore_writing

__all__ = ["explore_frontier", "explore_pruning", "explore_token", "explore_writing"]
