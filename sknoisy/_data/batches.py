"""Batches taken straight from arrays in memory, or in a file mapped to memory."""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import pairwise
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_scalar
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sknoisy._crowd.answers import Answers
from sknoisy._data.indexable import IndexableDataset, array_parts, map_parts, take_rows
from sknoisy._data.sparse_rows import SparseRows
from sknoisy._support.validation import parameter_error

Batch = tuple[Any, Tensor]

_BYTES_AT_ONCE = 2**20


class RowDataset(Dataset, ABC):
    """Rows of data, their observed labels, and what else belongs to a row.

    Parameters
    ----------
    X : ndarray, CSR array, Tensor or IndexableDataset of shape (n, ...)
        The data. It is never copied as a whole.
    y : ndarray of shape (n,), default=None
        Encoded observed labels; None gives zeros.
    rows : ndarray of int, default=None
        The rows of X that belong to the data set, in this order; None means all.
    dtype : torch.dtype, default=None
        Floating point type of the batches of X; None keeps that of X.
    answers : Answers, default=None
        Several observed labels of each row. Batches have their codes under "answers".
    first : int, default=None
        Where X holds some of the rows only, the number of its first one; `rows` must then be given,
        and rows that X does not hold cannot be taken.
    **extras : ndarray or Tensor of shape (n, ...)
        More values of each row. With any of them, or with answers, a batch of X is a dict that
        holds the data under "X" and each extra under its name.
    """

    def __init__(
        self,
        X: Any,
        y: np.ndarray | None = None,
        *,
        rows: np.ndarray | None = None,
        dtype: torch.dtype | None = None,
        answers: Answers | None = None,
        first: int | None = None,
        **extras: Any,
    ) -> None:
        self.data = X
        self.first = first
        self.target = y
        self.rows = rows
        self.dtype = dtype
        self.answers = answers
        self.extras = {name: _as_tensor(value) for name, value in extras.items()}
        self._target = _as_tensor(np.zeros(X.shape[0], dtype=np.int64) if y is None else y)
        self._rows = None if rows is None else _as_tensor(rows)

    def __len__(self) -> int:
        return self.data.shape[0] if self.rows is None else len(self.rows)

    @property
    def X(self) -> Any:  # noqa: N802
        """The data of the rows of this set, under the name by which skorch's callbacks ask."""
        return self.data if self.rows is None else self.data[self._in_data(self.rows)]

    @property
    def y(self) -> np.ndarray | None:
        """The encoded observed labels of the rows of this set."""
        return self.target if self.target is None or self.rows is None else self.target[self.rows]

    @property
    def weight(self) -> Tensor | None:
        """The sample weights of the rows of this set, or None."""
        weight = self.extras.get("sample_weight")
        return weight if weight is None or self._rows is None else weight[self._rows]

    @property
    def held(self) -> np.ndarray | None:
        """Positions of the rows that X holds, ascending; None is all."""
        if self.first is None or self.rows is None:
            return None
        in_data = self.rows - self.first
        return np.flatnonzero((in_data >= 0) & (in_data < self.data.shape[0]))

    def subset(self, positions: np.ndarray) -> Self:
        """Return the rows at some positions of this set as a set of their own."""
        part = copy.copy(self)
        part.rows = positions if self.rows is None else self.rows[positions]
        part._rows = _as_tensor(part.rows)
        return part

    @property
    @abstractmethod
    def bytes_per_row(self) -> int:
        """Size of a row of the data as a batch holds it."""

    def for_training(self) -> RowDataset:
        """Return the same rows as they are to be trained on, with their augmentation."""
        return self

    @abstractmethod
    def take(self, index: np.ndarray | Tensor | slice) -> Batch:
        """Return copies of the rows at positions `index` of this set as one batch."""

    def loaded_by(self, iterator: Callable[..., Any], params: dict[str, Any]) -> Any:
        """Return the iterator that a class of them makes over the batches of this set."""
        return iterator(self, **params)

    def _batch(self, data: Any, at: Tensor | slice) -> Batch:
        """Put data, labels and extras of positions in the arrays together."""
        target = _copied(self._target, at)
        if not self._has_more:
            return data, target
        more = {k: _copied(v, at) for k, v in self.extras.items()}
        if self.answers is not None:
            more["answers"] = self._codes(at)
        return {"X": data, **more}, target

    def _row(self, data: Any, at: Tensor) -> Batch:
        """Put data, label and extras of one row together, as loaders collate them."""
        y = self._target[at][0]
        if not self._has_more:
            return data, y
        more = {name: value[at][0] for name, value in self.extras.items()}
        if self.answers is not None:  # all of a length, to be collated
            more["answers"] = self._codes(at, int(self.answers.counts.max()))[0]
        return {"X": data, **more}, y

    @property
    def _has_more(self) -> bool:
        """Whether a batch is a dict: with extras, or where the data are no array."""
        several = isinstance(self.data, IndexableDataset)
        return several or bool(self.extras) or self.answers is not None

    def _codes(self, at: Tensor | slice, width: int | None = None) -> Tensor:
        assert self.answers is not None
        rows = at if isinstance(at, slice) else at.numpy()
        return torch.from_numpy(self.answers.padded(rows, width))

    def _at(self, index: np.ndarray | Tensor | slice) -> Tensor | slice:
        """Return the positions in the arrays of positions in this set."""
        if isinstance(index, slice):
            return index if self._rows is None else self._rows[index]
        return self._numbers(index)

    def _numbers(self, index: np.ndarray | Tensor) -> Tensor:
        at = _as_tensor(index)
        return at if self._rows is None else self._rows.index_select(0, at)

    def _in_data(self, at: Any) -> Any:
        """Return where rows of these numbers stand in X."""
        return at if self.first is None else at - self.first


