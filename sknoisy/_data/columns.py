"""The columns of X: mean and scale, by which the default network standardises, and which occur."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import min_max_axis

_NUMBERS_AT_ONCE = {"dense": 2**16, "sparse": 2**22}  # a part costs as much as the columns
_FEWEST_ROWS_AT_ONCE = 16
_LARGEST_RANGE = 5.0
_FEWEST_WIDE_COLUMNS = 1000
_LARGEST_DENSITY = 0.05


class ColumnStatistics:
    """Running mean and scale of the columns of data that come in chunks.

    The scale is the standard deviation, and at least a fifth of the range: no standardised column
    spans more than five units, so that a pixel or a word which occurs in a few rows only does not
    become the largest of all features. A constant column has an infinite scale: nothing can be
    learned from it, so whatever it holds later is ignored.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_features,)
    """

    def __init__(self) -> None:
        self._scaler = StandardScaler(with_mean=False)
        self._lowest: Any = np.inf
        self._highest: Any = -np.inf

    def update(self, X: Any, weight: np.ndarray | None = None) -> None:
        """Take more rows into account.

        Parameters
        ----------
        X : ndarray or CSR array of shape (n_samples, ...)
            More than two dimensions are flattened; read a part at a time.
        weight : ndarray of shape (n_samples,), default=None
            Sample weights.
        """
        if sparse.issparse(X):
            most, stored = _NUMBERS_AT_ONCE["sparse"], -(-X.nnz // max(1, X.shape[0]))
        else:
            most, stored = _NUMBERS_AT_ONCE["dense"], math.prod(X.shape[1:])
        n_rows = max(_FEWEST_ROWS_AT_ONCE, most // max(1, stored))
        for rows in gen_batches(X.shape[0], n_rows):
            part = X[rows]
            if not sparse.issparse(part):
                # In one order, so that the sums are the same for a DataFrame.
                part = np.ascontiguousarray(part).reshape(len(part), -1)
            weights = None if weight is None else weight[rows]
            with np.errstate(invalid="ignore"):  # a constant column may have a variance of -1e-16
                self._scaler.partial_fit(part, sample_weight=weights)
            lowest, highest = (
                min_max_axis(part, axis=0)
                if sparse.issparse(part)
                else (part.min(axis=0), part.max(axis=0))
            )
            self._lowest = np.minimum(self._lowest, lowest.astype(np.float64))
            self._highest = np.maximum(self._highest, highest.astype(np.float64))

    def merge(self, others: Iterable[ColumnStatistics]) -> None:
        """Take the rows of other statistics into account, those without rows aside."""
        parts = [part for part in (self, *others) if hasattr(part._scaler, "mean_")]
        counts, means, variances = (
            np.stack([np.broadcast_to(getattr(part._scaler, name), shape) for part in parts])
            for shape in [parts[0]._scaler.mean_.shape]
            for name in ("n_samples_seen_", "mean_", "var_")
        )
        count = counts.sum(axis=0)
        mean = (counts * means).sum(axis=0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(axis=0) / count
        # As StandardScaler has it: what rounding makes of a constant column is no variance.
        rounding = np.finfo(np.float64).eps
        constant = variance <= count * rounding * variance + (count * mean * rounding) ** 2
        self._scaler = StandardScaler(with_mean=False)
        self._scaler.n_samples_seen_, self._scaler.mean_ = count, mean
        self._scaler.var_, self._scaler.n_features_in_ = variance, len(mean)
        self._scaler.scale_ = np.where(constant, 1.0, np.sqrt(variance))
        self._lowest = np.min([part._lowest for part in parts], axis=0)
        self._highest = np.max([part._highest for part in parts], axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Weighted mean of each column."""
        return self._scaler.mean_

    @property
    def scale(self) -> np.ndarray:
        """What each column is divided by."""
        spread = self._highest - self._lowest
        scale = np.maximum(self._scaler.scale_, spread / _LARGEST_RANGE)
        return np.where(spread > 0, scale, np.inf)


def occurring_columns(
    X: Any, total: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray | None:
    """Return the columns with stored entries, ascending, of data that are wide and mostly zero.

    None for other data, of which dense batches are multiplied faster.

    Parameters
    ----------
    X : array of shape (n_samples, ...)
    total : callable, optional
        Adds up what the processes count whose rows are in several of them.
    """
    if not sparse.issparse(X):
        return None
    n_columns = X.shape[1]
    n_rows, n_stored = total(np.array([X.shape[0], X.nnz]))
    if n_columns < _FEWEST_WIDE_COLUMNS or n_stored > _LARGEST_DENSITY * n_rows * n_columns:
        return None
    return np.flatnonzero(total(np.bincount(X.indices, minlength=n_columns)))
