"""What `stability.py` kept, asked: how documents differ, what moves a choice, and how many tokens it takes. No model runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from shortgpt.scoring.scores import LayerScores, lowest
from shortgpt.scoring.stability import is_stable

SHARES = (0.1, 0.2, 0.3)  # of the layers
ORDERS = 400  # in which the documents may come
STOPS = 60  # orders in which the self-stopping pass is followed
MANY = 20_480  # tokens whose plan is wanted
SIZES = (512, 1024, 2048, 4096, 8192)
PER_BATCH = 4
Row = dict[str, object]


class Scoring(NamedTuple):
    """What one scoring kept: one entry a token, and a genre a document."""

    scores: np.ndarray
    document: np.ndarray
    window: np.ndarray
    position: np.ndarray
    labels: np.ndarray

    @classmethod
    def read(cls, file: Path) -> Scoring:
        kept = np.load(file)
        return cls(kept["scores"].astype(float), *(kept[name] for name in cls._fields[1:]))

    def by_document(self, first: int | None = None) -> LayerScores:
        """Sums of each document: of all its tokens, or of the `first` ones of it."""
        size = self.document.max() + 1
        start = np.full(size, len(self.document))
        np.minimum.at(start, self.document, np.arange(len(self.document)))
        mask = np.ones(len(self.document), bool)
        if first is not None:
            mask = (self.window == self.window[start[self.document]]) & (self.position < first)
        sums = np.zeros((size, self.scores.shape[1]))
        np.add.at(sums, self.document[mask], self.scores[mask])
        return LayerScores(sums, np.bincount(self.document[mask], minlength=size))

    @property
    def depth(self) -> int:
        return self.scores.shape[1]


def answers(kept: Path) -> pd.DataFrame:
    """All rows: ``model, question, setting, against, n, tokens, measure, value, low, high``."""
    rows: list[Row] = []
    for name in sorted({file.name.split("_")[0] for file in kept.glob("*_own_512.npz")}):
        found = {file.stem.removeprefix(f"{name}_"): Scoring.read(file) for file in sorted(kept.glob(f"{name}_*.npz"))}
        whole = found["own_512"]
        for ask in (dependence(whole), moves(found), genres(whole), tokens(whole), stopping(whole), losses(kept, name)):
            rows += [{"model": name} | row for row in ask]
    columns = ["model", "question", "setting", "against", "n", "tokens", "measure", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def numbers(depth: int) -> list[int]:
    return [round(share * depth) for share in SHARES]


def overlap(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    return (lowest(np.atleast_2d(a), n) & lowest(np.atleast_2d(b), n)).sum(1) / n


def spread_of(values: np.ndarray) -> Row:
    low, high = np.quantile(values, [0.1, 0.9])
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high)}


def dependence(scoring: Scoring, chunk: int = 128) -> Iterator[Row]:
    """How alike parts of one document are, over layers: median and the middle 80 %."""
    size = scoring.document.max() + 1
    lengths = np.bincount(scoring.document[scoring.position < 512], minlength=size)
    parts = []
    for document in np.flatnonzero(lengths >= 512):
        mine = scoring.document == document
        mine &= scoring.window == scoring.window[mine][0]
        if mine.sum() == 512:
            parts.append(scoring.scores[mine].reshape(512 // chunk, chunk, -1).mean(1))
    x = np.stack(parts)  # [documents, chunks, layers]
    x -= x.mean(0)  # the place in the text has an effect of its own
    documents, k, _ = x.shape
    mean = x.mean(1, keepdims=True)
    between = k * (mean**2).sum((0, 1)) / (documents - 1)
    within = ((x - mean) ** 2).sum((0, 1)) / ((documents - 1) * (k - 1))
    correlation = (between - within) / (between + (k - 1) * within)
    by_window = np.zeros((scoring.window.max() + 1, scoring.depth))
    np.add.at(by_window, scoring.window, scoring.scores)
    windows = LayerScores(by_window, np.bincount(scoring.window))
    ratio = scoring.by_document().standard_errors / windows.standard_errors
    base = {"question": "documents", "setting": "own text", "tokens": len(scoring.document)}
    for measure, values in {
        "intraclass correlation of 128 tokens": correlation,
        "error ratio to windows": ratio,
    }.items():
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        yield base | {"measure": measure, "value": middle, "low": low, "high": high}


def moves(found: dict[str, Scoring]) -> Iterator[Row]:
    """Agreement of two ways to read, with the middle 80 % of what it is when the documents are drawn again."""
    packed = [name for name in found if name.endswith("packed")]
    pairs = [(a, b) for a, b in combinations(sorted(packed, key=lambda name: int(name.split("_")[1])), 2)]
    pairs += [(name, "own_512") for name in found if name in ("own_512_chat", "own_512_nobos", "human_512")]
    rng = np.random.default_rng(0)
    for a, b in pairs:
        one, other = found[a].by_document(), found[b].by_document()
        same = "human" not in a  # the same documents: drawn together, as many as the shorter scoring has
        k = min(len(one.counts), len(other.counts)) if same else len(one.counts)
        draws = rng.integers(k, size=(ORDERS, k))
        others = draws if same else rng.integers(len(other.counts), size=(ORDERS, len(other.counts)))
        values = [one.redrawn(draws)[0], other.redrawn(others)[0]]
        means = [one.sums[:k].sum(0) / one.counts[:k].sum(), other.values if not same else other.sums[:k].sum(0)]
        for n in numbers(found[a].depth):
            row = {"question": "reading", "setting": a, "against": b, "n": n, "measure": "agreement"}
            row |= spread_of(overlap(*values, n)) | {"value": float(overlap(*means, n)[0])}
            yield row | {"tokens": int(one.counts[:k].sum())}


def genres(scoring: Scoring) -> Iterator[Row]:
    """Agreement of the plan of each genre with that of all others together."""
    whole = scoring.by_document()
    labels = scoring.labels[: len(whole.counts)]
    for genre in sorted(set(labels)):
        mine = labels == genre
        for n in numbers(scoring.depth):
            value = overlap(whole.sums[mine].sum(0) / whole.counts[mine].sum(), whole.sums[~mine].sum(0), n)
            row = {"question": "genre", "setting": genre, "against": "all others", "n": n, "measure": "agreement"}
            yield row | {"tokens": int(whole.counts[mine].sum()), "value": float(value[0])}


def first_documents(scores: LayerScores, tokens: int, orders: np.ndarray) -> np.ndarray:
    """Scores ``[orders, layers]`` of the first documents of each order until `tokens` are read."""
    total = np.cumsum(scores.counts[orders], 1)
    read = np.arange(orders.shape[1])[None] <= (total < tokens).sum(1)[:, None]
    sums = np.einsum("rd,rdl->rl", read.astype(float), scores.sums[orders])
    return sums / (read * scores.counts[orders]).sum(1)[:, None]


READINGS = {"whole documents": None, "first 512 of each": 512, "first 256 of each": 256, "first 128 of each": 128}


def tokens(scoring: Scoring) -> Iterator[Row]:
    """How well a few tokens agree with many, for every way to read them."""
    whole, rng = scoring.by_document(), np.random.default_rng(0)
    orders = np.argsort(rng.random((ORDERS, len(whole.counts))), axis=1)
    # three plans to agree with: of the same text read on, of as much other text, of all there is
    goals = {"the same 20,480": first_documents(whole, MANY, orders), "all": np.tile(whole.values, (ORDERS, 1))}
    if whole.counts.sum() >= 2 * MANY:
        goals["another 20,480"] = first_documents(whole, MANY, orders[:, ::-1])
    for n in numbers(scoring.depth):
        for against in goals.keys() - {"the same 20,480"}:
            row = {"question": "tokens", "setting": "20,480", "against": against, "n": n, "measure": "agreement"}
            yield row | {"tokens": MANY} | spread_of(overlap(goals["the same 20,480"], goals[against], n))
        for reading, first in READINGS.items():
            part = scoring.by_document(first)
            for size in SIZES:
                if part.counts.sum() >= size + (MANY if len(goals) > 2 else 0) * bool(first is None):
                    values = first_documents(part, size, orders)
                    for against, goal in goals.items():
                        row = {"question": "tokens", "setting": reading, "against": against, "n": n, "tokens": size}
                        yield row | {"measure": "agreement"} | spread_of(overlap(values, goal, n))


def stopping(scoring: Scoring) -> Iterator[Row]:
    """The pass that stops by itself (`score_layers(until_stable=n)`), one sample of each document, at most 20,480 tokens."""
    whole, rng = scoring.by_document(), np.random.default_rng(1)
    orders = np.argsort(rng.random((STOPS, len(whole.counts))), axis=1)
    goal = first_documents(whole, MANY, orders)
    for first in (512, 256):
        part = scoring.by_document(first)
        for n in numbers(scoring.depth):
            ended = [_stopped(part, order, n) for order in orders]
            values = np.stack([scores.values for scores, _ in ended])
            base = {"question": "stopping", "setting": f"first {first} of each", "n": n}
            yield base | {"measure": "tokens read"} | spread_of(np.array([s.counts.sum() for s, _ in ended]))
            yield base | {"measure": "stopped", "value": float(np.mean([stable for _, stable in ended]))}
            for against, plan in {"the same 20,480": goal, "all": np.tile(whole.values, (STOPS, 1))}.items():
                yield base | {"measure": "agreement", "against": against} | spread_of(overlap(values, plan, n))


def _stopped(scores: LayerScores, order: np.ndarray, n: int) -> tuple[LayerScores, bool]:
    most = int((np.cumsum(scores.counts[order]) <= MANY).sum())
    for read in [*range(PER_BATCH, most, PER_BATCH), most]:
        some = LayerScores(scores.sums[order[:read]], scores.counts[order[:read]])
        if is_stable(some, n, 0.95):
            return some, True
    return some, False


def losses(kept: Path, name: str) -> Iterator[Row]:
    """What plans that differ cost on human text: paired differences of the loss over documents, with standard errors."""
    tables = {file.stem.split("_loss_")[1]: pd.read_csv(file) for file in sorted(kept.glob(f"{name}_loss_*.csv"))}
    for (a, one), (b, other) in combinations(tables.items(), 2):
        size, difference = one["tokens"].to_numpy(), (one["loss"] - other["loss"]).to_numpy()
        paired = LayerScores(difference[:, None], size)
        mean, error = float(paired.values[0]), float(paired.standard_errors[0])
        row = {"question": "loss", "setting": a, "against": b, "n": len(a.split("-")), "tokens": int(size.sum())}
        yield row | {"measure": "nats a token", "value": mean, "low": mean - 1.28 * error, "high": mean + 1.28 * error}
