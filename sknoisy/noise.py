"""Synthetic label noise: transition matrices, and labels corrupted with them.

A transition matrix says how labels go wrong. Its rows are the true classes, its columns the
observed ones, and element ``(i, j)`` is the probability of observing class ``j`` when the true
class is ``i``, so that every row sums to one. Noise that depends on the features has one such
matrix per sample, an array of shape (n_samples, true, observed).

Throughout, *rate* is the probability that the observed label differs from the true one. Part of
the literature instead means by it the probability ``r`` that a label is replaced by one drawn
uniformly from all the classes, the true one included; that is a rate of
``r * (n_classes - 1) / n_classes``.

Arguments outside their range raise a TypeError or ValueError that names them.
"""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state, check_scalar, column_or_1d

__all__ = [
    "block_transition",
    "boundary_transition",
    "corrupt_labels",
    "pair_transition",
    "permutation_transition",
    "random_transition",
    "region_transition",
    "transition_from_trace",
    "uniform_transition",
]

FloatArray = NDArray[np.float64]
RandomState = int | np.random.RandomState | None


def uniform_transition(n_classes: int, rate: float) -> FloatArray:
    """Noise that turns a label into any other one with equal probability.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 2.
    rate : float
        Probability in [0, 1] that the observed label differs from the true one, the same for
        every class. Where the literature resamples a share ``r`` of the labels uniformly from all
        the classes, the true one included, ``rate = r * (n_classes - 1) / n_classes``.

    Returns
    -------
    ndarray of shape (true, observed)
        ``1 - rate`` on the diagonal, ``rate / (n_classes - 1)`` elsewhere.

    Examples
    --------
    >>> from sknoisy.noise import uniform_transition
    >>> uniform_transition(3, 0.5)
    array([[0.5 , 0.25, 0.25],
           [0.25, 0.5 , 0.25],
           [0.25, 0.25, 0.5 ]])
    """
    check_scalar(n_classes, "n_classes", Integral, min_val=2)
    return block_transition(np.zeros(n_classes), rate)


def pair_transition(n_classes: int, rate: float) -> FloatArray:
    """Noise that turns a label into the next one, and the last one into the first.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 2.
    rate : float
        Probability in [0, 1] that the observed label differs from the true one, in every class.

    Returns
    -------
    ndarray of shape (true, observed)
        ``1 - rate`` on the diagonal, ``rate`` just right of it.

    Examples
    --------
    >>> from sknoisy.noise import pair_transition
    >>> pair_transition(3, 0.5)
    array([[0.5, 0.5, 0. ],
           [0. , 0.5, 0.5],
           [0.5, 0. , 0.5]])
    """
    check_scalar(n_classes, "n_classes", Integral, min_val=2)
    return permutation_transition(np.roll(np.arange(n_classes), -1), rate)


def permutation_transition(permutation: ArrayLike, rate: float) -> FloatArray:
    """Noise that turns the label of each class into one fixed other label.

    The MNIST experiments of Goldberger and Ben-Reuven (ICLR 2017) use the permutation
    ``[7, 9, 0, 4, 2, 1, 3, 5, 6, 8]``.

    Parameters
    ----------
    permutation : array-like of shape (n_classes,)
        ``permutation[i]`` is the class that class ``i`` is mistaken for. A class that is its own
        image has no noise.
    rate : float
        Probability in [0, 1] that the observed label differs from the true one, in every class
        that the permutation moves.

    Returns
    -------
    ndarray of shape (true, observed)
        ``1 - rate`` on the diagonal, ``rate`` at ``(i, permutation[i])``.

    Examples
    --------
    >>> from sknoisy.noise import permutation_transition
    >>> permutation_transition([2, 1, 0], 0.25)
    array([[0.75, 0.  , 0.25],
           [0.  , 1.  , 0.  ],
           [0.25, 0.  , 0.75]])
    """
    target = np.asarray(permutation)
    if target.ndim != 1 or not np.array_equal(np.sort(target), np.arange(len(target))):
        raise ValueError(
            "permutation must hold each of the class indices 0, ..., n_classes - 1 once, "
            f"got {target.tolist()}."
        )
    check_scalar(len(target), "the length of permutation", Integral, min_val=2)
    _check_rate(rate)
    identity: FloatArray = np.eye(len(target))
    return (1 - rate) * identity + rate * identity[target.astype(int)]


