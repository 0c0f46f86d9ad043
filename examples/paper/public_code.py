"""What the public code of the paper does, as callbacks of skorch.

https://github.com/udibr/noisy_labels, the code behind the published figures, differs from the
paper as printed, and both differ from what `sknoisy.NoisyLabelClassifier` does by default. What is
no parameter of the classifier is here: the weights of the last epoch are scored and handed on, a
stage stops by the plain loss of the held-out rows, and weights start from Glorot's uniform
distribution. `CountedStart` varies the start of the noise layer beyond ``transition_init``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

#: Keras 1 stopped after one epoch more without a lower loss than its `patience` of 4 says.
EPOCHS_WITHOUT_GAIN = 5


class LastEpoch(Callback):
    """Let a stage end with the weights of its last epoch, and not with those of the best one."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Keep the weights."""
        self.weights_ = copy.deepcopy(net.network.state_dict())

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Put them back."""
        net.network.load_state_dict(self.weights_)


class GlorotUniform(Callback):
    """Draw weights uniformly in +-sqrt(6 / (fan in + fan out)) before the first stage, no biases.

    The default of Keras (X. Glorot and Y. Bengio, AISTATS 2010).
    """

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Draw the weights, from torch's generator as it is seeded for the stage."""
        if not len(net.whole_history()):
            _draw_glorot_weights(net.network)


def with_glorot_weights(module: Callable[[], nn.Module]) -> nn.Module:
    """Return new hidden layers with the weights of `GlorotUniform`."""
    layers = module()
    _draw_glorot_weights(layers)
    return layers


@torch.no_grad()
def _draw_glorot_weights(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class CountedStart(Callback):
    """Start a dense noise layer from counts of predicted against observed classes.

    Parameters
    ----------
    hard : bool, default=True
        Count the predicted class, and not its probability.
    rows : {"all", "held out"}, default="all"
        Which training rows are counted.
    stages : tuple of str, default=("s", "c")
        In which stages; the others start as the classifier has it.
    """

    def __init__(
        self, hard: bool = True, rows: str = "all", stages: tuple[str, ...] = ("s", "c")
    ) -> None:
        self.hard = hard
        self.rows = rows
        self.stages = stages

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Wait for the first epoch, which names the rows."""
        self.waits_ = net.network.noise_model in self.stages

    def on_epoch_begin(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        """Replace the bias of the noise layer before the first epoch."""
        if not self.waits_:
            return
        self.waits_ = False
        parts = [dataset_valid] if self.rows == "held out" else [dataset_train, dataset_valid]
        bias = net.network.noise.bias
        counts = np.zeros(tuple(bias.shape))
        for part in parts:
            proba = net.clean_log_proba(net.get_dataset(part)).exp().numpy()
            if self.hard:
                proba = np.eye(len(counts))[proba.argmax(axis=1)]
            np.add.at(counts.T, np.asarray(part.y), proba)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        with torch.no_grad():
            bias.copy_(torch.from_numpy(np.log(shares + 1e-8)))


class KeptBias(Callback):
    """Let the c-model take over the bias that the s-model was trained to, as the paper says."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept or _Box()

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Replace the bias of a new c-model."""
        if net.network.noise_model == "c":
            with torch.no_grad():
                net.network.noise.bias.copy_(self.kept.bias)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Keep the bias of an s-model."""
        if net.network.noise_model == "s":
            self.kept.bias = net.network.noise.bias.detach().log_softmax(dim=1)


class _Box:
    """Something that the copies of a callback share."""

    bias: torch.Tensor

    def __deepcopy__(self, memo: Any) -> _Box:
        return self


def plain_early_stopping() -> EarlyStopping:
    """Return what stops a stage by the plain loss of the held-out rows."""
    return EarlyStopping(patience=EPOCHS_WITHOUT_GAIN, threshold=0, sink=lambda _: None)


def public_code_callbacks(
    *, last_epoch: bool = True, plain_stopping: bool = True, glorot: bool = True
) -> list[Callback]:
    """Return the callbacks that make the classifier train as the public code does.

    Parameters
    ----------
    last_epoch : bool, default=True
        Score and hand on the weights of the last epoch.
    plain_stopping : bool, default=True
        Stop by the plain loss, which needs an `n_iter_no_change` that the classifier never reaches.
    glorot : bool, default=True
        Start from Glorot's weights.
    """
    # The last epoch before the stopping, which ends the round of the callbacks.
    callbacks: list[Callback] = [LastEpoch()] if last_epoch else []
    callbacks += [GlorotUniform()] if glorot else []
    return callbacks + ([plain_early_stopping()] if plain_stopping else [])
