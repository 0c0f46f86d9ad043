"""Validation of parameters and data, with messages that name them."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    validate_data,
)

from sknoisy._support.labels import as_label_array
from sknoisy._support.numbers import FloatType, as_floats

FloatArray = NDArray[np.float64]

ROUTED_PREFIXES = ("module", "optimizer", "iterator_train", "iterator_valid", "callbacks")

# Rows of matrices that were rounded for print or storage still pass; they are normalised.
_ROW_SUM_TOLERANCE = 1e-3


@contextmanager
def parameter_error(name: str, expected: str) -> Iterator[None]:
    """Let a refusal inside the block say which parameter it is about and what was expected.

    Parameters
    ----------
    name : str
    expected : str
        Goes on after "must".
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"`{name}` must {expected}: {error}") from error


def check_features(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    network_type: FloatType | None = None,
    training: bool = True,
) -> Any:
    """Validate X, of any rank, and set or compare the names and number of its features.

    Parameters
    ----------
    estimator : NoisyLabelClassifier
    X : array-like or CSR of shape (n_samples, ...)
    reset : bool
        True in fit; otherwise each row must have the shape that it had in fit.
    network_type : type, default=None
        float32 or float64, that of the network which will see X; None where X decides.
    training : bool, default=True
        Whether the network learns from X.

    Returns
    -------
    ndarray or CSR array of shape (n_samples, ...)
        float32 or float64 as it came. Whole numbers become what the network has; without one,
        float32 if that holds them and otherwise float64. They stay as they are in a file mapped
        to memory, which is not to be copied as a whole.
    """
    given = X
    rows = "a row for each sample" if reset else "rows like those of fit"
    with parameter_error("X", f"hold finite numbers, {rows}"):
        X = as_array(estimator, X, reset)
        X = as_floats(X, given, network_type, training=training)
    check_row_shape(estimator, X, reset=reset)
    return X


def check_row_shape(estimator: Any, X: Any, *, reset: bool) -> None:
    """Set the shape of a row, or refuse rows of another shape than in fit."""
    if reset:
        estimator._row_shape = X.shape[1:]
    elif X.shape[1:] != estimator._row_shape:
        raise ValueError(
            f"X has rows of shape {X.shape[1:]}, but {type(estimator).__name__} was fitted on "
            f"rows of shape {estimator._row_shape}."
        )


@np.errstate(over="ignore", invalid="ignore")  # a check for infinity says it better
def as_array(estimator: Any, X: Any, reset: bool) -> Any:
    """Return X as scikit-learn validates it, of any rank and type, or CSR."""
    return validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype=None, allow_nd=True)


def check_labels(y: Any, X: Any) -> np.ndarray:
    """Validate observed labels against X; return them as a one-dimensional array.

    Raises
    ------
    ValueError
        If y is not one label for each row of X, if some are missing, or if it is continuous.
    TypeError
        If some labels are strings and others are not, so that they cannot be sorted, or if they
        are neither strings nor numbers.
    """
    with parameter_error("y", "hold one label for each row of X, uniformly strings or numbers"):
        y = _check_y(as_label_array(y), estimator="NoisyLabelClassifier")
        try:
            check_classification_targets(y)
        except TypeError as error:  # labels that cannot be sorted
            types = sorted({type(label).__name__ for label in y.tolist()})
            raise TypeError(f"got {', '.join(types)}.") from error
        check_consistent_length(X, y)
    return y


