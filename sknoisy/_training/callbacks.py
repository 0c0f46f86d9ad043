"""The callbacks of skorch: which are taken, copies for each stage, and the printed table."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, PrintLog
from skorch.dataset import Dataset
from tabulate import tabulate

from sknoisy._data.batches import ArrayDataset
from sknoisy._support.validation import accepted_names, check_names

_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


def hear_of_batches(callbacks: Iterable[tuple[str, Callback]]) -> bool:
    """Whether a callback defines a method that is called in the loop over the batches."""
    return any(
        getattr(type(callback), hook, None) is not getattr(Callback, hook)
        for _, callback in callbacks
        for hook in _BATCH_HOOKS
    )


def stopped_early(callbacks: Iterable[tuple[str, Callback]]) -> bool:
    """Whether one of skorch's `EarlyStopping` callbacks has run out of patience."""
    stopping = (callback for _, callback in callbacks if isinstance(callback, EarlyStopping))
    return any(callback.misses_ >= callback.patience for callback in stopping)


class SeenRows(Dataset):
    """The rows of a data set as the scoring callbacks of skorch ask for them."""

    def __init__(self, rows: ArrayDataset) -> None:
        self.rows = rows

    @property
    def X(self) -> Any:  # noqa: N802
        """The data, copied when asked for."""
        return self.rows.X

    @property
    def y(self) -> Any:
        """The encoded observed labels."""
        return self.rows.y

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.rows[i]


def check_callbacks(net: NeuralNet) -> None:
    """Refuse what is no callback, and parameters of callbacks that are not there.

    Raises
    ------
    ValueError
        Naming what was expected.
    """
    for item in net.callbacks or []:
        named = isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str)
        callback = item[1] if named else item
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback) and not (named and callback is None):
            raise ValueError(
                "`callbacks` must hold skorch callbacks, classes of them, or (name, callback) "
                f"tuples; got {item!r}. scikit-learn's are set by `set_callbacks`."
            )
    callbacks = {"print_log": None, **dict(net._uniquely_named_callbacks())}
    routed = [name.split("__", 2)[1:] for name in vars(net) if name.startswith("callbacks__")]
    check_names("callbacks", (path[0] for path in routed), callbacks)
    for name, callback in callbacks.items():
        callback = getattr(net, f"callbacks__{name}", callback)
        if callback is not None:
            kind = callback if isinstance(callback, type) else type(callback)
            names = (path[1] for path in routed if path[0] == name and len(path) == 2)
            check_names(f"callbacks__{name}", names, accepted_names(kind, skip=0))


@contextmanager
def copied_callbacks(net: NeuralNet) -> Iterator[None]:
    """Let a net have copies of its callbacks inside the block."""
    names = [name for name in vars(net) if name.startswith("callbacks__")]
    given = {name: getattr(net, name) for name in ["callbacks", *names]}
    vars(net).update({name: _copy(value) for name, value in given.items()})
    try:
        yield
    finally:
        vars(net).update(given)


def _copy(callbacks: Any) -> Any:
    """Return a deep copy, or of what cannot be copied deeply, such as a writer, a shallow one."""
    if isinstance(callbacks, list | tuple):
        return [
            (item[0], _copy(item[1])) if isinstance(item, tuple) else _copy(item)
            for item in callbacks
        ]
    with suppress(Exception):
        return copy.deepcopy(callbacks)
    return copy.copy(callbacks)


class StageLog(PrintLog):
    """Print a line for each epoch, with its stage; a header when the columns change."""

    _columns: list[str] | None = None

    def initialize(self) -> StageLog:
        """Begin a stage: the table goes on."""
        super().initialize()
        self.first_iteration_ = self._columns is None
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Print the last row of the history."""
        columns = self._sorted_keys(net.history[-1])
        self.first_iteration_ = columns != self._columns
        self._columns = columns
        super().on_epoch_end(net, **kwargs)

    def table(self, row: Any) -> str:
        """Return header, rule and line, as wide as the longest name of a stage needs."""
        rows = [dict(self._yield_keys_formatted(r)) for r in (row, {**row, "stage": "baseline"})]
        text = tabulate(
            [list(cells.values()) for cells in rows],
            headers=list(rows[0]),
            tablefmt=self.tablefmt,
            floatfmt=self.floatfmt,
            stralign=self.stralign,
        )
        return text.rsplit("\n", 1)[0]

    def _sorted_keys(self, keys: Any) -> list[str]:
        names = super()._sorted_keys(keys)
        return sorted(names, key=lambda name: {"epoch": 0, "stage": 1}.get(name, 2))
