"""Noise layers whose matrix depends on the features, dense and sparse.

They take the rows of a large batch a few at a time: the matrices of all of them are never in
memory together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sknoisy._model import equations as F
from sknoisy._model.noise_layers import (
    Layout,
    Linearization,
    NoiseLayer,
    columns_of_targets,
    likeliest_targets,
    unpack,
    with_outside,
)
from sknoisy._transition.counts import SMALLEST_PROBABILITY

_ELEMENTS_AT_ONCE = 2**23


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

    Attributes
    ----------
    bias : Tensor of shape (true, observed)
    weight : Tensor of shape (true, observed, n_hidden)
    start : Tensor of shape (true, observed)
        Where the layer started, probabilities.
    """

    depends_on_features = True
    bias: Tensor
    start: Tensor

    def __init__(self, transition: Tensor, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("start", transition.clone())
        self.bias = nn.Parameter(transition.log())
        self.weight = nn.Parameter(transition.new_zeros(*transition.shape, n_hidden))

    def label_log_likelihood(self, labels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``log p(z_t | y=i, x_t)``, shape (n, true); see `NoiseLayer`."""

        def of_rows(hidden: Tensor, labels: Tensor) -> Tensor:
            return F.label_log_likelihood(self._log_transition(hidden), self._columns(labels))

        return self._in_parts(of_rows, hidden, labels)

    def transition(self, hidden: Tensor | None = None) -> Tensor:
        """Return probabilities of shape (n, true, observed); see `NoiseLayer`."""
        assert hidden is not None
        return self._unpacked(self._kept(self._log_transition(hidden)))

    def noisy_log_proba(self, clean_log_proba: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``log p(z=j|x)``, shape (n, observed); see `NoiseLayer`."""
        return self._in_parts(self._noisy_log_proba, hidden, clean_log_proba)

    def _noisy_log_proba(self, hidden: Tensor, clean_log_proba: Tensor) -> Tensor:
        log_transition = F.class_log_transition(self._log_transition(hidden))
        return F.noisy_log_proba(clean_log_proba, log_transition)

    @torch.no_grad()
    def joint_counts(self, proba: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return ``sum_t p(y=i|x_t) p(z=j|y=i,x_t)``; see `NoiseLayer`."""

        def of_rows(hidden: Tensor, proba: Tensor) -> Tensor:
            kept = self._kept(self._log_transition(hidden).to(proba))
            return torch.einsum("ti,tij->ij", proba, kept).unsqueeze(0)

        return self._unpacked(self._in_parts(of_rows, hidden, proba).sum(0))

    def log_prior(
        self, hidden: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean log density of the prior over the rows; see `NoiseLayer`."""

        def of_rows(hidden: Tensor) -> Tensor:
            return F.transition_log_prior(self._log_transition(hidden), self.start)

        log_prior = self._in_parts(of_rows, hidden)
        return (log_prior if sample_weight is None else log_prior * sample_weight).mean()

    def log_volume(
        self, hidden: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean of ``log |det T|`` over the rows; see `NoiseLayer`."""

        def of_rows(hidden: Tensor) -> Tensor:
            return F.log_volume(self.transition(hidden))

        log_volume = self._in_parts(of_rows, hidden)
        return (log_volume if sample_weight is None else log_volume * sample_weight).mean()

    def linearize(
        self, labels: Tensor, hidden: Tensor, sample_weight: Tensor | None = None
    ) -> Linearization:
        """Return the likelihood, the prior and their derivatives, written down."""
        if len(hidden) > self._rows_at_once:
            return self._linearize_in_parts(labels, hidden, sample_weight)
        log_transition, columns = self._log_transition(hidden), self._columns(labels)
        kept = slice(self.bias.shape[1])

        def pull_back(by_likelihood: Tensor, by_prior: float) -> tuple[list[Tensor], Tensor]:
            counts = self.start[:, kept] * (by_prior / len(self.bias))
            gradient = F.feature_logit_gradient(
                log_transition[..., kept], by_likelihood, columns, counts, sample_weight
            )
            by_entry = gradient.permute(1, 2, 0).flatten(0, 1)  # as it lies in memory
            by_parameters = []
            if self.bias.requires_grad:
                by_parameters.append(by_entry.sum(1).view_as(self.bias))
            if self.weight.requires_grad:
                by_parameters.append((by_entry @ hidden).view_as(self.weight))
            return by_parameters, by_entry.T @ self.weight.flatten(0, 1)

        def log_prior() -> Tensor:
            by_row = F.transition_log_prior(log_transition, self.start)
            return (by_row if sample_weight is None else by_row * sample_weight).mean()

        log_likelihood = F.label_log_likelihood(log_transition, columns)
        return Linearization(log_likelihood, log_prior, pull_back)

    def _linearize_in_parts(
        self, labels: Tensor, hidden: Tensor, sample_weight: Tensor | None
    ) -> Linearization:
        """Compute what a part of the rows says twice rather than keep it of all of them."""

        def pull_back(by_likelihood: Tensor, by_prior: float) -> tuple[list[Tensor], Tensor]:
            sums, by_hidden = [], []
            rows = torch.arange(len(hidden), device=hidden.device).split(self._rows_at_once)
            for part in rows:
                weight = None if sample_weight is None else sample_weight[part]
                by_parameters, by_features = self.linearize(
                    labels[part], hidden[part], weight
                ).pull_back(by_likelihood[part], by_prior * len(part) / len(hidden))
                sums.append(by_parameters)
                assert by_features is not None
                by_hidden.append(by_features)
            total = [torch.stack(parts).sum(0) for parts in zip(*sums, strict=True)]
            return total, torch.cat(by_hidden)

        return Linearization(
            self.label_log_likelihood(labels, hidden),
            lambda: self.log_prior(hidden, sample_weight),
            pull_back,
        )

    @property
    def _rows_at_once(self) -> int:
        return max(1, _ELEMENTS_AT_ONCE // self.bias.numel())

    def _in_parts(
        self, of_rows: Callable[..., Tensor], hidden: Tensor | None, *others: Tensor
    ) -> Tensor:
        """Compute something of a few rows at a time, and once more for the gradient.

        The transition matrices of a whole large batch are never in memory together.
        """
        assert hidden is not None
        if len(hidden) <= self._rows_at_once:
            return of_rows(hidden, *others)
        parts = zip(*(rows.split(self._rows_at_once) for rows in (hidden, *others)), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([of_rows(*part) for part in parts])
        compute: Any = checkpoint
        return torch.cat([compute(of_rows, *part, use_reentrant=False) for part in parts])

    def layout(self, n_classes: int, n_hidden: int) -> Layout:
        """Return what the tensors of the layer must be; see `NoiseLayer`."""
        square = (n_classes, n_classes)
        return {
            "bias": (square, None),
            "weight": ((*square, n_hidden), None),
            "start": (square, None),
        }

    # How the matrices are kept

    def _log_transition(self, hidden: Tensor) -> Tensor:
        return F.feature_log_transition(hidden, self.weight, self.bias)

    def _columns(self, labels: Tensor) -> Tensor:
        """Return where the labels stand in what `_log_transition` returns."""
        return labels

    def _kept(self, log_transition: Tensor) -> Tensor:
        """Return probabilities of the observed classes that the layer keeps."""
        return F.floor_transition(log_transition.exp(), 0.0)

    def _unpacked(self, kept: Tensor) -> Tensor:
        """Spread what belongs to the classes that are kept over all of them."""
        return kept

    def extra_repr(self) -> str:
        """Say how large the layer is."""
        return f"n_classes={len(self.bias)}, n_hidden={self.weight.shape[-1]}"


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

    Attributes
    ----------
    bias : Tensor of shape (true, n_targets)
    weight : Tensor of shape (true, n_targets, n_hidden)
    start : Tensor of shape (true, n_targets + 1)
        The last column stands for the classes that are left out; nothing is expected there.
    """

    targets: Tensor
    columns: Tensor

    def __init__(self, transition: Tensor, n_hidden: int, n_targets: int) -> None:
        targets = likeliest_targets(transition, n_targets)
        packed = F.floor_transition(transition.gather(1, targets), SMALLEST_PROBABILITY)
        super().__init__(packed, n_hidden)
        self.register_buffer("targets", targets)
        self.register_buffer("columns", columns_of_targets(targets))
        self.start = functional.pad(packed, (0, 1))

    def layout(self, n_classes: int, n_hidden: int) -> Layout:
        """Return what the tensors of the layer must be; see `NoiseLayer`."""
        n_targets = self.bias.shape[-1]
        kept = (n_classes, n_targets)
        return {
            "bias": (kept, None),
            "weight": ((*kept, n_hidden), None),
            "start": ((n_classes, n_targets + 1), None),
            "targets": (kept, n_classes),
            "columns": ((n_classes, n_classes), n_targets + 1),
        }

    def _noisy_log_proba(self, hidden: Tensor, clean_log_proba: Tensor) -> Tensor:
        kept = self._kept(self._log_transition(hidden))
        joint = clean_log_proba.exp().unsqueeze(-1) * kept
        observed = joint.new_zeros(clean_log_proba.shape)
        return observed.index_add_(1, self.targets.flatten(), joint.flatten(1)).log()

    def _log_transition(self, hidden: Tensor) -> Tensor:
        return with_outside(super()._log_transition(hidden))

    def _columns(self, labels: Tensor) -> Tensor:
        return self.columns[labels]

    def _kept(self, log_transition: Tensor) -> Tensor:
        return super()._kept(log_transition[..., :-1])

    def _unpacked(self, kept: Tensor) -> Tensor:
        return unpack(kept, self.targets.to(kept.device))
