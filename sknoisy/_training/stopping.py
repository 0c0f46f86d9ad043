"""When a stage stops, and the weights that it ends with."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from sknoisy._model.network import NoisyLabelNetwork


class BestWeights:
    """Copies of the weights of the epoch with the lowest held-out loss, in memory."""

    def __init__(self, network: nn.Module, patience: int) -> None:
        self.network = network
        self.patience = patience
        self.lowest = math.inf
        self.misses = 0
        self.weights: dict[str, Any] | None = None

    def update(self, loss: float) -> bool:
        """Take note of an epoch; return True when it is time to stop."""
        if loss < self.lowest:
            self.lowest, self.misses = loss, 0
            self.weights = copy.deepcopy(self.network.state_dict())
            return False
        self.misses += 1
        return self.misses >= self.patience

    def restore(self) -> None:
        """Put the weights of the best epoch back."""
        if self.weights is not None:
            self.network.load_state_dict(self.weights)


_HARDLY_WORSE = 0.01


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

    def update(self, network: NoisyLabelNetwork, row: Mapping[str, Any], held_out: Any) -> None:
        """Take note of an epoch that is over.

        Parameters
        ----------
        network : NoisyLabelNetwork
        row : mapping
            Of the history.
        held_out : object or None
            The held-out rows.
        """
        same = self._kept is not None and held_out is not None and held_out is self._kept[1]
        if row["stage"] == "start":
            return
        if same:
            before = self.row["valid_loss"]
            later = row["stage"] != self.row["stage"]
            if row["valid_loss"] >= (before + _HARDLY_WORSE * abs(before) if later else before):
                return
        # In one step: it may be interrupted as well.
        self._kept = dict(row), held_out, network.noise, copy.deepcopy(network.state_dict())

    def restore(self, network: NoisyLabelNetwork) -> bool:
        """Put the best epoch back; return False if there is none."""
        if self._kept is None:
            return False
        _, _, network.noise, weights = self._kept
        network.load_state_dict(weights)
        return True
