"""Packed transition matrices of sparse noise layers: a few columns for each true class.

Packed, the columns of a row stand side by side; `targets` says which they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sknoisy._transition.counts import SMALLEST_PROBABILITY


def likeliest_targets(transition: Tensor, n_targets: int) -> Tensor:
    """Columns of the likeliest observed classes of each true class, itself always among them.

    What the sparse noise layer of the paper keeps of the matrix, l of k classes.

    Parameters
    ----------
    transition : Tensor of shape (true, observed)
    n_targets : int
        Number of observed classes to keep for each true class, l.

    Returns
    -------
    Tensor of shape (true, n_targets)
        Column indices, ascending in each row.
    """
    own_first = transition + 2.0 * torch.eye(len(transition), dtype=transition.dtype)
    return own_first.topk(n_targets, dim=1).indices.sort(dim=1).values


def columns_of_targets(targets: Tensor) -> Tensor:
    """Where each observed class stands among the columns that each true class keeps.

    Parameters
    ----------
    targets : Tensor of shape (true, n_targets)
        Column indices, from `likeliest_targets`.

    Returns
    -------
    Tensor of shape (observed, true)
        Element (j, i) is the position of j in ``targets[i]``; `n_targets` if it is not there.
    """
    n_classes, n_targets = targets.shape
    position = targets.new_full((n_classes, n_classes), n_targets)
    return position.scatter_(1, targets, torch.arange(n_targets).expand(n_classes, -1)).T


def with_outside(log_transition: Tensor) -> Tensor:
    """Add a last column for the observed classes that a sparse noise layer leaves out.

    A label that a true class does not turn into would have no likelihood; it gets the smallest
    probability.

    Parameters
    ----------
    log_transition : Tensor of shape (..., true, n_targets)

    Returns
    -------
    Tensor of shape (..., true, n_targets + 1)
    """
    return functional.pad(log_transition, (0, 1), value=math.log(SMALLEST_PROBABILITY))


def unpack(packed: Tensor, targets: Tensor) -> Tensor:
    """Spread what a sparse noise layer says over all observed classes, zero elsewhere.

    Parameters
    ----------
    packed : Tensor of shape (..., true, n_targets)
        Probabilities or counts.
    targets : Tensor of shape (true, n_targets)

    Returns
    -------
    Tensor of shape (..., true, observed)
    """
    full = packed.new_zeros(*packed.shape[:-1], len(targets))
    return full.scatter(-1, targets.expand(packed.shape), packed)
