"""Numbers of X in the floating point type of a network: whole ones exactly, and none too large.

float32 holds all whole numbers up to 2**24, float64 up to 2**53. Identifiers and times past that
would become equal to their neighbours without a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import assert_all_finite

FloatType = type[np.float32] | type[np.float64]

_ELEMENTS_AT_ONCE = 2**22

_is_whole = np.frompyfunc(lambda value: isinstance(value, Integral | np.bool_), 1, 1)


def as_floats(X: Any, given: Any, network_type: FloatType | None, *, training: bool) -> Any:
    """Return features as floating point numbers that a network can compute with.

    Parameters
    ----------
    X : ndarray or CSR array of shape (n_samples, ...)
        What was given, as an array of the type that it has.
    given : array-like
        What was given.
    network_type : type or None
        Type of the network that will see X; None is `float_type` of X.
    training : bool
        Whether gradients will be taken.

    Returns
    -------
    ndarray or CSR array of shape (n_samples, ...)
        float32 or float64; numbers in a file mapped to memory stay as they are.

    Raises
    ------
    TypeError
        If X does not hold numbers.
    ValueError
        If a number is not finite in the type of the network, or, in training, the sum of the
        squares of a row; or if a whole number has no exact value in that type.
    """
    if X.dtype.kind not in "biufOUS":
        raise TypeError(f"got {X.dtype}, which is not a type of numbers.")
    whole = list(_whole_parts(X, given))
    floats = X
    if X.dtype.kind in "OUS" or X.dtype.itemsize > 8:
        floats = _in_double_precision(X)
        assert_all_finite(floats, input_name="X")
    n_whole = sum(math.prod(part.shape) for part in whole)
    only_whole = n_whole == math.prod(_values(X).shape)
    if network_type is None:
        exact = only_whole and all(_first_inexact(part, np.float32) is None for part in whole)
        network_type = np.float32 if exact else float_type(floats)
    _check_magnitude(floats, network_type, training)
    for part in whole:
        inexact = _first_inexact(part, network_type)
        if inexact is not None:
            raise ValueError(_message(inexact, network_type))
    if isinstance(given, np.memmap) and X.dtype.kind in "biuf":
        return X
    if only_whole or floats.dtype not in (np.float32, np.float64):
        return floats.astype(network_type, copy=False)
    return floats


def float_type(X: Any) -> FloatType:
    """Return float32 for validated features that float32 holds, otherwise float64.

    Parameters
    ----------
    X : ndarray or CSR array
        Floating point numbers, for which it is the type that they have, or whole ones.
    """
    if X.dtype.kind == "f":
        return np.float32 if X.dtype.itemsize <= 4 else np.float64
    exact = _first_inexact(_values(X), np.float32) is None
    return np.float32 if exact else np.float64


@np.errstate(over="ignore")  # a check for infinity says it better
def _in_double_precision(X: np.ndarray) -> np.ndarray:
    try:
        return X.astype(np.float64)
    except OverflowError as error:
        raise ValueError(
            f"Input X contains infinity or a value too large for dtype('float64'): {error}."
        ) from error


def _whole_parts(X: Any, given: Any) -> Iterator[np.ndarray]:
    """Yield the whole numbers of what was given, as arrays of integers or of objects."""
    if X.dtype.kind in "biu":
        yield _values(X)
    elif X.dtype.kind == "O" or (isinstance(given, list | tuple) and _some_are_large(X)):
        objects = np.asarray(given, dtype=object)
        yield objects[_is_whole(objects).astype(bool)]
    elif hasattr(given, "iloc") and hasattr(given, "dtypes"):
        for i, dtype in enumerate(given.dtypes):
            if getattr(dtype, "kind", None) in tuple("biu"):
                yield np.asarray(given.iloc[:, i])
    elif hasattr(given, "get_columns"):
        for column in given.get_columns():
            if column.dtype.is_integer():
                yield np.asarray(column)


def _some_are_large(X: np.ndarray) -> bool:
    """Whether to look for whole numbers that float32 may not hold, in a list of all kinds."""
    return X.dtype.kind == "f" and bool((np.abs(X) > 2**24).any())


def _first_inexact(whole: np.ndarray, float_type: FloatType) -> int | None:
    """Return the first whole number that a type does not hold exactly, or None."""
    n_digits = np.finfo(float_type).nmant + 1
    if whole.dtype.kind == "O":
        return next((int(v) for v in whole.flat if _odd_part(int(v)) >= 2**n_digits), None)
    if whole.dtype.itemsize * 8 <= n_digits:
        return None
    for block in _blocks(whole):
        if block.size == 0 or (-(2**n_digits) <= block.min() and block.max() <= 2**n_digits):
            continue
        magnitude = block.astype(np.uint64)
        if block.dtype.kind == "i":
            magnitude = np.abs(block.astype(np.int64)).view(np.uint64)
        lowest_digit = magnitude & (~magnitude + np.uint64(1))
        inexact = magnitude // np.maximum(lowest_digit, 1) >= 2**n_digits
        if inexact.any():
            return int(block[inexact][0])
    return None


def _odd_part(number: int) -> int:
    return abs(number) // max(abs(number) & -abs(number), 1)


def _check_magnitude(X: Any, float_type: FloatType, training: bool) -> None:
    """Refuse numbers that a type does not hold, or in training their squares, summed over a row.

    Gradients of the first weights are X times errors, and optimisers sum and square them.
    """
    limit = float(np.finfo(float_type).max)
    why, advice = "", "Scale X as in fit."
    if training:
        limit = math.sqrt(limit / math.prod(X.shape[1:]))
        why = f" The squares of a row must have a finite sum, as those up to {limit:.2g} have."
        advice = "Scale X, for instance with StandardScaler."
    for block in _blocks(_values(X)):
        largest = max(float(block.max()), -float(block.min())) if block.size else 0.0
        if largest > limit:
            raise ValueError(
                "Input X contains infinity or a value too large for "
                f"dtype({np.dtype(float_type).name!r}): got {largest:.3g}.{why} {advice}"
            )


def _message(number: int, float_type: FloatType) -> str:
    name = np.dtype(float_type).name
    advice = (
        "Pass it to fit in float64, for a network in float64, or as what it means: a time since "
        "a recent date, a code of few categories."
        if float_type is np.float32
        else "Encode it, for instance with OrdinalEncoder."
    )
    return (
        f"the whole number {number} has no exact value in {name}, the type of the network: it "
        f"would become one with its neighbours. {advice}"
    )


def _values(X: Any) -> np.ndarray:
    return X.data if sparse.issparse(X) else X


def _blocks(values: np.ndarray) -> Iterable[np.ndarray]:
    """Yield parts of an array, so that what is computed of a large file stays small."""
    n_rows = max(1, _ELEMENTS_AT_ONCE // max(1, math.prod(values.shape[1:])))
    for first in range(0, len(values), n_rows):
        yield np.asarray(values[first : first + n_rows])
