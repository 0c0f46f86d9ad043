"""Transition matrices to start the noise layer from.

Each start is a function of the log-probabilities ``log p(z=j|x_t)`` that a network trained on
the observed labels gives, of those labels, and of the sample weights. It returns a matrix of
shape (true, observed) whose rows sum to one. `confusion_start` is the paper's and takes the
rows that the network was trained on; the others want rows that it was not trained on, since a
network that has seen a label believes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from sknoisy._support.threads import threads_for_classes
from sknoisy._transition.calibration import (
    SOME_ROWS,
    Recalibration,
    are_few_rows,
    fit_pooled_noise,
    fit_sparse_noise,
    mean_gain,
    parts,
    sharpen,
    shrunk_to_pooled_noise,
    uniform_noise,
    with_pooled_noise,
    with_sharpness,
)
from sknoisy._transition.counts import expected_transition, soft_counts
from sknoisy._transition.mixture import (
    SIMPLE_KINDS,
    MixtureFit,
    capped_rows,
    fit_clusters,
    fit_mixture,
    heaviest_diagonal,
    hellinger_roots,
    most_likely_kind,
    recount,
)

_CALIBRATION_ELEMENTS = 200_000
_FEWEST_CALIBRATION_ROWS = 1_000
_MOST_CLASSES_TO_CALIBRATE = 200
_FEWEST_CLASSES_FOR_ONE_KIND = 50
_FEWEST_ROWS_FOR_ONE_KIND = 2_000
_FEWEST_CLASSES_FOR_CLUSTERINGS = 6
_CLUSTERINGS_OF_FEW_ROWS = 3
_SMALLEST_TRANSITION = 1e-12
_POWERS = (1.0, 1.5, 2.0, 3.0)
_RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_SPREAD = 0.05
_ERRORS_OF_SYMMETRIC = 1.0


class Estimate(NamedTuple):
    """A matrix, and how well it explains the labels that it was estimated from.

    Attributes
    ----------
    transition : ndarray of shape (true, observed)
        Rows sum to one.
    log_likelihood : float
        Mean log-likelihood of an observed label.
    left_out : ndarray of shape (n_samples,) or None
        Log-likelihood of each label beside a matrix that was estimated from others.
    optimism : float
        By how much it explains a label better that it was estimated from, if that was measured.
    shrunk_by : float
        By how many labels each of its rows was shrunk to one rate.
    is_simple : bool
        Whether it is a mixture of few wrong labels, or of classes that are confused.
    of_parts : sequence of ndarray of shape (true, observed)
        The same estimate without each part of the labels, if that was asked for.
    """

    transition: np.ndarray
    log_likelihood: float
    left_out: np.ndarray | None = None
    optimism: float = 0.0
    shrunk_by: float = 0.0
    is_simple: bool = False
    of_parts: Sequence[np.ndarray] = ()


def _judged(
    found: Recalibration, weight: np.ndarray | None, left_out: np.ndarray | None
) -> Estimate:
    """Return the matrix of a fit, with how well it explains labels of the fit, and others."""
    assert found.transition is not None
    log_likelihood = float(np.average(found.log_likelihood, weights=weight))
    if left_out is None or len(left_out) != len(found.log_likelihood):
        return Estimate(found.transition, log_likelihood, left_out, shrunk_by=found.shrunk_by)
    optimism = log_likelihood - float(np.average(left_out, weights=weight))
    return Estimate(found.transition, log_likelihood, left_out, optimism, found.shrunk_by)


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
    rows = capped_rows(len(log_proba), log_proba.shape[1], random_state)
    weights = None if weight is None else weight[rows]
    with threads_for_classes(log_proba.shape[1]):
        kmeans = fit_clusters(log_proba[rows], weights, random_state)
        clusters = kmeans.predict(hellinger_roots(log_proba))
    n_classes = log_proba.shape[1]
    counts = soft_counts(np.eye(n_classes)[clusters], target, n_classes, weight)
    return expected_transition(counts[heaviest_diagonal(counts)])


def uniform_start(
    log_proba: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return errors that are spread evenly over all other classes, at the most likely rate.

    It is fitted together with the sharpness of the predictions (see `fit_pooled_noise`). Parameters
    are those of `calibrated_start`; the matrix is of shape (true, observed).
    """
    n_classes = log_proba.shape[1]
    return uniform_noise(fit_pooled_noise(log_proba, target, weight)[1], n_classes)


