"""What a fitted classifier says: of true labels, of observed ones, and of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sknoisy._data.batches import ArrayDataset
from sknoisy._model import equations as F
from sknoisy._model.noise_layers import ClassTransition, NoiseLayer
from sknoisy._support import validation
from sknoisy._support.memory import check_memory
from sknoisy._support.random import note_computation
from sknoisy._training.net import NoiseAdaptationNet


class PredictionMixin:
    """The predictions of an estimator that holds a fitted net."""

    net_: NoiseAdaptationNet
    classes_: np.ndarray
    _log_class_weight: np.ndarray

    def predict(self, X: Any) -> np.ndarray:
        """Predict the true label.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        best = self._weighted_log_proba(X).argmax(dim=1).numpy()
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the true label, ``p(y=i|x)``.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        dataset = self._dataset(X)
        proba = torch.empty(len(dataset), len(self.classes_), dtype=torch.float64)
        start = 0
        for log_proba in self.net_.clean_log_probas(dataset):
            part = self._weighted(log_proba).exp()  # still in the cache
            part /= _without_nan(part.sum(dim=1, keepdim=True))
            proba[start : start + len(part)] = part
            start += len(part)
        return proba.numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the probabilities of the true label.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        log_proba = self._weighted_log_proba(X)
        return (log_proba - log_proba.exp().sum(dim=1, keepdim=True).log()).numpy()

    def predict_noisy_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the observed label, ``p(z=j|x) = sum_i p(z=j|y=i[,x]) p(y=i|x)``.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        batches = self._batch_log_probas(self._dataset(X))
        noise = self._noise_layer()
        # A logarithm that is rounded up may lie above zero.
        parts = [noise.noisy_log_proba(*batch).exp().clamp_(max=1) for batch in batches]
        return torch.cat(parts).numpy()

    def predict_transition(self, X: Any) -> np.ndarray:
        """Transition matrix of each sample, ``p(z=j|y=i[,x])``.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, true, observed)
            Unless ``noise_model="c"``, a read-only view of the one matrix of all samples.

        Raises
        ------
        MemoryError
            If the matrices of all rows do not fit in memory.
        """
        dataset = self._dataset(X)
        noise = self._noise_layer()
        if noise.elements_per_row:
            check_memory(
                16 * len(dataset) * len(self.classes_) ** 2,
                "cpu",
                f"`predict_transition` of {len(dataset)} rows and {len(self.classes_)} classes",
                "Call it on fewer rows at a time.",
            )
            batches = self._batch_log_probas(dataset)
            return torch.cat([noise.dense(transition) for _, transition in batches]).numpy()
        transition = noise.dense(noise().detach().cpu().double()).numpy()
        return np.broadcast_to(transition, (len(dataset), *transition.shape))

    def label_posterior(self, X: Any, y: Any) -> np.ndarray:
        """Posterior of the true label, given the features and the observed label.

        Parameters
        ----------
        X : {array-like, CSR matrix} of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            Observed labels, all of them seen in fit.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Element (t, i) is the probability that the true label of row t is ``classes_[i]``.
        """
        batches = self._labelled_batches(X, y)
        return torch.cat([F.label_posterior(*batch) for batch in batches]).numpy()

    def _label_factors(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the logarithms of p(true label | x) and p(observed label | true label[, x]).

        Returns
        -------
        clean_log_proba : ndarray of shape (n_samples, true)
            Without class weights.
        log_column : ndarray of shape (n_samples, true)
            Element (t, i) is ``log p(z=y[t] | y=i[, x_t])``.
        """
        factors = [
            (clean, F.observed_log_column(transition, observed))
            for clean, transition, observed in self._labelled_batches(X, y)
        ]
        clean_log_proba, log_column = (torch.cat(parts) for parts in zip(*factors, strict=True))
        return clean_log_proba.numpy(), log_column.numpy()

    def _labelled_batches(self, X: Any, y: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield clean log-probabilities, log transition and encoded observed labels."""
        dataset = self._dataset(X)
        target = torch.from_numpy(
            validation.encode_labels(validation.check_labels(y, dataset.data), self.classes_)
        )
        noise, start = self._noise_layer(), 0
        for clean, transition in self._batch_log_probas(dataset):
            yield clean, transition, noise.index(target[start : start + len(clean)])
            start += len(clean)

    def _weighted_log_proba(self, X: Any) -> Tensor:
        """Return logarithms of what sums to one, up to rounding in the type of the network."""
        dataset = self._dataset(X)
        return _without_nan(self._weighted(self.net_.clean_log_proba(dataset)))

    def _weighted(self, clean_log_proba: Tensor) -> Tensor:
        """Weigh the classes, in float64."""
        log_proba = clean_log_proba.double()
        if not self._log_class_weight.any():
            return log_proba
        return F.clean_log_proba(log_proba + torch.from_numpy(self._log_class_weight))

    def _dataset(self, X: Any) -> ArrayDataset:
        check_is_fitted(self)
        note_computation()
        X = validation.check_features(self, X, reset=False)
        return ArrayDataset(X, dtype=next(self.net_.network.head.parameters()).dtype)

    def _noise_layer(self) -> NoiseLayer:
        """Return the noise layer; without one, that of labels which are what they say."""
        if self.net_.network.noise is not None:
            return self.net_.network.noise
        identity = torch.eye(len(self.classes_), dtype=torch.float64)
        return ClassTransition(F.floor_transition(identity, 1e-300), learnable=False)

    def _batch_log_probas(self, dataset: ArrayDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-probabilities of true label and transition, in float64."""
        for clean, transition in self.net_.batch_outputs(dataset):
            if transition is None:
                transition = self._noise_layer()()
            yield _without_nan(F.clean_log_proba(clean.double())), transition.double()


def _without_nan(log_proba: Tensor) -> Tensor:
    if log_proba.sum().isnan():
        raise ValueError(
            "The network says NaN of some rows of X: their values are too large for it. Scale X "
            "as in fit."
        )
    return log_proba
