"""When a stage stops, and the weights that it ends with."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sknoisy._model.network import NoisyLabelModule

_LARGEST_LOG_SHARPNESS = 3.0
_LARGEST_STEP = 0.5
_N_STEPS = 4
_HARDLY_WORSE = 0.01


class BestWeights:
    """Copies of the weights of the epoch with the lowest held-out loss, in memory.

    Parameters
    ----------
    network : nn.Module
    patience : int
        Epochs without a lower loss after which it is time to stop.
    tolerance : float, default=0.0
        A loss counts as lower, for the patience, if it is by so much.
    """

    def __init__(self, network: nn.Module, patience: int, tolerance: float = 0.0) -> None:
        self.network = network
        self.patience = patience
        self.tolerance = tolerance
        self.lowest = self.reference = math.inf
        self.epoch = self.best_epoch = self.misses = 0
        self.weights: dict[str, Any] | None = None

    def update(self, loss: float) -> bool:
        """Take note of an epoch; return True when it is time to stop."""
        self.epoch += 1
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, self.epoch
            self.weights = copy.deepcopy(self.network.state_dict())
        if loss < self.reference - self.tolerance:
            self.reference, self.misses = loss, 0
        else:
            self.misses += 1
        return self.misses >= self.patience

    def restore(self) -> None:
        """Put the weights of the best epoch back."""
        if self.weights is not None:
            self.network.load_state_dict(self.weights)


class BestEpoch:
    """The best epoch so far of a fit that may be interrupted, in memory.

    The one of the lowest loss on the same held-out rows, where a later stage is taken as soon as
    it is hardly worse than the one before; without held-out rows, or with others, the last one.
    Trials of starts do not count.
    """

    def __init__(self) -> None:
        self._kept: tuple[dict[str, Any], Any, Any, dict[str, Any]] | None = None

    @property
    def row(self) -> dict[str, Any]:
        """The row of the history, empty as long as no epoch is over."""
        return {} if self._kept is None else self._kept[0]

    def update(self, network: NoisyLabelModule, row: Mapping[str, Any], held_out: Any) -> None:
        """Take note of an epoch that is over.

        Parameters
        ----------
        network : NoisyLabelModule
        row : mapping
            Of the history.
        held_out : object or None
            The held-out rows.
        """
        same = self._kept is not None and held_out is not None and held_out is self._kept[1]
        if row["stage"] == "start":
            return
        if same:
            before = self.row["calibrated_valid_loss"]
            later = row["stage"] != self.row["stage"]
            if row["calibrated_valid_loss"] >= (
                before + _HARDLY_WORSE * abs(before) if later else before
            ):
                return
        # In one step: it may be interrupted as well.
        self._kept = dict(row), held_out, network.noise, copy.deepcopy(network.state_dict())

    def restore(self, network: NoisyLabelModule) -> bool:
        """Put the best epoch back; return False if there is none."""
        if self._kept is None:
            return False
        _, _, network.noise, weights = self._kept
        network.load_state_dict(weights)
        return True


class CalibratedLoss:
    """Held-out loss after the clean probabilities were sharpened as suits the labels best.

    A network that is sure of itself pays for it in its loss long before it stops learning what
    is true (C. Guo et al., "On calibration of modern neural networks", ICML 2017). With the
    sharpness as a free parameter the loss rises only when predictions get worse.
    """

    def __init__(self) -> None:
        self.log_sharpness = 0.0

    def __call__(self, clean_log_proba: Tensor, log_column: Tensor, weight: Tensor | None) -> float:
        """Return the loss of held-out rows.

        Parameters
        ----------
        clean_log_proba : Tensor of shape (n, true)
        log_column : Tensor of shape (n, true)
            Element (t, i) is the log-probability of the observed label of row t if i is true.
        weight : Tensor of shape (n,) or None
            Sample weights.
        """
        for _ in range(_N_STEPS):
            loss, slope, curvature = self._expansion(clean_log_proba, log_column, weight)
            # Newton's step where the loss is convex, one downhill elsewhere.
            step = -slope / curvature if curvature > 1e-12 else -math.copysign(_LARGEST_STEP, slope)
            step = min(max(step, -_LARGEST_STEP), _LARGEST_STEP)
            if abs(step) < 1e-3 or not math.isfinite(loss):
                break
            limit = _LARGEST_LOG_SHARPNESS
            self.log_sharpness = min(max(self.log_sharpness + step, -limit), limit)
        return self._expansion(clean_log_proba, log_column, weight)[0]

    def _expansion(
        self, clean_log_proba: Tensor, log_column: Tensor, weight: Tensor | None
    ) -> tuple[float, float, float]:
        """Return the loss and its first two derivatives in the logarithm of the sharpness."""
        logits = math.exp(self.log_sharpness) * clean_log_proba
        log_proba = torch.log_softmax(logits, dim=1)
        joint = log_proba + log_column
        log_likelihood = torch.logsumexp(joint, dim=1)
        proba, posterior = log_proba.exp(), (joint - log_likelihood.unsqueeze(1)).exp()
        mean, mean_given = (proba * logits).sum(1), (posterior * logits).sum(1)
        slope = mean_given - mean
        square = logits.square_()
        spread = ((posterior - proba) * square).sum(1) - mean_given.square() + mean.square()
        terms = torch.stack([-log_likelihood, -slope, -(spread + slope)]).double()
        mean_terms = terms.mean(1) if weight is None else (terms * weight).sum(1) / weight.sum()
        loss, first, second = mean_terms.tolist()
        return loss, first, second
