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

from sknoisy.noise._corrupt import corrupt_labels
from sknoisy.noise._matrices import (
    block_transition,
    boundary_transition,
    instance_transition,
    pair_transition,
    permutation_transition,
    random_transition,
    region_transition,
    transition_from_trace,
    uniform_transition,
)

__all__ = [
    "block_transition",
    "boundary_transition",
    "corrupt_labels",
    "instance_transition",
    "pair_transition",
    "permutation_transition",
    "random_transition",
    "region_transition",
    "transition_from_trace",
    "uniform_transition",
]
