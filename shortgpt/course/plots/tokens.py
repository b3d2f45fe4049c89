"""A figure about one token: how far each layer turns its state, and what the logit lens reads at each depth.

The explorer draws the same on a figure that pyplot doesn't know, and shows the sentence itself: `draw_token_path`.
"""

from __future__ import annotations

from functools import cache

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from shortgpt.course.plots.style import PALETTE, plain_log_ticks, say
from shortgpt.utils.arguments import check_count, shown

FEWEST = 5  # layers that are marked as moving the token least
NOTHING = 1e-3  # a turn below this, about 2.5 degrees, is next to nothing
LEGEND = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 0.98),
    "ncols": 2,
    "fontsize": 8,
    "frameon": False,
}  # above the bars
LONGEST = 12  # letters of a word under the figure


def plot_token_path(paths: pd.DataFrame, position: int = -1) -> tuple[Axes, Axes]:
    """Two panels over depth for one token: the turn by each layer, and the lens's likeliest word with its probability.

    Args:
        paths: from `token_paths`.
        position: which token, 0-based; negative ones count from the end.
    """
    figure = plt.figure(figsize=(9.4, 5), layout="constrained")
    axes, sentence = draw_token_path(figure, one_token(paths, position))
    say(sentence)
    return axes


def one_token(paths: pd.DataFrame, position: int = -1) -> pd.DataFrame:
    """The rows of `paths` (from `token_paths`) for one token, by depth. Raises TypeError, ValueError if there are none."""
    if not isinstance(paths, pd.DataFrame) or not {"position", "depth", "moved", "words", "final"} <= {*paths}:
        raise TypeError(f"paths must be from token_paths(), got {shown(paths)}")
    position, tokens = check_count("position", position, least=None), paths["position"].nunique()
    if not -tokens <= position < tokens:
        raise ValueError(f"position must be 0 to {tokens - 1} (the text has {tokens} tokens), got {position}")
    return paths[paths["position"] == position % tokens].sort_values("depth").reset_index(drop=True)


def draw_token_path(figure: Figure | SubFigure, rows: pd.DataFrame) -> tuple[tuple[Axes, Axes], str]:
    """Draw `rows` (from `one_token`) on `figure`. Returns the two Axes and the sentence that says what they show."""
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.1])
    _draw_moves(top, rows)
    _draw_lens(bottom, rows)
    for ax in (top, bottom):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(-0.7, rows["depth"].max() + 0.7)
    return (top, bottom), path_sentence(rows)


def least_moving(rows: pd.DataFrame, count: int = FEWEST) -> list[int]:
    """The layers that turn the token least, ascending: `count` of them (at most half), and all that hardly turn it at all.

    The latter are many for a token that serves as an attention sink, such as the first of a text.
    """
    moves = rows.dropna(subset=["moved"])
    least = moves.nsmallest(min(count, len(moves) // 2), "moved")
    return sorted(int(depth) - 1 for depth in {*least["depth"], *moves[moves["moved"] < NOTHING]["depth"]})


def path_sentence(rows: pd.DataFrame) -> str:
    """What the figure of one token shows, in one sentence."""
    moves = rows.dropna(subset=["moved"])
    least, most = least_moving(rows), moves.loc[moves["moved"].idxmax()]
    of_least = moves[(moves["depth"] - 1).isin(least)]["moved"]
    answers = rows["words"].str[0]
    last = answers.iloc[-1]
    since = len(rows) - int((answers.iloc[::-1] == last).astype(int).cummin().sum())
    quiet = (
        f"{_layers(least)} turn{'s' if len(least) == 1 else ''} it least (at most {of_least.max():.3f}); "
        if least
        else ""
    )
    return (
        f"The token '{rows['token'].iloc[0]}': layer {int(most['depth']) - 1} turns it most ({most['moved']:.2f}); {quiet}"
        f"the model's next token, '{last}' ({100 * rows['final'].iloc[-1]:.0f} %), is the lens's first choice from depth "
        f"{since} on."
    )


def _layers(numbers: list[int]) -> str:
    """For instance ``"layers 3 to 5, 9"``."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    named = [str(row[0]) if len(row) == 1 else f"{row[0]}{', ' if len(row) == 2 else ' to '}{row[-1]}" for row in rows]
    return ("layers " if len(numbers) > 1 else "layer ") + ", ".join(named)


def _draw_moves(ax: Axes, rows: pd.DataFrame) -> None:
    """Bars between the depths: layer i stands between depth i and depth i + 1."""
    moves, least = rows.dropna(subset=["moved"]), least_moving(rows)
    floor = 1e-6  # a layer that adds nothing has no logarithm
    for quiet, colour, hatch, label in ((False, PALETTE[0], "", None), (True, "white", "///", "turn it least")):
        some = moves[(moves["depth"] - 1).isin(least) == quiet]
        ax.bar(
            some["depth"] - 0.5, some["moved"].clip(lower=floor), width=0.8, color=colour, hatch=hatch,
            edgecolor="black", linewidth=0.6, label=label,
        )  # fmt: skip
    ax.set(yscale="log", ylabel="turn, 1 − cosine\n(log scale)", xlabel="layer")
    low = max(moves["moved"].min(), floor)
    ax.set_ylim(low / 2, max(2 * moves["moved"].max(), 4 * low))
    ticks = range(0, len(moves), max(1, len(moves) // 15))
    ax.set_xticks([layer + 0.5 for layer in ticks], map(str, ticks))
    plain_log_ticks(ax)
    if least:
        ax.legend(**LEGEND)


def _draw_lens(ax: Axes, rows: pd.DataFrame) -> None:
    """The probability of the final answer, and below each depth the word that the lens finds likeliest there."""
    first = rows["probabilities"].str[0]
    ax.bar(rows["depth"], first, width=0.55, color="0.85", edgecolor="0.4", linewidth=0.6, label="likeliest word")
    ax.plot(rows["depth"], rows["final"], marker="o", markersize=4, color=PALETTE[1], label="the model's next token")
    ax.set(ylim=(0, 1.02), ylabel="probability by the lens")
    ax.set_xlabel("layers passed, and the likeliest word there")
    labels = [f"{_drawable(word)}  {depth}" for word, depth in zip(rows["words"].str[0], rows["depth"], strict=True)]
    ax.set_xticks(rows["depth"].to_numpy(), labels, rotation=90, fontsize=8, parse_math=False)
    ax.legend(**LEGEND)


def _drawable(word: str) -> str:
    """`word` with a box for what the figures' font doesn't have, and cut if it is long."""
    word = "".join(letter if ord(letter) in _letters() else "□" for letter in word)
    return word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"


@cache
def _letters() -> frozenset[int]:
    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans"))  # comes with matplotlib
    return frozenset(font_manager.get_font(path).get_charmap())