def block_transition(groups: ArrayLike, rate: float) -> FloatArray:
    """Noise that confuses the classes of a group with one another, and with no other class.

    Parameters
    ----------
    groups : array-like of shape (n_classes,)
        The group of each class, for instance its superclass. A class that is alone in its group
        has no noise.
    rate : float
        Probability in [0, 1] that the observed label differs from the true one, in every class
        with company in its group. The wrong label is uniform over the rest of the group.

    Returns
    -------
    ndarray of shape (true, observed)
        Block diagonal once the classes are sorted by group.

    Examples
    --------
    >>> from sknoisy.noise import block_transition
    >>> block_transition(["pet", "pet", "car"], 0.25)
    array([[0.75, 0.25, 0.  ],
           [0.25, 0.75, 0.  ],
           [0.  , 0.  , 1.  ]])
    """
    group = column_or_1d(np.asarray(groups))
    check_scalar(len(group), "the length of groups", Integral, min_val=2)
    _check_rate(rate)
    identity: FloatArray = np.eye(len(group))
    companions = (group[:, None] == group) - identity
    n_companions = companions.sum(axis=1, keepdims=True)
    row_rate = np.where(n_companions > 0, rate, 0.0)
    return (1 - row_rate) * identity + row_rate * companions / np.maximum(n_companions, 1)


def random_transition(
    n_classes: int, rate: float, *, random_state: RandomState = None
) -> FloatArray:
    """Noise with the same rate in every class and random confusions.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 2.
    rate : float
        Probability in [0, 1] that the observed label differs from the true one, the same for
        every class and hence, whatever the class frequencies, also the mean.
    random_state : int, RandomState instance or None, default=None
        Pass an int for a reproducible matrix.

    Returns
    -------
    ndarray of shape (true, observed)
        ``1 - rate`` on the diagonal; the rest of a row is uniform among the ways to share `rate`.

    See Also
    --------
    transition_from_trace : The rates of the classes differ and only their mean is fixed.

    Examples
    --------
    >>> from sknoisy.noise import random_transition
    >>> random_transition(4, 0.25, random_state=0).diagonal()
    array([0.75, 0.75, 0.75, 0.75])
    """
    check_scalar(n_classes, "n_classes", Integral, min_val=2)
    _check_rate(rate)
    return _draw_confusions(np.full(n_classes, 1.0 - rate), check_random_state(random_state))


def transition_from_trace(
    n_classes: int, trace: float, *, random_state: RandomState = None
) -> FloatArray:
    """Noise with random rates and random confusions, of which the mean rate is given by the trace.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 2.
    trace : float
        Sum in [0, n_classes] of the probabilities that a label stays as it is. For equally
        frequent classes, the probability that the observed label differs from the true one is
        ``1 - trace / n_classes``.
    random_state : int, RandomState instance or None, default=None
        Pass an int for a reproducible matrix.

    Returns
    -------
    ndarray of shape (true, observed)
        A matrix with the given trace. Its diagonal is drawn uniformly and then moved towards 0 or
        towards 1 to fit; the true label need not be the likeliest of its row.

    See Also
    --------
    random_transition : The same rate in every class.

    Examples
    --------
    >>> from sknoisy.noise import transition_from_trace
    >>> print(f"{transition_from_trace(4, 3.0, random_state=0).trace():.3f}")
    3.000
    """
    check_scalar(n_classes, "n_classes", Integral, min_val=2)
    check_scalar(trace, "trace", Real)
    if not 0 <= trace <= n_classes:
        raise ValueError(f"trace must be in [0, n_classes={n_classes}], got {trace!r}.")
    random = check_random_state(random_state)
    diagonal = random.uniform(size=n_classes)
    if diagonal.sum() > trace:
        diagonal *= trace / diagonal.sum()
    else:
        diagonal = 1 - (1 - diagonal) * (n_classes - trace) / (n_classes - diagonal.sum())
    return _draw_confusions(diagonal, random)


