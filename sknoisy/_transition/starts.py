"""Transition matrices to start the noise layer from.

Each start is a function of the log-probabilities ``log p(z=j|x_t)`` that a network trained on
the observed labels gives, of those labels, and of the sample weights. It returns a matrix of
shape (true, observed) whose rows sum to one. `confusion_start` is the paper's and takes the
rows that the network was trained on; the others want rows that it was not trained on, since a
network that has seen a label believes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from sknoisy._support.threads import threads_for_classes
from sknoisy._transition.calibration import (
    Recalibration,
    fit_pooled_noise,
    recalibrate,
    sharpen,
    uniform_noise,
    with_pooled_noise,
)
from sknoisy._transition.counts import expected_transition, soft_counts
from sknoisy._transition.mixture import (
    NoisyMixture,
    fit_noisy_mixture,
    heaviest_diagonal,
    recount,
)

SMALLEST_LOG_PROBABILITY = -30.0
_MIXTURE_ROWS = (5_000, 20_000)
_ROWS_PER_CLUSTER = 10
_PSEUDO_LABELS = 20.0
_CALIBRATION_ELEMENTS = 200_000
_FEWEST_CALIBRATION_ROWS = 1_000
_MOST_CLASSES_TO_CALIBRATE = 200
_SMALLEST_TRANSITION = 1e-12
_POWERS = (1.0, 1.5, 2.0, 3.0)
_RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_SPREAD = 0.05


class Estimate(NamedTuple):
    """A matrix, and how well it explains the labels that it was estimated from.

    Attributes
    ----------
    transition : ndarray of shape (true, observed)
        Rows sum to one.
    log_likelihood : float
        Mean log-likelihood of an observed label.
    """

    transition: np.ndarray
    log_likelihood: float


def confusion_start(
    log_proba: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Soft confusion of the baseline: ``sum_t 1{z_t=j} p(y=i|x_t) / sum_t p(y=i|x_t)``.

    The start of Goldberger and Ben-Reuven (2017).

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        Log-probabilities of the baseline, on the rows it was trained on.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None

    Returns
    -------
    ndarray of shape (true, observed)
    """
    return _matrix_of(np.exp(log_proba), target, weight)


def hard_start(
    log_proba: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Count the predicted against the observed class, ``sum_t 1{i = arg max p_t} 1{z_t=j}``.

    The confusion matrix that G. Patrini et al., "Making deep neural networks robust to label
    noise: a loss correction approach", CVPR 2017, compare with. The public code of Goldberger and
    Ben-Reuven (github.com/udibr/noisy_labels) starts the noise layer from it, on all rows that the
    network was trained on or stopped by, with ``b = log(. + 1e-8)``. A class that is predicted for
    no row has no such row of counts; here it keeps its label.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None

    Returns
    -------
    ndarray of shape (true, observed)
    """
    responsibility = np.eye(log_proba.shape[1])[log_proba.argmax(axis=1)]
    return _matrix_of(responsibility, target, weight)


def confident_start(
    log_proba: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Count the confidently predicted against the observed class.

    A row counts for class i when its probability is at least the mean probability of i among
    the rows labelled i (C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident learning:
    estimating uncertainty in dataset labels", JAIR 70, 2021).

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None

    Returns
    -------
    ndarray of shape (true, observed)
    """
    n_classes = log_proba.shape[1]
    proba = np.exp(log_proba)
    mass = np.bincount(target, weight, n_classes)
    own = proba[np.arange(len(target)), target] * (1.0 if weight is None else weight)
    with np.errstate(invalid="ignore"):
        threshold = np.bincount(target, own, n_classes) / mass
    confident = proba >= np.where(mass > 0, threshold, np.inf)
    likeliest = np.where(confident, proba, -1.0).argmax(axis=1)
    responsibility = np.eye(n_classes)[likeliest] * confident.any(axis=1, keepdims=True)
    return _matrix_of(responsibility, target, weight)


def cluster_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
) -> np.ndarray:
    """Histogram of the observed labels in each of k clusters of the predicted distributions.

    Rows of one true class share one distribution of observed labels, so their predictions lie
    around one point of the simplex, however heavy the noise is. The clusters are found by
    k-means on the square roots of the probabilities (the Hellinger distance), and named by the
    assignment that maximises the diagonal.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    random_state : int or None, default=None

    Returns
    -------
    ndarray of shape (true, observed)
    """
    rows = _capped_rows(len(log_proba), log_proba.shape[1], random_state)
    weights = None if weight is None else weight[rows]
    with threads_for_classes(log_proba.shape[1]):
        kmeans = _fit_clusters(log_proba[rows], weights, random_state)
        clusters = kmeans.predict(_roots(log_proba))
    n_classes = log_proba.shape[1]
    counts = soft_counts(np.eye(n_classes)[clusters], target, n_classes, weight)
    return expected_transition(counts[heaviest_diagonal(counts)])


