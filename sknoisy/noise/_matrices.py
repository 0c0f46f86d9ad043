"""Transition matrices of synthetic noise."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from scipy.stats import truncnorm
from sklearn.utils import check_array, check_random_state, check_scalar, column_or_1d

from sknoisy._support.validation import FloatArray, check_transition_matrix
from sknoisy.noise._corrupt import RandomState


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
        towards 1 to fit; the true label need not be the most likely one of its row.

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
    inner = check_transition_matrix(transition_matrix)
    outer = np.eye(len(inner))
    if outside is not None:
        outer = check_transition_matrix(outside, name="outside")
    if inner.shape != outer.shape:
        raise ValueError(
            f"outside must have the shape of transition_matrix, {inner.shape}, got {outer.shape}."
        )
    return np.where(mask[:, None, None], inner, outer)


def boundary_transition(
    clean_proba: ArrayLike, rate: float, *, sharpness: float = 1.0
) -> FloatArray:
    r"""Noise that strikes near the boundary between the classes.

    The less a classifier can tell the two most likely classes of a sample apart, the more likely is
    a wrong label; and the wrong label tends to be a class that the classifier finds plausible.

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


def instance_transition(
    X: ArrayLike,
    n_classes: int,
    rate: float,
    *,
    spread: float = 0.1,
    random_state: RandomState = None,
) -> FloatArray:
    r"""Noise that depends on the features of each sample, through random projections.

    Every sample has a rate of its own, and which wrong label it gets depends on its features: two
    samples of a class that look alike are mislabelled alike.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Features. With columns of variance one the wrong label is nearly a function of the sample.
    n_classes : int
    rate : float
        Mean of the normal distribution, cut off at 0 and 1, from which the rates of the samples
        are drawn. Between 0 and 1; unless it is close to one of them, it is the probability that
        an observed label differs from the true one, averaged over the samples.
    spread : float, default=0.1
        Standard deviation of this distribution before it is cut off.
    random_state : int, RandomState instance or None, default=None
        Pass an int for a reproducible result.

    Returns
    -------
    ndarray of shape (n_samples, true, observed)
        One matrix per sample.

    Notes
    -----
    This is the instance-dependent noise of [1]_. With weights :math:`w_{ij}` of standard normal
    entries, a vector for each pair of classes, and the rate :math:`q_t` of sample t,
    :math:`p(z=j \mid y=i, x_t) = q_t \, \mathrm{softmax}_{j \ne i}(w_{ij} \cdot x_t)`.

    References
    ----------
    .. [1] X. Xia, T. Liu, B. Han, N. Wang, M. Gong, H. Liu, G. Niu, D. Tao and M. Sugiyama,
       "Part-dependent label noise: towards instance-dependent label noise", NeurIPS 2020.

    Examples
    --------
    >>> from sknoisy.noise import instance_transition
    >>> transition = instance_transition([[1.0, 0.0], [0.0, 1.0]], 3, 0.4, random_state=0)
    >>> transition.shape
    (2, 3, 3)
    >>> print(transition.sum(axis=2).round(6))
    [[1. 1. 1.]
     [1. 1. 1.]]
    """
    features = check_array(X, dtype=np.float64, input_name="X")
    check_scalar(n_classes, "n_classes", Integral, min_val=2)
    _check_rate(rate)
    check_scalar(spread, "spread", Real, min_val=0)
    random = check_random_state(random_state)
    n_samples, n_features = features.shape
    rates: FloatArray = np.full(n_samples, float(rate))
    if spread > 0:
        bounds = (0.0 - rate) / spread, (1.0 - rate) / spread
        rates = truncnorm.rvs(*bounds, rate, spread, size=n_samples, random_state=random)
    transition = np.empty((n_samples, n_classes, n_classes))
    for index in range(n_classes):
        scores = features @ random.normal(size=(n_features, n_classes))
        scores[:, index] = -np.inf
        transition[:, index] = rates[:, None] * softmax(scores, axis=1)
        transition[:, index, index] = 1.0 - rates
    return transition


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


def _check_rate(rate: float) -> None:
    check_scalar(rate, "rate", Real)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate!r}.")
