"""Scores of all layers as a table with standard errors, and what a choice by them hangs on. `influence` fills it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from shortgpt.scoring.provenance import Calibration, Provenance, calibration_record
from shortgpt.utils.arguments import check_count, shown


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Scores of every layer, kept as one sum per sample and layer so that batches and processes merge exactly.

    Attributes:
        sums: float64 ``[samples, layers]``, the metric summed over the sample's real tokens.
        counts: int64 ``[samples]``, its real tokens.
        metric: a key of `METRICS`.
        removed: original indices of layers that had been removed before scoring (empty for a dense model).
        digests: fingerprint of each sample's tokens (SHA-256), whatever its batch or padding.
        bos: whether every sample began with the model's begin token (BOS).
        documents: fingerprint of the document that each sample begins in; empty where that is not known. Samples of one
            document resemble each other, so errors and redrawing are over documents, and over samples only where there are
            no documents, or one.
        model: name under which the model was loaded, with ``@commit`` if it came from the Hub.
    """

    sums: np.ndarray
    counts: np.ndarray
    metric: str = "block_influence"
    removed: tuple[int, ...] = ()
    digests: tuple[bytes, ...] = ()
    model: str = ""
    bos: bool = False
    documents: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Equal numbers (a NaN equals a NaN) from the same samples, metric and model."""
        if not isinstance(other, LayerScores):
            return NotImplemented
        same = np.array_equal(self.sums, other.sums, equal_nan=True) and np.array_equal(self.counts, other.counts)
        return same and self._names == other._names

    def __hash__(self) -> int:
        return hash(self._names)

    @property
    def _names(self) -> tuple:
        return self.metric, self.removed, self.digests, self.model, self.bos, self.documents

    @property
    def provenance(self) -> Provenance:
        """What is left without the numbers."""
        return Provenance(self.sums.shape[1], self.removed, self.model, self.calibration)

    @property
    def calibration(self) -> Calibration:
        """What was read, as a plan records it."""
        return calibration_record(self.counts, self.digests, self.bos)

    @property
    def sha256(self) -> str:
        """Fingerprint of the calibration tokens: of all samples, in order."""
        return str(self.calibration["sha256"])

    @property
    def original_layers(self) -> list[int]:
        """The index that each scored layer has in the dense model."""
        return self.provenance.original_layers

    @property
    def values(self) -> np.ndarray:
        """Score of each layer, float64 ``[layers]``: a mean over tokens, never a mean of batch means."""
        return self.sums.sum(0) / self.counts.sum()

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard error of each score over documents, float64 ``[layers]``; NaN if there is one sample only."""
        return self.by_document._error_of(slice(None))

    @property
    def by_document(self) -> LayerScores:
        """The same scores with one row a document, ``[documents, layers]``: what is independent of each other."""
        names, rows = np.unique(self.documents, return_inverse=True)
        if len(names) < 2:  # none is known; of one, its samples are the best there is
            return self
        sums, counts = np.zeros((len(names), self.sums.shape[1])), np.zeros(len(names), dtype=self.counts.dtype)
        np.add.at(sums, rows, self.sums)
        np.add.at(counts, rows, self.counts)
        return replace(self, sums=sums, counts=counts, digests=(), documents=())

    @property
    def table(self) -> pd.DataFrame:
        """One row a layer, in layer order: ``layer, score, standard_error, tokens, samples``.

        For a model that had been pruned before, ``original_layer`` tells where each layer stood in the dense model.
        """
        table = pd.DataFrame({"layer": range(len(self.values)), "score": self.values})
        table["standard_error"] = self.standard_errors
        table["tokens"], table["samples"] = int(self.counts.sum()), len(self.counts)
        if self.removed:
            table.insert(1, "original_layer", self.original_layers)
        return table

    def merge(self, other: LayerScores) -> LayerScores:
        """Scores over the samples of both, for instance of two processes. Raises ValueError if they don't fit."""
        if not isinstance(other, LayerScores):
            raise TypeError(f"only scores can be merged, got {shown(other)}: pass what score_layers() returned")
        if (self.metric, self.original_layers) != (other.metric, other.original_layers):
            raise ValueError("only scores of one metric and one model can be merged")
        sums, counts = np.concatenate([self.sums, other.sums]), np.concatenate([self.counts, other.counts])
        digests, bos = self.digests + other.digests, self.bos and other.bos
        documents = self.documents + other.documents if self.documents and other.documents else ()
        return replace(self, sums=sums, counts=counts, digests=digests, bos=bos, documents=documents)

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """``score(first) - score(second)`` and its standard error, from the same samples (a paired comparison)."""
        return float(self.values[first] - self.values[second]), float(self.by_document._error_of(first, second))

    def selection_frequency(self, n: int, *, resamples: int = 1000, seed: int = 0) -> pd.Series:
        """How often each layer is among the `n` lowest when the documents are drawn again with replacement (bootstrap).

        1 or 0 means that the choice does not hang on which texts were read; in between, it does.
        """
        check_count("n", n, least=0)
        units = self.by_document
        documents = len(units.counts)
        draws = np.random.default_rng(seed).integers(documents, size=(resamples, documents))
        frequency = lowest(units.redrawn(draws)[0], n).mean(0)
        return pd.Series(frequency, name="selection_frequency").rename_axis("layer")

    def stability(self, n: int) -> float:
        """Which share of the `n` lowest layers is chosen again, on average, when the documents are drawn again.

        It estimates the agreement with what endless text of this kind would choose. Text of another kind, or read in
        windows of another length, may choose otherwise, however stable this is.
        """
        chosen = lowest(self.values[None], n)[0]
        return float(self.selection_frequency(n)[chosen].mean()) if n else 1.0

    def redrawn(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``[draws, layers]`` and tokens ``[draws]`` of the samples in each row of `draws`, int ``[draws, k]``."""
        size = len(self.counts)
        places = np.arange(len(draws))[:, None] * size + draws
        # how often each sample was drawn, [draws, samples]
        times = np.bincount(places.ravel(), minlength=len(draws) * size).reshape(len(draws), size).astype(float)
        tokens = times @ self.counts
        return times @ self.sums / tokens[:, None], tokens

    def _error_of(self, layer: int | slice, minus: int | None = None) -> np.ndarray:
        """Standard error over the samples of a layer's score, or of its difference to another's."""
        samples, total = len(self.counts), self.counts.sum()
        sums = self.sums[:, layer] if minus is None else self.sums[:, layer] - self.sums[:, minus]
        if samples < 2:
            return np.full(sums.shape[1:], np.nan)
        residuals = sums - np.multiply.outer(self.counts, sums.sum(0) / total)  # of the ratio estimator
        return np.sqrt(samples / (samples - 1) * (residuals**2).sum(0)) / total


def lowest(values: np.ndarray, n: int) -> np.ndarray:
    """Which layers are the `n` lowest of their row, of equals the first: bool, ``[rows, layers]`` as `values`."""
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(values, axis=1, kind="stable")[:, :n], True, axis=1)
    return chosen


def require_scores(scores: object) -> LayerScores:
    if not isinstance(scores, LayerScores):
        raise TypeError(f"expected scores from score_layers(), got {shown(scores)}")
    return scores