def calibrated_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix that explains the labels best beside calibrated predictions.

    The predictions are sharpened, ``p(y=i|x) ~ p(z=i|x)^beta``, until they and a matrix together
    make the observed labels likeliest (`recalibrate`). First the matrix has one parameter, the
    rate of errors that are spread over all other classes; then it is free, and each row is shrunk
    towards the first one by twenty labels, so that classes with few rows keep the pooled rate.
    What is merely hard to predict is left to the predictions: the matrix stays near the identity
    unless labels differ from predictions that are confident and right elsewhere.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        On rows that the network was not trained on.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    random_state : int or None, default=None

    Returns
    -------
    Estimate
    """
    found = calibrate(log_proba, target, weight, random_state=random_state)
    assert found.transition is not None
    rows = _calibration_rows(len(log_proba), log_proba.shape[1], random_state)
    weight = None if weight is None else weight[rows]
    return Estimate(found.transition, float(np.average(found.log_likelihood, weights=weight)))


def calibrate(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
) -> Recalibration:
    """Fit sharpness and matrix of `calibrated_start`; the parameters are the same.

    With more than 200 classes, whose rows few labels can tell apart, all keep the one rate.
    """
    n_classes = log_proba.shape[1]
    rows = _calibration_rows(len(log_proba), log_proba.shape[1], random_state)
    log_proba, target = log_proba[rows].astype(np.float64), target[rows]
    weight = None if weight is None else weight[rows]
    with threads_for_classes(n_classes):
        _, rate = fit_pooled_noise(log_proba, target, weight)
        pooled = uniform_noise(rate, n_classes)
        if n_classes > _MOST_CLASSES_TO_CALIBRATE:
            return with_pooled_noise(log_proba, target, weight)
        strength = _PSEUDO_LABELS / n_classes
        return recalibrate(log_proba, target, pooled, weight=weight, pseudo_count=strength)


def _calibration_rows(n_samples: int, n_classes: int, seed: int | None) -> np.ndarray | slice:
    most = max(_FEWEST_CALIBRATION_ROWS, _CALIBRATION_ELEMENTS // n_classes)
    if n_samples <= most:
        return slice(None)
    return np.random.RandomState(seed).permutation(n_samples)[:most]


def with_own_label_likeliest(transition: np.ndarray) -> np.ndarray:
    """Move each row towards the identity until no wrong label is likelier than the right one.

    Parameters
    ----------
    transition : ndarray of shape (true, observed)

    Returns
    -------
    ndarray of shape (true, observed)
    """
    own = np.diag(transition)
    other = np.where(np.eye(len(own), dtype=bool), 0.0, transition).max(axis=1)
    excess = np.maximum(other - own, 0.0)
    share = (excess / (1.0 + excess))[:, None]
    return (1.0 - share) * transition + share * np.eye(len(own))


def recounted_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    unseen: np.ndarray,
) -> np.ndarray:
    """Count as `confident_start`, and fit the rate and the sparsity of wrong labels to unseen rows.

    The counts of a network that was trained jointly see which wrong labels a class turns into, and
    beside them all those that it is mixed up with. So only the shares of the wrong labels are
    taken from them, raised to a power that is one number for all classes, as is the rate:
    ``T_ii = 1 - r``, ``T_ij = r w_ij`` with ``w_ij ~ share_ij^g`` and one label in twenty spread
    evenly. Both numbers, and the sharpness of the predictions, are those that make the labels of
    rows that the network was not trained on likeliest.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        Clean log-probabilities.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    unseen : ndarray of int of shape (n_unseen,)
        Numbers of the rows that the network was not trained on.

    Returns
    -------
    ndarray of shape (true, observed)
    """
    n_classes = log_proba.shape[1]
    share = confident_start(log_proba, target, weight)
    np.fill_diagonal(share, 0.0)
    labels = target[unseen]
    of_rows = None if weight is None else weight[unseen]
    log_proba = log_proba[unseen]
    best, found = -np.inf, np.eye(n_classes)
    for power in _POWERS:
        wrong = share**power
        wrong /= np.maximum(wrong.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        wrong = (1.0 - _SPREAD) * wrong + _SPREAD * uniform_noise(1.0, n_classes)
        for rate in _RATES:
            transition = (1.0 - rate) * np.eye(n_classes) + rate * wrong
            transition /= transition.sum(axis=1, keepdims=True)
            log_column = np.log(np.maximum(transition, _SMALLEST_TRANSITION)).T[labels]
            fit = sharpen(log_proba, log_column, of_rows)
            log_likelihood = np.average(fit.log_likelihood, weights=of_rows)
            if log_likelihood > best:
                best, found = log_likelihood, transition
    return found


def mixture_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix of the noisy mixture that tells the observed labels best.

    The mixture (see `fit_noisy_mixture`) is fitted to two views of the predicted distributions,
    logarithms that see all the tails and logarithms that see none below a hundredth, each from
    the predicted classes and from clusters. The fit with the highest log-likelihood of the
    observed labels wins: clusters merge when classes are many, predicted classes blur when the
    noise is heavy, and no one start serves both.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    random_state : int or None, default=None

    Returns
    -------
    Estimate
    """
    with threads_for_classes(log_proba.shape[1]):
        best, view, used = fit_mixture(log_proba, target, weight, random_state=random_state)
        if used == len(log_proba):
            return Estimate(best.transition, best.log_likelihood)
        transition = recount(best, view(log_proba), target, weight=weight)
    return Estimate(transition, best.log_likelihood)


