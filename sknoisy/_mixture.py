"""A mixture of Gaussian classes whose labels are observed through noise.

What a network says of rows that it was not trained on is spread around one centre for each
true class, wherever the labels went. The model makes that explicit,

``s_t | y=i ~ N(mu_i, Sigma)``, ``z_t | y=i ~ T_i``,

and EM fits centres, common covariance and transition matrix together, each in closed form. It
is discriminant analysis with label noise (N. D. Lawrence and B. Schölkopf, "Estimating a kernel
Fisher discriminant in the presence of label noise", ICML 2001; C. Bouveyron and S. Girard,
"Robust supervised classification with mixture models: learning from data with uncertain
labels", Pattern Recognition 42, 2009). Without the labels it is k-means with a covariance;
with T = identity it is plain linear discriminant analysis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax, logsumexp


class NoisyMixture(NamedTuple):
    """A fitted mixture.

    Attributes
    ----------
    transition : ndarray of shape (true, observed)
        Rows sum to one; the classes are named so that the diagonal is as heavy as it can be.
    log_likelihood : float
        Mean over the rows of ``log sum_i p(y=i | s_t) T[i, z_t]``: how well the observed labels
        are told from the scores. (The joint likelihood with the scores would reward a mixture
        that gives two centres to a large class and none to a rare one.)
    """

    transition: np.ndarray
    log_likelihood: float


def fit_noisy_mixture(
    scores: np.ndarray,
    target: np.ndarray,
    responsibility: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    learn_transition: bool = True,
    pseudo_count: float = 0.1,
    shrinkage: float = 0.02,
    max_iter: int = 60,
    tol: float = 1e-5,
) -> NoisyMixture:
    """Fit the mixture by EM.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_scores)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    responsibility : ndarray of shape (n_samples, n_classes)
        Where EM starts: the share of each class in each row.
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.
    learn_transition : bool, default=True
        False keeps the identity: labels without noise, plain discriminant analysis.
    pseudo_count : float, default=0.1
        Rows' worth of labels, spread evenly, that are added to every true class.
    shrinkage : float, default=0.02
        Multiple of the mean variance that is added to the diagonal of the covariance.
    max_iter : int, default=60
    tol : float, default=1e-5
        EM stops when the mean joint log-likelihood rises by less.

    Returns
    -------
    NoisyMixture
    """
    n_classes = responsibility.shape[1]
    weight = np.ones(len(scores)) if weight is None else weight
    observed = np.eye(n_classes)[target]
    transition = np.eye(n_classes)
    last = -np.inf
    for _ in range(max_iter):
        share = responsibility * weight[:, None]
        if learn_transition:
            counts = share.T @ observed + pseudo_count / n_classes
            transition = counts / counts.sum(axis=1, keepdims=True)
        log_class = _log_class_joint(scores, share, shrinkage)
        log_joint = log_class + np.log(np.maximum(transition[:, target].T, 1e-300))
        evidence = logsumexp(log_joint, axis=1)
        responsibility = np.exp(log_joint - evidence[:, None])
        mean = float(np.average(evidence, weights=weight))
        if mean - last < tol:
            break
        last = mean
    log_label = logsumexp(log_joint - logsumexp(log_class, axis=1, keepdims=True), axis=1)
    transition = transition[heaviest_diagonal(transition)]
    return NoisyMixture(transition, float(np.average(log_label, weights=weight)))


def _log_class_joint(scores: np.ndarray, share: np.ndarray, shrinkage: float) -> np.ndarray:
    """Log of ``p(y=i) N(s_t; mu_i, Sigma)`` at the weighted estimates, up to 2 pi.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_scores)
    share : ndarray of shape (n_samples, n_classes)
        Responsibilities times sample weights.
    shrinkage : float

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    mass = share.sum(axis=0) + 1e-9
    mean = share.T @ scores / mass[:, None]
    scatter = (scores * share.sum(axis=1, keepdims=True)).T @ scores - (mean.T * mass) @ mean
    covariance = scatter / mass.sum()
    ridge = shrinkage * np.trace(covariance) / len(covariance) + 1e-8
    factor = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
    white = solve_triangular(factor, scores.T, lower=True)
    centre = solve_triangular(factor, mean.T, lower=True)
    distance = (white**2).sum(0)[:, None] - 2 * white.T @ centre + (centre**2).sum(0)
    return np.log(mass / mass.sum()) - 0.5 * distance - np.log(np.diag(factor)).sum()


def heaviest_diagonal(transition: np.ndarray) -> np.ndarray:
    """Order of the rows that maximises the trace (Hungarian method).

    Parameters
    ----------
    transition : ndarray of shape (clusters, observed)

    Returns
    -------
    ndarray of shape (observed,)
        Index of the cluster that is named after each observed class.
    """
    cluster, name = linear_sum_assignment(-transition)
    order = np.empty(len(cluster), dtype=np.intp)
    order[name] = cluster
    return order
