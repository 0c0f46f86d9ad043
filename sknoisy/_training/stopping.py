"""When a stage stops, and the weights that it ends with."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import nn


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