def calibrated_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    left_out: bool = False,
    may_be_uniform: bool = False,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix that explains the labels best beside calibrated predictions.

    The predictions are sharpened, ``p(y=i|x) ~ p(z=i|x)^beta``, until they and a matrix together
    make the observed labels likeliest (`recalibrate`). First the matrix has one parameter, the
    rate of errors that are spread over all other classes; then it is free, and each row is shrunk
    towards the first one, by twenty labels or, where few rows cannot tell all entries, by up to
    4000 (see `shrunk_to_pooled_noise`). So classes with few rows keep the pooled rate.
    What is merely hard to predict is left to the predictions: the matrix stays near the identity
    unless labels differ from predictions that are confident and right elsewhere.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        On rows that the network was not trained on.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    left_out : bool, default=False
        Whether the likelihood of labels that are left out is of interest, and each row is shrunk as
        where rows are few.
    may_be_uniform : bool, default=False
        Whether one rate is kept where rows are not few if a freer matrix explains labels that are
        left out worse.
    random_state : int or None, default=None

    Returns
    -------
    Estimate
    """
    found = calibrate(
        log_proba,
        target,
        weight,
        left_out=left_out,
        may_be_uniform=may_be_uniform,
        random_state=random_state,
    )
    rows = _calibration_rows(len(log_proba), log_proba.shape[1], random_state)
    return _judged(found, None if weight is None else weight[rows], found.left_out)


def calibrate(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    left_out: bool = False,
    may_be_uniform: bool = False,
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
        if n_classes > _MOST_CLASSES_TO_CALIBRATE:
            return with_pooled_noise(log_proba, target, weight)
        return shrunk_to_pooled_noise(
            log_proba,
            target,
            weight,
            left_out=left_out,
            may_be_uniform=may_be_uniform,
            random_state=random_state,
        )


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
    apart: bool = True,
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
    apart : bool, default=True
        Whether these are not counted, unless each row was held out from some network.

    Returns
    -------
    ndarray of shape (true, observed)
    """
    n_classes = log_proba.shape[1]
    counted = np.arange(len(target))
    if apart and len(unseen) < len(target):
        counted = np.setdiff1d(counted, unseen)
    weights = None if weight is None else weight[counted]
    share = confident_start(log_proba[counted], target[counted], weights)
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


def sparse_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    balanced: bool = False,
    may_be_symmetric: bool = True,
    judged: np.ndarray | None = None,
    apart: bool = True,
    part: np.ndarray | None = None,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix of classes that turn into one wrong label each, for the most part.

    With few rows of a class the labels cannot tell all entries of its row; if there is one label
    that it turns into, they can tell that one (see `fit_sparse_noise`). The matrix of classes that
    are confused with one another is returned if the labels whose likelihood is of interest are
    likelier beside it by a standard error.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        On rows that the network was not trained on.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    balanced : bool, default=False
        Whether the classes are as frequent as their labels.
    may_be_symmetric : bool, default=True
        Whether classes that are confused with one another are tried.
    judged : ndarray of bool of shape (n_samples,), default=None
        Rows whose likelihood is of interest. None: each part of the rows is left out in turn.
    apart : bool, default=True
        Whether the estimate is that of the other rows; otherwise it is that of all.
    part : ndarray of int of shape (n_samples,), default=None
        Number of the part of each row that is left out in turn, and has an estimate of its own.
        None: one of five that are drawn.
    random_state : int or None, default=None
        Of the parts that are drawn.

    Returns
    -------
    Estimate
    """

    def estimate(symmetric: bool) -> Estimate:
        fit = partial(fit_sparse_noise, balanced=balanced, symmetric=symmetric)
        if judged is None:
            numbers = parts(len(target), random_state) if part is None else part
            left_out, others = _left_out(fit, log_proba, target, weight, numbers)
            estimated = _judged(fit(log_proba, target, weight), weight, left_out)
            return estimated if part is None else estimated._replace(of_parts=others)
        rows = ~judged if apart else np.ones_like(judged)
        weights = None if weight is None else weight[rows]
        found = fit(log_proba[rows], target[rows], weights)
        assert found.transition is not None
        log_column = np.log(found.transition).T[target[judged]]
        left_out = sharpen(log_proba[judged] + found.offset, log_column).log_likelihood
        return _judged(found, weights, left_out)

    with threads_for_classes(log_proba.shape[1]):
        directed = estimate(False)
        if not may_be_symmetric:
            return directed
        symmetric = estimate(True)
    assert directed.left_out is not None and symmetric.left_out is not None
    of_judged = weight if weight is None or judged is None else weight[judged]
    gain, error = mean_gain(symmetric.left_out - directed.left_out, of_judged)
    return symmetric if gain > _ERRORS_OF_SYMMETRIC * error else directed


def _left_out(
    fit: Callable[..., Recalibration],
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    part: np.ndarray,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the log-likelihood of each label beside what was fitted to those of other parts.

    And the matrices of these fits.
    """
    log_likelihood, matrices = np.empty(len(target)), []
    for number in np.unique(part):
        out = part == number
        others = None if weight is None else weight[~out]
        found = fit(log_proba[~out], target[~out], others)
        assert found.transition is not None
        log_column = np.log(found.transition).T[target[out]]
        seen = with_sharpness(log_proba[out] + found.offset, log_column, found.sharpness)
        log_likelihood[out] = seen.log_likelihood
        matrices.append(found.transition)
    return log_likelihood, matrices


