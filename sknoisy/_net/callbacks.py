"""The callbacks of skorch: which are taken, copies for each stage, and the printed table."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    InputShapeSetter,
    LoadInitState,
    PrintLog,
    TrainEndCheckpoint,
    WandbLogger,
)
from skorch.dataset import Dataset
from skorch.exceptions import SkorchException
from skorch.history import History
from tabulate import tabulate

from sknoisy._data.batches import RowDataset
from sknoisy._support.validation import accepted_names, check_names

_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


def uses_batch_hooks(callbacks: Iterable[tuple[str, Callback]]) -> bool:
    """Whether a callback defines a method that is called in the loop over the batches."""
    return any(
        getattr(type(callback), hook, None) is not getattr(Callback, hook)
        for _, callback in callbacks
        for hook in _BATCH_HOOKS
    )


def writes(callback: Callback) -> bool:
    """Whether a callback prints, logs or saves, which one of several processes does for all."""
    of_loggers = any(c.__module__ == "skorch.callbacks.logging" for c in type(callback).__mro__)
    return of_loggers or isinstance(callback, Checkpoint | TrainEndCheckpoint)


def stopped_early(callbacks: Iterable[tuple[str, Callback]]) -> bool:
    """Whether one of skorch's `EarlyStopping` callbacks has run out of patience."""
    stopping = (callback for _, callback in callbacks if isinstance(callback, EarlyStopping))
    return any(callback.misses_ >= callback.patience for callback in stopping)


class CallbackDataset(Dataset):
    """The rows of a data set as the scoring callbacks of skorch ask for them."""

    def __init__(self, rows: RowDataset) -> None:
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


# Flags of loggers that close what they write to at the end of a training.
_CLOSING = ("close_after_train", "terminate_after_train")


def fit_to_stages(callbacks: Iterable[tuple[str, Callback]], *, first: bool) -> None:
    """Change copies of callbacks of skorch that expect one training, where a fit has stages.

    Parameters
    ----------
    callbacks : iterable of (name, callback)
        Initialised for a stage.
    first : bool
        Whether the stage is the first one, where a state that was saved is loaded.
    """
    for _, callback in callbacks:
        # Loggers take numbers; wandb takes the name of the stage as well.
        ignored = getattr(callback, "keys_ignored_", None)
        if isinstance(ignored, set) and not isinstance(callback, PrintLog | WandbLogger):
            ignored.add("stage")
        for flag in _CLOSING:
            if vars(callback).get(flag):
                setattr(callback, flag, False)
                vars(callback)["closes_"] = flag
        if isinstance(callback, LoadInitState):
            callback.did_load_ = not first


def close_loggers(callbacks: Iterable[tuple[str, Callback]], net: NeuralNet) -> None:
    """Let loggers close at the end of a fit what would have been closed after each stage."""
    without_history = object.__new__(type(net))  # what is in the history has been logged
    vars(without_history).update(vars(net), history_=History())
    for _, callback in callbacks:
        flag = vars(callback).pop("closes_", None)
        if flag is not None:
            setattr(callback, flag, True)
            if hasattr(callback, "create_artifact"):
                callback.create_artifact = False
            of_skorch = (c for c in type(callback).__mro__ if c.__module__.startswith("skorch."))
            kind: Any = next(of_skorch, type(callback))
            kind.on_train_end(callback, without_history)


def input_sizes(callbacks: Iterable[Any], X: Any) -> dict[str, Any]:
    """Return the parameters of the module that an `InputShapeSetter` would set.

    Parameters
    ----------
    callbacks : iterable
        Callbacks, classes of them, or (name, callback) tuples.
    X : array of shape (n_samples, ...)
    """
    sizes = {}
    for item in callbacks:
        callback = item[1] if isinstance(item, list | tuple) and len(item) == 2 else item
        callback = callback() if callback is InputShapeSetter else callback
        if isinstance(callback, InputShapeSetter) and callback.module_name == "module":
            sizes[callback.param_name] = callback.get_input_dim(X)
    return sizes


def check_held_out(callbacks: Iterable[tuple[str, Callback]]) -> None:
    """Refuse callbacks that watch the loss of held-out rows in a fit that has none.

    Unless a callback of the user's is there, which may record such a loss itself.

    Raises
    ------
    ValueError
    """
    callbacks = list(callbacks)
    if not all(type(callback).__module__.startswith("skorch.") for _, callback in callbacks):
        return
    for _, callback in callbacks:
        watches = isinstance(callback, EarlyStopping | Checkpoint)
        if watches and callback.monitor in ("valid_loss", "valid_loss_best"):
            raise ValueError(_without_held_out(callback, callback.monitor))


@contextmanager
def explained(held_out: bool) -> Iterator[None]:
    """Let a callback that misses a value of held-out rows say what to set.

    Parameters
    ----------
    held_out : bool
        Whether rows are held out.

    Raises
    ------
    ValueError
    """
    try:
        yield
    except (KeyError, ValueError, SkorchException) as error:
        missed = re.search(r"valid_\w+", str(error))
        trace, callback = error.__traceback__, None
        while trace is not None:
            found = trace.tb_frame.f_locals.get("self")
            callback = found if isinstance(found, Callback) else callback
            trace = trace.tb_next
        if held_out or missed is None or callback is None:
            raise
        raise ValueError(_without_held_out(callback, missed.group())) from error


def _without_held_out(callback: Callback, missed: str) -> str:
    monitor = "monitor='train_loss" + ("_best'" if isinstance(callback, Checkpoint) else "'")
    if isinstance(callback, WandbLogger):
        monitor = "save_model=False"
    return (
        f"`callbacks`: {type(callback).__name__} asks for {missed!r}, but no rows are held out. "
        "Set early_stopping=True ('auto' holds out rows from 2000 on, partial_fit never), or set "
        f"{monitor} of {type(callback).__name__}."
    )


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

    def note(self, message: str, verbose: int) -> None:
        """Print a line between two stages; the table goes on after it."""
        self._sink(message, verbose)

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

    def format_row(self, row: Any, key: str, color: str) -> Any:
        """Return a cell; the best loss is in no colour, which files and pipes would show."""
        plain = {"train_loss_best", "valid_loss_best"}
        return super().format_row({k: v for k, v in row.items() if k not in plain}, key, color)

    def _sorted_keys(self, keys: Any) -> list[str]:
        names = super()._sorted_keys(keys)
        return sorted(names, key=lambda name: {"epoch": 0, "stage": 1}.get(name, 2))
