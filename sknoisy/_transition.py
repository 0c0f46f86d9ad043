"""The noise layers: thin modules that return logarithms of transition probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sknoisy import _functional as F


class ClassTransition(nn.Module):
    r"""Noise that depends on the true class only, the s-model.

    .. math:: p(z=j \mid y=i) = \mathrm{softmax}_j(b_{ij})

    Parameters
    ----------
    transition : Tensor of shape (true, observed)
        Where the layer starts; rows sum to one, entries are positive.
    learnable : bool, default=True
        Whether the matrix is a parameter or stays as it is.
    """

    bias: Tensor
    start: Tensor

    def __init__(self, transition: Tensor, *, learnable: bool = True) -> None:
        super().__init__()
        self.register_buffer("start", transition.clone())
        bias = transition.log()
        if learnable:
            self.bias = nn.Parameter(bias)
        else:
            self.register_buffer("bias", bias)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.bias.shape[0]

    @torch.no_grad()
    def reset_transition(self, transition: Tensor) -> None:
        """Replace the matrix, as the closed-form step of EM does.

        Parameters
        ----------
        transition : Tensor of shape (true, observed)
        """
        self.bias.copy_(transition.log())

    def forward(self, hidden: Tensor | None = None) -> Tensor:
        """Return log transition probabilities of shape (true, observed), the same for all rows."""
        return F.class_log_transition(self.bias)

    def extra_repr(self) -> str:
        """Say how large the layer is and whether it learns."""
        return f"n_classes={self.n_classes}, learnable={isinstance(self.bias, nn.Parameter)}"


class FeatureTransition(nn.Module):
    r"""Noise that depends on the true class and on the features, the c-model.

    .. math:: p(z=j \mid y=i, x) = \mathrm{softmax}_j(u_{ij} \cdot h(x) + b_{ij})

    It starts as the s-model of the given matrix: the weights u are zero.

    Parameters
    ----------
    transition : Tensor of shape (true, observed)
        Where the layer starts; rows sum to one, entries are positive.
    n_hidden : int
        Width of the last hidden layer h(x).
    """

    start: Tensor

    def __init__(self, transition: Tensor, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("start", transition.clone())
        self.bias = nn.Parameter(transition.log())
        self.weight = nn.Parameter(transition.new_zeros(*transition.shape, n_hidden))

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.bias.shape[0]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return log transition probabilities of shape (n, true, observed) for a batch of h(x)."""
        return F.feature_log_transition(hidden, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Say how large the layer is."""
        return f"n_classes={self.n_classes}, n_hidden={self.weight.shape[-1]}"
