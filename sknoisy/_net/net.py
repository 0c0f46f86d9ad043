"""The net that takes the network through the stages of training, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from skorch.callbacks import Callback, EpochTimer
from skorch.history import History
from skorch.utils import get_map_location
from torch import Tensor

from sknoisy._data.batches import RowDataset, shuffled_batches
from sknoisy._distributed.batches import rows_of_pass, shared_batches
from sknoisy._distributed.group import ALONE
from sknoisy._model.network import NoisyLabelModule
from sknoisy._model.sparse_input import spread
from sknoisy._net.callbacks import (
    CallbackDataset,
    StageLog,
    check_callbacks,
    check_held_out,
    close_loggers,
    copied_callbacks,
    explained,
    fit_to_stages,
    stopped_early,
    uses_batch_hooks,
    writes,
)
from sknoisy._net.lean_net import LeanNet
from sknoisy._net.net_state import as_columns, as_rows, network_from_arrays, network_to_arrays
from sknoisy._net.optimizers import (
    gradients_it_takes,
)
from sknoisy._net.progress import FitProgress
from sknoisy._net.stopping import BestEpoch, BestWeights, CalibratedLoss
from sknoisy._support.torch_state import named_tensors, torch_threads
from sknoisy._support.validation import check_losses

_TOLERANCE = 2.5e-5  # an epoch, by which the held-out loss has to fall
#: Measured with ``tests/benchmarks/scaling.py --parts threads``: fits with such steps take longer
#: with two threads than with one, by up to a third.
_MOST_MULTIPLICATIONS_FOR_ONE_THREAD = 5_000_000

#: What a net knows of other processes when it does not train.
_OF_PROCESSES: dict[str, Any] = {
    "_group": ALONE,
    "_gradient_mean": None,
    "_runs_without_rows": False,
    "_told_of_batches": False,
    "_sizes": (),
}


class StageEnd(NamedTuple):
    """How a stage of training ended.

    Attributes
    ----------
    best_epoch : int
        The epoch whose weights were kept, counted from one.
    stopped : bool
        Whether the stage ended before its epochs did.
    lowest_loss : float
        The calibrated held-out loss of the best epoch; infinite without held-out rows.
    """

    best_epoch: int
    stopped: bool
    lowest_loss: float


class SkorchNet(LeanNet):
    """Train a `NoisyLabelModule` on observed labels, one stage after the other.

    Parameters
    ----------
    module : NoisyLabelModule
        Trained in place.
    **kwargs
        As for `LeanNet`.
    """

    def __init__(self, module: NoisyLabelModule, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        self._log = StageLog()
        self._past: list[dict[str, Any]] = []
        self._n_stages = 0
        self._best_epoch: BestEpoch | None = None

    # What a stage is made of

    @property
    def has_optimizer(self) -> bool:
        """Whether the net has an optimiser; `forget_training` and files drop it."""
        return hasattr(self, "optimizer_")

    def train_stage(
        self,
        stage: str,
        train: RowDataset,
        valid: RowDataset | None,
        *,
        max_epochs: int,
        patience: int,
        generator: torch.Generator,
        progress: FitProgress,
        before_epoch: Callable[[], bool] = lambda: False,
        resume: bool = False,
    ) -> StageEnd:
        """Train for one stage, with new callbacks and a new optimiser.

        Parameters
        ----------
        stage : str
            Name of the stage, kept in the history.
        train : RowDataset
        valid : RowDataset or None
            Held-out rows. With them, training stops when their loss has not fallen for
            `patience` epochs, and the weights of the best epoch are put back.
        max_epochs, patience : int
        generator : torch.Generator
            Source of the order of the rows.
        progress : FitProgress
            Is told of the stage and of its epochs.
        before_epoch : callable, optional
            Called when an epoch has begun; True ends the stage after it.
        resume : bool, default=False
            Whether to go on with the optimiser of the last stage, if that had the same name.

        Returns
        -------
        StageEnd

        Raises
        ------
        ValueError
            If the loss is not finite.
        """
        group = self.group
        group.enter(f"in stage {stage!r}")
        with torch_threads(self._n_threads()):
            self._start_stage(stage, resume)
            datasets = {
                "dataset_train": self._for_callbacks(train),
                "dataset_valid": valid and self._for_callbacks(valid),
            }
            rows = {"X": train.data, "y": train.target}
            if train.first is not None and train.target is not None:
                rows["y"] = train.target[train.first :][: train.data.shape[0]]
            params = {"batch_size": self.batch_size, **self.get_params_for("iterator_train")}
            batches = self._batches_of_epoch(train.for_training(), params, generator)
            held_out = None if valid is None else self._held_out(valid)
            best = BestWeights(self.network, patience, _TOLERANCE * patience)
            calibrated_loss = CalibratedLoss()
            stop = False
            progress.begin_stage(stage, max_epochs)
            self.notify("on_train_begin", **rows)
            self._share_weights()
            for _ in range(max_epochs):
                progress.begin_epoch()
                self.notify("on_epoch_begin", **datasets)
                # skorch counts the epochs of the stage.
                self.history.record("epoch", len(self._past) + len(self.history))
                self.history.record("stage", stage)
                stop = before_epoch()
                with gradients_it_takes(self.optimizer_):
                    self.run_single_epoch(
                        batches, training=True, prefix="train", step_fn=self.train_step
                    )
                self.run_single_epoch(
                    held_out, training=False, prefix="valid", step_fn=self.validation_step
                )
                check_losses(self.history[-1], self.lr)
                with explained(held_out is not None):
                    stop |= self._notify_epoch_end(datasets)
                if valid is not None:
                    factors = self.label_factors(valid)
                    weight = None if valid.weight is None else valid.weight[factors.row]
                    loss = group.once(
                        partial(
                            calibrated_loss, factors.clean_log_proba, factors.log_column, weight
                        )
                    )
                    self.history.record("calibrated_valid_loss", loss)
                    stop |= best.update(loss)
                if self._best_epoch is not None:
                    self._best_epoch.update(self.network, self.history[-1], valid)
                stop |= progress.end_epoch()
                if self._agreed(stop):
                    break
            n_epochs = len(self.history)
            best.restore()
            self.notify("on_train_end", **rows)
            self._share_weights()
            if group.size > 1:  # a checkpoint may have been loaded, in the first process only
                self.history_ = History(group.once(lambda: list(self.history)))
            progress.end_stage()
            self._past, self.history_ = [], self.whole_history()
            return StageEnd(best.best_epoch or n_epochs, stop, best.lowest)

    def _n_threads(self) -> int | None:
        """Return one where steps are small, which then take longer with more; None is all."""
        n_multiplications = self.network.multiplications_per_row()
        few = _MOST_MULTIPLICATIONS_FOR_ONE_THREAD // self.batch_size
        small = n_multiplications is not None and n_multiplications <= few
        return 1 if small and torch.device(self.device).type == "cpu" else None

    def replace_network(self, network: NoisyLabelModule) -> None:
        """Go on with another network, and without an optimiser."""
        self.__dict__["module_"] = network
        self.__dict__.pop("optimizer_", None)

    def whole_history(self) -> History:
        """All epochs, those of a stage that is not over included."""
        return History([*self._past, *self.history])

    def take_over_steps(self, other: SkorchNet) -> None:
        """Go on with the optimiser of a net whose network has grown into that of this one."""
        steps = other.optimizer_.state_dict()
        layer, before = self.network.sparse_input, other.network.sparse_input
        if layer is not None and before is not None:
            weights = [w for group in other.optimizer_.param_groups for w in group["params"]]
            at = next(i for i, weight in enumerate(weights) if weight is before.weight)
            steps["state"][at] = {
                name: spread(value, before.columns, layer.columns)
                if isinstance(value, Tensor) and value.shape == before.weight.shape
                else value
                for name, value in steps["state"].get(at, {}).items()
            }
        self.optimizer_.load_state_dict(steps)

    def _batches_of_epoch(
        self, train: RowDataset, params: dict[str, Any], generator: torch.Generator
    ) -> Any:
        """Return the batches to train on, or the part of them that this process computes."""
        shared = self.group.size > 1
        of_class = partial(shared_batches, group=self.group) if shared else shuffled_batches
        return of_class(self.iterator_train, train, params, generator, self.device)

    def _held_out(self, valid: RowDataset) -> Any:
        """Return the batches of held-out rows, or the part of them that this process computes.

        Callbacks that want to hear of batches want all of them.
        """
        if not self._told_of_batches or self.group.sharded:
            valid, _ = rows_of_pass(valid, self.group)
        return self.batches_of_pass(valid)

    def _for_callbacks(self, rows: RowDataset) -> CallbackDataset:
        """Return rows as callbacks see them, of shards those of this process."""
        return CallbackDataset(rows_of_pass(rows, self.group)[0] if self.group.sharded else rows)

    def _share_weights(self) -> None:
        """Give the network the weights that it has in the first process."""
        self.group.share([tensor for _, tensor in named_tensors(self.network)])

    def _agreed(self, stop: bool) -> bool:
        """Give all processes what the first one has at the end of an epoch; return its `stop`."""
        if self.group.size == 1:
            return stop
        groups = self.optimizer_.param_groups

        def of_first() -> tuple[dict[str, Any], list[dict[str, Any]], bool]:
            settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
            return dict(self.history[-1]), settings, stop

        row, settings, stop = self.group.once(of_first)
        self.history[-1].clear()
        self.history[-1].update(row)
        for group, values in zip(groups, settings, strict=True):
            group.update(values)
        return stop

    def _start_stage(self, stage: str, resume: bool) -> None:
        rows = self.whole_history()
        resume = resume and self.has_optimizer and len(rows) > 0 and rows[-1, "stage"] == stage
        self._past, self.history_ = list(rows), History()
        self._n_stages += 1
        self._lowest = self._lowest if resume else {}
        self.initialized_ = False  # skorch would print that it initialises again
        self._initialize_virtual_params()
        self._initialize_callbacks()
        if not resume:
            self._initialize_optimizer()
        for group in self.optimizer_.param_groups:  # a schedule may have changed it
            group["lr"] = group.setdefault("initial_lr", group["lr"])
        self._validate_params()
        self.initialized_ = True

    def _notify_epoch_end(self, datasets: dict[str, Any]) -> bool:
        """Tell the callbacks; return True if one of skorch's stops the stage.

        skorch's `EarlyStopping` stops by raising KeyboardInterrupt, which is told apart here
        from the one that comes from the keyboard.
        """
        try:
            self.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt:
            if not stopped_early(self.callbacks_):
                raise
            return True
        return False

    # skorch's hooks

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        quiet = [("epoch_timer", EpochTimer())]
        return [*quiet, ("print_log", self._log)] if self.verbose else quiet

    def initialize_callbacks(self) -> SkorchNet:
        """Begin with copies of the user's callbacks, so that no stage sees those of another."""
        with copied_callbacks(self):
            check_callbacks(self)
            super().initialize_callbacks()
        if not self.group.is_first:
            self.callbacks_ = [named for named in self.callbacks_ if not writes(named[1])]
        # The first process has all callbacks; the others go through the batches as it does.
        self._told_of_batches = self.group.once(lambda: uses_batch_hooks(self.callbacks_))
        fit_to_stages(self.callbacks_, first=self._n_stages <= 1)
        return self

    def note(self, message: str) -> None:
        """Print a line between the rows of the table, if there is one."""
        for _, callback in self.callbacks_:
            if isinstance(callback, StageLog):
                callback.note(message, self.verbose)

    def check_callbacks(self, *, held_out: bool) -> None:
        """Refuse, before any training, callbacks that need held-out rows where there are none."""
        if not held_out:
            check_held_out(self.callbacks_)

    def keep_best_epoch(self) -> None:
        """Keep the best epoch so far, for `end_interrupted`."""
        self._best_epoch = BestEpoch()

    @contextmanager
    def without_best_epoch(self) -> Iterator[None]:
        """Train for a comparison only: an interrupted fit ends with an epoch before it."""
        kept, self._best_epoch = self._best_epoch, None
        try:
            yield
        finally:
            self._best_epoch = kept

    def end_interrupted(self, X: Any, y: Any) -> str | None:
        """Go back to the best epoch of a training that was interrupted, and end it.

        Returns
        -------
        str or None
            What was interrupted and what was kept; None if nothing can be kept.
        """
        if self._best_epoch is None or not self._best_epoch.restore(self.network):
            return None
        rows = list(self.whole_history())
        place = "after" if "train_loss" in rows[-1] else "in"
        last = {"epoch": len(rows), "stage": "beginning"} | rows[-1]
        self._past, self.history_ = [], History(rows if place == "after" else rows[:-1])
        self.notify("on_train_end", X=X, y=y)
        kept = self._best_epoch.row
        return (
            f"It was interrupted {place} epoch {last['epoch']} (stage {last['stage']!r}), and the "
            f"weights of epoch {kept['epoch']} (stage {kept['stage']!r}) are kept."
        )

    def end_training(self) -> None:
        """Let the loggers of the last stage close what they write to."""
        close_loggers(self.callbacks_, self)

    def load_params(self, *args: Any, checkpoint: Any = None, **kwargs: Any) -> None:
        """Load weights; say of a checkpoint that it belongs to another stage."""
        try:
            super().load_params(*args, checkpoint=checkpoint, **kwargs)
        except (RuntimeError, ValueError) as error:
            if checkpoint is None:
                raise
            raise ValueError(
                "The checkpoint does not match the stage of training that loads it: stages with "
                "a noise layer have more weights than the baseline, with which a fit begins. To go "
                f"on from the last fit, set warm_start=True or call partial_fit. ({error})"
            ) from error

    def forget_training(self) -> None:
        """Drop the optimiser and the callbacks, which prediction does not need."""
        kept = self._without_training()
        self.__dict__.clear()
        self.__dict__.update(kept)

    def _without_training(self) -> dict[str, Any]:
        left_out = ("optimizer_", "callbacks__")
        kept = {name: v for name, v in vars(self).items() if not name.startswith(left_out)}
        kept |= {"module": None, "callbacks": None, "callbacks_": [], "_best_epoch": None}
        return kept | _OF_PROCESSES

    # What is kept in a file

    def __getstate__(self) -> dict[str, Any]:
        left_out = {"module_", "history_", "virtual_params_", "_log", "_past", "_best_epoch"}
        left_out |= _OF_PROCESSES.keys()
        state = {name: v for name, v in self._without_training().items() if name not in left_out}
        if hasattr(self, "module_"):
            state["network"] = network_to_arrays(self.network)
        return state | {"columns": as_columns(self.whole_history())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        parts, columns = state.pop("network", None), state.pop("columns")
        state["device"] = str(get_map_location(state["device"]))  # warns if it is not there
        self.__dict__.update(state, history_=History(as_rows(columns)), _log=StageLog(), _past=[])
        self._best_epoch = None
        self.__dict__.update(_OF_PROCESSES)
        self._initialize_virtual_params()
        if parts is not None:
            self.__dict__["module_"] = network_from_arrays(parts, self.device)
