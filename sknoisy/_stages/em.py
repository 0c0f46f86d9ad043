"""Expectation maximisation, and what of it is used in direct training."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sknoisy._crowd.annotators import annotator_counts
from sknoisy._data.training_data import TrainingData
from sknoisy._model import equations as F
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.loss import log_column
from sknoisy._net.net import SkorchNet, StageEnd
from sknoisy._transition.counts import soft_counts

_STEPS_WITH_THE_START = 80


class ClosedFormSteps:
    """The steps of expectation maximisation that have a closed form, for all rows at once.

    The E-step gives the posteriors of the true labels, and the M-step of the noise layer the matrix
    that is likeliest with them.

    Parameters
    ----------
    net : SkorchNet
        With a noise layer that has a closed form.
    data : TrainingData
    rows : ndarray of int or None
        The rows to train on; None stands for all.
    learn_transition : bool
        Whether the M-step updates the matrix.
    """

    def __init__(
        self, net: SkorchNet, data: TrainingData, rows: np.ndarray | None, *, learn_transition: bool
    ) -> None:
        self.net = net
        self.n_classes = data.n_classes
        self.learn_transition = learn_transition
        self.dataset = data.dataset(rows)
        self.labels = data.labels(rows)
        self.true_labels = data.true_labels(rows)
        _, weight = data.tensors(rows)
        self.weight = None if weight is None else weight.numpy()
        self.answers = None
        if data.answers is not None and data.learns_from_answers:
            self.answers = data.answers if rows is None else data.answers.take(rows)

    def __call__(self) -> float:
        """Take the steps; return the mean log-likelihood of the labels of a row before them."""
        net, noise = self.net, self.net.network.noise
        assert noise is not None
        labels, known = self.labels.to(net.device), self.true_labels
        with torch.no_grad():
            column = log_column(noise, labels, known if known is None else known.to(net.device))
            column = column.cpu()
        log_proba = net.clean_log_proba(self.dataset)
        posterior, evidence = F.posterior_and_evidence(log_proba + column, possible=known is None)
        if self.learn_transition:
            counts = self._counts(posterior, log_proba, column)
            noise.maximise(counts, net.transition_prior * float(counts.sum()))
        mean = partial(np.average, evidence.numpy(), weights=self.weight)
        return float(net.group.once(mean))

    def _counts(self, posterior: Tensor, log_proba: Tensor, column: Tensor) -> np.ndarray:
        """Return the soft counts of the M-step.

        Several answers count in full, whatever their power: softer posteriors make blurred
        matrices, and these still softer posteriors.
        """
        noise = self.net.network.noise
        if self.answers is None:
            labels = self.labels.numpy()
            seen, weight = labels >= 0, self.weight
            weight = weight if weight is None else weight[seen]
            return soft_counts(posterior.numpy()[seen], labels[seen], self.n_classes, weight)
        if isinstance(noise, AnnotatorTransition) and noise.answer_power != 1.0:
            log_joint = log_proba + column / noise.answer_power
            posterior, _ = F.posterior_and_evidence(log_joint, possible=False)
        return annotator_counts(posterior.numpy(), self.answers, self.weight)


def train_em(
    net: SkorchNet,
    data: TrainingData,
    rows: np.ndarray | None,
    *,
    learn_transition: bool,
    tol: float,
    **stage: Any,
) -> StageEnd:
    """Alternate the closed-form steps with one epoch of the network through the noise layer.

    The derivative of the likelihood of a label is that of the log-likelihood which the posterior
    of the true label expects (Fisher's identity), so that each step of the network is one of its
    M-step, with the E-step of the rows of the batch taken anew: incremental EM (R. M. Neal and G.
    E. Hinton, "A view of the EM algorithm that justifies incremental, sparse, and other variants",
    1998). Posteriors of the beginning of the epoch would hold on to labels that the network no
    longer believes.

    Parameters
    ----------
    net, data, rows, learn_transition
        As for `ClosedFormSteps`.
    tol : float
        The iterations end when the mean log-likelihood of the observed labels changes by less.
    **stage
        As for `SkorchNet.train_stage`.
    """
    steps = ClosedFormSteps(net, data, rows, learn_transition=learn_transition)
    monitor = _ConvergenceMonitor(tol)

    def before_epoch() -> bool:
        log_likelihood = steps()
        net.history.record("log_likelihood", log_likelihood)
        return monitor.update(log_likelihood)

    return net.train_stage("em", data.dataset(rows), before_epoch=before_epoch, **stage)


def train_with_matrices(
    net: SkorchNet, data: TrainingData, rows: np.ndarray | None, stage: str, **more: Any
) -> StageEnd:
    """Train the network through the noise layer, whose matrices follow once an epoch.

    For a noise layer without weights that gradients could teach. The first epochs have the matrices
    of the start: a network that has learned little would make them forget what they know.

    Parameters
    ----------
    net, data, rows
        As for `ClosedFormSteps`.
    stage : str
    **more
        As for `SkorchNet.train_stage`.
    """
    steps = ClosedFormSteps(net, data, rows, learn_transition=True)
    n_batches = -(-len(steps.labels) // net.rows_per_step)
    n_epochs = 0

    def before_epoch() -> bool:
        nonlocal n_epochs
        if n_epochs * n_batches >= _STEPS_WITH_THE_START:
            steps()
        n_epochs += 1
        return False

    return net.train_stage(stage, data.dataset(rows), before_epoch=before_epoch, **more)


def last_change(net: SkorchNet, n_iter: int) -> float:
    """Return the change of the log-likelihood in the last of so many iterations."""
    last = [row["log_likelihood"] for row in net.history[-min(n_iter, 2) :]]
    return float(last[-1] - last[0])


def warn_of_no_convergence(change: float, max_em_iter: int, tol: float, stacklevel: int) -> None:
    """Say that the iterations ran out while the likelihood was still changing."""
    warnings.warn(
        f"EM did not converge in max_em_iter={max_em_iter} iterations: the mean "
        f"log-likelihood last changed by {change:.2g}, tol={tol:.2g}. "
        "Increase `max_em_iter`, `lr` or `tol`.",
        ConvergenceWarning,
        stacklevel=stacklevel,
    )


class _ConvergenceMonitor:
    """Follow the log-likelihood of EM and say when it has settled."""

    def __init__(self, tol: float) -> None:
        self.tol = tol
        self.last = -np.inf

    def update(self, log_likelihood: float) -> bool:
        """Take note of an iteration; return True when its change was below `tol`."""
        change, self.last = log_likelihood - self.last, log_likelihood
        return abs(change) < self.tol
