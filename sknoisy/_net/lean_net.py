"""skorch's net with the loss of noisy labels, and an epoch that does not stop to keep books.

skorch brings the loop, the history and the callbacks. What differs from a plain
``NeuralNetClassifier`` is in the hooks that skorch documents for it: the loss, the data set
and iterators, and an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.utils import to_device
from torch import Tensor, nn

from sknoisy._data.batches import (
    ArrayBatches,
    ArrayDataset,
    RowDataset,
    inference_batch_size,
    ordered_batches,
)
from sknoisy._data.sparse_rows import SparseRows
from sknoisy._model.closed_form import backward_pass
from sknoisy._model.loss import Objective, label_factors
from sknoisy._model.network import NoisyLabelModule
from sknoisy._model.noise_layers import LabelFactors
from sknoisy._net.callbacks import CallbackDataset, uses_batch_hooks
from sknoisy._net.optimizers import fused_by_default, leave_fused_step
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
_EXTRAS = ("sample_weight", "posterior", "true_label", "observed_label")
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
        if isinstance(X, RowDataset) or self.dataset is not ArrayDataset:
            return super().get_dataset(X, y)
        return ArrayDataset(X, y, dtype=self.dtype, keep_sparse=self.network.takes_sparse)

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Use large batches for inference, unless the user sets their size."""
        if training:
            return super().get_iterator(dataset, training)
        width = self.network.head.out_features
        n_rows = inference_batch_size(dataset, self.batch_size, width, self.device)
        params = {"batch_size": n_rows, **self.get_params_for("iterator_valid")}
        if not isinstance(dataset, ArrayDataset) and self.iterator_valid is self.iterator_train:
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
        for X, _ in self.get_iterator(dataset):
            yield self.infer(X)

    @torch.no_grad()
    def clean_log_probas(self, dataset: RowDataset) -> Iterator[Tensor]:
        """Yield log-probabilities of the true label of each batch, shape (n, true), on the CPU."""
        self._set_training(False)
        for X, _ in self.get_iterator(dataset):
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
        for X, y in self.get_iterator(dataset):
            clean_log_proba, hidden = module(self._data(X))
            labels = self._labels(X, y)
            parts.append(label_factors(noise, clean_log_proba, hidden, **labels))
            n_rows.append(len(clean_log_proba))
        return LabelFactors.joined(parts, n_rows)

    def clean_log_proba(self, dataset: RowDataset) -> Tensor:
        """Log-probabilities of the true label, shape (n, true): the noise layer is off."""
        return torch.cat(list(self.clean_log_probas(dataset)))

    def _data(self, X: Any) -> Any:
        data = X["X"] if isinstance(X, dict) else X
        alone = isinstance(data, Tensor | SparseRows)
        return self._to_device(data) if alone else to_device(data, self.device)

    def _to_device(self, tensor: Any) -> Any:
        return tensor.to(self.device, non_blocking=True)
