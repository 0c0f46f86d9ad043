"""A first layer for wide data that are mostly zero, such as words of texts."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sknoisy._data.sparse_rows import SparseRows


class SparseLinear(nn.Module):
    """Linear layer with weights for the columns that occur in the training data.

    A column that never occurs has weights without a gradient: they would stay as they were drawn,
    and add noise to predictions for rows in which it does occur. Here it counts for nothing. The
    weights are those that ``torch.nn.Linear`` would draw, without the others in memory.

    Parameters
    ----------
    n_features, n_out : int
    columns : Tensor of shape (n_kept,)
        The columns that have weights, ascending.

    Attributes
    ----------
    weight : Parameter of shape (n_kept, n_out)
    bias : Parameter of shape (n_out,)
    scale : Tensor of shape (n_kept,)
        What each column is divided by.
    """

    columns: Tensor
    scale: Tensor

    def __init__(self, n_features: int, n_out: int, columns: Tensor) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_out = n_out
        self.register_buffer("columns", columns)
        self.register_buffer("scale", torch.ones(len(columns)))
        self.weight = nn.Parameter(torch.empty(len(columns), n_out))
        self.bias = nn.Parameter(torch.empty(n_out))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights."""
        bound = 1 / math.sqrt(self.n_features)
        drawn = self.weight.new_empty(self.n_features)
        for unit in range(self.n_out):
            self.weight[:, unit] = drawn.uniform_(-bound, bound)[self.columns]
        self.bias.uniform_(-bound, bound)

    def lookup(self, X: SparseRows) -> tuple[Tensor, Tensor]:
        """Return for each stored entry the row of its weights, and its value or zero without."""
        at = torch.searchsorted(self.columns, X.columns).clamp_(max=len(self.columns) - 1)
        return at, X.values.where(self.columns[at] == X.columns, 0) / self.scale[at]

    def reset_scale(self, scale: np.ndarray) -> None:
        """Set what the columns are divided by, from an array of shape (n_features,)."""
        self.scale = torch.as_tensor(scale).to(self.scale)[self.columns]

    def forward(self, X: Tensor | SparseRows) -> Tensor:
        """Return ``X / scale @ weight + bias``, shape (n, n_out), of dense or sparse rows."""
        if X.shape[1:] != (self.n_features,):
            raise IndexError(f"expected {self.n_features} columns, got rows of {X.shape[1:]}.")
        if isinstance(X, Tensor):
            return torch.addmm(self.bias, X[:, self.columns] / self.scale, self.weight)
        if not len(self.columns):
            return self.bias.repeat(len(X), 1)
        at, values = self.lookup(X)
        return self.bias + functional.embedding_bag(
            at,
            self.weight,
            X.bounds,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )

    @torch.no_grad()
    def set_gradients(self, X: Tensor | SparseRows, gradient: Tensor) -> None:
        """Give the parameters their gradient, from that of what the layer returned.

        Parameters
        ----------
        X : Tensor or SparseRows of shape (n, n_features)
            What the layer was given.
        gradient : Tensor of shape (n, n_out)
        """
        if isinstance(X, Tensor):
            self.weight.grad = (X[:, self.columns] / self.scale).T @ gradient
        elif not len(self.columns):
            self.weight.grad = torch.zeros_like(self.weight)
        else:
            at, values = self.lookup(X)
            entries = gradient[X.rows].mul_(values.unsqueeze(1))
            self.weight.grad = torch.zeros_like(self.weight).index_add_(0, at, entries)
        self.bias.grad = gradient.sum(0)

    @torch.no_grad()
    def extend(self, columns: np.ndarray) -> None:
        """Take more columns, with weights of zero until they are learned.

        Parameters
        ----------
        columns : ndarray of int
            Those that occur; the layer may have some of them.
        """
        more = torch.as_tensor(columns, device=self.columns.device)
        merged = torch.cat([self.columns, more]).unique()
        self.weight = nn.Parameter(
            spread(self.weight.detach(), self.columns, merged), self.weight.requires_grad
        )
        scale = self.scale.new_ones(len(merged))
        scale[torch.searchsorted(merged, self.columns)] = self.scale
        self.columns, self.scale = merged, scale

    def extra_repr(self) -> str:
        """Say how large the layer is."""
        return f"n_features={self.n_features}, n_out={self.n_out}, n_kept={len(self.columns)}"


def spread(values: Tensor, columns: Tensor, onto: Tensor) -> Tensor:
    """Return rows of values for more columns, zero where there were none.

    Parameters
    ----------
    values : Tensor of shape (n_kept, ...)
    columns : Tensor of shape (n_kept,)
        What the rows belong to.
    onto : Tensor of shape (n_more,)
        What they shall belong to, ascending, all of `columns` among them.
    """
    spread_ = values.new_zeros(len(onto), *values.shape[1:])
    spread_[torch.searchsorted(onto, columns)] = values
    return spread_
