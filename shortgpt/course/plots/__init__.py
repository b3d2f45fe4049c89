"""The lessons' figures, for your own results too: seaborn and matplotlib, readable without colour.

Every function draws on a new figure (or the given ``ax``), prints one sentence that says what the figure shows, computed
from the data, and returns the Axes. The sentence is there for readers who can't see the picture; it isn't decoration.
"""

from shortgpt.course.plots.choosing import plot_agreement, plot_criteria, plot_tokens_needed
from shortgpt.course.plots.curves import plot_removal_curves
from shortgpt.course.plots.layers import (
    plot_layers,
    plot_norms,
    plot_one_vector,
    plot_scores,
    plot_similarity,
    plot_strip,
)
from shortgpt.course.plots.repairs import plot_repairs
from shortgpt.course.plots.results import plot_divergence_along, plot_frontier, plot_sweep
from shortgpt.course.plots.retention import plot_beside_paper, plot_retention
from shortgpt.course.plots.style import MARKERS, PALETTE, STORED, literal, plain_log_ticks
from shortgpt.course.plots.tokens import plot_token_path
from shortgpt.course.plots.twins import (
    plot_prunability,
    plot_restored,
    plot_twin_layers,
    plot_twin_norms,
    plot_twin_removal,
)

__all__ = [
    "MARKERS",
    "PALETTE",
    "STORED",
    "literal",
    "plain_log_ticks",
    "plot_agreement",
    "plot_beside_paper",
    "plot_criteria",
    "plot_divergence_along",
    "plot_frontier",
    "plot_layers",
    "plot_norms",
    "plot_one_vector",
    "plot_prunability",
    "plot_removal_curves",
    "plot_repairs",
    "plot_restored",
    "plot_retention",
    "plot_scores",
    "plot_similarity",
    "plot_strip",
    "plot_sweep",
    "plot_token_path",
    "plot_tokens_needed",
    "plot_twin_layers",
    "plot_twin_norms",
    "plot_twin_removal",
]
