"""Watch a token: choose a sentence and a token of it, and follow its hidden state through all layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.course.explorers.parts import announced, image, unless_paused
from shortgpt.course.plots.tokens import draw_token_path, least_moving, one_token, path_sentence
from shortgpt.course.studies.logit_lens import token_paths
from shortgpt.utils.arguments import check_some, check_strings

SENTENCES = (
    "The capital of France is the city of",
    "The president of the United States lives in the White",
    "Two plus two equals",
    "She opened the umbrella because it had started to",
)


def explore_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str] = SENTENCES
) -> widgets.Widget:
    """Choose or write a sentence, press a token, and see how each layer turns it and what the lens reads at each depth.

    A sentence takes one forward pass and the reading of its states, about a second; its tokens answer at once. Without a
    widget: ``plot_token_path(token_paths(model, tokenizer, sentence), position)``.
    """
    sentences = check_some("sentences", check_strings("sentences", sentences))
    wide = widgets.Layout(width="95%")
    menu = widgets.Dropdown(options=sentences, description="sentence", layout=wide)
    own = widgets.Text(
        description="your own", placeholder="write one and press Enter", continuous_update=False, layout=wide
    )
    tokens = widgets.ToggleButtons(description="token", style={"button_width": "auto"})
    told, picture, table = widgets.HTML(), widgets.HTML(), widgets.HTML()
    shown = [sentences[0]]
    # a sentence takes a second, a figure a quarter of one
    paths_of = cache(lambda sentence: token_paths(model, tokenizer, sentence))
    picture_of = cache(lambda sentence, position: _picture(one_token(paths_of(sentence), position)))

    def read(sentence: str) -> None:
        try:
            first = paths_of(sentence).drop_duplicates("position")
        except ValueError as error:
            told.value = announced(escape(str(error)))
            return
        shown[0] = sentence
        with pause():
            tokens.options = list(zip(labels_of(first["token"]), first["position"], strict=True))
            tokens.value = int(first["position"].iloc[-1])
        show()

    def show() -> None:
        rows = one_token(paths_of(shown[0]), tokens.value)
        told.value = announced(escape(path_sentence(rows)))
        table.value = path_table(rows)
        picture.value = picture_of(shown[0], tokens.value)

    changed, pause = unless_paused(show)
    tokens.observe(changed, "value")
    menu.observe(lambda change: read(change["new"]), "value")
    own.observe(lambda change: read(change["new"]) if change["new"].strip() else None, "value")
    read(sentences[0])
    return widgets.VBox([menu, own, tokens, told, picture, table])


def _picture(rows: pd.DataFrame) -> str:
    figure = Figure(figsize=(9.4, 5), layout="constrained")
    return image(figure, draw_token_path(figure, rows)[1])


def labels_of(tokens: Iterable[str]) -> list[str]:
    """A label for each token, all different: ipywidgets finds a button by its label, so a second "of" lit up the first."""
    labels: list[str] = []
    for token in tokens:
        others = (f"{token} ({count})" for count in itertools.count(2))
        labels.append(next(label for label in itertools.chain([token], others) if label not in labels))
    return labels


def path_table(rows: pd.DataFrame) -> str:
    """One token's path (rows of `one_token`) as an HTML table, a row a depth: the layer's turn, and the lens's words."""
    least = least_moving(rows)
    lines = []
    for row in rows.itertuples():
        layer = row.depth - 1
        turn = "embedding" if layer < 0 else f"layer {layer}: {row.moved:.3f}"
        turn += ", hardly" if layer in least else ""
        words = "; ".join(
            f"{escape(word)} {100 * p:.0f} %" for word, p in zip(row.words, row.probabilities, strict=True)
        )
        lines.append(f'<tr><th scope="row">{row.depth}</th><td>{turn}</td><td>{words}</td></tr>')
    return (
        '<div tabindex="0" style="max-height: 220px; overflow: auto"><table cellpadding="3"><thead><tr align="left">'
        '<th scope="col">depth</th><th scope="col">turn, 1 − cosine</th>'
        '<th scope="col">next token, as the lens reads this depth</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