def region_transition(
    in_region: ArrayLike, transition_matrix: ArrayLike, *, outside: ArrayLike | None = None
) -> FloatArray:
    """Noise of one kind in a region of the samples and of another kind outside it.

    Parameters
    ----------
    in_region : array-like of bool of shape (n_samples,)
        Which samples are in the region, for instance ``X[:, 0] > 0``.
    transition_matrix : array-like of shape (true, observed)
        The noise in the region.
    outside : array-like of shape (true, observed), default=None
        The noise outside. None: the labels outside are right.

    Returns
    -------
    ndarray of shape (n_samples, true, observed)
        One of the two matrices per sample. The probability that the observed label differs from
        the true one is that of the matrix; its mean over the samples is a mixture of both.

    Examples
    --------
    >>> from sknoisy.noise import region_transition, uniform_transition
    >>> region_transition([False, True], uniform_transition(2, 0.25))[:, 0]
    array([[1.  , 0.  ],
           [0.75, 0.25]])
    """
    mask = np.asarray(in_region)
    if mask.ndim != 1 or mask.dtype != bool:
        raise ValueError(
            "in_region must be a boolean array of shape (n_samples,), "
            f"got dtype {mask.dtype} and shape {mask.shape}."
        )
    inner = _check_transition(transition_matrix)
    outer = np.eye(len(inner)) if outside is None else _check_transition(outside, "outside")
    if inner.shape != outer.shape:
        raise ValueError(
            f"outside must have the shape of transition_matrix, {inner.shape}, got {outer.shape}."
        )
    return np.where(mask[:, None, None], inner, outer)


def boundary_transition(
    clean_proba: ArrayLike, rate: float, *, sharpness: float = 1.0
) -> FloatArray:
    r"""Noise that strikes near the boundary between the classes.

    The less a classifier can tell the two likeliest classes of a sample apart, the likelier is a
    wrong label; and the wrong label tends to be a class that the classifier finds plausible.

    Parameters
    ----------
    clean_proba : array-like of shape (n_samples, n_classes)
        Clean class probabilities, for instance from a classifier fitted to clean labels.
    rate : float
        Probability in [0, 1] that the observed label differs from the true one, averaged over the
        samples. Within a sample it is the same for every true class, so the average is exact
        whatever the true labels are. At most the share of samples with any doubt about their class.
    sharpness : float, default=1.0
        How strongly the noise concentrates at the boundary; at least 0. With 0 all samples are
        mislabelled equally often and only the confusions depend on the features.

    Returns
    -------
    ndarray of shape (n_samples, true, observed)
        One matrix per sample.

    Notes
    -----
    With :math:`m_t` the difference between the two largest probabilities of sample t, its label
    is wrong with probability :math:`f_t = \min(1, s (1 - m_t)^{sharpness})`, where s makes the
    mean of :math:`f_t` the rate; the other classes share :math:`f_t` as their probabilities do.

    Examples
    --------
    >>> from sknoisy.noise import boundary_transition
    >>> boundary_transition([[0.5, 0.5], [1.0, 0.0]], 0.25)[:, 0]
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    proba = np.asarray(clean_proba, dtype=np.float64)
    is_distribution = np.all(proba >= 0) and np.allclose(proba.sum(axis=-1), 1, atol=1e-3)
    if proba.ndim != 2 or proba.shape[1] < 2 or not is_distribution:
        raise ValueError(
            "clean_proba must be non-negative with rows that sum to one, of shape (n_samples, "
            f"n_classes) with at least 2 classes, got {proba!r} of shape {proba.shape}."
        )
    _check_rate(rate)
    check_scalar(sharpness, "sharpness", Real, min_val=0)
    proba = proba / proba.sum(axis=1, keepdims=True)
    identity: FloatArray = np.eye(proba.shape[1])

    second, first = np.sort(proba, axis=1)[:, -2:].T
    flip_proba = _scale_to_mean((1 - (first - second)) ** sharpness, rate)[:, None, None]
    others = proba[:, None, :] * (1 - identity)
    others = np.where(others.sum(axis=2, keepdims=True) > 0, others, 1 - identity)
    confusions = others / others.sum(axis=2, keepdims=True)
    return (1 - flip_proba) * identity + flip_proba * confusions


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
    labels = column_or_1d(np.asarray(y))
    names = _distinct(labels) if classes is None else column_or_1d(np.asarray(classes))
    if len(set(names.tolist())) != len(names):
        raise ValueError(f"classes must hold distinct labels, got {names.tolist()}.")
    transition = _check_transition(transition_matrix, n_samples=len(labels))
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
    true = _class_indices(labels, names)
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


def _draw_confusions(diagonal: FloatArray, random: np.random.RandomState) -> FloatArray:
    """Complete a diagonal to a (true, observed) matrix with uniformly drawn confusions."""
    n_classes = len(diagonal)
    transition: FloatArray = np.diag(diagonal)
    shares = random.dirichlet(np.ones(n_classes - 1), size=n_classes)
    transition[~np.eye(n_classes, dtype=bool)] = ((1 - diagonal)[:, None] * shares).ravel()
    return transition


def _scale_to_mean(weights: FloatArray, rate: float) -> FloatArray:
    """Return ``min(1, scale * weights)``, (n_samples,), whose mean is `rate`."""
    n_samples, n_positive = len(weights), np.count_nonzero(weights)
    if rate * n_samples > n_positive:
        raise ValueError(
            f"rate must be at most {n_positive / n_samples:.3g}, the share of samples with any "
            f"doubt about their class in clean_proba, got {rate!r}."
        )
    if rate == 0 or n_samples == 0:
        return np.zeros_like(weights)
    descending = np.sort(weights)[::-1]
    rest = descending[::-1].cumsum()[::-1]
    to_share = rate * n_samples - np.arange(n_samples)
    n_saturated = int(np.argmax(to_share * descending <= rest))
    return np.minimum(1, to_share[n_saturated] / rest[n_saturated] * weights)


def _distinct(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the sorted distinct labels, and refuse missing ones."""
    try:
        distinct = np.unique(labels)
        complete = all(label is not None and label == label for label in distinct.tolist())
    except TypeError:
        complete = False
    if not complete:
        kinds = sorted({type(label).__name__ for label in labels.tolist()})
        raise ValueError(
            f"y must hold sortable labels of one kind and no missing ones, got values of {kinds}."
        )
    return distinct


