"""Predictions of a fitted classifier: true labels, observed ones, and the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sknoisy._crowd.answers import (
    Answers,
    check_answers,
    has_answers,
)
from sknoisy._data.batches import RowDataset
from sknoisy._data.indexable import as_indexable
from sknoisy._data.training_data import NUMPY_TYPES, collate_fn_of, row_dataset
from sknoisy._data.validation import asks_for_integers, check_rows
from sknoisy._distributed.predictions import split_over_processes
from sknoisy._model import equations as F
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.noise_layers import ClassTransition, NoiseLayer
from sknoisy._net.net import SkorchNet
from sknoisy._support import validation
from sknoisy._support.memory import check_memory
from sknoisy._support.meta_estimators import DocumentationLinkMixin
from sknoisy._support.random import note_computation
from sknoisy._support.torch_state import plain_torch

_ELEMENTS_AT_ONCE = 2**22


class PredictionMixin(DocumentationLinkMixin):
    """The predictions of an estimator that holds a fitted net."""

    net_: SkorchNet
    missing_label: Any
    classes_: np.ndarray
    _log_class_weight: np.ndarray

    @split_over_processes
    @plain_torch()
    def predict(self, X: Any) -> np.ndarray:
        """Predict the true label.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        best = self._weighted_log_proba(X).argmax(dim=1).numpy()
        return self.classes_[best]

    @split_over_processes
    @plain_torch()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the true label, ``p(y=i|x)``.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)

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

    @split_over_processes
    @plain_torch()
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the probabilities of the true label.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        log_proba = self._weighted_log_proba(X)
        return (log_proba - log_proba.exp().sum(dim=1, keepdim=True).log()).numpy()

    @split_over_processes
    @plain_torch()
    @torch.no_grad()
    def predict_noisy_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the observed label, ``p(z=j|x) = sum_i p(z=j|y=i[,x]) p(y=i|x)``.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        batches = self._batch_outputs(self._dataset(X))
        noise = self._noise_layer()
        # A logarithm that is rounded up may lie above zero.
        parts = [noise.noisy_log_proba(*batch).exp_().clamp_(max=1) for batch in batches]
        return torch.cat(parts).numpy()

    @split_over_processes
    @plain_torch()
    @torch.no_grad()
    def predict_transition(self, X: Any) -> np.ndarray:
        """Transition matrix of each sample, ``p(z=j|y=i[,x])``.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)

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
        noise, n_classes = self._noise_layer(), len(self.classes_)
        if not noise.depends_on_features:
            return np.broadcast_to(noise.matrix(), (len(dataset), n_classes, n_classes))
        check_memory(
            16 * len(dataset) * n_classes**2,
            "cpu",
            f"`predict_transition` of {len(dataset)} rows and {n_classes} classes",
            "Call it on fewer rows at a time.",
        )
        transition, start = np.empty((len(dataset), n_classes, n_classes)), 0
        for _, hidden in self._batch_outputs(dataset):
            for rows in hidden.split(max(1, _ELEMENTS_AT_ONCE // n_classes**2)):
                transition[start : start + len(rows)] = noise.transition(rows).numpy()
                start += len(rows)
        return transition

    @split_over_processes
    @plain_torch()
    def label_posterior(self, X: Any, y: Any, *, annotators: Any = None) -> np.ndarray:
        """Posterior of the true label, given the features and the observed label or labels.

        With several answers a row it is the consensus of the annotators and the network.

        Parameters
        ----------
        X : {array-like, CSR matrix, data set} of shape (n_samples, ...)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Observed labels, all of them seen in fit. Several answers a row as in `fit`; a row
            without any has the predicted probabilities.
        annotators : array-like of the shape of y, default=None
            Who gave each answer, as in `fit`. For annotators that were not present in fit, the mean
            matrix is used.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Element (t, i) is the probability that the true label of row t is ``classes_[i]``.
        """
        clean_log_proba, log_likelihood = self._label_factors(X, y, annotators)
        return F.label_posterior(torch.from_numpy(clean_log_proba + log_likelihood)).numpy()

    @split_over_processes
    @plain_torch()
    @torch.no_grad()
    def _label_factors(
        self, X: Any, y: Any, annotators: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the logarithms of p(true label | x) and p(observed label | true label[, x]).

        Returns
        -------
        clean_log_proba : ndarray of shape (n_samples, true)
            Without class weights.
        log_likelihood : ndarray of shape (n_samples, true)
            Element (t, i) is ``log p(z=y[t] | y=i[, x_t])``; of several answers a row, the sum of
            their logarithms times `answer_power_`.
        """
        dataset = self._dataset(X)
        labels, noise = self._labels_and_noise(dataset.data, y, annotators)
        factors, start = [], 0
        for clean, hidden in self._batch_outputs(dataset):
            rows = slice(start, start + len(clean))
            factors.append((clean, noise.label_log_likelihood(labels[rows], hidden)))
            start += len(clean)
        clean_log_proba, log_likelihood = (torch.cat(parts) for parts in zip(*factors, strict=True))
        return clean_log_proba.numpy(), log_likelihood.numpy()

    def _labels_and_noise(self, X: Any, y: Any, annotators: Any) -> tuple[Tensor, NoiseLayer]:
        """Return observed labels as the noise layer takes them, and that layer in float64."""
        noise = self._noise_layer()
        if not has_answers(y, annotators):
            labels = validation.encode_labels(validation.check_labels(y, X), self.classes_)
            if isinstance(noise, AnnotatorTransition):  # of nobody in particular
                noise = ClassTransition(noise.transition(), learnable=False)
            return torch.from_numpy(labels), noise
        if not isinstance(noise, AnnotatorTransition):
            matrices = self._matrices_of_annotators(noise)
            noise = AnnotatorTransition(
                matrices, np.ones(len(matrices)), annotator_prior=1.0, answer_power=1.0
            ).double()
        else:
            noise = noise.with_others()
        answers = self._known_answers(X, y, annotators)
        return torch.from_numpy(answers.padded(slice(None))), noise

    def _known_answers(self, X: Any, y: Any, annotators: Any) -> Answers:
        """Return answers, those of all annotators who were not there in fit taken for one's."""
        known = getattr(self, "annotators_", np.empty(0, dtype=object))
        answers, _ = check_answers(
            y,
            annotators,
            missing_label=self.missing_label,
            n_rows=X.shape[0],
            training=False,
            classes=self.classes_,
            known_annotators=known,
        )
        return answers.with_others_together(len(known))

    def _matrices_of_annotators(self, noise: NoiseLayer) -> np.ndarray:
        """Return the matrices of the annotators of fit, and that of any other, who comes last."""
        matrices = noise.matrix()[None]
        if isinstance(noise, AnnotatorTransition):
            return np.concatenate([noise.transitions(), matrices])
        return np.repeat(matrices, 1 + len(getattr(self, "annotators_", ())), axis=0)

    @plain_torch()
    @torch.no_grad()
    def _answer_factors(
        self, X: Any, y: Any, annotators: Any
    ) -> tuple[np.ndarray, Answers, np.ndarray]:
        """Return log p(true label | x), answers, and the matrices of those who gave them."""
        dataset, noise = self._dataset(X), self._noise_layer()
        clean = torch.cat([clean for clean, _ in self._batch_outputs(dataset)]).numpy()
        answers = self._known_answers(dataset.data, y, annotators)
        return clean, answers, self._matrices_of_annotators(noise)

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

    def _dataset(self, X: Any) -> RowDataset:
        check_is_fitted(self)
        note_computation()
        several = getattr(self, "_input_names", None) is not None
        dtype, X = self.net_.dtype, as_indexable(X, several=several)
        keep_integers = asks_for_integers(self, X, fitted=True)
        X = check_rows(
            self,
            X,
            reset=False,
            network_type=NUMPY_TYPES[dtype],
            training=False,
            keep_integers=keep_integers,
        )
        return row_dataset(
            X,
            dtype=dtype,
            keep_sparse=self.net_.network.takes_sparse,
            keep_integers=keep_integers,
            collate_fn=collate_fn_of(self),
        )

    def _noise_layer(self) -> NoiseLayer:
        """Return the noise layer in float64; without one, that of labels that are the true ones."""
        if self.net_.network.noise is not None:
            return self.net_.network.noise.in_double()
        identity = torch.eye(len(self.classes_), dtype=torch.float64)
        return ClassTransition(F.floor_transition(identity, 1e-300), learnable=False)

    def _batch_outputs(self, dataset: RowDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-probabilities of the true label, and h(x), in float64 on the CPU."""
        for clean, hidden in self.net_.batch_outputs(dataset):
            yield _without_nan(F.clean_log_proba(clean.cpu().double())), hidden.cpu().double()


def _without_nan(log_proba: Tensor) -> Tensor:
    if log_proba.sum().isnan():
        raise ValueError(
            "The network returns NaN for some rows of X: their values are too large. Scale X "
            "as in fit."
        )
    return log_proba
