"""Several answers a row: who gave which label to which row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from sknoisy._support.labels import as_label_array, missing_values
from sknoisy._support.validation import encode_labels

_FEWEST_CLASSES_OF_ONE_HOT = 3


@dataclass(frozen=True)
class Answers:
    """Answers of annotators, one after the other, those of a row side by side.

    Memory grows with the number of answers, not with rows times annotators.

    Attributes
    ----------
    bounds : ndarray of int of shape (n_rows + 1,)
        Where the answers of each row begin, and those of the last one end.
    annotator : ndarray of int of shape (n_answers,)
        Position in `annotators` of who gave the answer.
    label : ndarray of int of shape (n_answers,)
        Position of the label among the classes.
    annotators : ndarray of shape (n_annotators,)
        Identifiers of the annotators.
    n_classes : int
    """

    bounds: np.ndarray
    annotator: np.ndarray
    label: np.ndarray
    annotators: np.ndarray
    n_classes: int

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def n_annotators(self) -> int:
        """Number of annotators."""
        return len(self.annotators)

    @property
    def n_codes(self) -> int:
        """Number of pairs of an annotator and a label."""
        return self.n_annotators * self.n_classes

    @property
    def counts(self) -> np.ndarray:
        """Number of answers of each row, shape (n_rows,)."""
        return np.diff(self.bounds)

    @property
    def row(self) -> np.ndarray:
        """The row of each answer, shape (n_answers,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def code(self) -> np.ndarray:
        """Annotator and label of each answer in one number, shape (n_answers,)."""
        return self.annotator * self.n_classes + self.label

    def answers_of_annotators(self) -> np.ndarray:
        """Return how many answers each annotator gave, shape (n_annotators,)."""
        return np.bincount(self.annotator, minlength=self.n_annotators)

    def indicator(self) -> sparse.csr_array:
        """Return which answers each row has, a matrix of ones of shape (n_rows, n_codes)."""
        ones = np.ones(len(self.label))
        return sparse.csr_array((ones, self.code, self.bounds), shape=(len(self), self.n_codes))

    def votes(self) -> np.ndarray:
        """Return how many answers of each row name each class, shape (n_rows, n_classes)."""
        votes = np.zeros((len(self), self.n_classes))
        np.add.at(votes, (self.row, self.label), 1.0)
        return votes

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers of several chunks, of which each knows the annotators before it."""
        counts = np.concatenate([part.counts for part in parts])
        return replace(
            parts[-1],
            bounds=np.concatenate([[0], np.cumsum(counts)]),
            annotator=np.concatenate([part.annotator for part in parts]),
            label=np.concatenate([part.label for part in parts]),
        )

    def take(self, rows: np.ndarray) -> Answers:
        """Return the answers of some rows, given as indices or as a boolean mask."""
        rows = np.arange(len(self))[rows]
        counts = self.counts[rows]
        at = self._positions(rows, counts)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return replace(self, bounds=bounds, annotator=self.annotator[at], label=self.label[at])

    def without(self, left_out: np.ndarray) -> Answers:
        """Return the answers without some of them, given by a boolean mask of all answers."""
        counts = np.bincount(self.row[~left_out], minlength=len(self))
        return replace(
            self,
            bounds=np.concatenate([[0], np.cumsum(counts)]),
            annotator=self.annotator[~left_out],
            label=self.label[~left_out],
        )

    def with_others_together(self, n_known: int) -> Answers:
        """Return the answers with all annotators after the first so many taken for one."""
        annotator = np.minimum(self.annotator, n_known)
        return replace(self, annotator=annotator, annotators=np.arange(n_known + 1))

    def with_classes(self, used: np.ndarray) -> Answers:
        """Return the answers with some of the classes only, given by ascending positions."""
        return replace(self, label=np.searchsorted(used, self.label), n_classes=len(used))

    def _positions(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        ends = np.cumsum(counts)
        first = np.repeat(self.bounds[rows] - (ends - counts), counts)
        return first + np.arange(ends[-1] if len(ends) else 0)

    def padded(self, rows: np.ndarray | slice, width: int | None = None) -> np.ndarray:
        """Return the codes of some rows side by side, shape (n_rows, width).

        Parameters
        ----------
        rows : ndarray of int or slice
        width : int, default=None
            The number of columns; None is that of the answers of the row with the most. Where a
            row has fewer, `n_codes` stands.
        """
        starts = self.bounds[:-1][rows]
        counts = self.bounds[1:][rows] - starts
        width = int(counts.max(initial=1)) if width is None else width
        column = np.arange(max(width, 1))
        codes = np.full((len(counts), len(column)), self.n_codes)
        given = column < counts[:, None]
        at = (starts[:, None] + column)[given]
        codes[given] = self.annotator[at] * self.n_classes + self.label[at]
        return codes

    def majority(self, rng: np.random.RandomState) -> np.ndarray:
        """Return the label that most answers of each row name; ties are drawn.

        Parameters
        ----------
        rng : numpy.random.RandomState

        Returns
        -------
        ndarray of int of shape (n_rows,)
            A row without an answer has zero.
        """
        draw = rng.uniform(0.0, 0.5, size=len(self.label))
        votes = self.votes()
        noise = np.zeros_like(votes)
        noise[self.row, self.label] = draw
        return np.asarray((votes + noise).argmax(axis=1))


def has_answers(y: Any, annotators: Any = None) -> bool:
    """Whether y holds several answers a row, or it is said who gave the one that it has.

    A single column is one label a row, as everywhere in scikit-learn.
    """
    if annotators is not None:
        return True
    if sparse.issparse(y):
        return False
    try:
        shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    except ValueError:  # rows of several lengths
        return False
    return len(shape) == 2 and shape[1] > 1


def check_answers(
    y: Any,
    annotators: Any = None,
    *,
    missing_label: Any = -1,
    n_rows: int | None = None,
    training: bool = True,
    classes: np.ndarray | None = None,
    known_annotators: np.ndarray | None = None,
) -> tuple[Answers, np.ndarray]:
    """Validate and encode several answers a row.

    Parameters
    ----------
    y : array-like of shape (n_rows, n_columns)
        Labels. A column for each annotator, or, with `annotators`, as many columns as the row with
        the most answers has. Of shape (n_rows,) with `annotators` it is one answer a row.
    annotators : array-like of the shape of y, default=None
        Who gave each answer.
    missing_label : scalar, default=-1
        Stands in y where there is no answer; None, NaN and the like do in any case.
    n_rows : int, default=None
        Number of rows of X; None takes any.
    training : bool, default=True
        Whether there has to be an answer.
    classes : ndarray of shape (n_classes,), default=None
        The sorted labels; None takes those of y.
    known_annotators : ndarray, default=None
        Identifiers that were seen before. They come first, in this order.

    Returns
    -------
    answers : Answers
    classes : ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If shapes or types do not fit, with the name of the parameter.
    """
    labels = _as_table(y)
    answered = _is_answered(labels, missing_label)
    if n_rows is not None and len(labels) != n_rows:
        raise ValueError(
            f"`y` must hold a row for each row of X, {n_rows}; got {len(labels)} rows of answers."
        )
    if training and not answered.any():
        raise ValueError(
            f"`y` must hold at least one answer; got an array of shape {labels.shape} in which all "
            f"are missing (missing_label={missing_label!r})."
        )
    seen = as_label_array(labels[answered].tolist())
    if seen.dtype.kind == "f":
        if not np.array_equal(seen, np.round(seen)):
            raise ValueError(
                "`y` must hold classes, not continuous numbers; got "
                f"{seen[seen != np.round(seen)][0]!r} among the answers."
            )
        seen = seen.astype(np.int64) if labels.dtype.kind == "f" else seen
    _refuse_one_hot(labels, answered, annotators)
    if classes is None:
        classes, label = np.unique(seen, return_inverse=True)
    else:
        label = encode_labels(seen, classes)
    ids, annotator = _annotators_of(y, labels, annotators, answered, known_annotators)
    bounds = np.concatenate([[0], np.cumsum(answered.sum(axis=1))])
    return Answers(bounds, annotator, np.asarray(label), ids, len(classes)), classes


def is_answered(y: Any, missing_label: Any) -> np.ndarray:
    """Return where y holds answers, a boolean array of two dimensions."""
    return _is_answered(_as_table(y), missing_label)


def _is_answered(labels: np.ndarray, missing_label: Any) -> np.ndarray:
    answered = ~missing_values(labels)
    answered[answered] = ~_equals(labels[answered], missing_label)
    return answered


def _as_table(y: Any) -> np.ndarray:
    """Return answers as an array of two dimensions, of objects unless all are numbers."""
    if hasattr(y, "to_numpy"):
        table = y.to_numpy()
    else:
        numeric = isinstance(y, np.ndarray) and y.dtype.kind in "biufU"
        table = np.asarray(y) if numeric else np.asarray(y, dtype=object)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2:
        raise ValueError(
            "`y` must hold the answers in an array of shape (n_rows, n_columns), with the same "
            f"number of columns in each row; got shape {table.shape}."
        )
    return table


def _equals(labels: np.ndarray, value: Any) -> np.ndarray:
    if value is None:
        return np.zeros(labels.shape, dtype=bool)
    if labels.dtype.kind in "biuf" and isinstance(value, str):
        return np.zeros(labels.shape, dtype=bool)
    if labels.dtype.kind == "b":  # -1 is no truth value
        return np.zeros(labels.shape, dtype=bool)
    return np.asarray(labels == value, dtype=bool).reshape(labels.shape)


def _refuse_one_hot(labels: np.ndarray, answered: np.ndarray, annotators: Any) -> None:
    if annotators is not None or labels.shape[1] < _FEWEST_CLASSES_OF_ONE_HOT:
        return
    if not answered.all() or labels.dtype.kind not in "biuf" or len(labels) < labels.shape[1]:
        return
    if np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        raise ValueError(
            "`y` must hold one label for each row of X, uniformly strings or numbers, or an answer "
            f"of each annotator in a column; got shape {labels.shape} with a single one in each "
            f"row, which are indicators of {labels.shape[1]} classes. Pass y.argmax(axis=1)."
        )


def _annotators_of(
    y: Any,
    labels: np.ndarray,
    annotators: Any,
    answered: np.ndarray,
    known: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the identifiers of the annotators, and the position of that of each answer."""
    if annotators is None:
        ids = np.asarray(getattr(y, "columns", np.arange(labels.shape[1])))
        given = np.broadcast_to(ids, labels.shape)[answered]
        occurring = ids
    else:
        table = _as_table(annotators)
        if table.shape != labels.shape:
            raise ValueError(
                "`annotators` must name who gave each answer and have the shape of `y`, "
                f"{labels.shape}; got shape {table.shape}."
            )
        given = table[answered]
        missing = missing_values(given)
        if missing.any():
            row = int(np.argwhere(answered)[missing.argmax(), 0])
            raise ValueError(
                "`annotators` must name who gave each answer; the name is missing for "
                f"{int(missing.sum())} of {len(given)} answers, first in row {row}."
            )
        given = as_label_array(given.tolist())
        occurring = np.unique(given)
    if known is not None:
        new = occurring[~np.isin(occurring, known)]
        occurring = np.concatenate([known, new]) if len(new) else known
    return occurring, encode_labels(given, occurring, "annotators")
