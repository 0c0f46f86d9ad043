"""Several networks of one kind as a single one that averages their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.network import NoisyLabelModule, copied
from sknoisy._model.sparse_input import SparseLinear


def draw_new_weights(network: NoisyLabelModule) -> None:
    """Let a default network begin anew with other weights, without a noise layer."""
    network.noise = None
    for layer in (*network.hidden.children(), network.head):
        if isinstance(layer, nn.Linear | SparseLinear):
            layer.reset_parameters()


def averaged(networks: Sequence[NoisyLabelModule]) -> NoisyLabelModule:
    r"""Return one network whose logits are the mean of those of several default networks.

    Its clean probabilities are their geometric mean, normalised, and there is one matrix: the mean
    of theirs, or, where the noise depends on the features, one of averaged logits. The hidden units
    stand side by side, so that the result is a default network too, with a layer as wide as theirs
    together.

    Parameters
    ----------
    networks : sequence of NoisyLabelModule
        At least one, all of the default kind and of the same sizes, with noise layers of one kind.

    Returns
    -------
    NoisyLabelModule
    """
    network = copied(networks[0])
    with torch.no_grad():
        layers = zip(*[list(one.hidden.children()) for one in networks], strict=True)
        n_linear = 0
        for at, alike in enumerate(layers):
            if isinstance(alike[0], nn.Linear | SparseLinear):
                network.hidden[at] = _side_by_side(alike, own_input=n_linear > 0)  # type: ignore[operator]
                n_linear += 1
        heads = [one.head.weight for one in networks]
        network.head = _linear(
            _mean_over_units(heads, apart=n_linear > 0),
            torch.stack([one.head.bias for one in networks]).mean(0),
        )
    _average_noise(network, [one.noise for one in networks], apart=n_linear > 0)
    return network


def _side_by_side(layers: Sequence[Any], *, own_input: bool) -> nn.Module:
    """Return a layer with the units of all, which see one input or each of them its own."""
    bias = torch.cat([layer.bias for layer in layers])
    if isinstance(layers[0], SparseLinear):
        merged = SparseLinear(layers[0].n_features, len(bias), layers[0].columns)
        merged.scale = layers[0].scale.clone()
        merged.weight = nn.Parameter(torch.cat([layer.weight for layer in layers], dim=1))
        merged.bias = nn.Parameter(bias)
        return merged
    weights = [layer.weight for layer in layers]
    return _linear(torch.block_diag(*weights) if own_input else torch.cat(weights), bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _mean_over_units(weights: Sequence[Tensor], *, apart: bool) -> Tensor:
    """Return weights of the mean of what several layers compute of units apart, or of the same."""
    if apart:
        return torch.cat(list(weights), dim=-1) / len(weights)
    return torch.stack(list(weights)).mean(0)


@torch.no_grad()
def _average_noise(network: NoisyLabelModule, layers: Sequence[Any], *, apart: bool) -> None:
    """Give a network the noise layer of several, of which it has the first."""
    noise: Any = network.noise
    if noise is None:
        return
    if isinstance(noise, AnnotatorTransition):
        noise.reset_transitions(np.mean([layer.transitions() for layer in layers], axis=0))
    elif noise.depends_on_features:
        noise.bias = nn.Parameter(torch.stack([layer.bias for layer in layers]).mean(0))
        weights = [layer.weight for layer in layers]
        noise.weight = nn.Parameter(_mean_over_units(weights, apart=apart))
        noise.start = torch.stack([layer.start for layer in layers]).mean(0)
    else:
        network.attach_class_noise(
            np.mean([layer.matrix() for layer in layers], axis=0),
            learnable=isinstance(noise.bias, nn.Parameter),
            n_targets=None if noise.targets is None else noise.targets.shape[1],
        )
