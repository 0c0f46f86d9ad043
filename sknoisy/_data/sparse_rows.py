"""Batches of rows that are mostly zero, with their stored entries only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from scipy import sparse
from torch import Tensor


@dataclass(frozen=True)
class SparseRows:
    """Rows of a CSR matrix on a device.

    torch has CSR tensors of its own; what they can do depends on how torch was built.

    Attributes
    ----------
    columns, values : Tensor of shape (n_stored,)
        The stored entries, row after row. Those of the same column add up.
    bounds : Tensor of shape (n + 1,)
        Where the entries of each row begin, and those of the last one end.
    n_columns : int
    """

    columns: Tensor
    values: Tensor
    bounds: Tensor
    n_columns: int

    @classmethod
    def of(cls, matrix: sparse.csr_array, dtype: torch.dtype | None) -> SparseRows:
        """Return the rows of a matrix, with values of a type."""
        return cls(
            torch.as_tensor(matrix.indices, dtype=torch.int64),
            torch.as_tensor(matrix.data).to(dtype),
            torch.as_tensor(matrix.indptr, dtype=torch.int64),
            matrix.shape[1],
        )

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self), self.n_columns

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def rows(self) -> Tensor:
        """The row of each stored entry, shape (n_stored,)."""
        rows = torch.arange(len(self), device=self.bounds.device)
        return rows.repeat_interleave(self.bounds.diff(), output_size=len(self.values))

    def to(self, *args: Any, **kwargs: Any) -> SparseRows:
        """Return them on another device; arguments as of ``Tensor.to``, without a type."""
        columns, bounds = (t.to(*args, **kwargs) for t in (self.columns, self.bounds))
        return replace(self, columns=columns, values=self.values.to(*args, **kwargs), bounds=bounds)

    def pin_memory(self) -> SparseRows:
        """Return them in page-locked memory."""
        columns, values, bounds = (t.pin_memory() for t in (self.columns, self.values, self.bounds))
        return replace(self, columns=columns, values=values, bounds=bounds)

    def split(self, sizes: Sequence[int]) -> list[SparseRows]:
        """Return parts of so many rows, one after the other."""
        parts = []
        for first, last in pairwise(accumulate(sizes, initial=0)):
            bounds = self.bounds[first : last + 1]
            begin, end = int(bounds[0]), int(bounds[-1])
            stored = slice(begin, end)
            columns, values = self.columns[stored], self.values[stored]
            parts.append(SparseRows(columns, values, bounds - begin, self.n_columns))
        return parts
