"""Expectation maximisation of the s-model."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from sknoisy._data.training_data import TrainingData
from sknoisy._model import equations as F
from sknoisy._net.net import SkorchNet, StageEnd
from sknoisy._transition.counts import soft_counts


def train_em(
    net: SkorchNet,
    data: TrainingData,
    rows: np.ndarray | None,
    *,
    learn_transition: bool,
    tol: float,
    **stage: Any,
) -> StageEnd:
    """Alternate the closed-form steps with one epoch of the network on soft targets.

    Parameters
    ----------
    net : SkorchNet
        With the noise layer of the s-model.
    data : TrainingData
    rows : ndarray of int or None
        The rows to train on; None stands for all.
    learn_transition : bool
        Whether the M-step updates the matrix.
    tol : float
        The iterations end when the mean log-likelihood of the observed labels changes by less.
    **stage
        As for `SkorchNet.train_stage`.
    """
    posterior = torch.zeros(len(data), data.n_classes, dtype=data.dtype)
    dataset = data.dataset(rows)
    at = slice(None) if rows is None else torch.from_numpy(rows)
    target, weight = data.tensors(rows)
    monitor = _ConvergenceMonitor(tol)

    def closed_form_steps() -> bool:
        noise = net.network.noise
        assert noise is not None
        with torch.no_grad():
            log_column = noise.label_log_likelihood(target.to(net.device)).cpu()
        log_joint = net.clean_log_proba(dataset) + log_column
        posterior[at], evidence = F.posterior_and_evidence(log_joint)
        if learn_transition:
            counts = soft_counts(
                posterior[at].numpy(),
                target.numpy(),
                data.n_classes,
                None if weight is None else weight.numpy(),
            )
            noise.maximise(counts, net.transition_prior * float(counts.sum()))
        log_likelihood = float(np.average(evidence.numpy(), weights=weight))
        net.history.record("log_likelihood", log_likelihood)
        return monitor.update(log_likelihood)

    return net.train_stage(
        "em", data.dataset(rows, posterior=posterior), before_epoch=closed_form_steps, **stage
    )


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
