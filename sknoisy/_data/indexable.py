"""Data sets indexed as scikit-learn indexes arrays: by row numbers, and nothing is copied."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

#: Libraries whose arrays lie in files, of which parts are read.
_OF_FILES = ("h5py", "zarr")

#: Keys of the label in items that are dictionaries.
_LABEL_KEYS = ("label", "labels")
_ITEMS_TO_COMPARE = 8


class IndexableDataset:
    """A map-style data set, or arrays, whose rows scikit-learn can split and select.

    What scikit-learn does with the rows of an array it does with these: splits, folds and subsets
    are lists of row numbers, and an item is fetched when a batch needs it, as often as there are
    epochs. Passes that only evaluate, such as those over held-out rows, predictions and inspection,
    fetch from a second view of the same rows, which has no augmentation.

    Parameters
    ----------
    dataset : map-style data set, array, dict of arrays, or tuple of arrays
        Anything with ``len`` and items by number, such as a ``torch.utils.data.Dataset``. An item
        is ``x``, ``(x, label)``, or a dict, whose label is under "label" or "labels". Arrays are of
        numpy, in a file mapped to memory, of h5py or zarr, or tensors, all with a row for each
        sample.
    evaluation : map-style data set, default=None
        The same rows in the same order, without augmentation. None takes `dataset`.
    eval_transform : callable, default=None
        Instead of `evaluation`: what takes the place of the attribute ``transform`` of `dataset` in
        a shallow copy of it, as those of torchvision have one. Of a data set of Hugging Face it is
        given to ``with_transform``.
    label : str, default=None
        Key of the label in items that are dictionaries.

    Attributes
    ----------
    indices : ndarray of int of shape (n_rows,) or None
        The rows of `dataset` that belong to it, in this order; None means all.

    Examples
    --------
    >>> import torch
    >>> from sklearn.model_selection import train_test_split
    >>> from torch.utils.data import TensorDataset
    >>> from sknoisy import IndexableDataset
    >>> rows = IndexableDataset(TensorDataset(torch.rand(10, 3), torch.arange(10) % 2))
    >>> train, test = train_test_split(rows, random_state=0)
    >>> len(train), test.indices.tolist()
    (7, [2, 8, 4])
    >>> test.targets.tolist()
    [0, 0, 0]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        evaluation: Any = None,
        eval_transform: Callable[..., Any] | None = None,
        label: str | None = None,
    ) -> None:
        refuse_iterable(dataset)
        self.label = label
        self.dataset = named_parts(dataset, self._label_keys)
        self.indices: np.ndarray | None = None
        self.n_items = _length(self.dataset)
        if evaluation is not None and eval_transform is not None:
            raise ValueError("Only one of `evaluation` and `eval_transform` can be given.")
        if eval_transform is not None:
            evaluation = _with_transform(dataset, eval_transform)
        self.evaluation = self.dataset
        if evaluation is not None:
            self.evaluation = named_parts(evaluation, self._label_keys)
        if _length(self.evaluation) != self.n_items:
            raise ValueError(
                "`evaluation` must hold the same rows as `dataset`; got "
                f"{_length(self.evaluation)} and {self.n_items} rows."
            )
        self._labels: dict[int, Any] = {}

    # What scikit-learn asks of data

    def __len__(self) -> int:
        return self.n_items if self.indices is None else len(self.indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and of features where they are those of one array."""
        more = tuple(self.dataset.shape[1:]) if hasattr(self.dataset, "dtype") else ()
        return (len(self), *more)

    def __getitem__(self, index: Any) -> Any:
        """Return the item of one row, or the data set of several: a slice, numbers or a mask."""
        if isinstance(index, tuple) and len(index) == 2 and index[1] is Ellipsis:
            index = index[0]
        if isinstance(index, Integral):
            number = int(index)
            if not -len(self) <= number < len(self):
                raise IndexError(f"row {number} of a data set of {len(self)} rows")
            return self.items([number % len(self)], training=True)[0]
        part = copy.copy(self)
        part.indices = np.asarray(self.rows(index))
        return part

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        arrays = self.arrays()
        if arrays is None or isinstance(arrays, Mapping | tuple):
            raise TypeError(
                "a data set is no array: its items are fetched a batch at a time, by estimators "
                "that take data sets. To have all of them in memory, stack its items."
            )
        return np.asarray(take_rows(arrays, self.rows()), dtype=dtype)

    def __repr__(self) -> str:
        kind = type(self.dataset).__name__
        return f"{type(self).__name__}({len(self)} of {self.n_items} rows of {kind})"

    # Rows and items

    @property
    def _label_keys(self) -> tuple[str, ...]:
        return (self.label,) if self.label else _LABEL_KEYS

    def arrays(self, *, training: bool = False) -> Any:
        """Return the arrays of all inputs, in the form in which modules get them, or None."""
        source = self.dataset if training else self.evaluation
        if array_parts(source) is None:
            return None
        return split_item(source, self.label)[0] if isinstance(source, Mapping) else source

    def rows(self, index: Any = slice(None)) -> np.ndarray:
        """Return the numbers in `dataset` of rows of this set."""
        if isinstance(index, slice):
            all_of_them = np.arange(*index.indices(self.n_items))
            return all_of_them if self.indices is None else self.indices[index]
        index = np.asarray(index, dtype=None if len(index) else np.intp)
        inside = index.dtype.kind in "iu" and np.all((index >= 0) & (index < self.n_items))
        if self.indices is None and inside:  # without all numbers at once
            return index.astype(np.intp)
        return (np.arange(self.n_items) if self.indices is None else self.indices)[index]

    @property
    def holds_arrays(self) -> bool:
        """Whether the rows are those of arrays, of which many are read at once."""
        return array_parts(self.dataset) is not None

    def items(self, index: Sequence[int] | np.ndarray, *, training: bool = False) -> list[Any]:
        """Return the items of some rows, from the view to train on or from that to evaluate.

        Raises
        ------
        ValueError
            If an item cannot be fetched, with its number in `dataset`.
        """
        source = self.dataset if training else self.evaluation
        rows = self.rows(np.asarray(index, dtype=np.intp)).tolist()
        if array_parts(source) is not None:
            return [_row_of(source, row) for row in rows]
        if callable(getattr(source, "__getitems__", None)):
            try:
                return list(source.__getitems__(rows))
            except Exception as error:
                for row in rows:  # which says which one, if it fails alone
                    _fetched(source, row)
                raise ValueError(_of_item(f"one of {len(rows)} items", error)) from error
        return [_fetched(source, row) for row in rows]

    def inputs(self, index: Sequence[int] | np.ndarray) -> list[Any]:
        """Return what the items of some rows have besides their labels, without augmentation."""
        return [split_item(item, self.label)[0] for item in self.items(index)]

    @property
    def targets(self) -> np.ndarray:
        """The labels that the items hold, shape (n_rows,).

        An attribute ``targets`` of the data set, if it holds the labels of the items, saves
        reading all of them.

        Raises
        ------
        ValueError
            If the items hold no labels.
        """
        rows = self.rows()
        known = _stored_labels(self.evaluation, self.label)
        if known is not None and len(rows):
            some = np.linspace(0, len(rows) - 1, min(len(rows), _ITEMS_TO_COMPARE)).astype(int)
            held = [_label_of(item, self.label) for item in self.items(some)]
            if np.array_equal(np.asarray(known)[rows[some]], np.asarray(held)):
                return np.asarray(known)[rows]
        for position, row in enumerate(rows.tolist()):
            if row not in self._labels:
                self._labels[row] = _label_of(self.items([position])[0], self.label)
        return np.asarray([self._labels[row] for row in rows.tolist()])

    def check_length(self) -> None:
        """Refuse a data set that has other rows than when it was wrapped."""
        for source in (self.dataset, self.evaluation):
            if _length(source) != self.n_items:
                raise ValueError(
                    f"`X` must keep its length: the data set had {self.n_items} items, and has "
                    f"{_length(source)} now."
                )


def as_indexable(X: Any, y: Any = None, *, several: bool = False, mapped: bool = False) -> Any:
    """Return data sets, dictionaries and tuples of arrays, and arrays of files as indexable ones.

    Anything else, arrays above all, comes back as it is.

    Parameters
    ----------
    X : object
    y : array-like, default=None
        Labels. A tuple of arrays is several inputs if each of them, and not the tuple, has a row
        for each label; otherwise it is an array of its rows.
    several : bool, default=False
        Whether a tuple of arrays is several inputs in any case.
    mapped : bool, default=False
        Whether files that are mapped to memory are indexable ones as well, so that folds of them
        are row numbers.
    """
    if isinstance(X, IndexableDataset):
        return X
    refuse_iterable(X)
    if hasattr(X, "requires_grad"):  # a tensor
        return X.detach() if X.device.type == "cpu" else IndexableDataset(X)
    by_name = isinstance(X, Mapping) and not hasattr(X, "nnz")  # DOK, of scipy, is a dict as well
    in_file = is_stored_array(X) or (mapped and isinstance(X, np.memmap))
    if _is_dataset(X) or by_name or in_file:
        return IndexableDataset(X)
    if isinstance(X, tuple) and X and array_parts(X) is not None:
        n_labels = len(y) if hasattr(y, "__len__") else None
        if several or {part.shape[0] for part in X} == {n_labels} != {len(X)}:
            return IndexableDataset(X)
    if isinstance(X, list) and X and isinstance(X[0], tuple | Mapping) and _holds_tensors(X[0]):
        raise TypeError(
            "`X` must be a data set and not a list of its items, in which augmentation would be "
            "frozen: wrap it as sknoisy.IndexableDataset(dataset), which scikit-learn can split."
        )
    return X


def refuse_iterable(X: Any) -> None:
    """Refuse data sets without items by number."""
    torch_data = sys.modules.get("torch.utils.data")
    iterable = torch_data is not None and isinstance(X, torch_data.IterableDataset)
    if iterable or type(X).__name__ == "IterableDataset":
        raise TypeError(
            "`X` must be a map-style data set, with a length and items by number; got an iterable "
            "one. Pass its rows to partial_fit, some thousands at a time."
        )


def split_item(item: Any, label: str | None = None) -> tuple[Any, list[Any]]:
    """Return the inputs of an item or of a batch, and a list of its label, empty without one."""
    if isinstance(item, Mapping):
        keys = [key for key in ((label,) if label else _LABEL_KEYS) if key in item]
        rest = {key: value for key, value in item.items() if key not in keys[:1]}
        return rest, [item[key] for key in keys[:1]]
    if isinstance(item, tuple):
        if len(item) not in (1, 2):
            raise ValueError(
                f"`X` must have items x, (x, label) or a dict; got {len(item)} parts. Several "
                "inputs go together: ((x1, x2), label)."
            )
        return item[0], list(item[1:])
    return item, []


def _is_dataset(X: Any) -> bool:
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is not None and isinstance(X, torch_data.Dataset):
        return True
    has_items = hasattr(X, "__len__") and hasattr(X, "__getitem__") and not hasattr(X, "dtype")
    of_skorch = isinstance(X, Sequence) and hasattr(X, "dataset") and hasattr(X, "indices")
    return has_items and (of_skorch or hasattr(X, "__getitems__"))


def _holds_tensors(item: Any) -> bool:
    values = item.values() if isinstance(item, Mapping) else item
    return any(hasattr(value, "shape") and np.ndim(value) for value in values)


def _length(dataset: Any) -> int:
    parts = array_parts(dataset)
    if parts is not None:
        lengths = {name: part.shape[0] for name, part in parts.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"`X` must have inputs with the same number of rows; got {lengths}.")
        return next(iter(lengths.values()))
    try:
        return len(dataset)
    except TypeError as error:
        raise TypeError(
            f"`X` must be a map-style data set, with a length and items by number; {error}."
        ) from error


def _row_of(source: Any, row: int) -> Any:
    inputs = map_parts(source, lambda part: take_rows(part, np.array([row]))[0])
    return inputs if isinstance(source, Mapping) else (inputs,)


def _fetched(source: Any, row: int) -> Any:
    try:
        return source[row]
    except Exception as error:
        raise ValueError(_of_item(f"item {row}", error)) from error


def _of_item(which: str, error: Exception) -> str:
    return f"`X` must give every item: {which} raised {type(error).__name__}: {error}"


def _label_of(item: Any, label: str | None) -> Any:
    _, found = split_item(item, label)
    if not found:
        raise ValueError(
            "The items of the data set hold no labels: they must be (x, label), or dictionaries "
            f"with the key {label or 'label'!r}; got {type(item).__name__}. Pass `y` instead."
        )
    value = found[0]
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


def _stored_labels(dataset: Any, label: str | None) -> Any:
    """Return the labels of all items where a data set keeps them, or None."""
    if isinstance(dataset, Mapping):
        held = split_item(dataset, label)[1]
        return np.asarray(held[0]) if held else None
    if array_parts(dataset) is not None:
        return None
    if hasattr(dataset, "features") and hasattr(dataset, "column_names"):  # Hugging Face
        keys = [key for key in ((label,) if label else _LABEL_KEYS) if key in dataset.column_names]
        return np.asarray(dataset.with_format(None)[keys[0]][:]) if keys else None
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # a Subset
        known = _stored_labels(dataset.dataset, label)
        return None if known is None else np.asarray(known)[np.asarray(dataset.indices)]
    if hasattr(dataset, "tensors"):
        return np.asarray(dataset.tensors[1]) if len(dataset.tensors) == 2 else None
    known = getattr(dataset, "targets", None)
    try:
        return known if known is not None and len(known) == len(dataset) else None
    except TypeError:
        return None


def _with_transform(dataset: Any, transform: Callable[..., Any]) -> Any:
    """Return a shallow copy of a data set with another transform."""
    if hasattr(dataset, "with_transform"):
        return dataset.with_transform(transform)
    view = copy.copy(dataset)
    if hasattr(dataset, "transform"):
        view.transform = transform
        if hasattr(getattr(dataset, "transforms", None), "transform"):  # both, in torchvision
            view.transforms = copy.copy(dataset.transforms)
            view.transforms.transform = transform
    elif hasattr(dataset, "dataset"):  # a Subset
        view.dataset = _with_transform(dataset.dataset, transform)
    else:
        raise ValueError(
            "`eval_transform` needs a data set with an attribute `transform`; "
            f"{type(dataset).__name__} has none. Pass a second data set as `evaluation`."
        )
    return view


# Arrays with a row for each sample, in memory or in files


def is_stored_array(X: Any) -> bool:
    """Whether X is an array in a file, of which parts are read by slices."""
    return type(X).__module__.split(".")[0] in _OF_FILES and hasattr(X, "dtype")


def array_parts(X: Any) -> dict[Any, Any] | None:
    """Return the arrays of X by name or number, or None if it has others than arrays."""
    if isinstance(X, Mapping):
        parts = dict(X)
    elif isinstance(X, tuple):
        parts = dict(enumerate(X))
    else:
        parts = {"": X}
    return parts if parts and all(map(_is_array, parts.values())) else None


def map_parts(X: Any, function: Callable[[Any], Any]) -> Any:
    """Return what a function makes of each array, in the same form: one, a dict or a tuple."""
    if isinstance(X, Mapping):
        return {name: function(part) for name, part in X.items()}
    if isinstance(X, tuple):
        return tuple(function(part) for part in X)
    return function(X)


def named_parts(X: Any, labels: Collection[str] = ()) -> Any:
    """Return dictionaries with lists and columns as arrays, and others as they are.

    Parameters
    ----------
    X : object
    labels : collection of str, default=()
        Names of labels, which need not be numbers.

    Raises
    ------
    ValueError
        If a list does not hold rows of the same length.
    """
    if not isinstance(X, Mapping) or not X:
        return X
    parts: dict[str, Any] = {}
    for name in X:
        value = X[name]
        if not isinstance(name, str):
            raise TypeError(f"`X` must have names of inputs that are strings; got {name!r}.")
        try:
            parts[name] = value if _is_array(value) else np.asarray(value)
        except ValueError as error:
            raise ValueError(
                f"`X` must hold arrays; {name!r} has rows of several lengths ({error}). Pass a "
                "data set, and a `collate_fn` that pads them."
            ) from error
        kind = "f" if name in labels else getattr(parts[name].dtype, "kind", "f")
        if parts[name].ndim == 0 or kind not in "biufc":
            raise TypeError(
                f"`X` must hold arrays of numbers with a row for each sample; {name!r} is "
                f"{type(value).__name__} of {parts[name].dtype}."
            )
    return parts


def take_rows(part: Any, rows: np.ndarray) -> Any:
    """Return rows of an array, wherever it lies; arrays of files come as those of numpy."""
    if hasattr(part, "detach"):  # a tensor, perhaps on a device
        part = part.detach()
        return part[sys.modules["torch"].as_tensor(rows, device=part.device)]
    if not is_stored_array(part):
        return np.asarray(part[rows])
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return np.asarray(part[int(rows[0]) : int(rows[-1]) + 1])
    ascending, position = np.unique(rows, return_inverse=True)
    found = part.oindex[ascending] if hasattr(part, "oindex") else part[ascending]
    return np.asarray(found)[position]


def _is_array(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    return (
        isinstance(shape, tuple)
        and len(shape) >= 1
        and hasattr(value, "dtype")
        and hasattr(value, "__getitem__")
        and not hasattr(value, "iloc")
        and not hasattr(value, "nnz")
    )
