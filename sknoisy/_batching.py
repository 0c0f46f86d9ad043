"""Batches taken straight from arrays in memory, or in a file mapped to memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_scalar
from torch import Tensor
from torch.utils.data import Dataset

from sknoisy._validation import refused_as

Batch = tuple[Tensor | dict[str, Tensor], Tensor]


class ArrayDataset(Dataset):
    """Rows of arrays: the data, the observed labels, and what else belongs to a row.

    Parameters
    ----------
    X : ndarray of shape (n, ...), CSR array of shape (n, n_features), or dict with key "X"
        The data. It is never copied as a whole, and CSR is made dense a batch at a time.
    y : ndarray of shape (n,), default=None
        Encoded observed labels; None gives zeros.
    rows : ndarray of int, default=None
        The rows of the arrays that belong to the data set, in this order; None means all.
    dtype : torch.dtype, default=None
        Floating point type of the batches of X; None keeps that of X.
    **extras : ndarray or Tensor of shape (n, ...)
        More values of each row. With any of them, a batch of X is a dict that holds the
        data under "X" and each extra under its name.
    """

    def __init__(
        self,
        X: Any,
        y: np.ndarray | None = None,
        *,
        rows: np.ndarray | None = None,
        dtype: torch.dtype | None = None,
        **extras: Any,
    ) -> None:
        if isinstance(X, dict):
            extras = {name: value for name, value in X.items() if name != "X"} | extras
            X = X["X"]
        self.data = X
        self.target = y
        self.rows = rows
        self.dtype = dtype
        self.extras = {name: _as_tensor(value) for name, value in extras.items()}
        self._target = _as_tensor(np.zeros(X.shape[0], dtype=np.int64) if y is None else y)

    def __len__(self) -> int:
        return self.data.shape[0] if self.rows is None else len(self.rows)

    @property
    def X(self) -> Any:  # noqa: N802
        """The data of the rows of this set, under the name by which skorch's callbacks ask."""
        return self.data if self.rows is None else self.data[self.rows]

    @property
    def y(self) -> np.ndarray | None:
        """The encoded observed labels of the rows of this set."""
        return self.target if self.target is None or self.rows is None else self.target[self.rows]

    def take(self, index: np.ndarray | slice) -> Batch:
        """Return the rows at positions `index` of this set as one batch."""
        if self.rows is not None:
            index = self.rows[index]
        elif isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        data = self._dense(index)
        at = _as_tensor(index)
        if not self.extras:
            return data, self._target[at]
        return {"X": data, **{k: v[at] for k, v in self.extras.items()}}, self._target[at]

    def __getitem__(self, i: int) -> Batch:
        """Return one row, as ``torch.utils.data.DataLoader`` asks for it."""
        X, y = self.take(np.array([i]))
        if isinstance(X, dict):
            return {name: value[0] for name, value in X.items()}, y[0]
        return X[0], y[0]

    def _dense(self, index: np.ndarray) -> Tensor:
        if sparse.issparse(self.data):
            rows = self.data[index].toarray()
        elif isinstance(self.data, Tensor):
            return self.data[_as_tensor(index)].to(self.dtype)
        else:
            rows = np.take(self.data, index, axis=0)
        return torch.from_numpy(rows).to(self.dtype)


def _as_tensor(values: Any) -> Tensor:
    """Return a tensor that shares the memory of an array, unless that is read-only."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


class ArrayBatches:
    """Iterate over the batches of an `ArrayDataset` without a call per row.

    Takes the place of ``torch.utils.data.DataLoader`` in skorch's ``iterator_train`` and
    ``iterator_valid``.

    Parameters
    ----------
    dataset : ArrayDataset
    batch_size : int, default=256
    shuffle : bool, default=False
        Whether each pass goes through the rows in a new random order. A data set of one
        batch is not reordered, its gradient does not depend on the order.
    generator : torch.Generator, default=None
        Source of the order; None means torch's default generator.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int = 256,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        check_scalar(batch_size, "batch_size", Integral, min_val=1)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.generator = generator

    def _bounds(self) -> list[int]:
        n = len(self.dataset)
        bounds = [*range(0, n, self.batch_size), n]
        # Batch normalisation cannot train on a single row: it joins the batch before it.
        if self.shuffle and len(bounds) > 2 and n - bounds[-2] == 1 < self.batch_size:
            del bounds[-2]
        return bounds

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    def __iter__(self) -> Iterator[Batch]:
        bounds = self._bounds()
        if self.shuffle and len(bounds) > 2:
            order = torch.randperm(len(self.dataset), generator=self.generator).numpy()
            for start, stop in pairwise(bounds):
                yield self.dataset.take(order[start:stop])
        else:
            for start, stop in pairwise(bounds):
                yield self.dataset.take(slice(start, stop))


def make_batches(
    name: str, iterator: Callable[..., Any], dataset: Dataset, params: Mapping[str, Any]
) -> Any:
    """Return the batches of a data set, from the class of iterators that parameter `name` holds.

    Raises
    ------
    ValueError or TypeError
        If it takes other parameters, or gives no batches.
    """
    with refused_as(name, "be a class of iterators over batches, as torch's DataLoader"):
        batches = iterator(dataset, **params)
        if not isinstance(batches, Iterable):
            raise TypeError(f"it made {type(batches).__name__}.")
        if isinstance(batches, Sized) and len(batches) == 0:
            raise ValueError(f"it made no batch of {len(dataset)} rows.")  # type: ignore[arg-type]
    return batches
