"""The backward pass of a step, written down as far as the network is ours.

A step of a small network is a handful of products of small matrices, and most of its time goes
into what stands around them. Written down, it takes half of what autograd needs. Hidden layers of
the user's go through autograd; the softmax layer and the noise layer on top of them do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module

from sknoisy._data.sparse_rows import SparseRows
from sknoisy._model import equations as F
from sknoisy._model.loss import Objective
from sknoisy._model.network import MLP, NoisyLabelModule, Standardization
from sknoisy._model.noise_layers import NoiseLayer
from sknoisy._model.sparse_input import SparseLinear

_DENSE_PARTS = (Standardization, nn.Identity, nn.Linear, SparseLinear, nn.ReLU, nn.Dropout)


def backward_pass(
    network: Any, objective: Objective, noise: NoiseLayer | None
) -> Callable[..., Tensor]:
    """Return a function that gives all weights their gradient.

    Parameters
    ----------
    network : NoisyLabelModule, or one that was compiled
    objective : Objective
    noise : NoiseLayer or None

    Returns
    -------
    callable
        Takes a batch of X, and its labels as `Objective.loss` does, and returns the loss.
    """
    if objective.volume_penalty or not supports_closed_form(network):
        return _by_autograd(network, objective, noise)
    # Looked up once: finding a weight in a module costs half a microsecond each time.
    weight, bias = network.head.weight, network.head.bias
    layers: DenseLayers | AutogradLayers
    hidden = network.hidden
    layers = DenseLayers(hidden) if is_dense(hidden) else AutogradLayers(network.features)
    learning = [] if noise is None else noise.learning()

    @torch.no_grad()
    def backward(X: Tensor, **labels: Tensor) -> Tensor:
        hidden = layers.forward(X)
        log_proba = F.clean_log_proba(torch.addmm(bias, hidden, weight.T))
        loss, by_clean, by_hidden, by_noise = objective.derivatives(
            noise, log_proba, hidden, **labels
        )
        for parameter, gradient in zip(learning, by_noise, strict=bool(by_noise)):
            parameter.grad = gradient
        gradient = F.softmax_gradient(log_proba, by_clean)
        set_gradients(weight, bias, hidden, gradient)
        gradient = gradient @ weight
        layers.backward(gradient if by_hidden is None else gradient + by_hidden)
        return loss

    return backward


def _by_autograd(
    network: Any, objective: Objective, noise: NoiseLayer | None
) -> Callable[..., Tensor]:
    def backward(X: Tensor, **labels: Tensor) -> Tensor:
        loss = objective.loss(noise, *network(X), **labels)
        loss.backward()
        return loss.detach()

    return backward


class DenseLayers:
    """Linear layers, each followed by ReLU, and by dropout if there is some, without autograd.

    Parameters
    ----------
    hidden : MLP
        Of a network that `supports_closed_form`.
    """

    def __init__(self, hidden: MLP) -> None:
        self.sparse_input = hidden.sparse_input
        # Not called as a module: it has no hooks.
        self.standardize = hidden[0].forward
        linear = [layer for layer in hidden.children() if isinstance(layer, nn.Linear)]
        self.weights = [(layer.weight, layer.bias) for layer in linear]
        self.hidden = hidden
        self._rate = 0.0  # of dropout
        self._X: Tensor | SparseRows | None = None
        self._values: list[Tensor] = []

    def forward(self, X: Tensor | SparseRows) -> Tensor:
        """Return h(x), shape (n, n_hidden)."""
        self._rate = self.hidden.dropout if self.hidden.training else 0.0
        if self.sparse_input is None:
            values = [self.standardize(X)]
        else:
            self._X, values = X, [self._dropped(self.sparse_input(X).relu_())]
        for weight, bias in self.weights:
            values.append(self._dropped(torch.addmm(bias, values[-1], weight.T).relu_()))
        self._values = values
        return values[-1]

    def _dropped(self, values: Tensor) -> Tensor:
        return nn.functional.dropout(values, self._rate) if self._rate else values

    def _derivative(self, values: Tensor) -> Tensor:
        """Return that of ReLU and dropout: one, scaled, where a unit passes, else zero."""
        return values.sign() if not self._rate else values.sign().div_(1.0 - self._rate)

    def backward(self, gradient: Tensor) -> None:
        """Give the weights their gradient, from that of h(x), which is overwritten."""
        while len(self._values) > 1:
            gradient *= self._derivative(self._values.pop())
            weight, bias = self.weights[len(self._values) - 1]
            set_gradients(weight, bias, self._values[-1], gradient)
            if len(self._values) > 1 or self.sparse_input is not None:
                gradient = gradient @ weight
        if self.sparse_input is not None and self._X is not None:
            gradient *= self._derivative(self._values.pop())
            self.sparse_input.set_gradients(self._X, gradient)


class AutogradLayers:
    """Any hidden layers, with autograd; the rest as `DenseLayers`.

    Parameters
    ----------
    hidden : callable
        Maps a batch to h(x).
    """

    def __init__(self, hidden: Callable[[Tensor], Tensor]) -> None:
        self.hidden = hidden
        self._output: Tensor | None = None

    def forward(self, X: Tensor) -> Tensor:
        """Return h(x), shape (n, n_hidden)."""
        with torch.enable_grad():
            self._output = self.hidden(X)
        return self._output.detach()

    def backward(self, gradient: Tensor) -> None:
        """Add to the gradients of the weights, from that of h(x)."""
        if self._output is not None and self._output.requires_grad:
            torch.autograd.backward([self._output], [gradient])
        self._output = None


def set_gradients(weight: Tensor, bias: Tensor, inputs: Tensor, gradient: Tensor) -> None:
    """Give a linear layer its gradient, from what it was given and that of what it returned."""
    if weight.requires_grad:
        weight.grad = gradient.T @ inputs
    if bias.requires_grad:
        bias.grad = gradient.sum(0)


def supports_closed_form(network: Any) -> bool:
    """Whether the way from h(x) to the loss is ours: no compiler, hook or mixed precision on it."""
    return (
        type(network) is NoisyLabelModule
        and type(network.head) is nn.Linear
        and not any(_has_hooks(part) for part in (network, network.head, network.noise))
        and not module._has_any_global_hook()
        and not torch.is_autocast_enabled(network.head.weight.device.type)
    )


def is_dense(hidden: nn.Module) -> bool:
    """Whether hidden layers are the default ones, all trained, without hooks."""
    layers = list(hidden.children())
    return (
        type(hidden) is MLP
        and all(type(layer) in _DENSE_PARTS for layer in layers)
        and all(weight.requires_grad for weight in hidden.parameters())
        and not any(_has_hooks(part) for part in (hidden, *layers))
    )


def _has_hooks(part: nn.Module | None) -> bool:
    """Whether somebody wants to hear of a module, or of a gradient, from autograd.

    torch has no public way to ask.
    """
    return part is not None and bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or any(
            weight._backward_hooks or weight._post_accumulate_grad_hooks
            for weight in part.parameters(recurse=False)
        )
    )
