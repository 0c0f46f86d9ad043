"""Rows of data sets, fetched one by one in the processes of a loader when a batch needs them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from sknoisy._data.batches import Batch, RowDataset, with_float_type
from sknoisy._data.indexable import IndexableDataset, split_item

_MOST_BYTES_TO_KEEP = 2**26

Collate = Callable[[list[Any]], Any]


class FetchedDataset(RowDataset):
    """Rows of a map-style data set, fetched as often as they are asked for.

    Parameters
    ----------
    X : IndexableDataset
    y, rows, dtype, answers, **extras
        As for `RowDataset`.
    collate_fn : callable, default=None
        Makes a batch of a list of items, as that of ``torch.utils.data.DataLoader``, which is the
        default. A batch is x, (x, labels) or a dict, as items are.
    """

    def __init__(
        self,
        X: IndexableDataset,
        y: np.ndarray | None = None,
        *,
        collate_fn: Collate | None = None,
        **more: Any,
    ) -> None:
        super().__init__(X, y, **more)
        self.collate_fn = collate_fn or default_collate
        self.training = False
        self._bytes_per_row: int | None = None
        self._kept: list[Batch] | None = None

    @property
    def bytes_per_row(self) -> int:
        """Size of the first row as a batch holds it."""
        if self._bytes_per_row is None:
            first = np.arange(len(self)) if self.held is None else self.held
            batch = self.take(first[:1])[0]["X"] if len(first) else None
            sizes = [part.numel() * part.itemsize for part in _tensors_in(batch)]
            self._bytes_per_row = max(1, sum(sizes))
        return self._bytes_per_row

    def subset(self, positions: np.ndarray) -> Self:
        """Return the rows at some positions of this set as a set of their own."""
        part = super().subset(positions)
        part._kept = None
        return part

    def for_training(self) -> FetchedDataset:
        """Return the same rows as they are to be trained on, with their augmentation."""
        view = copy.copy(self)
        view.training = True
        return view

    def take(self, index: np.ndarray | Tensor | slice) -> Batch:
        """Return the rows at positions `index` of this set as one batch, fetched here."""
        positions = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        return self._loaded(*_Together(self)(_Items(self).__getitems__(positions.tolist())))

    def __getitem__(self, i: int) -> Batch:
        """Return one row, for loaders that collate on their own."""
        ((position, item),) = _Items(self).__getitems__([i])
        data = _with_float_types(split_item(item, self.data.label)[0], self.dtype)
        return self._row(data, self._numbers(np.array([position])))

    def loaded_by(self, iterator: Callable[..., Any], params: dict[str, Any]) -> Any:
        """Return the iterator that a class of them makes over the batches of this set.

        A loader fetches and collates the items, in other processes if it is told to. Labels and
        what else belongs to a row are added here, since they may change from epoch to epoch.
        """
        if "collate_fn" not in inspect.signature(iterator).parameters:
            return iterator(self, **params)
        together = _Together(self, params.get("collate_fn"))
        loader = iterator(_Items(self), **(params | {"collate_fn": together}))
        keeps = not self.training and len(self) * self.bytes_per_row <= _MOST_BYTES_TO_KEEP
        return FetchedBatches(self, loader, keeps=keeps)

    def _loaded(self, positions: Tensor, batch: Any) -> Batch:
        """Add labels to what a loader gives."""
        if isinstance(batch, list) and len(batch) <= 2:  # of tuples, by torch's own collate_fn
            batch = tuple(batch)
        data = split_item(batch, self.data.label)[0]
        return self._batch(_with_float_types(data, self.dtype), self._at(positions))


class FetchedBatches:
    """Batches of a loader, with the labels of their rows.

    Parameters
    ----------
    dataset : FetchedDataset
    loader : iterable of (positions, batch)
    keeps : bool, default=False
        Whether the batches of the first pass are kept for the next ones.
    """

    def __init__(self, dataset: FetchedDataset, loader: Any, *, keeps: bool = False) -> None:
        self.dataset = dataset
        self.loader = loader
        self.keeps = keeps

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        kept = self.dataset._kept
        if self.keeps and kept is not None:
            for positions, batch in kept:
                yield self.dataset._loaded(positions, _copied(batch))
            return
        self.dataset.data.check_length()
        found: list[Any] = []
        try:
            for positions, batch in self.loader:
                if self.keeps:
                    found.append((positions, _copied(batch)))
                yield self.dataset._loaded(positions, batch)
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            # Without the traceback nothing holds on to the loader, which would tell again.
            raise RuntimeError(
                "A process that fetches the items of `X` has died, perhaps for want of memory or "
                "of shared memory. Fetch fewer at a time, or with iterator_train__num_workers=0 "
                "and iterator_valid__num_workers=0, which shows where an item fails: "
                f"{error}"
            ) from error.with_traceback(None)
        if self.keeps:
            self.dataset._kept = found


class _Items(Dataset):
    """Positions and items of a data set, which is all that goes to other processes."""

    def __init__(self, dataset: FetchedDataset) -> None:
        self.data: IndexableDataset = dataset.data
        self.rows = None if dataset.rows is None else dataset._in_data(dataset.rows)
        self.training = dataset.training
        self.n_rows = len(dataset)

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, i: int) -> Any:
        return self.__getitems__([i])[0]

    def __getitems__(self, positions: list[int]) -> list[tuple[int, Any]]:
        rows = positions if self.rows is None else self.rows[positions]
        items = self.data.items(rows, training=self.training)
        return list(zip(positions, items, strict=True))


class _Together:
    """Make a batch of positions and items."""

    def __init__(self, dataset: FetchedDataset, collate_fn: Collate | None = None) -> None:
        self.collate_fn = collate_fn or dataset.collate_fn
        self.data: IndexableDataset = dataset.data
        self.rows = None if dataset.rows is None else dataset._in_data(dataset.rows)

    def __call__(self, pairs: list[tuple[int, Any]]) -> tuple[Tensor, Any]:
        positions = torch.tensor([position for position, _ in pairs])
        items = [item for _, item in pairs]
        try:
            batch = self.collate_fn(items)
        except Exception as error:
            numbers = positions.numpy() if self.rows is None else self.rows[positions.numpy()]
            numbers = self.data.rows(numbers).tolist()
            raise ValueError(
                "`X` must have items that go into one batch, which a `collate_fn` may pad; "
                f"{_difference(items, numbers, self.data.label)} ({error})."
            ) from error
        n_rows = _length_of(batch[0] if isinstance(batch, list | tuple) else batch)
        if n_rows not in (None, len(items)):
            raise ValueError(
                f"`collate_fn` must make a batch with a row for each item; it made {n_rows} rows "
                f"of {len(items)} items."
            )
        return positions, batch


def _difference(items: list[Any], numbers: list[int], label: str | None) -> str:
    """Say which of some items is of another form than the first."""
    forms = [_form(split_item(item, label)[0]) for item in items]
    for number, form in zip(numbers, forms, strict=True):
        if form != forms[0]:
            return f"item {numbers[0]} is {forms[0]} and item {number} is {form}"
    return f"items are {forms[0]}, as item {numbers[0]}"


def _form(data: Any) -> str:
    if isinstance(data, Mapping):
        return str({name: _form(value) for name, value in data.items()})
    if isinstance(data, tuple | list) and len(data) <= 4:
        return f"({', '.join(map(_form, data))})"
    if hasattr(data, "shape"):
        return f"of shape {tuple(data.shape)}"
    return (
        f"{type(data).__name__} of length {len(data)}" if hasattr(data, "__len__") else repr(data)
    )


def _length_of(batch: Any) -> int | None:
    parts = _tensors_in(batch)
    return len(parts[0]) if len(parts) and parts[0].ndim else None


def _tensors_in(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        return [part for value in batch.values() for part in _tensors_in(value)]
    if type(batch) in (list, tuple):
        return [part for value in batch for part in _tensors_in(value)]
    return []


def map_tensors(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return what a function makes of all tensors of a batch, in dicts, lists and tuples."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {name: map_tensors(value, function) for name, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(map_tensors(value, function) for value in batch)
    return batch


def _copied(batch: Any) -> Any:
    return map_tensors(batch, torch.clone)


def _with_float_types(data: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(data, np.ndarray):
        data = torch.as_tensor(data)
    if type(data) is list:
        data = tuple(data)
    return map_tensors(data, lambda tensor: with_float_type(tensor, dtype))