def mixture_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    smooth: bool = True,
    from_clusters: bool = True,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix of the noisy mixture that tells the observed labels best.

    The mixture (see `fit_noisy_mixture`) is fitted to two views of the predicted distributions,
    logarithms that see all the tails and logarithms that see none below a hundredth, each from
    the predicted classes and from clusters. The fit with the highest log-likelihood of the
    observed labels wins: clusters merge when classes are many, predicted classes blur when the
    noise is heavy, and no one start serves both. With three to 49 classes, and below 2000 rows or
    with some of each class (see `are_few_rows`), it is fitted with balanced classes as well, and
    from the best of these a sparse, a symmetric and a smooth mixture (see `most_likely_kind`).
    Below 2000 rows, and with six classes and more, it starts from three clusterings.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    smooth : bool, default=True
        Whether a smooth mixture may be taken. It has no entry that is zero, and seems to have more
        parameters than it has where these are counted.
    from_clusters : bool, default=True
        Whether EM starts from clusters as well: the predicted classes of a network that was trained
        jointly are as good.
    random_state : int or None, default=None

    Returns
    -------
    Estimate
    """
    n_samples, n_classes = log_proba.shape
    few = n_samples < _FEWEST_ROWS_FOR_ONE_KIND
    some = 2 < n_classes < _FEWEST_CLASSES_FOR_ONE_KIND and (
        few or are_few_rows(n_samples, n_classes, *SOME_ROWS)
    )
    several = some and few and n_classes >= _FEWEST_CLASSES_FOR_CLUSTERINGS
    n_clusterings = _CLUSTERINGS_OF_FEW_ROWS if several else 1
    kinds = ("free", "balanced") if some else ("free",)
    with threads_for_classes(n_classes):
        fit = fit_mixture(
            log_proba,
            target,
            weight,
            n_clusterings=n_clusterings if from_clusters else 0,
            kinds=kinds,
            random_state=random_state,
        )
        if some:
            fit = most_likely_kind(
                fit, log_proba, target, weight, smooth=smooth, random_state=random_state
            )
        return of_all_rows(fit, log_proba, target, weight)


def of_all_rows(
    fit: MixtureFit, log_proba: np.ndarray, target: np.ndarray, weight: np.ndarray | None
) -> Estimate:
    """Return the matrix of a mixture, counted on all rows if it was fitted to some.

    Parameters are those of `mixture_start`, after the fit.
    """
    mixture, transition = fit.mixture, fit.mixture.transition
    if len(fit.classes) < len(log_proba):
        transition = recount(mixture, fit.view(log_proba), target, weight=weight)
    return Estimate(transition, mixture.log_likelihood, is_simple=fit.kind in SIMPLE_KINDS)


def _matrix_of(
    responsibility: np.ndarray, target: np.ndarray, weight: np.ndarray | None
) -> np.ndarray:
    counts = soft_counts(responsibility, target, responsibility.shape[1], weight)
    return expected_transition(counts)
