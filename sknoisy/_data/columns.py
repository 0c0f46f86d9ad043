"""Mean and scale of the columns of X, by which the default network standardises its input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import min_max_axis

_NUMBERS_AT_ONCE = {"dense": 2**16, "sparse": 2**22}  # a part costs as much as the columns
_FEWEST_ROWS_AT_ONCE = 16
_LARGEST_RANGE = 5.0


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
