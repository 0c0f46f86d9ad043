"""The training data after validation: what was seen of each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches
from torch import Tensor

from sknoisy._crowd.answers import Answers, check_answers, has_answers, is_answered
from sknoisy._data.batches import ArrayDataset, RowDataset
from sknoisy._data.fetched_rows import Collate, FetchedDataset, map_tensors
from sknoisy._data.indexable import IndexableDataset, as_indexable
from sknoisy._data.trusted import (
    UNKNOWN,
    TrustedLabels,
    check_noisy_labels,
    check_trusted,
    without_trusted,
)
from sknoisy._data.validation import asks_for_integers, check_rows, float_type_of
from sknoisy._support import validation
from sknoisy._support.labels import as_label_array
from sknoisy._support.numbers import FloatType

_ROWS_OF_A_PART = 256

NUMPY_TYPES: dict[torch.dtype, FloatType] = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class TrainingData:
    """Validated training data: what was seen of each row.

    Attributes
    ----------
    X : ndarray, CSR array or IndexableDataset of shape (n_samples, ...)
    target : ndarray of shape (n_samples,)
        Encoded labels: the checked one of trusted rows, else the observed one; with several answers
        a row that of the majority.
    weight : ndarray of shape (n_samples,) or None
        Sample weights of mean one.
    classes : ndarray of shape (n_classes,)
        The sorted labels.
    dtype : torch.dtype
        Floating point type of the network.
    keep_sparse : bool, default=False
        Whether the network takes CSR as it is.
    answers : Answers or None, default=None
        All observed labels of each row, where that can be several.
    by_annotator : bool, default=False
        Whether the network has a noise layer of annotators already.
    trusted : TrustedLabels or None, default=None
        Which labels were checked.
    keep_integers : bool, default=False
        Whether the network takes whole numbers as they are.
    collate_fn : callable or None, default=None
        What makes a batch of items of a data set.
    first : int or None, default=None
        Where X holds some of the rows only, those of this process, the number of its first one.
    """

    X: Any
    target: np.ndarray
    weight: np.ndarray | None
    classes: np.ndarray
    dtype: torch.dtype
    keep_sparse: bool = False
    answers: Answers | None = None
    by_annotator: bool = False
    trusted: TrustedLabels | None = None
    keep_integers: bool = False
    collate_fn: Collate | None = None
    first: int | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def label_counts(self) -> np.ndarray:
        """Return how many rows have each observed label, shape (n_classes,)."""
        labels = self.observed[self.rows_observed] if self.answers is None else self.answers.label
        return np.bincount(labels, minlength=self.n_classes)

    @property
    def observed(self) -> np.ndarray:
        """The encoded observed label of each row, -1 where only the checked one is known."""
        return self.target if self.trusted is None else self.trusted.observed

    @property
    def rows_observed(self) -> np.ndarray:
        """Numbers of the rows with an observed label."""
        return np.flatnonzero(self.observed != UNKNOWN)

    @property
    def rows_trusted(self) -> np.ndarray:
        """Numbers of the rows whose label was checked."""
        return np.flatnonzero([] if self.trusted is None else self.trusted.mask)

    @property
    def learns_from_answers(self) -> bool:
        """Whether there is more to learn from the answers than from one label of each row."""
        answers = self.answers
        if answers is None:
            return False
        return self.by_annotator or int(answers.counts.max()) > 1

    def with_ties_drawn(self, rng: np.random.RandomState) -> TrainingData:
        """Return the data with ties between the answers of a row drawn in the target."""
        if self.answers is None or not self.learns_from_answers:
            return self
        target = self.answers.majority(rng)
        if self.trusted is not None:
            target = np.where(self.trusted.mask, self.target, target)
        return replace(self, target=target)

    def dataset(
        self, rows: np.ndarray | None = None, *, as_observed: bool = False, **extras: Any
    ) -> RowDataset:
        """Return the rows as a data set, together with their weights and more values.

        Parameters
        ----------
        rows : ndarray of int, default=None
            None is all rows.
        as_observed : bool, default=False
            Whether rows whose label was checked are left out.
        **extras : Tensor of shape (n_samples, ...)
        """
        if self.weight is not None:
            extras["sample_weight"] = torch.as_tensor(self.weight, dtype=self.dtype)
        if self.first is not None and rows is None:
            rows = np.arange(len(self))
        if as_observed and self.trusted is not None:
            rows = np.arange(len(self)) if rows is None else rows
            rows = rows[~self.trusted.mask[rows]]
        elif self.trusted is not None:
            extras["true_label"] = torch.from_numpy(self.trusted.true_labels(self.target))
            extras["observed_label"] = torch.from_numpy(self.observed)
        return row_dataset(
            self.X,
            self.target,
            rows=rows,
            dtype=self.dtype,
            keep_sparse=self.keep_sparse,
            keep_integers=self.keep_integers,
            collate_fn=self.collate_fn,
            answers=self.answers if self.learns_from_answers else None,
            first=self.first,
            **extras,
        )

    def example(self, rows: np.ndarray | slice = slice(0, 2)) -> Any:
        """Return the data of a few rows of X as a batch that the network takes."""
        if self.first is not None:
            rows = self.first + np.arange(self.X.shape[0])[rows]
        batch, _ = replace(self, weight=None, answers=None, trusted=None).dataset().take(rows)
        data = batch["X"] if isinstance(batch, dict) else batch
        # The network is built on the CPU, wherever the tensors are.
        return map_tensors(data, Tensor.cpu) if isinstance(self.X, IndexableDataset) else data

    def parts(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Any, np.ndarray | None]]:
        """Yield data and weights of the rows of X, those that are fetched some rows at a time.

        Parameters
        ----------
        start : int, default=0
        stop : int, default=None
            The first row, and the one after the last; None is all the rest.
        """
        stop = self.X.shape[0] if stop is None else stop
        first = 0 if self.first is None else self.first
        weight = None if self.weight is None else self.weight[first : first + self.X.shape[0]]
        if not isinstance(self.X, IndexableDataset):
            part = self.X if stop - start == self.X.shape[0] else self.X[start:stop]
            yield part, None if weight is None else weight[start:stop]
            return
        for rows in gen_batches(stop - start, _ROWS_OF_A_PART):
            rows = slice(start + rows.start, start + rows.stop)
            batch = self.example(np.arange(rows.start, rows.stop))
            if not isinstance(batch, Tensor):
                raise ValueError(
                    "`X` must hold one array a row for the default network; it has "
                    f"{_names_of(batch)}. Pass a `module` that takes them."
                )
            yield batch.numpy(), None if weight is None else weight[rows]

    def weight_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the sample weights of some rows, or None."""
        return None if self.weight is None else self.weight[rows]

    def labels(self, rows: np.ndarray | None = None) -> Tensor:
        """Return the observed labels of the rows as the noise layer takes them."""
        if self.answers is not None and self.learns_from_answers:
            return torch.from_numpy(self.answers.padded(slice(None) if rows is None else rows))
        return torch.as_tensor(self.observed[slice(None) if rows is None else rows])

    def true_labels(self, rows: np.ndarray | None = None) -> Tensor | None:
        """Return the true labels of the rows, -1 where they are not known; None of no row is."""
        if self.trusted is None:
            return None
        known = self.trusted.true_labels(self.target)
        return torch.from_numpy(known if rows is None else known[rows])

    def tensors(self, rows: np.ndarray | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the labels and the weights of the rows."""
        at = slice(None) if rows is None else rows
        weight = None if self.weight is None else torch.as_tensor(self.weight[at])
        return torch.as_tensor(self.target[at]), weight


def row_dataset(
    X: Any,
    y: np.ndarray | None = None,
    *,
    collate_fn: Collate | None = None,
    keep_sparse: bool = False,
    keep_integers: bool = False,
    **more: Any,
) -> RowDataset:
    """Return rows of arrays, or rows that are fetched one by one, as a data set.

    Parameters
    ----------
    X, y, keep_sparse, keep_integers, **more
        As for `ArrayDataset`.
    collate_fn : callable, default=None
        As for `FetchedDataset`.
    """
    if isinstance(X, IndexableDataset) and not X.holds_arrays:
        return FetchedDataset(X, y, collate_fn=collate_fn, **more)
    return ArrayDataset(X, y, keep_sparse=keep_sparse, keep_integers=keep_integers, **more)


def collate_fn_of(estimator: Any) -> Collate | None:
    """Return what the user has set to make batches of items: to evaluate, or else to train."""
    names = "iterator_valid__collate_fn", "iterator_train__collate_fn"
    return next((getattr(estimator, name) for name in names if hasattr(estimator, name)), None)


def _names_of(batch: Any) -> str:
    return ", ".join(map(str, batch)) if isinstance(batch, dict) else f"{len(batch)} inputs"


def validate_training_data(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    annotators: Any = None,
    trusted: Any = None,
    noisy_label: Any = None,
    reset: bool = True,
    classes: np.ndarray | None = None,
    dtype: torch.dtype | None = None,
    first: int | None = None,
) -> TrainingData:
    """Validate and encode training data.

    Parameters
    ----------
    estimator : NoisyLabelClassifier
        Gets the number and the names of the features. With its `device` another than the CPU,
        float64 data are computed in float32.
    X : array-like, CSR or data set of shape (n_samples, ...)
    y : array-like of shape (n_samples,) or (n_samples, n_columns), or None
        None takes the labels of a data set.
    sample_weight : array-like of shape (n_samples,) or None
    annotators : array-like of the shape of y, default=None
        As for `check_answers`.
    trusted : array-like of bool of shape (n_samples,), or of the shape of y, default=None
        As for `check_trusted`.
    noisy_label : array-like of shape (n_samples,), default=None
        As for `check_noisy_labels`.
    reset : bool, default=True
        False compares the features with those of the last fit.
    classes : ndarray of shape (n_classes,), default=None
        The sorted labels, when some may be missing from y; None takes those of y.
    dtype : torch.dtype, default=None
        Floating point type of the network that goes on to learn; None where X decides.
    first : int, default=None
        Where X holds some of the rows only and all else those of all, the number of its first one.

    Returns
    -------
    TrainingData
        Without the rows of weight zero, and without those that have no answer.
    """
    X = as_indexable(X, y)
    if y is None and isinstance(X, IndexableDataset):
        y = X.targets
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    if torch.device(estimator.device).type != "cpu":
        dtype = torch.float32
    network_type = None if dtype is None else NUMPY_TYPES[dtype]
    keep_integers = asks_for_integers(estimator, X, fitted=not reset)
    X = check_rows(
        estimator, X, reset=reset, network_type=network_type, keep_integers=keep_integers
    )
    rows = X if first is None else np.empty((len(y), 1))
    weight = validation.check_weights(sample_weight, rows)
    counted = np.ones(rows.shape[0], dtype=bool) if weight is None else weight > 0
    several = has_answers(y, annotators)
    mask = check_trusted(trusted, y, rows.shape[0], several=several)
    labels = _labels_of_answers if several else _labels_of_rows
    target, classes, answers, checked = labels(
        estimator,
        rows,
        y,
        counted,
        annotators=annotators,
        mask=mask,
        noisy_label=noisy_label,
        classes=classes,
        known_annotators=None if reset else getattr(estimator, "annotators_", None),
    )
    if not counted.all():
        start = first or 0
        X = X[np.flatnonzero(counted[start : start + X.shape[0]])]
        weight = None if weight is None else weight[counted]
        first = first and int(counted[:start].sum())
        if X.shape[0] == 0:
            raise ValueError("`X` must have a row that counts in each process.")
    validation.check_two_classes(classes)
    if weight is not None:
        weight = weight / weight.mean()
    if dtype is None:
        double = not keep_integers and float_type_of(X) is np.float64
        dtype = torch.float64 if double else torch.float32
    return TrainingData(
        X,
        target,
        weight,
        classes,
        dtype,
        answers=answers,
        trusted=checked,
        keep_integers=keep_integers,
        collate_fn=collate_fn_of(estimator),
        first=first,
    )


def _labels_of_rows(
    estimator: Any,
    X: Any,
    y: Any,
    counted: np.ndarray,
    *,
    mask: np.ndarray | None,
    noisy_label: Any,
    classes: np.ndarray | None,
    **of_answers: Any,
) -> tuple[np.ndarray, np.ndarray, None, TrustedLabels | None]:
    """Return target, classes and what was checked of one label a row."""
    y = validation.check_labels(y, X)
    if mask is None and noisy_label is None:
        y = y[counted]
        if classes is None:
            classes, target = np.unique(y, return_inverse=True)
        else:
            target = validation.encode_labels(y, classes)
        return target, classes, None, None
    observed = check_noisy_labels(noisy_label, y, mask, estimator.missing_label)
    mask = np.zeros(len(y), dtype=bool) if mask is None else mask
    y, observed, mask = y[counted], observed[counted], mask[counted]
    seen = np.flatnonzero([label is not None for label in observed])
    both = as_label_array([*y.tolist(), *observed[seen].tolist()])
    if classes is None:
        classes = np.unique(both)
    encoded = validation.encode_labels(both, classes)
    target, before = encoded[: len(y)], np.full(len(y), UNKNOWN)
    before[seen] = encoded[len(y) :]
    return target, classes, None, TrustedLabels(mask, before) if mask.any() else None


def _labels_of_answers(
    estimator: Any,
    X: Any,
    y: Any,
    counted: np.ndarray,
    *,
    annotators: Any,
    mask: np.ndarray | None,
    noisy_label: Any,
    classes: np.ndarray | None,
    known_annotators: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, Answers | None, TrustedLabels | None]:
    """Return target, classes, answers and what was checked of several answers a row.

    Rows without an answer no longer count. If all answers were checked, none are left.
    """
    if noisy_label is not None:
        raise ValueError(
            "`noisy_label` must be None with several answers a row; mark the checked answers by "
            "`trusted` of the shape of `y`, and the others of the row are what was observed."
        )
    answers, found = check_answers(
        y,
        annotators,
        missing_label=estimator.missing_label,
        n_rows=X.shape[0],
        classes=classes,
        known_annotators=known_annotators,
    )
    counted &= answers.counts > 0
    true_label = np.full(len(answers), UNKNOWN)
    if mask is not None:
        answers, true_label = without_trusted(
            answers, mask, is_answered(y, estimator.missing_label)
        )
    answers, true_label = answers.take(counted), true_label[counted]
    if classes is None:
        used = np.union1d(answers.label, true_label[true_label != UNKNOWN])
        answers, classes = answers.with_classes(used), found[used]
        true_label = np.where(true_label == UNKNOWN, UNKNOWN, np.searchsorted(used, true_label))
    target = answers.votes().argmax(axis=1)
    if mask is None:
        return target, classes, answers, None
    known = true_label != UNKNOWN
    checked = TrustedLabels(known, np.where(answers.counts > 0, target, UNKNOWN))
    target = np.where(known, true_label, target)
    return target, classes, answers if len(answers.label) else None, checked
