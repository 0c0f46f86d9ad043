"""Reviewed labels, and how they get back into the data."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sknoisy._support.labels import as_label_array


def apply_corrections(
    y: Any, reviewed: Any, *, classes: ArrayLike | None = None, return_reviewed: bool = False
) -> Any:
    """Replace observed labels by the decisions of a review.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Observed labels that were reviewed.
    reviewed : str, path, DataFrame or iterable of dict
        A CSV file or a table with the columns ``row``, the position of a row in `y`, and ``label``,
        the decision; rows with an empty label were not reviewed. The report of ``issues.to_html``
        saves such a file, ``issues.to_csv`` writes one to be filled in, and Label Studio exports
        one as CSV. A column ``observed_labels``, if present, must agree with `y`.
    classes : array-like of shape (n_classes,), default=None
        Labels that the review may contain. None: those of `y`.
    return_reviewed : bool, default=False
        Whether to return also which rows were reviewed.

    Returns
    -------
    y : ndarray of shape (n_samples,), or Series
        A copy with the type of `y`; a Series with its index if `y` is one.
    reviewed : ndarray of bool of shape (n_samples,)
        Only with `return_reviewed`: rows with a decision, whether it changed the label or not.

    Raises
    ------
    ValueError
        If columns are missing, a row does not exist in `y` or has two labels, a label is not one of
        the classes, or the observed labels of the review differ from `y`.

    See Also
    --------
    find_label_issues : The rows to review.

    Examples
    --------
    >>> from sknoisy.inspection import apply_corrections
    >>> apply_corrections(["cat", "dog", "cat"], [{"row": 2, "label": "dog"}]).tolist()
    ['cat', 'dog', 'dog']
    """
    labels = np.array(as_label_array(y))
    if labels.ndim != 1:
        raise ValueError(f"`y` must hold one label for each row; got shape {labels.shape}.")
    known = np.unique(labels).tolist() if classes is None else np.asarray(classes).tolist()
    decided: dict[int, Any] = {}
    for record in _records(reviewed):
        missing = [name for name in ("row", "label") if name not in record]
        if missing:
            raise ValueError(
                f"`reviewed` must have the columns row and label; got {list(record)!r}."
            )
        if _is_empty(record["label"]):
            continue
        row = _row(record["row"], len(labels))
        label = _label(record["label"], known)
        observed = record.get("observed_labels")
        if not _is_empty(observed) and not _same(observed, labels[row]):
            raise ValueError(
                f"`reviewed` is about other labels than `y`: row {row} was observed as "
                f"{observed!r}, and `y` has {labels[row : row + 1].tolist()[0]!r}."
            )
        if decided.setdefault(row, label) != label:
            raise ValueError(
                f"`reviewed` has two labels for row {row}: {decided[row]!r}, {label!r}."
            )
    rows = np.fromiter(decided, dtype=np.intp, count=len(decided))
    if labels.dtype.kind == "U" and decided:  # room for longer names
        labels = labels.astype(np.result_type(labels, np.array(list(decided.values()))))
    for row, label in decided.items():
        labels[row] = label
    corrected: Any = labels
    if hasattr(y, "iloc"):
        corrected = y.copy()
        for row, label in decided.items():
            corrected.iloc[row] = label
    if not return_reviewed:
        return corrected
    mask = np.zeros(len(labels), dtype=bool)
    mask[rows] = True
    return corrected, mask


def _records(reviewed: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(reviewed, str | Path):
        with Path(reviewed).open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    if hasattr(reviewed, "to_dict") and hasattr(reviewed, "columns"):
        return list(reviewed.to_dict("records"))
    records = list(reviewed)
    if not all(isinstance(record, Mapping) for record in records):
        raise ValueError("`reviewed` must be a CSV file, a DataFrame or dictionaries.")
    return records


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value != value or type(value).__name__ == "NAType"


def _row(value: Any, n_samples: int) -> int:
    try:
        row = int(value)
        if row == float(value) and 0 <= row < n_samples:
            return row
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"The column row of `reviewed` must hold positions from 0 to {n_samples - 1}; "
        f"got {value!r}."
    )


def _label(value: Any, known: list[Any]) -> Any:
    for label in known:
        if _same(value, label):
            return label
    raise ValueError(
        f"The column label of `reviewed` must hold labels among {known[:10]!r}; got {value!r}. "
        "Pass `classes` to allow others."
    )


def _same(value: Any, label: Any) -> bool:
    """Whether a value, as text or number of a table, stands for a label."""
    if isinstance(label, str | np.str_):
        return str(value) == str(label)
    if str(value) == str(label):
        return True
    if isinstance(value, bool | np.bool_) or isinstance(label, bool | np.bool_):
        return False
    try:
        return float(value) == float(label)
    except (TypeError, ValueError):
        return False
