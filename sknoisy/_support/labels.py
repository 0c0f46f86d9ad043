"""Labels as arrays, whatever holds them, and those that are missing."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LISTED = 5


def as_label_array(y: Any) -> Any:
    """Return labels as an array of one type of strings, integers, booleans or numbers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Of numpy, pandas, polars or pyarrow, a list or a tuple. Arrays of objects that are all
        integers, all booleans or all numbers get that type. What is no row of labels, as a
        sparse matrix, comes back itself.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If labels are missing, with how many and where.
    TypeError
        If they are objects that are neither strings nor numbers, such as dates.
    """
    if not isinstance(y, list | tuple) and np.asarray(y).ndim == 0:
        return y
    missing = describe_missing(y)
    if missing is not None:
        raise ValueError(missing)
    labels = np.asarray(y)
    if labels.dtype.kind in "mM":
        raise TypeError(_of_no_kind([labels.dtype.name]))
    return _with_one_type(labels) if labels.dtype.kind == "O" else labels


def _with_one_type(labels: NDArray[np.object_]) -> NDArray[np.generic]:
    values = labels.ravel().tolist()
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds):
        return labels
    if all(issubclass(kind, bool | np.bool_) for kind in kinds):
        return labels.astype(bool)
    truth = any(issubclass(kind, bool | np.bool_) for kind in kinds)
    if not truth and all(issubclass(kind, numbers.Real) for kind in kinds):
        typed = np.array(values)
        whole = typed.dtype.kind == "f" and any(
            issubclass(kind, numbers.Integral) for kind in kinds
        )
        if typed.dtype.kind in "iuf" and not (whole and typed.tolist() != values):
            return typed.reshape(labels.shape)
    raise TypeError(_of_no_kind(sorted(kind.__name__ for kind in kinds)))


def _of_no_kind(kinds: Sequence[str]) -> str:
    advice = (
        "" if {"str"} & set(kinds) else " Convert them to strings, for instance by astype(str)."
    )
    return f"got {', '.join(kinds)}.{advice}"


def describe_missing(y: Any) -> str | None:
    """Return how many labels are missing and where, or None if there are all.

    Missing are None, NaN, NaT, the NA of pandas, the null of polars and pyarrow, and what a
    masked array hides. In a list they are found before numpy turns them into strings.
    """
    values = _one_by_one(y)
    missing, kind = missing_values(values), None
    if isinstance(y, np.ma.MaskedArray):
        missing, kind = missing | np.ma.getmaskarray(y).ravel(), "masked values"
    elif callable(getattr(y, "isna", None)):  # pandas
        missing = missing | np.asarray(y.isna(), dtype=bool).ravel()
        by_type = getattr(getattr(y, "dtype", None), "na_value", None)
        kind = None if by_type is None else _name_of(by_type)
    elif callable(getattr(y, "is_null", None)):  # polars, pyarrow
        missing, kind = missing | np.asarray(y.is_null(), dtype=bool).ravel(), "null"
    rows = np.flatnonzero(missing)
    if not len(rows):
        return None
    kinds = [kind] if kind else sorted({_name_of(value) for value in values[rows].tolist()})
    listed = ", ".join(map(str, rows[:_LISTED].tolist()))
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    are, in_rows = ("is", "row") if len(rows) == 1 else ("are", "rows")
    return (
        f"Input y contains {' and '.join(kinds)}: {len(rows)} of {len(missing)} labels {are} "
        f"missing, in {in_rows} {listed}{more} (counted from 0). Leave these rows out."
    )


def _one_by_one(y: Any) -> NDArray[np.generic]:
    if isinstance(y, list | tuple) and not any(np.ndim(value) for value in y):
        values = np.empty(len(y), dtype=object)
        values[:] = y
        return values
    return np.asarray(y).ravel()


def missing_values(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return which values are None, NaN, NaT or the NA of pandas, an array of the same shape."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind in ("O", "T"):
        missing = np.fromiter(map(_is_missing, values.ravel().tolist()), bool, count=values.size)
        return missing.reshape(values.shape)
    return np.zeros(values.shape, dtype=bool)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return False
    if value is None or type(value).__name__ == "NAType":
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return False


def _name_of(value: Any) -> str:
    kind = type(value).__name__
    if value is None or kind in ("NAType", "NaTType"):
        return str({"NoneType": "None", "NAType": "NA", "NaTType": "NaT"}[kind])
    return "NaT" if "time" in kind else "NaN"
