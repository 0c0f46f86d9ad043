"""skorch's net with the loss of noisy labels, and an epoch that does not stop to keep books.

skorch brings the loop, the history and the callbacks. What differs from a plain
``NeuralNetClassifier`` is in the hooks that skorch documents for it: the loss, the data set
and iterators, and an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.utils import to_device
from torch import Tensor, nn

from sknoisy._data.batches import ArrayBatches, ArrayDataset, RowDataset, ordered_batches
from sknoisy._data.sparse_rows import SparseRows
from sknoisy._distributed.batch_norm import synchronised_batch_norm
from sknoisy._distributed.batches import rows_of_pass
from sknoisy._distributed.gradients import GradientMean
from sknoisy._distributed.group import ALONE, Group
from sknoisy._model.closed_form import backward_pass
from sknoisy._model.loss import Objective, label_factors
from sknoisy._model.network import MLP, NoisyLabelModule
from sknoisy._model.noise_layers import LabelFactors
from sknoisy._net.callbacks import CallbackDataset
from sknoisy._net.optimizers import fused_by_default, leave_fused_step
from sknoisy._support.memory import inference_batch_size
from sknoisy._support.validation import check_patterns

#: Parameters of the loader to train, which that to evaluate has as well.
_OF_LOADING = (
    "collate_fn",
    "multiprocessing_context",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)
_EXTRAS = ("sample_weight", "true_label", "observed_label")
_NOISE_PARAMETERS = ("noise.bias", "noise.weight")


def _holds_answers(X: Any) -> bool:
    return isinstance(X, dict) and "answers" in X


class LeanNet(NeuralNetClassifier):
    """Epochs, loss and predictions of a `NoisyLabelModule` on observed labels.

    Parameters
    ----------
    module : NoisyLabelModule
        Trained in place.
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
        self._lowest: dict[str, float] = {}
        self._group: Group = ALONE
        self._gradient_mean: GradientMean | None = None
        self._runs_without_rows = self._told_of_batches = False
        self._sizes: Any = ()

    optimizer_: torch.optim.Optimizer
    callbacks_: list[tuple[str, Callback]]

    @property
    def network(self) -> NoisyLabelModule:
        """The network itself, also when it was compiled."""
        return cast(NoisyLabelModule, getattr(self.module_, "_orig_mod", self.module_))

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the network."""
        return self.network.head.weight.dtype

    @property
    def group(self) -> Group:
        """The processes that take part in the training."""
        return self._group

    @property
    def rows_per_step(self) -> int:
        """How many rows a step goes over, those of all processes together."""
        return self.batch_size * self._group.size

    def train_in(self, group: Group) -> None:
        """Let these processes take part in the training."""
        self._group = group

    @contextmanager
    def in_processes(self, group: Group) -> Iterator[None]:
        """Let the net train and predict with these processes inside the block."""
        before, self._group = self._group, group
        try:
            yield
        finally:
            self._group = before

    # skorch's hooks

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
        """Tell the callbacks, which may change the gradients.

        What they compute, each process computes alone: not all callbacks are in all processes.
        """
        with self.in_processes(ALONE):
            super().notify(method_name, **cb_kwargs)
        if method_name == "on_grad_computed":
            leave_fused_step(self.optimizer_)

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Run the network on a batch, leaving out what only the loss needs."""
        return self.module_(self._data(x))

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take a step and return the loss and, for callbacks that score, clean probabilities."""
        X, y = batch
        if self._gradient_mean is not None and not len(y):
            loss = self._backward_without_rows(X)
            step: dict[str, Any] = {
                "loss": loss,
                "y_pred": [loss.new_zeros(0, self.network.head.out_features)],
            }
        else:
            step = super().train_step_single(batch, **fit_params)
        if self._gradient_mean is not None:
            step["loss"] = self._gradient_mean(step["loss"].detach(), len(y))
        return step | {"y_pred": step["y_pred"][0]}

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take a step; that of several processes has the rows of all of them."""
        step = super().train_step(batch, **fit_params)
        if self._gradient_mean is not None:
            self._sizes.append(int(self._gradient_mean.n_rows))
        return step

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

        Held-out labels are judged by the likelihood alone.
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
        if self.network.noise is not None and _holds_answers(X):
            extras["observed_label"] = self._to_device(X["answers"])
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
        keys = (f"{prefix}_loss", f"{prefix}_batch_size")
        if self._told_of_batches:
            with self._averaged_gradients(training):
                super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            batches = [batch for batch in self.history[-1]["batches"] if keys[0] in batch]
            for batch, size in zip(batches, self._sizes, strict=False):
                batch[keys[1]] = size
            self._sizes = ()
            pairs = [(batch[keys[0]], batch[keys[1]]) for batch in batches]
            shared = self._group.sharded and not training
            self._record_loss(keys[0], self._of_all_shares(pairs) if shared else pairs)
            return
        self._set_training(training)
        with self._averaged_gradients(training):
            step = self._lean_step() if training else self._lean_evaluation
            steps = [(step(X, y).detach(), self._size_of(y)) for X, y in iterator]
        losses = torch.stack([loss for loss, _ in steps]) if steps else torch.empty(0)
        sizes = [int(size) for _, size in steps]
        pairs = list(zip(losses.cpu().double().tolist(), sizes, strict=True))
        pairs = pairs if training else self._of_all_shares(pairs)
        self.history[-1]["batches"] += [dict(zip(keys, pair, strict=True)) for pair in pairs]
        self._record_loss(keys[0], pairs)
        self.history.record(f"{prefix}_batch_count", len(pairs))

    def _size_of(self, y: Tensor) -> int | Tensor:
        """Return how many rows the batch has that was trained on last, in all processes."""
        return len(y) if self._gradient_mean is None else self._gradient_mean.n_rows

    def _of_all_shares(self, pairs: list[tuple[float, int]]) -> list[tuple[float, int]]:
        """Return losses and sizes of the batches of held-out rows in all processes."""
        return [pair for share in self._group.gather(pairs) for pair in share]

    @contextmanager
    def _averaged_gradients(self, training: bool) -> Iterator[None]:
        """Let steps have the mean gradients of all processes inside the block."""
        if not training or self._group.size == 1:
            yield
            return
        hidden = self.network.hidden
        with synchronised_batch_norm(hidden, self._group) as self._runs_without_rows:
            self._gradient_mean = GradientMean(self._group, self._trained())
            self._sizes = []
            try:
                yield
            finally:
                self._gradient_mean = None
        if not isinstance(hidden, MLP):  # which has no statistics of batches
            self._group.share(list(hidden.buffers()))

    def _trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer_.param_groups for p in group["params"]]

    def _backward_without_rows(self, X: Any) -> Tensor:
        """Take part in the step of the others, where this process has no rows."""
        if self._runs_without_rows:
            with torch.enable_grad():
                (self.network.features(self._data(X)).sum() * 0.0).backward()
        weight = self.network.head.weight
        return torch.zeros((), dtype=weight.dtype, device=weight.device)

    def _record_loss(self, name: str, pairs: list[tuple[float, int]]) -> None:
        """Record the mean of losses of batches of so many rows, and whether it is the lowest."""
        losses, sizes = np.array(pairs).T
        loss = float(np.average(losses, weights=sizes))
        best = loss < self._lowest.get(name, np.inf)
        self._lowest = self._lowest | {name: loss} if best else self._lowest
        self.history.record(name, loss)
        self.history.record(f"{name}_best", best)

    def _lean_step(self) -> Callable[[Any, Tensor], Tensor]:
        """Return the step of an epoch; what stays the same in it is looked up once."""
        optimizer, parameters, mean = self.optimizer_, self._trained(), self._gradient_mean
        backward = backward_pass(self.module_, self._objective, self.network.noise)

        def step(X: Any, y: Tensor) -> Tensor:
            def closure() -> Tensor:
                for parameter in parameters:
                    parameter.grad = None
                if mean is None:
                    loss = backward(self._data(X), **self._labels(X, y))
                elif len(y):
                    loss = mean(backward(self._data(X), **self._labels(X, y)), len(y))
                else:
                    loss = mean(self._backward_without_rows(X), 0)
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
        if isinstance(X, RowDataset) or self.dataset is not ArrayDataset:
            return super().get_dataset(X, y)
        return ArrayDataset(X, y, dtype=self.dtype, keep_sparse=self.network.takes_sparse)

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Use large batches for inference, unless the user sets their size."""
        if training:
            return super().get_iterator(dataset, training)
        width = self.network.head.out_features
        fetched = not isinstance(dataset, ArrayDataset)
        n_rows = inference_batch_size(
            dataset.bytes_per_row, self.batch_size, width, self.device, fetched=fetched
        )
        params = {"batch_size": n_rows, **self.get_params_for("iterator_valid")}
        if fetched and self.iterator_valid is self.iterator_train:
            to_train = self.get_params_for("iterator_train")
            params = {k: v for k, v in to_train.items() if k in _OF_LOADING} | params
        return ordered_batches(self.iterator_valid, dataset, params)

    def _get_predict_nonlinearity(self) -> Callable[[Tensor], Tensor]:
        """Tell skorch's scoring callbacks that the network returns logarithms."""
        return torch.exp

    # Inference

    @torch.no_grad()
    def batch_outputs(self, dataset: RowDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield clean log-probabilities and h(x) of each batch, on the device."""
        self._set_training(False)
        for X, _ in self.batches_of_pass(dataset):
            yield self.infer(X)

    @torch.no_grad()
    def clean_log_probas(self, dataset: RowDataset) -> Iterator[Tensor]:
        """Yield log-probabilities of the true label of each batch, shape (n, true), on the CPU."""
        self._set_training(False)
        for X, _ in self.batches_of_pass(dataset):
            yield self.network.clean_log_proba(self._data(X)).cpu()

    @torch.no_grad()
    def label_factors(
        self, dataset: RowDataset, network: NoisyLabelModule | None = None
    ) -> LabelFactors:
        """Logarithms of p(true label | x) and p(observed label | true label[, x]), on the CPU.

        Parameters
        ----------
        dataset : RowDataset
        network : NoisyLabelModule, default=None
            Another network than that of the net.

        Returns
        -------
        LabelFactors
            Without a noise layer a true label that is not the observed one has probability zero.
            With one, several answers of a row are explained one by one, without the help of the
            others. Of a row whose label was checked there is that label alone.
        """
        self._set_training(False)
        module = self.module_ if network is None else network.eval()
        noise = (self.network if network is None else network).noise
        parts, n_rows = [], []
        dataset, share = rows_of_pass(dataset, self._group)
        for X, y in self.batches_of_pass(dataset):
            clean_log_proba, hidden = module(self._data(X))
            labels = self._labels(X, y)
            parts.append(label_factors(noise, clean_log_proba, hidden, **labels))
            n_rows.append(len(clean_log_proba))
        if self._group.size == 1:
            return LabelFactors.joined(parts, n_rows)
        none = torch.empty(0, self.network.head.out_features, dtype=self.dtype)
        parts.append(LabelFactors(none, none, torch.empty(0, dtype=torch.int64)))
        factors = LabelFactors.joined(parts, [*n_rows, 0])
        row, clean, column = share.collect_labelled(factors.row, *factors[:2])
        return LabelFactors(clean, column, row)

    def clean_log_proba(self, dataset: RowDataset) -> Tensor:
        """Log-probabilities of the true label, shape (n, true): the noise layer is off."""
        if self._group.size == 1:
            return torch.cat(list(self.clean_log_probas(dataset)))
        dataset, share = rows_of_pass(dataset, self._group)
        none = torch.empty(0, self.network.head.out_features, dtype=self.dtype)
        return share.collect(torch.cat([none, *self.clean_log_probas(dataset)]))

    def batches_of_pass(self, dataset: RowDataset) -> Iterable[Any]:
        """Return the batches of a pass, of which there are none without rows."""
        return self.get_iterator(dataset) if len(dataset) else ()

    def _data(self, X: Any) -> Any:
        data = X["X"] if isinstance(X, dict) else X
        alone = isinstance(data, Tensor | SparseRows)
        return self._to_device(data) if alone else to_device(data, self.device)

    def _to_device(self, tensor: Any) -> Any:
        return tensor.to(self.device, non_blocking=True)
