"""Transition matrices to start the noise layer from.

Each start is a function of probabilities, observed labels and weights; it returns a matrix
of shape (true, observed), as a float64 tensor whose rows sum to one.
"""

from __future__ import annotations

from torch import Tensor

from sknoisy import _functional as F


def confusion_start(proba: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Soft confusion of the baseline: ``sum_t 1{z_t=j} p(y=i|x_t) / sum_t p(y=i|x_t)``.

    The start of Goldberger and Ben-Reuven (2017).

    Parameters
    ----------
    proba : Tensor of shape (n, n_classes)
        Class probabilities of the baseline.
    target : Tensor of shape (n,)
        Encoded observed labels.
    weight : Tensor of shape (n,), default=None

    Returns
    -------
    Tensor of shape (true, observed)
    """
    return F.expected_transition(F.soft_counts(proba, target, proba.shape[1], weight))
