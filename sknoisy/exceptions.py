"""Warnings of this package."""

from __future__ import annotations

__all__ = ["UnreliableFitWarning"]


class UnreliableFitWarning(UserWarning):
    """A classifier was fitted, but the result is worth little.

    The message says why and what can be done: the labels cannot be predicted from X, the network
    was not trained, classes have too few labels for an estimate of their noise, or the noise that
    was found leaves open which class is which. Inspection warns likewise where labels cannot be
    ranked.
    """
