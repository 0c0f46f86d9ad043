"""The mean of the gradients of all processes, as one batch of all their rows would have it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sknoisy._distributed.group import Group

Kind = tuple[torch.dtype, torch.device]


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
        self._messages: dict[Kind, _Message] = {}
        for weight in parameters:
            if weight.requires_grad:
                kind = _kind_of(weight)
                self._messages.setdefault(kind, _Message(kind)).weights.append(weight)

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
        # Of the type of the loss, since numbers of rows have more digits than half precision.
        kind = _kind_of(loss)
        first = self._messages.setdefault(kind, _Message(kind))
        for message in sorted(self._messages.values(), key=lambda message: message is not first):
            message.write(loss if message is first else None, n_rows)
            self.group.add_up(message.content)
            if message is first:
                self.n_rows = message.content[0].clone()
            message.read(self.n_rows)
        return first.content[1].clone()


class _Message:
    """Numbers of rows, the loss, which weights have a gradient, and gradients, side by side."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.weights: list[nn.Parameter] = []
        self._content: Tensor | None = None
        self._gradients: list[Tensor] = []

    @property
    def _n_before(self) -> int:
        """How many numbers come before the gradients."""
        n_before = 2 + len(self.weights)
        return n_before + n_before % 2

    @property
    def content(self) -> Tensor:
        """All numbers, a tensor of one dimension."""
        if self._content is None:
            # Complex numbers lie at even places: they come first.
            self.weights.sort(key=lambda weight: not weight.is_complex())
            sizes = [weight.numel() * (1 + weight.is_complex()) for weight in self.weights]
            dtype, device = self.kind
            self._content = torch.zeros(self._n_before + sum(sizes), dtype=dtype, device=device)
            parts = self._content[self._n_before :].split(sizes) if sizes else []
            self._gradients = [
                torch.view_as_complex(part.view(*weight.shape, 2))
                if weight.is_complex()
                else part.view(weight.shape)
                for weight, part in zip(self.weights, parts, strict=True)
            ]
        return self._content

    def write(self, loss: Tensor | None, n_rows: int) -> None:
        """Fill in the sums over the rows of this process."""
        content = self.content
        given = [weight.grad if n_rows else None for weight in self.weights]
        content[0] = n_rows
        content[1] = 0.0 if loss is None or not n_rows else loss * n_rows
        content[2 : 2 + len(given)] = torch.tensor([float(g is not None) for g in given])
        for gradient, place in zip(given, self._gradients, strict=True):
            if gradient is None:
                place.zero_()
            elif gradient.layout != torch.strided:
                raise ValueError(
                    "`module` must have dense gradients to be trained in several processes; got "
                    "a sparse one. Make its layers with sparse=False, or set distributed=False."
                )
            else:
                torch.mul(gradient, n_rows, out=place)

    def read(self, n_rows: Tensor) -> None:
        """Give the weights their mean gradients, from the sums over the rows of all processes."""
        content = self.content
        content[1] /= n_rows
        content[self._n_before :] /= n_rows.to(content)
        for i, (weight, gradient) in enumerate(zip(self.weights, self._gradients, strict=True)):
            if weight.grad is not None or content[2 + i]:
                weight.grad = gradient


def _kind_of(weight: Tensor) -> Kind:
    dtype = weight.dtype.to_real() if weight.is_complex() else weight.dtype
    return dtype, weight.device