def _class_indices(labels: NDArray[np.generic], classes: NDArray[np.generic]) -> NDArray[np.intp]:
    """Return the position of each label in `classes`, -1 where it has none; shape of `labels`."""
    position = {label: index for index, label in enumerate(classes.tolist())}
    return np.array([position.get(label, -1) for label in labels.tolist()], dtype=np.intp)


def _check_rate(rate: float) -> None:
    check_scalar(rate, "rate", Real)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate!r}.")


def _check_transition(
    transition_matrix: ArrayLike, name: str = "transition_matrix", *, n_samples: int | None = None
) -> FloatArray:
    """Validate a (true, observed) matrix, or with `n_samples` also one per sample.

    Rows may miss a sum of one by the square root of the precision of the dtype that came.
    """
    given = np.asarray(transition_matrix)
    square = given.ndim >= 2 and given.shape[-1] == given.shape[-2] >= 1
    if not square or given.shape[:-2] not in {(), (n_samples,)}:
        per_sample = "" if n_samples is None else f" or ({n_samples}, true, observed)"
        raise ValueError(
            f"{name} must have shape (true, observed){per_sample}, square, got shape {given.shape}."
        )
    transition = given.astype(np.float64)
    if not np.all(np.isfinite(transition) & (transition >= 0)):
        raise ValueError(
            f"{name} must be finite and non-negative, got values from {transition.min()} "
            f"to {transition.max()}."
        )
    precision = given.dtype if given.dtype.kind == "f" else np.float64
    sums = transition.sum(axis=-1)
    if np.any(np.abs(sums - 1) > np.sqrt(np.finfo(precision).eps)):
        raise ValueError(
            f"{name} must have rows (true classes) that sum to one, got sums from "
            f"{sums.min():.6g} to {sums.max():.6g}. If its columns are the true classes, transpose."
        )
    return transition
