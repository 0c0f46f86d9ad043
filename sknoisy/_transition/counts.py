"""Counts of true against observed classes, and the transition matrices that they make."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sknoisy._support.validation import FloatArray

#: No transition probability is started, fixed or updated below this one: a logarithm of
#: zero has no gradient and an observed label of probability zero has no likelihood.
SMALLEST_PROBABILITY = 1e-8


def soft_counts(
    responsibility: np.ndarray,
    target: np.ndarray,
    n_observed: int,
    weight: np.ndarray | None = None,
) -> FloatArray:
    """Soft confusion counts, ``sum_t p_ti 1{z_t = j}``.

    Parameters
    ----------
    responsibility : ndarray of shape (n, true)
        Probabilities of the true label: p(y=i | x_t), posteriors c_ti, or one-hot rows.
    target : ndarray of shape (n,)
        Encoded observed labels.
    n_observed : int
        Number of observed classes, the columns of the result.
    weight : ndarray of shape (n,), default=None
        Sample weights; None weighs every row one.

    Returns
    -------
    ndarray of shape (true, observed)
        In float64: counts of many rows do not fit into the mantissa of a float32.
    """
    weight = np.ones(len(target)) if weight is None else np.asarray(weight, dtype=np.float64)
    labels = sparse.csr_array(
        (weight, (target, np.arange(len(target)))), shape=(n_observed, len(target))
    )
    return np.ascontiguousarray((labels @ responsibility.astype(np.float64)).T)


def expected_transition(
    counts: FloatArray, *, smallest: float = SMALLEST_PROBABILITY
) -> FloatArray:
    """Transition matrix from soft counts, ``theta_ij = sum_t c_ti 1{z_t=j} / sum_t c_ti``.

    The closed form of the M-step when the counts come from posteriors, and the paper's start
    ``exp(b_ij)`` when they come from the clean probabilities.

    Parameters
    ----------
    counts : ndarray of shape (true, observed)
        From `soft_counts`.
    smallest : float, default=1e-8
        As for `floored`.

    Returns
    -------
    ndarray of shape (true, observed)
        Rows sum to one. A true class without any count keeps its label: its row is that of
        the identity.
    """
    mass = counts.sum(axis=1, keepdims=True)
    empty = mass <= np.finfo(np.float64).tiny
    transition = np.where(empty, np.eye(*counts.shape), counts / np.where(empty, 1.0, mass))
    return floored(transition, smallest)


def floored(transition: FloatArray, smallest: float = SMALLEST_PROBABILITY) -> FloatArray:
    """Raise every entry to at least `smallest` and normalise the rows.

    Parameters
    ----------
    transition : ndarray of shape (..., true, observed)
    smallest : float, default=1e-8

    Returns
    -------
    ndarray of shape (..., true, observed)
        Rows sum to one.
    """
    transition = np.maximum(transition, smallest)
    return transition / transition.sum(axis=-1, keepdims=True)