class ArrayDataset(RowDataset):
    """Rows of arrays.

    Parameters
    ----------
    X : ndarray or Tensor of shape (n, ...), CSR array of shape (n, n_features), \
            IndexableDataset of arrays, or dict with key "X"
        The data. It is never copied as a whole.
    y, rows, **more
        As for `RowDataset`.
    dtype : torch.dtype, default=None
        Type of the batches of X; None keeps that of X. Of several inputs it is the floating point
        type, and other numbers stay what they are.
    keep_integers : bool, default=False
        Whether whole numbers of a single array are batches of int64, and not of `dtype`.
    keep_sparse : bool, default=False
        Whether batches of CSR are `SparseRows`; otherwise they are made dense, one at a time.
    """

    def __init__(
        self,
        X: Any,
        y: np.ndarray | None = None,
        *,
        rows: np.ndarray | None = None,
        dtype: torch.dtype | None = None,
        keep_integers: bool = False,
        keep_sparse: bool = False,
        **more: Any,
    ) -> None:
        if isinstance(X, dict):
            more = {name: value for name, value in X.items() if name != "X"} | more
            X = X["X"]
        super().__init__(X, y, rows=rows, dtype=dtype, **more)
        self._type = torch.int64 if keep_integers else dtype
        self.keep_sparse = keep_sparse and sparse.issparse(X)
        self._tensor = X if isinstance(X, Tensor) else None
        if isinstance(X, np.ndarray) and X.flags.writeable and min(X.strides) >= 0:
            self._tensor = torch.from_numpy(X)

    @property
    def bytes_per_row(self) -> int:
        """Size of a row of the data as a batch holds it."""
        if isinstance(self.data, IndexableDataset):
            parts = array_parts(self.data.arrays()) or {}
            return sum(math.prod(p.shape[1:]) * p.dtype.itemsize for p in parts.values()) or 1
        itemsize = self.data.dtype.itemsize if self.dtype is None else self.dtype.itemsize
        n_values = math.prod(self.data.shape[1:])
        if self.keep_sparse:  # a value, its column, and what is computed of them
            n_values = 4 * self.data.nnz // max(1, self.data.shape[0])
        return max(1, n_values * itemsize)

    def take(self, index: np.ndarray | Tensor | slice) -> Batch:
        """Return copies of the rows at positions `index` of this set as one batch."""
        at = self._at(index)
        in_data = self._in_data(at)
        data = self._sparse(in_data) if self.keep_sparse else self._dense(in_data)
        return self._batch(data, at)

    def __getitem__(self, i: int) -> Batch:
        """Return one row, as ``torch.utils.data.DataLoader`` asks for it."""
        at = self._numbers(np.array([i]))
        data = self._dense(self._in_data(at))
        return self._row(map_parts(data, lambda part: part[0]), at)

    def __getitems__(self, index: list[int]) -> list[Batch]:
        """Return several rows, as ``torch.utils.data.DataLoader`` asks for those of a batch."""
        at = self._at(np.asarray(index, dtype=np.intp))
        X, y = self._batch(self._dense(self._in_data(at)), at)
        return list(zip(_unbound(X), y.unbind(), strict=True))

    def _sparse(self, at: Tensor | slice) -> SparseRows:
        rows = self.data[at if isinstance(at, slice) else at.numpy()]
        return SparseRows.of(rows, self.dtype)

    def _dense(self, at: Tensor | slice) -> Any:
        if self._tensor is not None:
            return _copied(self._tensor, at).to(self._type)
        if isinstance(self.data, IndexableDataset):
            numbers = self.data.rows(at if isinstance(at, slice) else at.numpy())
            arrays = self.data.arrays()
            if not isinstance(arrays, Mapping | tuple):
                return _as_tensor(take_rows(arrays, numbers)).to(self._type)
            return map_parts(
                arrays, lambda part: with_float_type(take_rows(part, numbers), self.dtype)
            )
        rows = self.data[at if isinstance(at, slice) else at.numpy()]
        if sparse.issparse(rows):
            rows = rows.toarray()
        elif isinstance(at, slice):  # a read-only array, or a file that is mapped to memory
            rows = np.array(rows, order="C")
        return torch.from_numpy(np.asarray(rows)).to(self._type)


