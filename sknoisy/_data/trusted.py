"""Which labels were checked, and what was observed of these rows before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sknoisy._crowd.answers import Answers, is_answered
from sknoisy._support.labels import as_label_array
from sknoisy._support.validation import check_labels

_MOST_NAMED = 5

#: In the place of an encoded label that is not known.
UNKNOWN = -1


@dataclass(frozen=True)
class TrustedLabels:
    """Rows whose label was checked: the target of these rows is the true label.

    Attributes
    ----------
    mask : ndarray of bool of shape (n_samples,)
        The rows whose label was checked.
    observed : ndarray of int of shape (n_samples,)
        Encoded observed labels of all rows, -1 where only the checked one is known.
    """

    mask: np.ndarray
    observed: np.ndarray

    def true_labels(self, target: np.ndarray) -> np.ndarray:
        """Return the encoded true label of each row, -1 where it is not known."""
        return np.where(self.mask, target, UNKNOWN)


def check_trusted(trusted: Any, y: Any, n_rows: int, *, several: bool = False) -> np.ndarray | None:
    """Validate which labels were checked.

    Parameters
    ----------
    trusted : array-like of bool of shape (n_rows,), or of the shape of y, or None
    y : array-like
        The labels, whose shape an array of two dimensions must have.
    n_rows : int
    several : bool, default=False
        Whether y holds several answers a row.

    Returns
    -------
    ndarray of bool or None
        None if no label was checked.

    Raises
    ------
    TypeError
        If the values are not boolean.
    ValueError
        If the shape does not fit.
    """
    if trusted is None:
        return None
    mask = np.asarray(trusted)
    if mask.dtype == object and all(isinstance(value, bool | np.bool_) for value in mask.flat):
        mask = mask.astype(bool)
    if mask.dtype != bool:
        raise TypeError(
            "`trusted` must be a boolean array that says of each row whether its label was "
            f"checked; got {_kind_of(trusted, mask)}. Of row numbers make a mask: "
            "mask = np.zeros(len(y), dtype=bool); mask[rows] = True."
        )
    shapes: list[tuple[int, ...]] = [(n_rows,)]
    if several:
        shapes.append(np.shape(y) if np.ndim(y) == 2 else (n_rows, 1))
    if mask.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(
            f"`trusted` must hold a value for each row, shape {expected}; got shape {mask.shape}."
        )
    return mask if mask.any() else None


def _kind_of(trusted: Any, mask: np.ndarray) -> str:
    if mask.dtype == object:
        kinds = sorted({type(value).__name__ for value in mask.flat})
        return f"values of type {', '.join(kinds[:_MOST_NAMED])}"
    return f"{type(trusted).__name__} of type {mask.dtype}"


def check_noisy_labels(
    noisy_label: Any, labels: np.ndarray, mask: np.ndarray | None, missing_label: Any
) -> np.ndarray:
    """Validate the labels that were observed before the check, one for each row.

    Parameters
    ----------
    noisy_label : array-like of shape (n_rows,) or None
        Missing (`missing_label`, None, NaN) where it is not known. Rows that were not checked may
        repeat their label.
    labels : ndarray of shape (n_rows,)
        The labels `y`.
    mask : ndarray of bool of shape (n_rows,) or None
        The rows that were checked.
    missing_label : scalar or None

    Returns
    -------
    ndarray of object of shape (n_rows,)
        The observed labels, None where they are not known.

    Raises
    ------
    ValueError
        If there is not one for each row, or if it differs from y where nothing was checked.
    """
    mask = np.zeros(len(labels), dtype=bool) if mask is None else mask
    observed = np.array(labels.tolist(), dtype=object)
    observed[mask] = None
    if noisy_label is None:
        return observed
    if np.shape(noisy_label) != (len(labels),):
        raise ValueError(
            f"`noisy_label` must hold a label for each row, shape ({len(labels)},), missing where "
            f"it is not known; got shape {np.shape(noisy_label)}."
        )
    given = is_answered(noisy_label, missing_label)[:, 0]
    values = as_label_array(list(np.asarray(noisy_label, dtype=object)[given]))
    values = check_labels(values, values) if given.any() else values
    if labels.dtype.kind in "iub" and values.dtype.kind == "f":  # missing ones made them floats
        values = values.astype(np.int64)
    before = np.empty(len(labels), dtype=object)
    before[given] = values.tolist()
    differs = given & ~mask & (before != observed)
    if differs.any():
        row = int(differs.argmax())
        raise ValueError(
            "`noisy_label` must be the label in `y`, or missing, where `trusted` is False; got "
            f"{before[row]!r} and y {observed[row]!r} in row {row}."
        )
    observed[given] = before[given]
    return observed


def without_trusted(
    answers: Answers, mask: np.ndarray, answered: np.ndarray
) -> tuple[Answers, np.ndarray]:
    """Return the answers that were not checked, and the true label where one was.

    Parameters
    ----------
    answers : Answers
    mask : ndarray of bool of shape (n_rows,) or (n_rows, n_columns)
        Which answers were checked; of a row, all of them were.
    answered : ndarray of bool of shape (n_rows, n_columns)
        Where y holds answers.

    Returns
    -------
    answers : Answers
    true_label : ndarray of int of shape (n_rows,)
        Encoded; -1 where no answer was checked.

    Raises
    ------
    ValueError
        If the checked answers of a row differ, or if it has none.
    """
    cells = np.broadcast_to(mask if mask.ndim == 2 else mask[:, None], answered.shape)
    checked = cells[answered]
    rows, labels = answers.row[checked], answers.label[checked]
    true_label = np.full(len(answers), UNKNOWN)
    true_label[rows] = labels
    differs = true_label[rows] != labels
    if differs.any():
        raise ValueError(
            "`trusted` must mark answers that say the same of a row; those of row "
            f"{int(rows[differs][0])} differ. Mark the one that was checked, with an array of the "
            "shape of `y`."
        )
    empty = cells.any(axis=1) & (true_label == UNKNOWN)
    if empty.any():
        raise ValueError(
            f"`trusted` must mark rows with an answer; row {int(empty.argmax())} has none there."
        )
    return answers.without(checked), true_label