def check_weights(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Validate the sample weights; None means that all rows weigh the same.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, if all are zero, or if the length differs.
    """
    if sample_weight is None:
        return None
    with parameter_error(
        "sample_weight", "hold a number for each row, none negative and not all zero"
    ):
        weight = np.asarray(sample_weight, dtype=np.float64)
        weight = _check_sample_weight(weight, X, dtype=np.float64, ensure_non_negative=True)
    return None if np.all(weight == weight[0]) else weight


def check_two_classes(classes: np.ndarray) -> None:
    """Refuse labels of a single class."""
    if len(classes) < 2:
        raise ValueError(
            "The observed labels `y` must have at least 2 classes (among the rows of positive "
            f"weight); got 1 class: {classes.tolist()!r}."
        )


def check_transition_matrix(
    matrix: Any,
    n_classes: int | None = None,
    name: str = "transition_matrix",
    *,
    n_samples: int | None = None,
    what: str = "sample",
) -> FloatArray:
    """Validate a transition matrix that a user gave.

    Parameters
    ----------
    matrix : array-like of shape (true, observed)
        Rows are true classes and sum to one, columns are observed classes.
    n_classes : int, default=None
        The number of rows and columns; None takes any.
    name : str, default="transition_matrix"
        Name of the parameter, for the message.
    n_samples : int, default=None
        With it, one matrix per sample is accepted as well, (n_samples, true, observed).
    what : str, default="sample"
        What the matrices belong to, for the message.

    Returns
    -------
    ndarray of shape (true, observed) or (n_samples, true, observed)
        A float64 copy with rows that sum to one.
    """
    try:
        transition = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be a matrix of numbers: {error}") from error
    square = transition.ndim >= 2 and transition.shape[-1] == transition.shape[-2] >= 1
    sized = square and n_classes in {None, transition.shape[-1]}
    if not sized or transition.shape[:-2] not in {(), (n_samples,)}:
        size = "(true, observed)" if n_classes is None else f"({n_classes}, {n_classes})"
        per_sample = "" if n_samples is None else f" or ({n_samples}, true, observed)"
        per_sample += f" with one per {what}" if n_samples and what != "sample" else ""
        raise ValueError(
            f"`{name}` must have shape {size}{per_sample}, a row for each true class and a column "
            f"for each observed one; got shape {transition.shape}."
        )
    if not np.all(np.isfinite(transition) & (transition >= 0)):
        raise ValueError(
            f"`{name}` must be finite and non-negative; got values from {transition.min():.3g} to "
            f"{transition.max():.3g}."
        )
    sums = transition.sum(axis=-1, keepdims=True)
    if np.any(np.abs(sums - 1.0) > _ROW_SUM_TOLERANCE):
        raise ValueError(
            f"`{name}` must have rows (true classes) that sum to one; got sums from "
            f"{sums.min():.6g} to {sums.max():.6g}. If its columns are the true classes, transpose."
        )
    return transition / sums


def check_routed(names: Iterable[str]) -> None:
    """Refuse keyword arguments whose prefix belongs to no part of the net."""
    prefixes = tuple(f"{prefix}__" for prefix in ROUTED_PREFIXES)
    unknown = sorted(name for name in names if not name.startswith(prefixes))
    if unknown:
        raise ValueError(
            f"Unknown parameter(s) {', '.join(unknown)}: parameters of parts must begin with one "
            f"of {', '.join(prefixes)}."
        )


def accepted_names(factory: Callable[..., Any], skip: int = 1) -> list[str] | None:
    """Return the names of the arguments of a callable after the first; None if it takes any."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())[skip:]
    except (TypeError, ValueError):  # written in C, without a signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def check_names(
    part: str, names: Iterable[str], accepted: Collection[str] | None, more: Collection[str] = ()
) -> None:
    """Refuse names of parameters that a part does not have, and name those that it has."""
    if accepted is None:
        return
    known = [*accepted, *more]
    unknown = sorted(f"{part}__{name}" for name in names if name not in known)
    if unknown:
        listed = ", ".join(f"{part}__{name}" for name in sorted(known)) or "no parameters"
        raise ValueError(f"Unknown parameter(s) {', '.join(unknown)}: `{part}` takes {listed}.")


def check_patterns(patterns: Iterable[str], names: Collection[str]) -> None:
    """Refuse patterns of parameter groups that match none of the parameters of a network."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"The pattern {pattern!r} in optimizer__param_groups matches no parameter; "
                f"there are {', '.join(names)}."
            )


def class_indices(labels: NDArray[np.generic], classes: NDArray[np.generic]) -> NDArray[np.intp]:
    """Return the position of each label in `classes`, -1 where it has none; shape of `labels`."""
    position = {label: index for index, label in enumerate(classes.tolist())}
    return np.array([position.get(label, -1) for label in labels.tolist()], dtype=np.intp)


def encode_labels(y: Any, classes: np.ndarray, name: str = "y") -> NDArray[np.intp]:
    """Return the positions of labels in `classes`.

    Raises
    ------
    ValueError
        If a label is not among the classes.
    """
    with parameter_error(name, "hold labels seen in fit"):
        y = as_label_array(y)
    position = class_indices(y, classes)
    if np.any(position < 0):
        raise ValueError(
            f"`{name}` must hold labels seen in fit, {classes.tolist()!r}; got "
            f"{np.unique(y[position < 0]).tolist()!r}."
        )
    return position


def check_rows_and_labels(X: Any, y: Any) -> tuple[np.ndarray, Any]:
    """Validate labels against rows; return them with the index of pandas data, or None."""
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if np.ndim(y) == 1 and len(y) != n_rows:
        raise ValueError(f"`X` and `y` must have the same length; got {n_rows} and {len(y)} rows.")
    indexes = [data.index for data in (X, y) if hasattr(data, "iloc")]
    if len(indexes) == 2 and not indexes[0].equals(indexes[1]):
        raise ValueError(
            "`X` and `y` must have the same index, for rows are matched by position; got "
            f"{indexes[0]!r} and {indexes[1]!r}. Align them, or pass `y.to_numpy()`."
        )
    return check_labels(y, X), indexes[0] if indexes else None


def check_confidence(confidence: Any) -> float:
    """Validate the confidence of an interval."""
    if isinstance(confidence, numbers.Real) and 0 < float(confidence) < 1:
        return float(confidence)
    raise ValueError(f"`confidence` must be a number between 0 and 1; got {confidence!r}.")


def check_losses(epoch: Mapping[str, Any], lr: float) -> None:
    """Stop when a loss of an epoch is not finite.

    Parameters
    ----------
    epoch : mapping
        A row of the history.
    lr : float
        The learning rate, for the message.

    Raises
    ------
    ValueError
    """
    for kind in ("train", "valid"):
        loss = epoch.get(f"{kind}_loss", 0.0)
        if not np.isfinite(loss):
            raise ValueError(
                f"The {kind}_loss became {loss} in epoch {epoch['epoch']} (stage "
                f"{epoch['stage']!r}). Lower the learning rate `lr` (now {lr}) or scale X, "
                "for instance with StandardScaler."
            )
