"""Observed labels drawn from true ones through a transition matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state, column_or_1d

from sknoisy._support.labels import describe_missing
from sknoisy._support.validation import FloatArray, check_transition_matrix, class_indices

RandomState = int | np.random.RandomState | None


def corrupt_labels(
    y: ArrayLike,
    transition_matrix: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    exact: bool = False,
    random_state: RandomState = None,
) -> NDArray[np.generic]:
    """Replace true labels by observed ones, drawn from a transition matrix.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        True labels of any kind: strings, booleans, integers with gaps, a pandas Series or
        Categorical. Never modified.
    transition_matrix : array-like of shape (true, observed) or (n_samples, true, observed)
        Probability of each observed label given the true one, the same for all samples or one
        matrix per sample. One minus the diagonal is the rate, the probability that the observed
        label differs from the true one.
    classes : array-like of shape (n_classes,), default=None
        The labels in the order of the rows and columns. None: the sorted distinct labels of `y`,
        as in the ``classes_`` of a classifier. Needed when `y` lacks some of the classes.
    exact : bool, default=False
        False: every label is drawn independently. True: the observed labels of every true class
        have their expected counts, rounded so that they sum to the size of the class (largest
        remainder, ties broken at random), and chance decides which samples they fall on; needs
        one matrix for all samples.
    random_state : int, RandomState instance or None, default=None
        Pass an int for reproducible labels.

    Returns
    -------
    ndarray of shape (n_samples,)
        Observed labels, a new array with the dtype of the labels in `y` (a wider one if `classes`
        holds labels that it cannot represent).

    Raises
    ------
    ValueError
        If the matrix is not a transition matrix over the classes, `y` holds a label that is not in
        `classes`, or `exact` is combined with one matrix per sample.

    Examples
    --------
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> corrupt_labels(["a", "a", "b", "b"], pair_transition(2, 1.0))
    array(['b', 'b', 'a', 'a'], dtype='<U1')
    """
    _refuse_missing(y)
    labels = column_or_1d(np.asarray(y))
    names = _distinct(labels) if classes is None else column_or_1d(np.asarray(classes))
    if len(set(names.tolist())) != len(names):
        raise ValueError(f"classes must hold distinct labels, got {names.tolist()}.")
    transition = check_transition_matrix(transition_matrix, n_samples=len(labels))
    if transition.shape[-1] != len(names):
        raise ValueError(
            f"transition_matrix must have a row and a column for each of the {len(names)} labels "
            f"in {'y' if classes is None else 'classes'}, got shape {transition.shape}. "
            "Pass classes if y lacks some of them."
        )
    if exact and transition.ndim == 3:
        raise ValueError(
            "exact=True needs one transition_matrix for all samples, of shape (true, observed), "
            f"got shape {transition.shape}."
        )
    true = class_indices(labels, names)
    if np.any(true < 0):
        unknown = sorted(set(labels[true < 0].tolist()), key=str)
        raise ValueError(f"y must hold only labels in classes, {names.tolist()}, got {unknown}.")

    assign = _assign_expected_counts if exact else _draw_observed
    observed = assign(true, transition, check_random_state(random_state))
    cast = names.astype(labels.dtype)
    if cast.tolist() != names.tolist():
        cast = names.astype(np.result_type(names.dtype, labels.dtype))
    return cast[observed]


def _draw_observed(
    true: NDArray[np.intp], transition: FloatArray, random: np.random.RandomState
) -> NDArray[np.intp]:
    """Draw the observed class of each sample; both (n_samples,) class indices."""
    cumulative = transition.cumsum(axis=-1)
    cumulative /= cumulative[..., -1:]
    uniform = random.uniform(size=len(true))
    if transition.ndim == 3:
        of_true_class = cumulative[np.arange(len(true)), true]
        return np.asarray((of_true_class <= uniform[:, None]).sum(axis=1))
    observed = np.empty_like(true)
    for index, row in enumerate(cumulative):
        members = true == index
        observed[members] = np.searchsorted(row, uniform[members], side="right")
    return observed


def _assign_expected_counts(
    true: NDArray[np.intp], transition: FloatArray, random: np.random.RandomState
) -> NDArray[np.intp]:
    """Deal out the expected counts of observed classes; both (n_samples,) class indices."""
    observed = np.empty_like(true)
    n_classes = len(transition)
    for index, row in enumerate(transition / transition.sum(axis=1, keepdims=True)):
        members = np.flatnonzero(true == index)
        expected = len(members) * row
        counts = np.floor(expected).astype(int)
        # Rounded, so that equal shares tie and the first classes do not win every time.
        remainder = np.round(expected - counts, 9)
        order = np.lexsort((random.uniform(size=n_classes), -remainder))
        counts[order[: len(members) - counts.sum()]] += 1
        observed[random.permutation(members)] = np.repeat(np.arange(n_classes), counts)
    return observed


def _refuse_missing(y: ArrayLike) -> None:
    missing = describe_missing(y)
    if missing is not None:
        values = y if isinstance(y, list | tuple) else np.asarray(y).ravel().tolist()
        raise _not_of_one_kind(values, f" {missing}")


def _distinct(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the sorted distinct labels."""
    try:
        return np.unique(labels)
    except TypeError:
        raise _not_of_one_kind(labels.tolist()) from None


def _not_of_one_kind(values: Iterable[Any], more: str = "") -> ValueError:
    kinds = sorted({type(value).__name__ for value in values})
    return ValueError(
        f"y must hold sortable labels of one kind and no missing ones, got values of {kinds}.{more}"
    )
