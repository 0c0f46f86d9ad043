"""The noise layers: thin modules that return logarithms of transition probabilities.

A layer that keeps only some observed classes for each true class, the sparse one of the paper,
is smaller in every way: its weights, and what it computes of a batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknoisy._model import equations as F
from sknoisy._model.sparse import columns_of_targets, likeliest_targets, unpack, with_outside


class NoiseLayer(nn.Module, ABC):
    """What the noise layers have in common.

    Attributes
    ----------
    bias : Tensor of shape (true, observed), or (true, n_targets) when it is sparse
    start : Tensor
        Where the layer started, probabilities in the shape of what it returns.
    """

    bias: Tensor
    start: Tensor

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.bias.shape[0]

    @property
    def elements_per_row(self) -> int:
        """How many numbers the layer computes for one row of the data."""
        return 0

    def index(self, target: Tensor) -> Tensor:
        """Return where the observed labels stand in what the layer returns.

        Parameters
        ----------
        target : Tensor of shape (n,)

        Returns
        -------
        Tensor of shape (n,) or (n, true)
            For `_model.equations.observed_log_joint`.
        """
        return target

    @abstractmethod
    def backward(
        self,
        log_transition: Tensor,
        hidden: Tensor,
        share: Tensor,
        index: Tensor,
        prior: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor | None:
        """Give the parameters their gradient, without autograd.

        Parameters
        ----------
        log_transition : Tensor
            What the layer returned.
        hidden : Tensor of shape (n, n_hidden)
            What it was given.
        share : Tensor of shape (n, true)
            The posterior of each row, times what the row counts.
        index : Tensor of shape (n,) or (n, true)
            From `index`.
        prior : Tensor in the shape of `start`
            Labels that all rows together add as evidence for the start.
        weight : Tensor of shape (n,), default=None
            How often each row counts, its part of `prior` too.

        Returns
        -------
        Tensor of shape (n, n_hidden) or None
            Gradient with respect to `hidden`, if the layer depends on it.
        """

    def dense(self, log_transition: Tensor) -> Tensor:
        """Return probabilities of all observed classes from what the layer returned.

        Returns
        -------
        Tensor of shape (..., true, observed)
            Rows sum to one.
        """
        return F.floor_transition(log_transition.exp(), 0.0)

    def noisy_log_proba(self, clean_log_proba: Tensor, log_transition: Tensor) -> Tensor:
        """Return ``log p(z=j|x)``, shape (n, observed), from what the layer returned."""
        return F.noisy_log_proba(clean_log_proba, F.class_log_transition(log_transition))

    def joint_counts(self, proba: Tensor, log_transition: Tensor) -> Tensor:
        """Return ``sum_t p(y=i|x_t) p(z=j|y=i,x_t)``, shape (true, observed), of the c-model."""
        return torch.einsum("ti,tij->ij", proba, self.dense(log_transition))


class ClassTransition(NoiseLayer):
    r"""Noise that depends on the true class only, the s-model.

    .. math:: p(z=j \mid y=i) = \mathrm{softmax}_j(b_{ij})

    Parameters
    ----------
    transition : Tensor of shape (true, observed)
        Where the layer starts; rows sum to one, entries are positive.
    learnable : bool, default=True
        Whether the matrix is a parameter or stays as it is.
    n_targets : int or None, default=None
        How many observed classes each true class can turn into, the likeliest in `transition`.
        None is all of them.
    """

    targets: Tensor | None

    def __init__(
        self, transition: Tensor, *, learnable: bool = True, n_targets: int | None = None
    ) -> None:
        super().__init__()
        targets = None if n_targets is None else likeliest_targets(transition, n_targets)
        self.register_buffer("targets", targets)
        bias = self._packed(transition).log()
        if learnable:
            self.bias = nn.Parameter(bias)
        else:
            self.register_buffer("bias", bias)
        start = transition if n_targets is None else self.dense(self.forward().detach())
        self.register_buffer("start", start.clone())

    @torch.no_grad()
    def reset_transition(self, transition: Tensor) -> None:
        """Replace the matrix, as the closed-form step of EM does.

        Parameters
        ----------
        transition : Tensor of shape (true, observed)
        """
        self.bias.copy_(self._packed(transition).log())

    def forward(self, hidden: Tensor | None = None) -> Tensor:
        """Return log transition probabilities of shape (true, observed), the same for all rows."""
        log_transition = F.class_log_transition(self.bias)
        if self.targets is None:
            return log_transition
        outside = math.log(F.SMALLEST_PROBABILITY)
        full = log_transition.new_full((self.n_classes, self.n_classes), outside)
        return full.scatter(1, self.targets, log_transition)

    def backward(
        self,
        log_transition: Tensor,
        hidden: Tensor,
        share: Tensor,
        index: Tensor,
        prior: Tensor,
        weight: Tensor | None = None,
    ) -> None:
        """Give the bias its gradient; for the parameters see `NoiseLayer`."""
        if self.bias.requires_grad:
            prior = prior if weight is None else prior * weight.mean()
            gradient = self._packed(F.class_transition_gradient(share, index, prior))
            self.bias.grad = F.softmax_gradient(self._packed(log_transition), gradient)

    def dense(self, log_transition: Tensor) -> Tensor:
        """Return the matrix, with zeros for the classes that it leaves out."""
        transition = log_transition.exp()
        if self.targets is not None:
            transition = unpack(self._packed(transition), self.targets.to(transition.device))
        return F.floor_transition(transition, 0.0)

    def _packed(self, transition: Tensor) -> Tensor:
        if self.targets is None:
            return transition
        return transition.gather(1, self.targets.to(transition.device))

    def extra_repr(self) -> str:
        """Say how large the layer is and whether it learns."""
        sparse = "" if self.targets is None else f", n_targets={self.bias.shape[1]}"
        learnable = isinstance(self.bias, nn.Parameter)
        return f"n_classes={self.n_classes}{sparse}, learnable={learnable}"


class FeatureTransition(NoiseLayer):
    r"""Noise that depends on the true class and on the features, the c-model.

    .. math:: p(z=j \mid y=i, x) = \mathrm{softmax}_j(u_{ij} \cdot h(x) + b_{ij})

    It starts as the s-model of the given matrix: the weights u are zero.

    Parameters
    ----------
    transition : Tensor of shape (true, observed)
        Where the layer starts; rows sum to one, entries are positive.
    n_hidden : int
        Width of the last hidden layer h(x).
    """

    def __init__(self, transition: Tensor, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("start", transition.clone())
        self.bias = nn.Parameter(transition.log())
        self.weight = nn.Parameter(transition.new_zeros(*transition.shape, n_hidden))

    @property
    def elements_per_row(self) -> int:
        """How many numbers the layer computes for one row of the data."""
        return self.bias.numel()

    def forward(self, hidden: Tensor) -> Tensor:
        """Return log transition probabilities of shape (n, true, observed) for a batch of h(x)."""
        return F.feature_log_transition(hidden, self.weight, self.bias)

    def backward(
        self,
        log_transition: Tensor,
        hidden: Tensor,
        share: Tensor,
        index: Tensor,
        prior: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Give bias and weight their gradient, and return that of the hidden layer."""
        kept = slice(self.bias.shape[1])  # without the column for what a sparse layer leaves out
        gradient = F.feature_logit_gradient(
            log_transition[..., kept], share, index, prior[:, kept], weight
        )
        by_entry = gradient.permute(1, 2, 0).flatten(0, 1)  # as it lies in memory
        if self.bias.requires_grad:
            self.bias.grad = by_entry.sum(1).view_as(self.bias)
        if self.weight.requires_grad:
            self.weight.grad = (by_entry @ hidden).view_as(self.weight)
        return by_entry.T @ self.weight.flatten(0, 1)

    def extra_repr(self) -> str:
        """Say how large the layer is."""
        return f"n_classes={self.n_classes}, n_hidden={self.weight.shape[-1]}"


