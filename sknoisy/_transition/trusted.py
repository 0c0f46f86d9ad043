"""Transition matrices counted on rows whose label was checked."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from sknoisy._support.validation import FloatArray
from sknoisy._transition.counts import expected_transition, floored
from sknoisy._transition.mixture import fit_mixture
from sknoisy._transition.starts import Estimate, of_all_rows

_SPREAD = 0.02
_SUPPOSED_ROWS = 2.0
_COUNTED = 0.5
_EVIDENCE = 2.0


def trusted_counts(
    proba: FloatArray, true_label: np.ndarray, weight: np.ndarray | None = None
) -> FloatArray:
    """Count true against observed classes of rows whose label was checked.

    What a network predicts of the observed label stands for it, a network that was trained on
    observed labels alone (gold loss correction; D. Hendrycks et al., "Using trusted data to train
    deep networks on labels corrupted by severe noise", NeurIPS 2018). The observed labels
    themselves would not do where rows were chosen to be checked because they look wrong.

    Parameters
    ----------
    proba : ndarray of shape (n_trusted, observed)
        Probabilities of the observed label.
    true_label : ndarray of shape (n_trusted,)
        Encoded.
    weight : ndarray of shape (n_trusted,), default=None
        Sample weights.

    Returns
    -------
    ndarray of shape (true, observed)
    """
    counts = np.zeros((proba.shape[1], proba.shape[1]))
    np.add.at(counts, true_label, proba if weight is None else proba * weight[:, None])
    return counts


def trusted_start(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    counts: FloatArray,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix of a mixture that begins with the counts of rows whose label was checked.

    A few checked rows of a class say which predictions belong to it, and little of how often it
    gets each label. So each row goes to the class whose counts are most like what is predicted of
    its label, and from there `fit_noisy_mixture` learns from all rows.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, observed)
        What a network predicts of the observed labels of rows that it was not trained on.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    counts : ndarray of shape (true, observed)
        From `trusted_counts`, or with `and_supposed` from few of them.
    random_state : int or None, default=None

    Returns
    -------
    Estimate
    """
    roots = np.sqrt(expected_transition(counts))  # Hellinger's affinity of distributions
    nearest = (np.exp(0.5 * log_proba) @ roots.T).argmax(axis=1)
    fit = fit_mixture(
        log_proba,
        target,
        weight,
        random_state=random_state,
        starts=[nearest],
        keep_names=True,
    )
    return of_all_rows(fit, log_proba, target, weight)


def explained_counts(transition: FloatArray, counts: FloatArray) -> float:
    """Return the log-likelihood of counts under a matrix that was not estimated from them.

    One in fifty labels is spread evenly, so that no single one decides.

    Parameters
    ----------
    transition, counts : ndarray of shape (true, observed)
    """
    spread = (1.0 - _SPREAD) * transition + _SPREAD / len(transition)
    return float(np.sum(counts * np.log(spread)))


def and_supposed(counts: FloatArray, transition: FloatArray) -> FloatArray:
    """Add two rows of each class to counts, as a matrix that was estimated otherwise has them.

    Parameters
    ----------
    counts, transition : ndarray of shape (true, observed)
    """
    return counts + _SUPPOSED_ROWS * transition


def contradict(counts: FloatArray, transition: FloatArray) -> bool:
    """Whether a matrix is far from counts, given that as many numbers were counted.

    By three standard deviations of the chi-squared distribution.

    Parameters
    ----------
    counts, transition : ndarray of shape (true, observed)
    """
    found = expected_transition(counts)
    deviance = 2.0 * (explained_counts(found, counts) - explained_counts(transition, counts))
    counted = np.maximum((counts >= _COUNTED).sum(axis=1) - 1, 0).sum()
    free = float(max(counted, len(counts)))
    return bool(deviance > free + 3.0 * np.sqrt(2.0 * free))


def named_by_counts(transition: FloatArray, counts: FloatArray) -> FloatArray:
    """Order the rows of a matrix so that it explains counts of named classes best.

    Parameters
    ----------
    transition : ndarray of shape (true, observed)
        Of classes whose names are not known.
    counts : ndarray of shape (true, observed)

    Returns
    -------
    ndarray of shape (true, observed)
    """
    gain = counts @ np.log(floored(transition, 1e-3)).T
    return transition[best_names(gain)]


def best_names(gain: FloatArray) -> np.ndarray:
    """Return which class to give each name, so that the sum of the gains is the largest.

    Parameters
    ----------
    gain : ndarray of shape (names, classes)
        What would be gained, in nats or in rows. A class keeps its own name unless another one
        gains two more: a single checked row renames it only if its label is all but impossible.

    Returns
    -------
    ndarray of int of shape (names,)
    """
    return np.asarray(linear_sum_assignment(-gain - _EVIDENCE * np.eye(len(gain)))[1])
