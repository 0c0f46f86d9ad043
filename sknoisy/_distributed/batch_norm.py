"""Batch normalisation by the rows of all processes, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sknoisy._distributed.group import Group

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def synchronised_batch_norm(module: nn.Module, group: Group) -> Iterator[bool]:
    """Let the layers of batch normalisation in a module see the rows of all processes.

    Inside the block, and in training mode. A module whose `forward` is not torch's, as one of
    ``torch.jit``, is left as it is.

    Yields
    ------
    bool
        Whether there are such layers. Each process must then run the module for each batch, also
        for one in which it has no rows.
    """
    plain = {kind.forward for kind in _KINDS}
    layers: list[Any] = [
        part
        for part in module.modules()
        if group.size > 1
        and isinstance(part, _KINDS)
        and type(part).forward in plain
        and not isinstance(part, torch.jit.ScriptModule)
    ]
    for layer in layers:
        layer.forward = partial(_forward, layer, group)
    try:
        yield bool(layers)
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: Any, group: Group, X: Tensor) -> Tensor:
    if not layer.training:
        plain: Tensor = type(layer).forward(layer, X)
        return plain
    axes = [axis for axis in range(X.ndim) if axis != 1]
    shape = [1, -1, *[1] * (X.ndim - 2)]
    count = X.new_tensor([X.numel() / max(1, X.shape[1])])
    group.add_up(count)
    mean = _Sum.apply(X.sum(dim=axes), group, len(X)) / count
    centred = X - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dim=axes), group, len(X)) / count
    if layer.track_running_stats and layer.running_mean is not None:
        _update_running(layer, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
    Y = centred / (variance + layer.eps).sqrt().view(shape)
    if layer.weight is not None:
        Y = Y * layer.weight.view(shape) + layer.bias.view(shape)
    return Y


@torch.no_grad()
def _update_running(layer: Any, mean: Tensor, variance: Tensor) -> None:
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum
    if momentum is None:
        momentum = 1.0 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean.to(layer.running_mean), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var), momentum)


class _Sum(torch.autograd.Function):
    """Sum over the processes, for losses that are means over the rows of each process."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group, n_rows: int) -> Tensor:
        ctx.group, ctx.n_rows = group, n_rows
        total = values.clone()
        group.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # Gradients are weighted by rows when all is done (`GradientMean`), and so are these.
        total = gradients[0] * ctx.n_rows
        ctx.group.add_up(total)
        return total / max(1, ctx.n_rows), None, None
