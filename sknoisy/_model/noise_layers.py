"""The noise layers: how likely the observed label of a row is, given each true label.

A layer is a likelihood. Whoever uses one sees arrays of shape (n, true) and dense matrices, and
nothing of how it keeps or computes them: a layer that keeps only some observed classes for each
true class, the sparse one of the paper, is smaller in every way.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sknoisy._model import equations as F
from sknoisy._transition.counts import SMALLEST_PROBABILITY, expected_transition

_SLOWER_BY_PRIOR = 20.0

Layout = dict[str, tuple[tuple[int, ...], int | None]]


class Linearization(NamedTuple):
    """Likelihood of the labels of a batch under a noise layer, with its derivatives.

    Attributes
    ----------
    log_likelihood : Tensor of shape (n, true)
        As from `NoiseLayer.label_log_likelihood`.
    log_prior : callable
        Returns `NoiseLayer.log_prior`, without a second pass over the batch where that can be.
    pull_back : callable
        Takes the derivatives of a loss with respect to the likelihood, a tensor of shape
        (n, true), and to the prior, a float. Returns those with respect to the parameters that
        learn, a list in their order, and to `hidden`, a tensor or None if there is none.
    """

    log_likelihood: Tensor
    log_prior: Callable[[], Tensor]
    pull_back: Callable[[Tensor, float], tuple[list[Tensor], Tensor | None]]


class LabelFactors(NamedTuple):
    """What is known of each observed label, of which a row can have several.

    Attributes
    ----------
    clean_log_proba : Tensor of shape (n_labels, true)
        Logarithms of p(true label | x) of the row that the label belongs to.
    log_column : Tensor of shape (n_labels, true)
        Logarithms of p(observed label | true label[, x]).
    row : Tensor of shape (n_labels,)
        The row that the label belongs to, ascending.
    """

    clean_log_proba: Tensor
    log_column: Tensor
    row: Tensor

    @classmethod
    def of_rows(cls, clean_log_proba: Tensor, log_column: Tensor) -> LabelFactors:
        """Return the factors of rows that have one label each."""
        row = torch.arange(len(clean_log_proba), device=clean_log_proba.device)
        return cls(clean_log_proba, log_column, row)

    @classmethod
    def joined(cls, parts: Sequence[LabelFactors], n_rows: Sequence[int]) -> LabelFactors:
        """Return the factors of batches of so many rows together, on the CPU."""
        first = [0, *itertools.accumulate(n_rows)]
        return cls(
            torch.cat([part.clean_log_proba.cpu() for part in parts]),
            torch.cat([part.log_column.cpu() for part in parts]),
            torch.cat([part.row.cpu() + at for part, at in zip(parts, first, strict=False)]),
        )


class NoiseLayer(nn.Module, ABC):
    """What the noise layers have in common.

    A new kind of noise is a subclass with `label_log_likelihood`, `transition` and `log_prior`.

    Attributes
    ----------
    depends_on_features : bool
        Whether each row has a matrix of its own.
    """

    depends_on_features: bool

    @abstractmethod
    def label_log_likelihood(self, labels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``log p(z_t | y=i, x_t)`` for the observed label of each row.

        Parameters
        ----------
        labels : Tensor of shape (n,)
            Encoded observed labels.
        hidden : Tensor of shape (n, n_hidden)
            The last hidden layer h(x); None will do where the noise does not depend on it.

        Returns
        -------
        Tensor of shape (n, true)
        """

    def label_factors(
        self, clean_log_proba: Tensor, labels: Tensor, hidden: Tensor | None = None
    ) -> LabelFactors:
        """Return the logarithms of p(y=i | x) and p(z | y=i[, x]) for each observed label.

        Parameters
        ----------
        clean_log_proba : Tensor of shape (n, true)
        labels, hidden
            As for `label_log_likelihood`.

        Returns
        -------
        LabelFactors
        """
        log_column = self.label_log_likelihood(labels, hidden)
        return LabelFactors.of_rows(clean_log_proba, log_column)

    @abstractmethod
    def transition(self, hidden: Tensor | None = None) -> Tensor:
        """Return ``p(z=j | y=i[, x])`` for all observed classes.

        Parameters
        ----------
        hidden : Tensor of shape (n, n_hidden)

        Returns
        -------
        Tensor of shape (true, observed), or (n, true, observed)
            Rows sum to one.
        """

    @abstractmethod
    def log_prior(
        self, hidden: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the log density of the prior around the start of the layer, a scalar.

        Parameters
        ----------
        hidden : Tensor of shape (n, n_hidden)
            Where the noise depends on it, the mean over the rows is taken.
        sample_weight : Tensor of shape (n,), default=None
        """

    def log_volume(
        self, hidden: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return ``log |det T|``, a scalar; for the parameters see `log_prior`."""
        log_volume = F.log_volume(self.transition(hidden))
        return (log_volume if sample_weight is None else log_volume * sample_weight).mean()

    def noisy_log_proba(self, clean_log_proba: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``log p(z=j|x) = log sum_i p(z=j|y=i[, x]) p(y=i|x)``, shape (n, observed).

        Parameters
        ----------
        clean_log_proba : Tensor of shape (n, true)
        hidden : Tensor of shape (n, n_hidden)
        """
        return F.noisy_log_proba(clean_log_proba, self.transition(hidden).log())

    def in_double(self) -> NoiseLayer:
        """Return a copy that computes in float64 on the CPU."""
        return copy.deepcopy(self).cpu().double()

    @torch.no_grad()
    def matrix(self) -> np.ndarray:
        """Return the one matrix of all rows (true, observed), an array in float64."""
        return self.in_double().transition().numpy()

    def maximise(self, counts: np.ndarray, prior_weight: float) -> None:
        """Move the matrix to the likeliest one, the closed form of the M-step of EM.

        Parameters
        ----------
        counts : ndarray of shape (true, observed)
            Soft counts of true against observed classes.
        prior_weight : float
            Weight of `log_prior` next to the log-likelihood of these counts.
        """
        raise TypeError(f"The M-step of {type(self).__name__} has no closed form.")

    @torch.no_grad()
    def joint_counts(self, proba: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``sum_t p(y=i|x_t) p(z=j|y=i,x_t)``, shape (true, observed), as `proba`.

        Parameters
        ----------
        proba : Tensor of shape (n, true)
        hidden : Tensor of shape (n, n_hidden)
        """
        transition = self.transition(hidden).to(proba)
        return torch.einsum("ti,tij->ij", proba, transition.expand(len(proba), -1, -1))

    def linearize(
        self, labels: Tensor, hidden: Tensor, sample_weight: Tensor | None = None
    ) -> Linearization:
        """Return the likelihood, the prior and their derivatives, here by autograd.

        Parameters
        ----------
        labels, hidden
            As for `label_log_likelihood`.
        sample_weight : Tensor of shape (n,), default=None
            As for `log_prior`.
        """
        with torch.enable_grad():
            hidden = hidden.detach().requires_grad_()
            log_likelihood = self.label_log_likelihood(labels, hidden)

        def pull_back(by_likelihood: Tensor, by_prior: float) -> tuple[list[Tensor], Tensor | None]:
            with torch.enable_grad():
                outputs, gradients = [log_likelihood], [by_likelihood]
                if by_prior:
                    outputs.append(self.log_prior(hidden, sample_weight))
                    gradients.append(outputs[-1].new_tensor(by_prior))
            inputs = [hidden, *self.learning()]
            pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
            if not pairs:
                return [torch.zeros_like(parameter) for parameter in inputs[1:]], None
            outputs, gradients = map(list, zip(*pairs, strict=True))
            found = torch.autograd.grad(outputs, inputs, gradients, allow_unused=True)
            by_hidden, *by_parameters = found
            return [
                torch.zeros_like(parameter) if gradient is None else gradient
                for parameter, gradient in zip(inputs[1:], by_parameters, strict=True)
            ], by_hidden

        return Linearization(
            log_likelihood.detach(), lambda: self.log_prior(hidden, sample_weight), pull_back
        )

    def layout(self, n_classes: int, n_hidden: int) -> Layout:
        """Return what the tensors of the layer must be, by name: for layers that come from files.

        Parameters
        ----------
        n_classes : int
        n_hidden : int
            Width of the last hidden layer h(x).

        Returns
        -------
        dict of (shape, bound)
            The bound is that of a tensor of indices, and None for numbers.
        """
        return {}

    def learning(self) -> list[nn.Parameter]:
        """Return the parameters that learn."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, clean_log_proba: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return `noisy_log_proba`."""
        return self.noisy_log_proba(clean_log_proba, hidden)


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

    Attributes
    ----------
    bias : Tensor of shape (true, observed), or (true, n_targets)
    start : Tensor of shape (true, observed)
        Where the layer started, probabilities.
    """

    depends_on_features = False
    bias: Tensor
    start: Tensor
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
        start = transition if n_targets is None else self.transition().detach()
        self.register_buffer("start", start.clone())

    def label_log_likelihood(self, labels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``log p(z_t | y=i)``, shape (n, true); see `NoiseLayer`."""
        return F.label_log_likelihood(self._log_transition(), labels)

    def transition(self, hidden: Tensor | None = None) -> Tensor:
        """Return the matrix (true, observed), with zeros for the classes that it leaves out."""
        transition = self._log_transition().exp()
        if self.targets is not None:
            transition = unpack(self._packed(transition), self.targets)
        return F.floor_transition(transition, 0.0)

    def noisy_log_proba(self, clean_log_proba: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``log p(z=j|x)``, shape (n, observed); see `NoiseLayer`."""
        log_transition = F.class_log_transition(self._log_transition())
        return F.noisy_log_proba(clean_log_proba, log_transition)

    def log_prior(
        self, hidden: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the log density of the prior, of all rows together; see `NoiseLayer`."""
        return self._log_prior(self._log_transition(), sample_weight)

    def _log_prior(self, log_transition: Tensor, sample_weight: Tensor | None) -> Tensor:
        log_prior = F.transition_log_prior(log_transition, self.start)
        return log_prior if sample_weight is None else log_prior * sample_weight.mean()

    def linearize(
        self, labels: Tensor, hidden: Tensor | None, sample_weight: Tensor | None = None
    ) -> Linearization:
        """Return the likelihood, the prior and their derivatives, written down."""
        log_transition = self._log_transition()

        def pull_back(by_likelihood: Tensor, by_prior: float) -> tuple[list[Tensor], None]:
            if not self.bias.requires_grad:
                return [], None
            counts = self.start * (by_prior / self.n_classes)
            if sample_weight is not None:
                counts = counts * sample_weight.mean()
            gradient = F.class_transition_gradient(by_likelihood, labels, counts)
            packed = self._packed(log_transition), self._packed(gradient)
            return [F.softmax_gradient(*packed)], None

        return Linearization(
            F.label_log_likelihood(log_transition, labels),
            lambda: self._log_prior(log_transition, sample_weight),
            pull_back,
        )

    @torch.no_grad()
    def maximise(self, counts: np.ndarray, prior_weight: float) -> None:
        """Move the matrix to the likeliest one; see `NoiseLayer`.

        With a prior that is worth a times the counts it goes ``1 / (1 + 20 a)`` of the way. Any
        share of the way raises the expected likelihood, which is concave in the matrix
        (generalised EM), and a small one leaves the network time to learn first. Without a prior it
        goes all the way, as published, and follows the network closely: at first that knows
        little, and soon it has learned wrong labels by heart.
        """
        share = 1.0 / (1.0 + _SLOWER_BY_PRIOR * prior_weight / max(float(counts.sum()), 1e-300))
        prior = self.start.cpu().double().numpy() * (prior_weight / self.n_classes)
        before = self._log_transition().exp().cpu().double().numpy()
        transition = expected_transition(counts + prior)
        transition = (1.0 - share) * before + share * transition
        self.reset_transition(torch.from_numpy(transition).to(self.bias))

    @torch.no_grad()
    def reset_transition(self, transition: Tensor) -> None:
        """Replace the matrix.

        Parameters
        ----------
        transition : Tensor of shape (true, observed)
        """
        self.bias.copy_(self._packed(transition).log())

    def layout(self, n_classes: int, n_hidden: int) -> Layout:
        """Return what the tensors of the layer must be; see `NoiseLayer`."""
        square = (n_classes, n_classes)
        if self.targets is None:
            return {"bias": (square, None), "start": (square, None)}
        kept = (n_classes, self.bias.shape[-1])
        return {"bias": (kept, None), "start": (square, None), "targets": (kept, n_classes)}

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.bias.shape[0]

    def _log_transition(self) -> Tensor:
        """Return logarithms of shape (true, observed); that of 1e-8 for classes left out."""
        log_transition = F.class_log_transition(self.bias)
        if self.targets is None:
            return log_transition
        outside = math.log(SMALLEST_PROBABILITY)
        full = log_transition.new_full((self.n_classes, self.n_classes), outside)
        return full.scatter(1, self.targets, log_transition)

    def _packed(self, values: Tensor) -> Tensor:
        return values if self.targets is None else values.gather(1, self.targets)

    def extra_repr(self) -> str:
        """Say how large the layer is and whether it learns."""
        sparse = "" if self.targets is None else f", n_targets={self.bias.shape[1]}"
        learnable = isinstance(self.bias, nn.Parameter)
        return f"n_classes={self.n_classes}{sparse}, learnable={learnable}"


# Packed, the columns that a sparse layer keeps of each row of the matrix stand side by side.


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
