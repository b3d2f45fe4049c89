"""How far a choice of layers can be trusted: does another text, or more text, choose the same ones?

Two scorings of one model agree as far as their `n` lowest layers are the same (overlap) and as far as they put all
layers in the same order (Spearman's rank correlation). Neither says that a choice is good, only that it doesn't hang
on the text. `LayerScores.selection_frequency` says it layer by layer; here it is one number for the choice.

Everything is computed from scores that exist already: no model is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from shortgpt.scoring.scores import LayerScores, lowest, require_scores
from shortgpt.utils.arguments import check_count, shown

LEAST = 8  # documents that say how documents differ; of fewer the bootstrap is too sure


def is_stable(scores: LayerScores, n: int, confidence: float) -> bool:
    """Whether documents drawn again choose `confidence` of the same `n` layers: when ``until_stable=n`` stops reading."""
    return len(scores.by_document.counts) >= LEAST and scores.stability(n) >= confidence


def plan_agreement(scores: Mapping[str, LayerScores], n: int) -> pd.DataFrame:
    """How well the choices of `n` layers agree, for every pair of `scores` (of several genres, languages, lengths …).

    Args:
        scores: name → scores of one model, from `score_layers`; at least two. They may differ in metric.
        n: how many of the lowest layers are compared.

    Returns:
        A row a pair, in the order of `scores`: ``first, second``; ``rank_correlation`` (Spearman, over all layers; NaN
        if all scores of one are equal); ``overlap``, the share of the `n` layers that both choose; ``jaccard``, those
        over all that either chooses; ``chance``, the overlap to expect of two random choices, n / layers.

    Raises:
        TypeError: `scores` is no mapping to scores.
        ValueError: fewer than two, scores of different layers, or `n` outside 1 to layers - 1.
    """
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores must be a dict from name to scores, got {shown(scores)}")
    layers = [require_scores(each).original_layers for each in scores.values()]
    if len(scores) < 2:
        raise ValueError(f"agreement needs the scores of at least two texts, got {len(scores)}: score another text")
    for name, its_layers in zip(scores, layers, strict=True):
        if its_layers != layers[0]:
            raise ValueError(
                f"the scores {shown(name)} are of other layers than the first: score the same model on every text"
            )
    depth = len(layers[0])
    n = _check_n(n, depth)
    rows = []
    for first, second in combinations(scores, 2):
        a, b = scores[first].values[None], scores[second].values[None]  # [1, layers]
        overlap = float(_overlap(a, b, n)[0])
        jaccard = overlap / (2 - overlap)  # m shared of n each: m / (2n - m)
        row = {"first": first, "second": second, "rank_correlation": float(_spearman(a, b)[0])}
        rows.append(row | {"overlap": overlap, "jaccard": jaccard, "chance": n / depth})
    return pd.DataFrame(rows)


def tokens_needed(scores: LayerScores, n: int, *, resamples: int = 200, seed: int = 0) -> pd.DataFrame:
    """How well two texts of the same size agree on the `n` lowest layers, for growing size: how much text is enough?

    `resamples` times, two sets of k samples that share none are drawn from `scores` and compared. They are disjoint
    because a set compared with *all* samples is compared partly with itself, which flatters it the more the larger it
    is (at k = all the agreement would be perfect by construction); ``overlap_with_all`` shows by how much. Disjoint
    sets end at half of the samples. For all of them, the last row compares two bootstrap draws (with replacement).

    Args:
        scores: from `score_layers`, with many samples of one kind of text; it says nothing about other kinds of text.
        n: how many of the lowest layers are compared.
        resamples: pairs of draws a row.
        seed: of the draws; the same seed gives the same table.

    Returns:
        A row for each k = 1, 2, 4, … up to half of the samples, then all of them: ``samples`` (k), ``tokens`` (mean of
        the draws); ``overlap`` (mean share of the `n` layers that both choose), ``low`` and ``high`` (its 10 and 90 %
        quantiles over draws); ``rank_correlation`` (mean of Spearman's); ``overlap_with_all``; ``draws``
        (``"disjoint"`` or ``"bootstrap"``); ``chance`` (n / layers).

    Raises:
        TypeError: something else for the scores. ValueError: fewer than two samples, or `n` outside 1 to layers - 1.
    """
    scores = require_scores(scores).by_document
    samples, depth = scores.sums.shape
    n = _check_n(n, depth)
    resamples, rng = check_count("resamples", resamples), np.random.default_rng(check_count("seed", seed, least=0))
    if samples < 2:
        raise ValueError("these scores are of one sample only: score at least two, so that they can be compared")
    rows = []
    for k in [*(2**i for i in range((samples // 2).bit_length())), samples]:
        if k < samples:
            drawn = rng.permuted(np.tile(np.arange(samples), (resamples, 1)), axis=1)
        else:
            drawn = rng.integers(samples, size=(resamples, 2 * samples))
        row = {"samples": k, **_agreement(scores, drawn[:, :k], drawn[:, k : 2 * k], n)}
        rows.append(row | {"draws": "disjoint" if k < samples else "bootstrap", "chance": n / depth})
    return pd.DataFrame(rows)


def _agreement(scores: LayerScores, one: np.ndarray, other: np.ndarray, n: int) -> dict[str, float]:
    """A row of `tokens_needed`: of two sets of samples in each draw, int ``[draws, k]``."""
    (a, tokens), (b, more) = scores.redrawn(one), scores.redrawn(other)
    overlap = _overlap(a, b, n)
    return {
        "tokens": round(float(np.mean([tokens, more]))),
        "overlap": overlap.mean(),
        "low": np.quantile(overlap, 0.1),
        "high": np.quantile(overlap, 0.9),
        "rank_correlation": _spearman(a, b).mean(),
        "overlap_with_all": _overlap(a, scores.values[None], n).mean(),
    }


def _overlap(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Share of the `n` lowest layers that two scorings have in common: ``[draws, layers]`` each → ``[draws]``."""
    return (lowest(a, n) & lowest(b, n)).sum(1) / n


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of `a` with that of `b`: ``[draws]``; NaN where one has no order at all."""
    ranks = [pd.DataFrame(values).rank(axis=1) for values in (a, b)]
    return ranks[0].corrwith(ranks[1], axis=1).to_numpy()


def _check_n(n: object, depth: int) -> int:
    n = check_count("n", n)
    if n >= depth:
        raise ValueError(f"n must be 1 to {depth - 1} (these are scores of {depth} layers), got {n}")
    return n
