"""What `NoisyLabelClassifier` accepts, and what it says of anything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    validate_data,
)

ROUTED_PREFIXES = ("module", "optimizer", "iterator_train", "iterator_valid", "callbacks")


def check_features(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Validate X, of any rank, and set or compare the names and number of its features.

    Parameters
    ----------
    estimator : NoisyLabelClassifier
    X : array-like or CSR of shape (n_samples, ...)
    reset : bool
        True in fit, False in predictions, where each row must have the shape it had in fit.

    Returns
    -------
    ndarray or CSR array of shape (n_samples, ...)
        float32 or float64 as it came; other types become float32.
    """
    X = validate_data(
        estimator,
        X,
        reset=reset,
        accept_sparse="csr",
        dtype=(np.float32, np.float64),
        allow_nd=True,
    )
    if reset:
        estimator._row_shape = X.shape[1:]
    elif X.shape[1:] != estimator._row_shape:
        raise ValueError(
            f"X has rows of shape {X.shape[1:]}, but {type(estimator).__name__} was fitted on "
            f"rows of shape {estimator._row_shape}."
        )
    return X


def check_labels(y: Any, X: Any) -> np.ndarray:
    """Validate observed labels against X; return them as a one-dimensional array.

    Raises
    ------
    ValueError
        If y is not one label for each row of X, holds NaN, or is continuous.
    """
    y = _check_y(y, estimator="NoisyLabelClassifier")
    check_classification_targets(y)
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
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return None if np.all(weight == weight[0]) else weight


def check_two_classes(classes: np.ndarray) -> None:
    """Refuse labels of a single class."""
    if len(classes) < 2:
        raise ValueError(
            "The observed labels `y` must have at least 2 classes (among the rows of positive "
            f"weight); got 1 class: {classes.tolist()!r}."
        )


def check_transition_matrix(matrix: Any, n_classes: int, name: str) -> np.ndarray:
    """Validate a transition matrix that a user gave.

    Parameters
    ----------
    matrix : array-like of shape (n_classes, n_classes)
        Rows are true classes and sum to one, columns are observed classes.
    n_classes : int
    name : str
        Name of the parameter, for the message.

    Returns
    -------
    ndarray of shape (n_classes, n_classes)
        A float64 copy with rows that sum to one.
    """
    transition = np.array(matrix, dtype=np.float64)
    if transition.shape != (n_classes, n_classes):
        raise ValueError(
            f"`{name}` must be a matrix of shape ({n_classes}, {n_classes}) (true, observed), one "
            f"row and column for each class of y; got shape {transition.shape}."
        )
    if not np.isfinite(transition).all():
        raise ValueError(f"`{name}` must be finite; it contains NaN or infinity.")
    if (transition < 0).any():
        raise ValueError(
            f"`{name}` must hold probabilities; its smallest entry is {transition.min():.3g}."
        )
    sums = transition.sum(axis=1)
    if not np.allclose(sums, 1.0, atol=1e-4):
        worst = int(np.abs(sums - 1.0).argmax())
        raise ValueError(
            f"The rows of `{name}` must sum to one (rows are true classes, columns observed "
            f"ones); row {worst} sums to {sums[worst]:.4g}."
        )
    return transition / sums[:, None]


def check_routed(names: Iterable[str]) -> None:
    """Refuse keyword arguments whose prefix belongs to no part of the net."""
    prefixes = tuple(f"{prefix}__" for prefix in ROUTED_PREFIXES)
    unknown = sorted(name for name in names if not name.startswith(prefixes))
    if unknown:
        raise ValueError(
            f"Unknown parameter(s) {', '.join(unknown)}: parameters of parts must begin with one "
            f"of {', '.join(prefixes)}."
        )


def encode_labels(y: Any, classes: np.ndarray, name: str = "y") -> np.ndarray:
    """Return the positions of labels in the sorted `classes`.

    Raises
    ------
    ValueError
        If a label is not among the classes.
    """
    y = np.asarray(y)
    position = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    unseen = classes[position] != y
    if np.any(unseen):
        raise ValueError(
            f"`{name}` must hold labels seen in fit, {classes.tolist()!r}; got "
            f"{np.unique(y[unseen]).tolist()!r}."
        )
    return position
