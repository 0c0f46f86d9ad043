"""Transition matrices to start the noise layer from.

Each start is a function of the log-probabilities ``log p(z=j|x_t)`` that a network trained on
the observed labels gives, of those labels, and of the sample weights. It returns a matrix of
shape (true, observed) whose rows sum to one. `confusion_start` is the paper's and takes the
rows that the network was trained on; the others want rows that it was not trained on, since a
network that has seen a label believes it.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import softmax
from sklearn.cluster import KMeans

from sknoisy import _functional as F
from sknoisy._mixture import fit_noisy_mixture, heaviest_diagonal

_SMALLEST_LOG_PROBABILITY = -30.0


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
    return _transition_from_shares(np.exp(log_proba), target, weight)


def cluster_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | np.random.RandomState | None = None,
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
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    ndarray of shape (true, observed)
    """
    shares = _cluster_shares(log_proba, weight, random_state)
    transition = _transition_from_shares(shares, target, weight)
    return transition[heaviest_diagonal(transition)]


def mixture_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | np.random.RandomState | None = None,
) -> np.ndarray:
    """Matrix of the noisy mixture that tells the observed labels best.

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
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    ndarray of shape (true, observed)
    """
    n_classes = log_proba.shape[1]
    log_proba = np.maximum(log_proba.astype(np.float64), _SMALLEST_LOG_PROBABILITY)
    fits = [
        fit_noisy_mixture(scores, target, responsibility, weight=weight)
        for scores in (_contrasts(log_proba), np.log(np.exp(log_proba) + 0.01))
        for responsibility in (
            np.eye(n_classes)[log_proba.argmax(axis=1)],
            _cluster_shares(log_proba, weight, random_state),
        )
    ]
    return max(fits, key=lambda fit: fit.log_likelihood).transition


def _contrasts(log_proba: np.ndarray) -> np.ndarray:
    """Project log-probabilities to the k - 1 dimensions in which they differ."""
    n_classes = log_proba.shape[1]
    centring = np.eye(n_classes) - 1.0 / n_classes
    return log_proba @ np.linalg.svd(centring)[0][:, : n_classes - 1]


def _cluster_shares(
    log_proba: np.ndarray,
    weight: np.ndarray | None,
    random_state: int | np.random.RandomState | None,
) -> np.ndarray:
    """One-hot membership of k clusters, shape (n_samples, n_classes)."""
    n_classes = log_proba.shape[1]
    clusters = KMeans(n_classes, n_init=4, random_state=random_state)
    roots = np.exp(0.5 * log_proba.astype(np.float64))
    return np.eye(n_classes)[clusters.fit_predict(roots, sample_weight=weight)]


def _transition_from_shares(
    shares: np.ndarray, target: np.ndarray, weight: np.ndarray | None
) -> np.ndarray:
    counts = F.soft_counts(
        torch.from_numpy(shares),
        torch.from_numpy(target),
        shares.shape[1],
        None if weight is None else torch.from_numpy(weight),
    )
    return F.expected_transition(counts).numpy()