class SparseFeatureTransition(FeatureTransition):
    """The c-model with a few observed classes for each true class, of the paper.

    Parameters
    ----------
    transition : Tensor of shape (true, observed)
        Where the layer starts.
    n_hidden : int
        Width of the last hidden layer h(x).
    n_targets : int
        How many observed classes each true class can turn into, the likeliest in `transition`.
    """

    targets: Tensor
    columns: Tensor

    def __init__(self, transition: Tensor, n_hidden: int, n_targets: int) -> None:
        targets = likeliest_targets(transition, n_targets)
        packed = F.floor_transition(transition.gather(1, targets))
        super().__init__(packed, n_hidden)
        self.register_buffer("targets", targets)
        self.register_buffer("columns", columns_of_targets(targets))
        self.start = functional.pad(packed, (0, 1))  # nothing is expected outside

    def forward(self, hidden: Tensor) -> Tensor:
        """Return log probabilities of shape (n, true, n_targets + 1); the last is for the rest."""
        return with_outside(super().forward(hidden))

    def index(self, target: Tensor) -> Tensor:
        """Return the column of each label for each true class, shape (n, true)."""
        return self.columns.to(target.device)[target]

    def dense(self, log_transition: Tensor) -> Tensor:
        """Return probabilities of shape (n, true, observed), zero for the classes left out."""
        return unpack(self._kept(log_transition), self.targets.to(log_transition.device))

    def noisy_log_proba(self, clean_log_proba: Tensor, log_transition: Tensor) -> Tensor:
        """Return ``log p(z=j|x)``, shape (n, observed), from what the layer returned."""
        joint = clean_log_proba.exp().unsqueeze(-1) * self._kept(log_transition)
        observed = joint.new_zeros(clean_log_proba.shape)
        targets = self.targets.to(joint.device)
        return observed.index_add_(1, targets.flatten(), joint.flatten(1)).log()

    def joint_counts(self, proba: Tensor, log_transition: Tensor) -> Tensor:
        """Return ``sum_t p(y=i|x_t) p(z=j|y=i,x_t)``, shape (true, observed)."""
        packed = torch.einsum("ti,tij->ij", proba, self._kept(log_transition))
        return unpack(packed, self.targets.to(packed.device))

    def _kept(self, log_transition: Tensor) -> Tensor:
        return F.floor_transition(log_transition[..., :-1].exp(), 0.0)


def feature_transition(
    transition: Tensor, n_hidden: int, n_targets: int | None
) -> FeatureTransition:
    """Return the noise layer of the c-model, a sparse one if it keeps `n_targets` classes."""
    if n_targets is None:
        return FeatureTransition(transition, n_hidden)
    return SparseFeatureTransition(transition, n_hidden, n_targets)
