"""Forward and backward pass of the default network, without autograd.

A step of a small network is a handful of products of small matrices, and most of its time goes
into what stands around them. Written down, it takes half of what autograd needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module

from sknoisy import _functional as F
from sknoisy._module import MLP, NoisyLabelNetwork
from sknoisy._objective import Objective, has_hooks
from sknoisy._transition import NoiseLayer


class DenseNetwork:
    """The linear layers of a `NoisyLabelNetwork` with ReLU between them.

    Parameters
    ----------
    network : NoisyLabelNetwork
        One that `is_dense`.
    """

    def __init__(self, network: NoisyLabelNetwork) -> None:
        parts = [*network.hidden.children(), network.head]
        self.layers = [part for part in parts if isinstance(part, nn.Linear)]
        self._inputs: list[Tensor] = []

    def forward(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Return clean log-probabilities (n, true) and h(x) (n, n_hidden), as the network does."""
        inputs = [X.flatten(1)]
        for layer in self.layers[:-1]:
            inputs.append(torch.addmm(layer.bias, inputs[-1], layer.weight.T).relu_())
        self._inputs = inputs
        head = self.layers[-1]
        return F.clean_log_proba(torch.addmm(head.bias, inputs[-1], head.weight.T)), inputs[-1]

    def backward(
        self, clean_log_proba: Tensor, share: Tensor, hidden_gradient: Tensor | None
    ) -> None:
        """Give the weights their gradient.

        Parameters
        ----------
        clean_log_proba : Tensor of shape (n, true)
            From `forward`, which was the last one called.
        share : Tensor of shape (n, true)
            Derivative of the loss with respect to `clean_log_proba`.
        hidden_gradient : Tensor of shape (n, n_hidden) or None
            That with respect to h(x) by other ways than `clean_log_proba`.
        """
        gradient = F.softmax_gradient(clean_log_proba, share)
        for depth in range(len(self.layers) - 1, -1, -1):
            layer, inputs = self.layers[depth], self._inputs[depth]
            layer.weight.grad = gradient.T @ inputs
            layer.bias.grad = gradient.sum(0)
            if depth == 0:
                break
            gradient = gradient @ layer.weight
            if layer is self.layers[-1] and hidden_gradient is not None:
                gradient += hidden_gradient
            gradient *= inputs.sign()  # of a ReLU: one where it passes, else zero
        self._inputs = []


def is_dense(network: Any) -> bool:
    """Whether a network is the default one, without dropout, and trains as autograd would.

    Nobody listens to its layers or to gradients, and every weight is trained.
    """
    if type(network) is not NoisyLabelNetwork or type(network.hidden) is not MLP:
        return False
    layers = [*network.hidden, network.head]
    weights = [weight for layer in layers for weight in layer.parameters()]
    return (
        all(type(layer) in (nn.Flatten, nn.Linear, nn.ReLU) for layer in layers)
        and all(weight.requires_grad and not has_hooks(weight) for weight in weights)
        and not any(_is_heard(part) for part in (network, network.hidden, *layers))
        and not module._has_any_global_hook()
        and not torch.is_autocast_enabled(network.head.weight.device.type)
    )


def _is_heard(part: nn.Module) -> bool:
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
    )


def backward_pass(
    network: Any, objective: Objective, noise: NoiseLayer | None
) -> Callable[..., Tensor]:
    """Return a function that gives all weights their gradient, by hand where it can.

    Parameters
    ----------
    network : NoisyLabelNetwork, or one that was compiled
    objective : Objective
    noise : NoiseLayer or None

    Returns
    -------
    callable
        Takes a batch of X, and its labels as `Objective.loss` does, and returns the loss.
    """
    dense = DenseNetwork(network) if is_dense(network) else None
    most_rows = objective.most_rows(noise)

    def backward(X: Tensor, **labels: Tensor) -> Tensor:
        if dense is None or len(X) > most_rows:
            return objective.backward(noise, *network(X), **labels)
        with torch.no_grad():
            log_proba, hidden = dense.forward(X)
            loss, share, by_noise = objective.derivatives(noise, log_proba, hidden, **labels)
            dense.backward(log_proba, share, by_noise)
        return loss

    return backward
