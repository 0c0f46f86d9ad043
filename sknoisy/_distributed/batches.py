"""The part of one process of the batches of an epoch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from sknoisy._data.batches import (
    ArrayBatches,
    ArrayDataset,
    Batch,
    RowDataset,
    batch_bounds,
    make_batches,
)
from sknoisy._data.fetched_rows import map_tensors
from sknoisy._distributed.group import Group
from sknoisy._distributed.shares import Share

_OF_AN_ORDER = ("batch_sampler", "drop_last", "sampler", "shuffle")


def shared_batches(
    iterator: Callable[..., Any],
    dataset: RowDataset,
    params: dict[str, Any],
    generator: torch.Generator,
    device: str | torch.device,
    group: Group,
) -> Any:
    """Return an iterator over the part of this process of batches in a random order.

    The order is that of `shuffled_batches`, and a batch has `batch_size` rows for each process. All
    processes have as many batches; in some of them a part may have no rows.

    Parameters
    ----------
    iterator, dataset, params, generator, device
        As for `shuffled_batches`.
    group : Group

    Raises
    ------
    ValueError
        If the iterator has an order of its own.
    """
    loads = not isinstance(dataset, ArrayDataset)
    iterator = DataLoader if iterator is ArrayBatches and loads else iterator
    accepted = inspect.signature(iterator).parameters
    own_order = [name for name in _OF_AN_ORDER if name in params]
    if own_order or not (iterator is ArrayBatches or "batch_sampler" in accepted):
        what = f"iterator_train__{own_order[0]}" if own_order else "iterator_train"
        raise ValueError(
            f"`{what}` gives the rows an order of its own, of which several processes cannot take "
            "their parts. Leave it out, and let `iterator_train` be a class that takes a "
            "`batch_sampler`; or set distributed=False."
        )
    params = dict(params)
    size = int(params.pop("batch_size")) * group.size
    order = PartsOfBatches(Share.of(dataset, group), size, generator)
    if torch.device(device).type == "cuda":
        params = {"pin_memory": True} | params
    if iterator is ArrayBatches:
        assert isinstance(dataset, ArrayDataset)
        return GatheredParts(dataset, order, pin_memory=params.get("pin_memory", False))
    # Each process augments its rows with random numbers of its own.
    seed = (generator.initial_seed() + group.rank) % 2**63
    chosen = {"batch_sampler": order, "generator": torch.Generator().manual_seed(seed)}
    params = {name: value for name, value in chosen.items() if name in accepted} | params
    loader = make_batches("iterator_train", iterator, dataset, params)
    return LoadedParts(dataset, order, loader)


class PartsOfBatches(Sampler[list[int]]):
    """Row numbers of the part of a process of each batch, in a new random order in each pass.

    As a `batch_sampler` of a loader it leaves out what has no rows.

    Parameters
    ----------
    share : Share
    batch_size : int
        Of all processes together.
    generator : torch.Generator
    """

    def __init__(self, share: Share, batch_size: int, generator: torch.Generator) -> None:
        self.share = share
        self.batch_size = batch_size
        self.bounds = batch_bounds(share.n_rows, batch_size, training=True)
        self.generator = generator
        self._drawn: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def draw(self) -> list[Tensor]:
        """Draw the order of the next pass; return the positions of the rows of each part."""
        order = torch.arange(self.share.n_rows)
        if len(self) > 1:
            order = torch.randperm(len(order), generator=self.generator)
        self._drawn = self.share.of_batches(order, self.bounds)
        return self._drawn

    def __iter__(self) -> Iterator[list[int]]:
        return (part.tolist() for part in self._drawn if len(part))


class GatheredParts(ArrayBatches):
    """Parts of the batches of arrays.

    Parameters
    ----------
    dataset : ArrayDataset
    order : PartsOfBatches
    pin_memory : bool, default=False
    """

    def __init__(
        self, dataset: ArrayDataset, order: PartsOfBatches, *, pin_memory: bool = False
    ) -> None:
        super().__init__(dataset, order.batch_size, pin_memory=pin_memory)
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        parts = self.order.draw()
        for first in range(0, len(parts), self.batches_at_once):
            some = parts[first : first + self.batches_at_once]
            X, y = self.dataset.take(torch.cat(some))
            sizes = [len(part) for part in some]
            yield from zip(self._split(X, sizes), self._split(y, sizes), strict=True)


class LoadedParts:
    """Parts of the batches of a loader.

    Parameters
    ----------
    dataset : RowDataset
    order : PartsOfBatches
        The `batch_sampler` of the loader.
    loader : iterable of batches
    """

    def __init__(self, dataset: RowDataset, order: PartsOfBatches, loader: Any) -> None:
        self.dataset = dataset
        self.order = order
        self.loader = loader

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        parts = self.order.draw()
        loaded = iter(self.loader)
        for part in parts:
            yield next(loaded) if len(part) else self._no_rows()
        for _ in loaded:  # nothing: that is where a loader ends its processes
            pass

    def _no_rows(self) -> Batch:
        X, y = self.dataset.take(self.order.share.of_pass()[:1])
        without: Any = map_tensors(X, lambda values: values[:0])
        return without, y[:0]


def rows_of_pass(dataset: RowDataset, group: Group) -> tuple[RowDataset, Share]:
    """Return the rows that this process computes in a pass over a data set, and its share.

    The data set keeps them, as they keep what they have fetched.
    """
    share = Share.of(dataset, group)
    if group.size == 1:
        return dataset, share
    if not hasattr(dataset, "_rows_of_pass"):
        part: Any = dataset.subset(np.asarray(share.of_pass()))
        vars(dataset)["_rows_of_pass"] = part
    return vars(dataset)["_rows_of_pass"], share
