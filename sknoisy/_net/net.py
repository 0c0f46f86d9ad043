"""The skorch net that trains the network, one stage after the other.

skorch brings the loop, the history and the callbacks. What differs from a plain
``NeuralNetClassifier`` is in the hooks that skorch documents for it: the loss, the data set
and iterators, and an epoch that does not stop after every batch to keep books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer
from skorch.history import History
from skorch.utils import get_map_location
from torch import Tensor, nn

from sknoisy._data.batches import (
    ArrayBatches,
    ArrayDataset,
    inference_batch_size,
    ordered_batches,
    shuffled_batches,
)
from sknoisy._data.sparse_rows import SparseRows
from sknoisy._model.closed_form import backward_pass
from sknoisy._model.loss import Objective
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
)
from sknoisy._net.net_state import as_columns, as_rows, network_from_arrays, network_to_arrays
from sknoisy._net.optimizers import (
    fused_by_default,
    gradients_it_takes,
    leave_fused_step,
)
from sknoisy._net.progress import FitProgress
from sknoisy._net.stopping import BestEpoch, BestWeights, CalibratedLoss
from sknoisy._support.torch_state import torch_threads
from sknoisy._support.validation import check_losses, check_patterns

_EXTRAS = ("sample_weight", "posterior")
_TOLERANCE = 2.5e-5  # an epoch, by which the held-out loss has to fall
#: Measured with ``tests/benchmarks/scaling.py --parts threads``: fits with such steps take longer
#: with two threads than with one, by up to a third.
_MOST_MULTIPLICATIONS_FOR_ONE_THREAD = 5_000_000

_NOISE_PARAMETERS = ("noise.bias", "noise.weight")


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


class SkorchNet(NeuralNetClassifier):
    """Train a `NoisyLabelModule` on observed labels.

    Parameters
    ----------
    module : NoisyLabelModule
        Trained in place.
    classes : ndarray of shape (n_classes,)
        Labels in the order of the network's outputs.
    volume_penalty : float, default=0.0
        Weight of ``log |det T|`` in the loss.
    transition_prior : float, default=0.0
        Weight of the start of the noise layer as evidence, as a multiple of the data.
    **kwargs
        As for `skorch.NeuralNetClassifier`.
    """

    def __init__(
        self,
        module: NoisyLabelModule,
        *,
        volume_penalty: float = 0.0,
        transition_prior: float = 0.0,
        iterator_train: Callable[..., Any] = ArrayBatches,
        iterator_valid: Callable[..., Any] = ArrayBatches,
        dataset: Callable[..., Any] = ArrayDataset,
        train_split: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            dataset=dataset,
            train_split=train_split,
            **kwargs,
        )
        self.volume_penalty = volume_penalty
        self.transition_prior = transition_prior
        self._log = StageLog()
        self._past: list[dict[str, Any]] = []
        self._n_stages = 0
        self._lowest: dict[str, float] = {}
        self._best_epoch: BestEpoch | None = None

    optimizer_: torch.optim.Optimizer
    callbacks_: list[tuple[str, Callback]]

    # What a stage is made of

    @property
    def network(self) -> NoisyLabelModule:
        """The network itself, also when it was compiled."""
        return cast(NoisyLabelModule, getattr(self.module_, "_orig_mod", self.module_))

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the network."""
        return self.network.head.weight.dtype

    @property
    def has_optimizer(self) -> bool:
        """Whether the net has an optimiser; `forget_training` and files drop it."""
        return hasattr(self, "optimizer_")

    def train_stage(
        self,
        stage: str,
        train: ArrayDataset,
        valid: ArrayDataset | None,
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
        train : ArrayDataset
        valid : ArrayDataset or None
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
        with torch_threads(self._threads_that_pay()):
            self._start_stage(stage, resume)
            datasets = {
                "dataset_train": CallbackDataset(train),
                "dataset_valid": valid and CallbackDataset(valid),
            }
            params = {"batch_size": self.batch_size, **self.get_params_for("iterator_train")}
            batches = shuffled_batches(self.iterator_train, train, params, generator, self.device)
            held_out = None if valid is None else self.get_iterator(valid, training=False)
            best = BestWeights(self.network, patience, _TOLERANCE * patience)
            calibrated_loss = CalibratedLoss()
            stop = False
            progress.begin_stage(stage, max_epochs)
            self.notify("on_train_begin", X=train.data, y=train.target)
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
                    clean_log_proba, log_column = self.label_factors(valid)
                    loss = calibrated_loss(clean_log_proba, log_column, valid.weight)
                    self.history.record("calibrated_valid_loss", loss)
                    stop |= best.update(loss)
                if self._best_epoch is not None:
                    self._best_epoch.update(self.network, self.history[-1], valid)
                stop |= progress.end_epoch()
                if stop:
                    break
            n_epochs = len(self.history)
            best.restore()
            self.notify("on_train_end", X=train.data, y=train.target)
            progress.end_stage()
            self._past, self.history_ = [], self.whole_history()
            return StageEnd(best.best_epoch or n_epochs, stop, best.lowest)

    def _threads_that_pay(self) -> int | None:
        """Return one where steps are small, which then take longer with more; None is all."""
        n_multiplications = self.network.multiplications_per_row()
        few = _MOST_MULTIPLICATIONS_FOR_ONE_THREAD // self.batch_size
        small = n_multiplications is not None and n_multiplications <= few
        return 1 if small and torch.device(self.device).type == "cpu" else None

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
        fit_to_stages(self.callbacks_, first=self._n_stages <= 1)
        return self

    def check_callbacks(self, *, held_out: bool) -> None:
        """Refuse, before any training, callbacks that need held-out rows where there are none."""
        if not held_out:
            check_held_out(self.callbacks_)

    def keep_best_epoch(self) -> None:
        """Keep the best epoch so far, for `end_interrupted`."""
        self._best_epoch = BestEpoch()

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

    def check_data(self, X: Any, y: Any) -> None:
        """Do nothing: the classifier has validated the data."""

    def get_all_learnable_params(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield parameters under the names that they have in the user's module."""
        for name, parameter in self.network.named_parameters():
            yield name.removeprefix("hidden."), parameter

    def get_params_for_optimizer(
        self, prefix: str, named_parameters: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check the patterns of parameter groups, and add the fused step where torch has one."""
        named_parameters = list(named_parameters)
        names = [name for name, _ in named_parameters]
        groups = self.get_params_for(prefix).get("param_groups", ())
        check_patterns((pattern for pattern, _ in groups), [*names, *_NOISE_PARAMETERS])
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        return args, kwargs | fused_by_default(self.optimizer, args[0], kwargs)

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Tell the callbacks, which may change the gradients."""
        super().notify(method_name, **cb_kwargs)
        if method_name == "on_grad_computed":
            leave_fused_step(self.optimizer_)

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Run the network on a batch, leaving out what only the loss needs."""
        return self.module_(self._data(x))

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take a step and return the loss and, for callbacks that score, clean probabilities."""
        step = super().train_step_single(batch, **fit_params)
        return step | {"y_pred": step["y_pred"][0]}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Return the loss and the clean log-probabilities of held-out rows."""
        step = super().validation_step(batch, **fit_params)
        return step | {"y_pred": step["y_pred"][0]}

    def evaluation_step(self, batch: Any, training: bool = False) -> Tensor:
        """Return the clean log-probabilities."""
        return super().evaluation_step(batch, training)[0]

    def get_loss(
        self, y_pred: Any, y_true: Tensor, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the mean negative log-likelihood of the observed labels.

        With soft targets in the batch (the M-step) it is the expected one of the network. Held
        out labels are judged by the likelihood alone.
        """
        objective = self._objective if training else Objective()
        return objective.loss(self.network.noise, *y_pred, **self._labels(X, y_true))

    @property
    def _objective(self) -> Objective:
        return Objective(self.transition_prior, self.volume_penalty)

    def _labels(self, X: Any, y: Tensor) -> dict[str, Any]:
        """Return what is known of the labels of a batch, on the device."""
        given = X if isinstance(X, dict) else {}
        extras = {name: self._to_device(given[name]) for name in _EXTRAS if name in given}
        return {"target": self._to_device(y), **extras}

    def run_single_epoch(
        self,
        iterator: Any,
        training: bool,
        prefix: str,
        step_fn: Callable[..., Any],
        **fit_params: Any,
    ) -> None:
        """Go through the batches once and record the mean loss.

        Only when a callback wants to hear of every batch is it told, and is the loss of a batch
        read before the next step: both cost more than a step of a small network.
        """
        if iterator is None:
            return
        if uses_batch_hooks(self.callbacks_):
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            keys = (f"{prefix}_loss", f"{prefix}_batch_size")
            rows = [row for row in self.history[-1, "batches"] if keys[0] in row]
            losses, sizes = np.array([[row[key] for key in keys] for row in rows]).T
            self._record_loss(keys[0], float(np.average(losses, weights=sizes)))
            return
        self._set_training(training)
        step = self._lean_step() if training else self._lean_evaluation
        losses, sizes = zip(*((step(X, y).detach(), len(y)) for X, y in iterator), strict=True)
        values = torch.stack(losses).cpu().double().numpy()
        self.history[-1]["batches"] += [
            {f"{prefix}_loss": loss, f"{prefix}_batch_size": size}
            for loss, size in zip(values.tolist(), sizes, strict=True)
        ]
        self._record_loss(f"{prefix}_loss", float(np.average(values, weights=sizes)))
        self.history.record(f"{prefix}_batch_count", len(sizes))

    def _record_loss(self, name: str, loss: float) -> None:
        """Record the loss of an epoch, and whether it is the lowest of the stage."""
        best = loss < self._lowest.get(name, np.inf)
        self._lowest = self._lowest | {name: loss} if best else self._lowest
        self.history.record(name, loss)
        self.history.record(f"{name}_best", best)

    def _lean_step(self) -> Callable[[Any, Tensor], Tensor]:
        """Return the step of an epoch; what stays the same in it is looked up once."""
        optimizer = self.optimizer_
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        backward = backward_pass(self.module_, self._objective, self.network.noise)

        def step(X: Any, y: Tensor) -> Tensor:
            def closure() -> Tensor:
                for parameter in parameters:
                    parameter.grad = None
                loss = backward(self._data(X), **self._labels(X, y))
                leave_fused_step(optimizer)
                return loss

            return cast(Tensor, optimizer.step(closure))  # type: ignore[arg-type]

        return step

    @torch.no_grad()
    def _lean_evaluation(self, X: Any, y: Tensor) -> Tensor:
        return self.get_loss(self.infer(X), y, X=X)

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        """Return rows in the floating point type of the network."""
        if isinstance(X, CallbackDataset):
            return X.rows
        if isinstance(X, ArrayDataset) or self.dataset is not ArrayDataset:
            return super().get_dataset(X, y)
        return ArrayDataset(X, y, dtype=self.dtype, keep_sparse=self.network.takes_sparse)

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Use large batches for inference, unless the user sets their size."""
        if training:
            return super().get_iterator(dataset, training)
        width = self.network.head.out_features
        n_rows = inference_batch_size(dataset, self.batch_size, width, self.device)
        params = {"batch_size": n_rows, **self.get_params_for("iterator_valid")}
        return ordered_batches(self.iterator_valid, dataset, params)

    def _get_predict_nonlinearity(self) -> Callable[[Tensor], Tensor]:
        """Tell skorch's scoring callbacks that the network returns logarithms."""
        return torch.exp

    def load_params(self, *args: Any, checkpoint: Any = None, **kwargs: Any) -> None:
        """Load weights; say of a checkpoint that it belongs to another stage."""
        try:
            super().load_params(*args, checkpoint=checkpoint, **kwargs)
        except (RuntimeError, ValueError) as error:
            if checkpoint is None:
                raise
            raise ValueError(
                "The checkpoint does not fit the stage of training that would load it: stages with "
                "a noise layer have more weights than the baseline, with which a fit begins. To go "
                f"on from the last fit, set warm_start=True or call partial_fit. ({error})"
            ) from error

    # Inference

    @torch.no_grad()
    def batch_outputs(self, dataset: ArrayDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield clean log-probabilities and h(x) of each batch, on the device."""
        self._set_training(False)
        for X, _ in self.get_iterator(dataset):
            yield self.infer(X)

    @torch.no_grad()
    def clean_log_probas(self, dataset: ArrayDataset) -> Iterator[Tensor]:
        """Yield log-probabilities of the true label of each batch, shape (n, true), on the CPU."""
        self._set_training(False)
        for X, _ in self.get_iterator(dataset):
            yield self.network.clean_log_proba(self._data(X)).cpu()

    @torch.no_grad()
    def label_factors(
        self, dataset: ArrayDataset, network: NoisyLabelModule | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logarithms of p(true label | x) and p(observed label | true label[, x]), on the CPU.

        Parameters
        ----------
        dataset : ArrayDataset
        network : NoisyLabelModule, default=None
            Another network than that of the net.

        Returns
        -------
        clean_log_proba : Tensor of shape (n, true)
        log_column : Tensor of shape (n, true)
            Element (t, i) belongs to the observed label of row t if i is true. Without a noise
            layer a true label that is not the observed one has probability zero.
        """
        self._set_training(False)
        module = self.module_ if network is None else network.eval()
        noise = (self.network if network is None else network).noise
        parts = []
        for X, y in self.get_iterator(dataset):
            clean_log_proba, hidden = module(self._data(X))
            target = self._to_device(y)
            if noise is None:
                column = torch.full_like(clean_log_proba, -torch.inf)
                column.scatter_(1, target.unsqueeze(1), 0.0)
            else:
                column = noise.label_log_likelihood(target, hidden)
            parts.append((clean_log_proba.cpu(), column.cpu()))
        clean_log_proba, column = (torch.cat(part) for part in zip(*parts, strict=True))
        return clean_log_proba, column

    def clean_log_proba(self, dataset: ArrayDataset) -> Tensor:
        """Log-probabilities of the true label, shape (n, true): the noise layer is off."""
        return torch.cat(list(self.clean_log_probas(dataset)))

    def _data(self, X: Any) -> Tensor | SparseRows:
        return self._to_device(X["X"] if isinstance(X, dict) else X)

    def _to_device(self, tensor: Any) -> Any:
        return tensor.to(self.device, non_blocking=True)

    def forget_training(self) -> None:
        """Drop the optimiser and the callbacks, which prediction does not need."""
        kept = self._without_training()
        self.__dict__.clear()
        self.__dict__.update(kept)

    def _without_training(self) -> dict[str, Any]:
        left_out = ("optimizer_", "callbacks__")
        kept = {name: v for name, v in vars(self).items() if not name.startswith(left_out)}
        return kept | {"module": None, "callbacks": None, "callbacks_": [], "_best_epoch": None}

    # What is kept in a file

    def __getstate__(self) -> dict[str, Any]:
        left_out = {"module_", "history_", "virtual_params_", "_log", "_past", "_best_epoch"}
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
        self._initialize_virtual_params()
        if parts is not None:
            self.__dict__["module_"] = network_from_arrays(parts, self.device)
