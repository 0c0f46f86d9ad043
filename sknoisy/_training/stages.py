"""The stages of training: baseline, start of the noise layer, direct training or EM."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import Tensor

from sknoisy._data.batches import ArrayDataset
from sknoisy._data.training_data import Observations
from sknoisy._model import equations as F
from sknoisy._support.progress import FitProgress
from sknoisy._support.random import draw_seed
from sknoisy._training.net import NoiseAdaptationNet
from sknoisy._training.summary import check_no_nan, summarise
from sknoisy._transition.starts import (
    cluster_start,
    confident_start,
    confusion_start,
    hard_start,
    mixture_start,
)

_CLEARLY_BETTER = 1e-3
_FEWEST_ROWS_TO_SPLIT = 64
_FEWEST_ROWS_PER_CLASS_TO_SPLIT = 10
_FEWEST_ROWS_TO_WATCH = 1000


@dataclass(frozen=True)
class Plan:
    """How to train; the fields are the parameters of the classifier."""

    noise_model: str | None
    method: str
    transition_init: str | np.ndarray
    learn_transition: bool
    max_epochs: int
    max_em_iter: int
    tol: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    n_noise_targets: int | None = None


class Trainer:
    """Take a net through its stages.

    Parameters
    ----------
    net : NoiseAdaptationNet
    data : Observations
    plan : Plan
    stream : numpy.random.RandomState
        Source of the split, the order of the rows and the clusters.
    progress : FitProgress
        Is told of the stages and their epochs.

    Attributes
    ----------
    initial_transition : ndarray of shape (true, observed)
        Where the noise layer started.
    """

    def __init__(
        self,
        net: NoiseAdaptationNet,
        data: Observations,
        plan: Plan,
        stream: np.random.RandomState,
        progress: FitProgress,
    ) -> None:
        self.net = net
        self.data = data
        self.plan = plan
        self.progress = progress
        self.seed = draw_seed(stream)
        self.generator = torch.Generator().manual_seed(draw_seed(stream))
        self.train_rows, self.valid_rows = self._hold_out()
        self.train = data.dataset(self.train_rows)
        self.valid = None if self.valid_rows is None else data.dataset(self.valid_rows)
        self.fresh = copy.deepcopy(net.network.state_dict())
        self.crossed = False
        self.initial_transition = np.eye(data.n_classes)

    def run(self) -> None:
        """Train the stages that the network has not been through, or the last one again."""
        if self.plan.noise_model is None:
            self.net.network.noise = None
            self._train("baseline")
            return
        if self.net.network.noise is None or not self.plan.learn_transition:
            self._attach_class_noise(self._start())
        elif self.plan.noise_model == "s":
            self._attach_class_noise(summarise(self.net, self.data)[1])
        self.initial_transition = self._transition()
        if self.plan.method == "em":
            self._train_em()
            return
        noise = self.net.network.noise
        if noise is not None and not noise.depends_on_features:
            self._train("s")
        if self.plan.noise_model == "c":
            self._attach_feature_noise()
            self._train("c")

    def _train(
        self,
        stage: str,
        train: ArrayDataset | None = None,
        valid: ArrayDataset | None = None,
        *,
        max_epochs: int | None = None,
    ) -> bool:
        """Train one stage; return whether it ended before its epochs did."""
        return self.net.train_stage(
            stage,
            self.train if train is None else train,
            self.valid if train is None else valid,
            max_epochs=max_epochs or self.plan.max_epochs,
            patience=self.plan.n_iter_no_change,
            generator=self.generator,
            progress=self.progress,
        )

    def _transition(self) -> np.ndarray:
        """Return the matrix of the noise layer; only the c-model's depends on the data."""
        noise = self.net.network.noise
        assert noise is not None
        return summarise(self.net, self.data)[1] if noise.depends_on_features else noise.matrix()

    # The start of the noise layer

    def _start(self) -> np.ndarray:
        """Return the matrix that the noise layer starts from, of shape (true, observed).

        The paper's start leaves the network as the baseline made it. After any other the joint
        training starts over from new weights, since the baseline has learned wrong labels as
        well; unless it needed more than half of its epochs, and would need them again.
        """
        init = self.plan.transition_init
        if not isinstance(init, str) and not self.plan.learn_transition:
            return init
        if isinstance(init, str) and init == "confusion":
            self._train("baseline")
            log_proba = self._clean_log_proba().numpy()
            return confusion_start(log_proba, self.data.target, self.data.weight)
        if isinstance(init, str) and not self._can_split():
            return np.eye(self.data.n_classes)
        if self.valid is None:
            start = init if not isinstance(init, str) else self._estimate(self._cross_fitted())
        else:
            begun = len(self.net.history)
            stopped = self._train("baseline")
            best_epoch = len(self.net.history) - begun - stopped * self.plan.n_iter_no_change
            start = init if not isinstance(init, str) else self._estimate(self._clean_log_proba())
            if 2 * best_epoch > self.plan.max_epochs:
                return start
        self._start_over()
        return start

    def _estimate(self, log_proba: Tensor) -> np.ndarray:
        """Estimate the matrix from predictions for unseen rows and their observed labels."""
        seen = log_proba.numpy(), self.data.target, self.data.weight
        if self.plan.transition_init == "cluster":
            return cluster_start(*seen, random_state=self.seed)
        mixture = mixture_start(*seen, random_state=self.seed)
        if self.valid is None:
            return mixture
        return self._most_likely([mixture, confident_start(*seen), hard_start(*seen)])

    def _can_split(self) -> bool:
        """Whether half of the rows say enough of every class, or rows are held out anyway."""
        needed = _FEWEST_ROWS_PER_CLASS_TO_SPLIT * self.data.n_classes
        return self.valid is not None or len(self.data) >= max(_FEWEST_ROWS_TO_SPLIT, needed)

    def _most_likely(self, starts: list[np.ndarray]) -> np.ndarray:
        """Return the start under which held-out labels are likeliest after one joint epoch.

        The first one wins unless another is clearly better.
        """
        baseline = copy.deepcopy(self.net.network.state_dict())
        losses = []
        for start in starts:
            self._attach_class_noise(start)
            self._train("start", max_epochs=1)
            losses.append(self.net.history[-1, "valid_loss"])
            self.net.network.noise = None
            self.net.network.load_state_dict(baseline)
        losses[0] -= _CLEARLY_BETTER
        return starts[int(np.argmin(losses))]

    def _cross_fitted(self) -> Tensor:
        """Train a baseline on each half of the rows and return its predictions for the other half.

        Each stops when the likelihood of the half that it does not see stops rising, judged by
        some of its rows when they are many.
        """
        self.crossed = True
        half = stratified_halves(self.data.target, self.seed)
        order = np.random.RandomState(self.seed).permutation(len(half))
        log_proba = torch.empty(len(self.data), self.data.n_classes, dtype=self.data.dtype)
        for fold in (0, 1):
            others = self.data.dataset(np.flatnonzero(half == fold))
            watched = order[half[order] == fold][: max(_FEWEST_ROWS_TO_WATCH, len(others) // 10)]
            self._start_over()
            self._train(
                "baseline",
                self.data.dataset(np.flatnonzero(half != fold)),
                self.data.dataset(np.sort(watched)),
            )
            log_proba[torch.from_numpy(half == fold)] = self._clean_log_proba(others)
        return log_proba

    def _start_over(self) -> None:
        """Give the network the weights that it had before any training."""
        self.net.network.load_state_dict(self.fresh, strict=False)

    def _clean_log_proba(self, dataset: ArrayDataset | None = None) -> Tensor:
        """Return the predictions for the rows of a data set, or for all rows."""
        log_proba = self.net.clean_log_proba(self.data.dataset() if dataset is None else dataset)
        check_no_nan(self.net, log_proba)
        return log_proba

    def _attach_class_noise(self, transition: np.ndarray) -> None:
        learnable = self.plan.learn_transition and self.plan.method == "direct"
        self.net.network.attach_class_noise(
            transition, learnable=learnable, n_targets=self.plan.n_noise_targets
        )

    def _attach_feature_noise(self) -> None:
        network = self.net.network
        if network.noise is not None and not network.noise.depends_on_features:
            network.let_noise_depend_on_features(n_targets=self.plan.n_noise_targets)
            if self.crossed:
                self._start_over()

    # Expectation maximisation

    def _train_em(self) -> None:
        """Alternate the closed-form steps with one epoch of the network on soft targets."""
        posterior = torch.zeros(len(self.data), self.data.n_classes, dtype=self.data.dtype)
        monitor = _ConvergenceMonitor(self.plan.tol)

        def closed_form_steps() -> bool:
            log_likelihood, counts = self._e_step(posterior)
            if self.plan.learn_transition:
                self._m_step_transition(counts)
            self.net.history.record("log_likelihood", log_likelihood)
            return monitor.update(log_likelihood)

        converged = self.net.train_stage(
            "em",
            self.data.dataset(self.train_rows, posterior=posterior),
            self.valid,
            max_epochs=self.plan.max_em_iter,
            patience=self.plan.n_iter_no_change,
            generator=self.generator,
            progress=self.progress,
            before_epoch=closed_form_steps,
        )
        if not converged:
            warnings.warn(
                f"EM did not converge in max_em_iter={self.plan.max_em_iter} iterations: the mean "
                f"log-likelihood last changed by {monitor.change:.2g}, tol={self.plan.tol:.2g}. "
                "Increase `max_em_iter`, `lr` or `tol`, or scale X.",
                ConvergenceWarning,
                stacklevel=7,  # the call of fit
            )

    def _e_step(self, posterior: Tensor) -> tuple[float, Tensor]:
        """Fill in the posterior of the true label.

        Returns
        -------
        log_likelihood : float
            Mean log-likelihood of the observed labels of the training rows.
        counts : Tensor of shape (true, observed)
            Soft confusion counts under the posterior.
        """
        noise = self.net.network.noise
        assert noise is not None
        target, weight = self.data.tensors(self.train_rows)
        with torch.no_grad():
            log_likelihood = noise.label_log_likelihood(target.to(self.net.device)).cpu()
        joint = self._clean_log_proba(self.train) + log_likelihood
        evidence = torch.logsumexp(joint, dim=1, keepdim=True)
        rows = slice(None) if self.train_rows is None else torch.from_numpy(self.train_rows)
        posterior[rows] = (joint - evidence).exp()
        mean = np.average(evidence[:, 0].numpy(), weights=weight)
        return float(mean), F.soft_counts(posterior[rows], target, self.data.n_classes, weight)

    def _m_step_transition(self, counts: Tensor) -> None:
        noise = self.net.network.noise
        assert noise is not None
        noise.maximise(counts, self.net.transition_prior * len(self.data))

    def _hold_out(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the rows to train on and the rows to hold out; None stands for all and none."""
        if not self.plan.early_stopping:
            return None, None
        n_valid = round(self.plan.validation_fraction * len(self.data))
        n_valid = min(max(n_valid, 1), len(self.data) - 1)
        counts = np.bincount(self.data.target)
        stratify = counts.min() >= 2 and min(n_valid, len(self.data) - n_valid) >= len(counts)
        train, valid = train_test_split(
            np.arange(len(self.data)),
            test_size=n_valid,
            stratify=self.data.target if stratify else None,
            random_state=self.seed,
        )
        return np.sort(train), np.sort(valid)


def stratified_halves(target: np.ndarray, seed: int) -> np.ndarray:
    """Assign each row to half 0 or 1, so that every observed class is spread over both.

    Parameters
    ----------
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    seed : int

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    order = np.random.RandomState(seed).permutation(len(target))
    order = order[np.argsort(target[order], kind="stable")]
    half = np.empty(len(target), dtype=np.intp)
    half[order] = np.arange(len(target)) % 2
    return half


class _ConvergenceMonitor:
    """Follow the log-likelihood of EM and say when it has settled."""

    def __init__(self, tol: float) -> None:
        self.tol = tol
        self.last = -np.inf
        self.change = np.inf

    def update(self, log_likelihood: float) -> bool:
        """Take note of an iteration; return True when its change was below `tol`."""
        self.change = log_likelihood - self.last
        self.last = log_likelihood
        return abs(self.change) < self.tol
