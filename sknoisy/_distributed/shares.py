"""Which rows of a data set are computed by which process."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sknoisy._data.batches import RowDataset
from sknoisy._distributed.group import Group


class Share(NamedTuple):
    """The part of a process of the rows of a data set.

    Attributes
    ----------
    group : Group
    own : ndarray of int of shape (n_own,) or None
        Positions in the data set of the rows that this process holds, ascending; None is all.
    n_rows : int
        Number of rows of the data set, in all processes.
    """

    group: Group
    own: np.ndarray | None
    n_rows: int

    @classmethod
    def of(cls, dataset: RowDataset, group: Group) -> Share:
        """Return the part of this process of a data set."""
        return cls(group, dataset.held, len(dataset))

    def of_pass(self) -> np.ndarray:
        """Return the positions that this process computes in a pass over all rows."""
        if self.own is not None:
            return self.own
        rank, size = self.group.rank, self.group.size
        return np.arange(self.n_rows * rank // size, self.n_rows * (rank + 1) // size)

    def of_batches(self, order: Tensor, bounds: list[int]) -> list[Tensor]:
        """Return the positions that this process takes of each batch, perhaps none.

        Parameters
        ----------
        order : Tensor of int of shape (n_rows,)
            Positions in the order of a pass.
        bounds : list of int
            Where batches begin in that order, and where the last one ends.
        """
        if self.own is not None:
            held = torch.zeros(self.n_rows, dtype=torch.bool)
            held[torch.from_numpy(self.own)] = True
            kept = held[order]
            before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
            sizes = before[torch.tensor(bounds)].diff().tolist()
            return list(order[kept].split(sizes))
        rank, size = self.group.rank, self.group.size
        return [
            order[
                start + (stop - start) * rank // size : start + (stop - start) * (rank + 1) // size
            ]
            for start, stop in pairwise(bounds)
        ]

    def collect(self, values: Tensor) -> Tensor:
        """Return the values of all rows, from those of the rows `of_pass`, shape (n_own, ...)."""
        if self.group.size == 1:
            return values
        together = values.new_zeros(self.n_rows, *values.shape[1:])
        together[torch.from_numpy(self.of_pass())] = values
        self.group.add_up(together)
        return together

    def collect_labelled(self, row: Tensor, *values: Tensor) -> list[Tensor]:
        """Return rows and values of all labels, of which a row can have several or none.

        Parameters
        ----------
        row : Tensor of int of shape (n_labels,)
            The number among the rows `of_pass` that each label belongs to, ascending.
        *values : Tensor of shape (n_labels, ...)

        Returns
        -------
        list of Tensor
            First the position in the data set of each label, ascending, then the values.
        """
        sizes = [int(n) for n in self.group.gather(len(row))]
        before = sum(sizes[: self.group.rank])
        together = []
        for part in (torch.from_numpy(self.of_pass())[row], *values):
            whole = part.new_zeros(sum(sizes), *part.shape[1:])
            whole[before : before + len(part)] = part
            self.group.add_up(whole)
            together.append(whole)
        order = torch.argsort(together[0], stable=True)
        return [part[order] for part in together]
