"""The mean of the gradients of all processes, as one batch of all their rows would have it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sknoisy._distributed.group import Group


class GradientMean:
    """Average gradients and losses over the processes, weighted by the rows of their batches.

    All numbers travel as one tensor for each type of weights. A process without rows takes part
    with zeros. A weight that has no gradient in any process is left without one.

    Parameters
    ----------
    group : Group
    parameters : iterable of nn.Parameter

    Attributes
    ----------
    n_rows : Tensor of shape ()
        Rows of the last batch, in all processes.
    """

    def __init__(self, group: Group, parameters: Iterable[nn.Parameter]) -> None:
        self.group = group
        self.n_rows: Tensor = torch.zeros(())
        weights = [weight for weight in parameters if weight.requires_grad]
        kinds = dict.fromkeys((_real_type(weight), weight.device) for weight in weights)
        self.parts = [
            [weight for weight in weights if (_real_type(weight), weight.device) == kind]
            for kind in kinds
        ]

    @torch.no_grad()
    def __call__(self, loss: Tensor, n_rows: int) -> Tensor:
        """Replace the gradients of the weights by their mean over all rows.

        Parameters
        ----------
        loss : Tensor of shape ()
            Mean over the rows of this process.
        n_rows : int
            Rows of the batch in this process.

        Returns
        -------
        Tensor of shape ()
            Mean of the loss over the rows of all processes.
        """
        sums = torch.tensor([float(n_rows), 0.0], dtype=loss.dtype, device=loss.device)
        if n_rows:
            sums[1] = loss * n_rows
        for number, part in enumerate(self.parts):
            first = part[0]
            dtype = _real_type(first)
            # Numbers of rows have more digits than half precision; they travel on their own then.
            joins = number == 0 and dtype == loss.dtype and first.device == loss.device
            flags = torch.tensor(
                [float(n_rows > 0 and weight.grad is not None) for weight in part],
                dtype=dtype,
                device=first.device,
            )
            gradients = [_flat_gradient(weight, n_rows) for weight in part]
            flat = torch.cat([*([sums] if joins else []), flags, *gradients])
            self.group.add_up(flat)
            if joins:
                sums, flat = flat[:2], flat[2:]
            elif number == 0:
                self.group.add_up(sums)
            flags, flat = flat[: len(part)], flat[len(part) :]
            self._spread(part, flags, flat.div_(sums[0].to(dtype)))
        if not self.parts:
            self.group.add_up(sums)
        self.n_rows = sums[0]
        return sums[1] / sums[0]

    @staticmethod
    def _spread(part: list[nn.Parameter], flags: Tensor, mean: Tensor) -> None:
        """Give weights the gradients that are side by side in a tensor."""
        sizes = [weight.numel() * (2 if weight.is_complex() else 1) for weight in part]
        for i, (weight, gradient) in enumerate(zip(part, mean.split(sizes), strict=True)):
            if weight.grad is None and not flags[i]:
                continue
            if weight.is_complex():
                weight.grad = torch.view_as_complex(gradient.view(*weight.shape, 2))
            else:
                weight.grad = gradient.view(weight.shape)


def _real_type(weight: Tensor) -> torch.dtype:
    return weight.dtype.to_real() if weight.is_complex() else weight.dtype


def _flat_gradient(weight: nn.Parameter, n_rows: int) -> Tensor:
    """Return the sum of the gradients of the rows, zero without rows or gradient."""
    gradient = weight.grad
    if gradient is None or not n_rows:
        size = weight.numel() * (2 if weight.is_complex() else 1)
        return torch.zeros(size, dtype=_real_type(weight), device=weight.device)
    if gradient.layout != torch.strided:
        raise ValueError(
            "`module` must have dense gradients to be trained in several processes; got a sparse "
            "one. Make its layers with sparse=False, or set distributed=False."
        )
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    return gradient.reshape(-1) * n_rows