def fit_mixture(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
    starts: Sequence[np.ndarray] = (),
    from_clusters: bool = True,
    keep_names: bool = False,
) -> tuple[NoisyMixture, Callable[[np.ndarray], np.ndarray], int]:
    """Fit the mixture of `mixture_start`.

    Parameters
    ----------
    log_proba, target, weight, random_state
        As of `mixture_start`.
    starts : sequence of ndarray of shape (n_samples,), default=()
        Classes of the rows that EM starts from as well.
    from_clusters : bool, default=True
        Whether EM starts from clusters of the predictions as well.
    keep_names : bool, default=False
        Whether EM begins with `starts` only, and the classes have their names.

    Returns
    -------
    mixture : NoisyMixture
    view : callable
        Turns log-probabilities into the scores that the mixture is one of.
    n_rows : int
        How many rows it was fitted to.
    """
    n_classes = log_proba.shape[1]
    rows = _capped_rows(len(log_proba), n_classes, random_state)
    some, labels = _floored(log_proba[rows]), target[rows]
    weights = None if weight is None else weight[rows]
    first = [classes[rows] for classes in starts]
    if not keep_names:
        first.insert(0, some.argmax(axis=1))
    if from_clusters and not keep_names and len(some) >= _ROWS_PER_CLUSTER * n_classes:
        first.append(_fit_clusters(some, weights, random_state).labels_)
    fits = [
        (
            fit_noisy_mixture(
                scores, labels, classes, n_classes, weight=weights, keep_names=keep_names
            ),
            view,
        )
        for view in (_contrasts, _without_tails)
        for scores in [view(log_proba[rows])]
        for classes in first
    ]
    best, view = max(fits, key=lambda fit: fit[0].log_likelihood)
    return best, view, len(some)


def _floored(log_proba: np.ndarray) -> np.ndarray:
    return np.maximum(log_proba.astype(np.float64), SMALLEST_LOG_PROBABILITY)


def _capped_rows(n_samples: int, n_classes: int, seed: int | None) -> np.ndarray | slice:
    """Return as many rows as clustering can go over in a fraction of a training stage."""
    most = int(np.clip(4e7 / n_classes**2, *_MIXTURE_ROWS))
    if n_samples <= most:
        return slice(None)
    return np.random.RandomState(seed).permutation(n_samples)[:most]


def _contrasts(log_proba: np.ndarray) -> np.ndarray:
    """Project log-probabilities to the k - 1 dimensions in which they differ."""
    log_proba, n_classes = _floored(log_proba), log_proba.shape[1]
    centring = np.eye(n_classes) - 1.0 / n_classes
    return log_proba @ np.linalg.svd(centring)[0][:, : n_classes - 1]


def _without_tails(log_proba: np.ndarray) -> np.ndarray:
    """Return logarithms that see no probability below a hundredth."""
    proba = np.exp(_floored(log_proba))
    proba += 0.01
    return np.log(proba, out=proba)


def _fit_clusters(log_proba: np.ndarray, weight: np.ndarray | None, seed: int | None) -> KMeans:
    """Return as many clusters of predictions as there are classes."""
    kmeans = KMeans(log_proba.shape[1], n_init=4, random_state=seed)
    with warnings.catch_warnings():
        # Fewer different predictions than classes leave clusters empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit(_roots(log_proba), sample_weight=weight)


def _roots(log_proba: np.ndarray) -> np.ndarray:
    """Return square roots of probabilities, whose distances are Hellinger's."""
    return np.exp(0.5 * log_proba.astype(np.float64))


def _matrix_of(
    responsibility: np.ndarray, target: np.ndarray, weight: np.ndarray | None
) -> np.ndarray:
    counts = soft_counts(responsibility, target, responsibility.shape[1], weight)
    return expected_transition(counts)