def with_float_type(values: Any, dtype: torch.dtype | None) -> Any:
    """Return numbers as a tensor of their type, floating point ones of a given type."""
    tensor = _as_tensor(values)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _unbound(values: Any) -> list[Any]:
    """Return the rows of a batch, of one tensor or of several by name."""
    if isinstance(values, Tensor):
        return list(values.unbind())
    parts = [_unbound(part) for part in (values.values() if isinstance(values, dict) else values)]
    if isinstance(values, dict):
        return [dict(zip(values, row, strict=True)) for row in zip(*parts, strict=True)]
    return list(zip(*parts, strict=True))


def _copied(values: Tensor, at: Tensor | slice) -> Tensor:
    return (
        values[at].clone(memory_format=torch.contiguous_format)
        if isinstance(at, slice)
        else values.index_select(0, at)
    )


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
    pin_memory : bool, default=False
        Whether batches lie in page-locked memory, from where they are copied to a GPU while it
        computes.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int = 256,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        pin_memory: bool = False,
    ) -> None:
        check_scalar(batch_size, "batch_size", Integral, min_val=1)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.generator = generator
        self.pin_memory = pin_memory

    def _bounds(self) -> list[int]:
        return batch_bounds(len(self.dataset), self.batch_size, training=self.shuffle)

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    def __iter__(self) -> Iterator[Batch]:
        bounds = self._bounds()
        order = None
        if self.shuffle and len(bounds) > 2:
            order = torch.randperm(len(self.dataset), generator=self.generator)
        at_once = self.batches_at_once
        for first in range(0, len(bounds) - 1, at_once):
            edges = bounds[first : first + at_once + 1]
            rows = slice(edges[0], edges[-1])
            X, y = self.dataset.take(rows if order is None else order[rows])
            sizes = [stop - start for start, stop in pairwise(edges)]
            yield from zip(self._split(X, sizes), self._split(y, sizes), strict=True)

    @property
    def batches_at_once(self) -> int:
        """How many are gathered together: a call costs more than the bytes of a small batch."""
        return max(1, _BYTES_AT_ONCE // (self.dataset.bytes_per_row * self.batch_size))

    def _split(self, values: Any, sizes: list[int]) -> Iterable[Any]:
        if isinstance(values, dict):
            parts = zip(*(self._split(value, sizes) for value in values.values()), strict=True)
            return [dict(zip(values, part, strict=True)) for part in parts]
        if isinstance(values, tuple):
            return zip(*(self._split(value, sizes) for value in values), strict=True)
        pinned = self.pin_memory and getattr(values, "is_cpu", True)
        return (values.pin_memory() if pinned else values).split(sizes)


def batch_bounds(n_rows: int, batch_size: int, *, training: bool) -> list[int]:
    """Return where batches begin, and where the last one ends."""
    bounds = [*range(0, n_rows, batch_size), n_rows]
    # Batch normalisation cannot train on a single row: it joins the batch before it.
    if training and len(bounds) > 2 and n_rows - bounds[-2] == 1 < batch_size:
        del bounds[-2]
    return bounds


def ordered_batches(
    iterator: Callable[..., Any], dataset: RowDataset, params: Mapping[str, Any]
) -> Any:
    """Return an iterator over batches in the order of the rows, whichever class makes it.

    Parameters
    ----------
    iterator, dataset, params
        As for `shuffled_batches`.
    """
    iterator, params = _iterator_of(dataset, iterator, params)
    # A loader draws from a generator even so, and must not from torch's.
    loads = iterator is not ArrayBatches and "generator" in inspect.signature(iterator).parameters
    generator = {"generator": torch.Generator()} if loads else {}
    return make_batches("iterator_valid", iterator, dataset, generator | dict(params))


def shuffled_batches(
    iterator: Callable[..., Any],
    dataset: RowDataset,
    params: dict[str, Any],
    generator: torch.Generator,
    device: str | torch.device,
) -> Any:
    """Return an iterator over batches in a random order, whichever class makes it.

    Parameters
    ----------
    iterator : callable
        `ArrayBatches`, ``torch.utils.data.DataLoader`` or another of its kind. A loader takes the
        place of the first where rows are fetched one by one.
    dataset : RowDataset
    params : dict
        What the user has set, which goes before everything else.
    generator : torch.Generator
        Source of the order.
    device : str or torch.device
        Where the batches will be used.
    """
    iterator, params = _iterator_of(dataset, iterator, params)
    accepted = inspect.signature(iterator).parameters
    chosen: dict[str, Any] = {"generator": generator}
    if torch.device(device).type == "cuda":
        chosen["pin_memory"] = True
    if "batch_sampler" in accepted and not isinstance(dataset, ArrayDataset):
        own_order = {"sampler", "batch_sampler", "shuffle", "drop_last"} & params.keys()
        # Seeds of workers come from a generator of their own, so that the order is that of arrays.
        chosen["generator"] = torch.Generator().manual_seed(generator.initial_seed())
        if not own_order:
            params = dict(params)
            size = params.pop("batch_size")
            chosen["batch_sampler"] = ShuffledBatches(len(dataset), size, generator)
    if not {"sampler", "batch_sampler"} & (params.keys() | chosen.keys()):
        chosen["shuffle"] = True
    params = {k: v for k, v in chosen.items() if k in accepted} | params
    return make_batches("iterator_train", iterator, dataset, params)


def _iterator_of(
    dataset: RowDataset, iterator: Callable[..., Any], params: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class of iterators that suits the rows where the user has none of their own."""
    if iterator is not ArrayBatches:
        return iterator, dict(params)
    if not isinstance(dataset, ArrayDataset):
        return DataLoader, dict(params)
    accepted = inspect.signature(ArrayBatches).parameters  # others are for data sets
    return iterator, {name: value for name, value in params.items() if name in accepted}


class ShuffledBatches(Sampler[list[int]]):
    """Row numbers of batches in a new random order in each pass, those of `ArrayBatches`.

    Parameters
    ----------
    n_rows, batch_size : int
    generator : torch.Generator
    """

    def __init__(self, n_rows: int, batch_size: int, generator: torch.Generator) -> None:
        self.bounds = batch_bounds(n_rows, batch_size, training=True)
        self.generator = generator

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.bounds[-1])
        if len(self) > 1:
            order = torch.randperm(len(order), generator=self.generator)
        for start, stop in pairwise(self.bounds):
            yield order[start:stop].tolist()


def make_batches(
    name: str, iterator: Callable[..., Any], dataset: RowDataset, params: Mapping[str, Any]
) -> Any:
    """Return the batches of a data set, from the class of iterators that parameter `name` holds.

    Raises
    ------
    ValueError or TypeError
        If it takes other parameters, or gives no batches.
    """
    with parameter_error(name, "be a class of iterators over batches, as torch's DataLoader"):
        batches = dataset.loaded_by(iterator, dict(params))
        if not isinstance(batches, Iterable):
            raise TypeError(f"it made {type(batches).__name__}.")
        if isinstance(batches, Sized) and len(batches) == 0:
            raise ValueError(f"it made no batch of {len(dataset)} rows.")
    return batches
