"""One stage of training: the noise layer that belongs to it, the rows, and when it ends."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from sknoisy._crowd.annotators import AnnotatorNoise
from sknoisy._data.batches import RowDataset
from sknoisy._data.training_data import TrainingData
from sknoisy._model.network import MLP
from sknoisy._net.net import SkorchNet, StageEnd
from sknoisy._net.progress import FitProgress
from sknoisy._net.summary import check_no_nan
from sknoisy._stages.averaging import draw_new_weights
from sknoisy._stages.em import last_change, train_em, train_with_matrices
from sknoisy._stages.folds import Fold
from sknoisy._stages.selection import Candidate, State
from sknoisy._support.random import seed_of_process
from sknoisy._transition.calibration import sharpen
from sknoisy._transition.counts import SMALLEST_PROBABILITY
from sknoisy._transition.starts import confusion_start, hard_start

_FEWEST_ROWS_TO_WATCH = 1000
_FEWEST_STEPS_OF_PATIENCE = 40
_STEPS_OF_FEW_ROWS = 100
_STAGES = ("baseline", "start", "s", "c", "em", "observed", "trusted")
_CONFUSION_STARTS = {"confusion": confusion_start, "hard_confusion": hard_start}


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: the parameters of the classifier with every "auto" resolved.

    Attributes
    ----------
    hold_out : bool
        `early_stopping`: whether rows are held out.
    stop_by_folds : bool
        Whether the length of a training on all rows is that of trainings on parts of them.
    keep_interrupted : bool
        `on_interrupt`: whether an interrupted fit ends with its best epoch.
    log_class_weight : ndarray of shape (n_classes,)
        Logarithms of `class_weight`.
    annotator_prior, answer_power : float or None
        None is what suits unseen answers best.
    dropout_rates : tuple of float
        The shares of dropout to choose from, the first one for what is trained before there is a
        choice. None of them leaves the network as it is.
    n_networks : int
        How many networks are averaged.
    """

    noise_model: str | None
    method: str
    transition_init: str | np.ndarray
    learn_transition: bool
    select_noise_model: bool
    max_epochs: int
    max_em_iter: int
    tol: float
    hold_out: bool
    stop_by_folds: bool
    validation_fraction: float
    n_iter_no_change: int
    n_noise_targets: int | None
    batch_size: int
    keep_interrupted: bool
    log_class_weight: np.ndarray
    annotator_prior: float | None = None
    answer_power: float | None = None
    dropout_rates: tuple[float, ...] = ()
    n_networks: int = 1

    @property
    def counts_confusion(self) -> bool:
        """Whether the start is the confusion of the network that training goes on from."""
        return isinstance(self.transition_init, str) and self.transition_init in _CONFUSION_STARTS


class Stages:
    """Train a net for one stage or another.

    Parameters
    ----------
    net : SkorchNet
        Its weights are those that `start_over` goes back to.
    data : TrainingData
    config : TrainingConfig
    folds : sequence of Fold
        The rows that are held out.
    seed : int
        Of the order of the rows and of dropout.
    progress : FitProgress
        Is told of the stages and their epochs.
    """

    def __init__(
        self,
        net: SkorchNet,
        data: TrainingData,
        config: TrainingConfig,
        folds: Sequence[Fold],
        seed: int,
        progress: FitProgress,
    ) -> None:
        self.net = net
        self.data = data
        self.config = config
        self.seed = seed
        self.progress = progress
        self.was_cross_fitted = not config.hold_out
        self.generator = torch.Generator()
        self.held_out: RowDataset | None = None
        if config.hold_out:
            self.watch(folds[0])
        self.fresh = copy.deepcopy(net.network.state_dict())

    def watch(self, fold: Fold) -> None:
        """Let the rows that a fold holds out end the stages."""
        self.held_out = self.data.dataset(fold.valid)

    @contextmanager
    def for_comparison(self, fold: Fold) -> Iterator[None]:
        """Let the rows of one more fold end the stages; what is trained is not what is kept."""
        first = self.held_out
        if first is not None:
            self.watch(fold)
        try:
            with self.net.without_best_epoch():
                yield
        finally:
            self.held_out = first

    def train(
        self,
        candidate: Candidate,
        fold: Fold,
        *,
        max_epochs: int | None = None,
        number: int = 0,
        trial: Candidate | None = None,
    ) -> StageEnd:
        """Train one stage with the noise layer that belongs to it.

        Parameters
        ----------
        candidate : Candidate
        fold : Fold
        max_epochs : int or None, default=None
            None is the parameter of the classifier.
        number : int, default=0
            Of the fold.
        trial : Candidate or None, default=None
            The short training that ended with the weights and the noise layer of the network.
        """
        config, stage = self.config, candidate.stage
        most = config.max_em_iter if stage == "em" else config.max_epochs
        n_epochs = max_epochs or most
        self._reseed(stage, number)
        self.set_dropout(candidate)
        rows = fold.train
        if stage in ("baseline", "observed"):
            self.net.network.noise = None
        elif stage == "c":
            self._attach_feature_noise(candidate)
        elif trial is None:
            start = self._start_of(candidate, None if fold.valid is None else number)
            self.attach(start, learnable=stage != "trusted")
        else:
            n_epochs = max(1, most - sum(trial.epochs))
        if stage == "trusted":
            rows = self.checked_rows(fold)
            n_steps = min(_STEPS_OF_FEW_ROWS, self._n_steps(fold.train))
            rows = np.tile(rows, -(-n_steps // self._n_steps(rows)))
        elif candidate.trusted_weight > 1:
            more = np.tile(self.checked_rows(fold), candidate.trusted_weight - 1)
            rows = np.concatenate([np.arange(len(self.data)) if rows is None else rows, more])
        common: dict[str, Any] = {
            "max_epochs": n_epochs,
            "valid": self._watched(fold, as_observed=stage == "observed"),
            "patience": self._patience(rows),
            "generator": self.generator,
            "progress": self.progress,
        }
        if stage != "em":
            if stage == "s" and self.data.learns_from_answers and config.learn_transition:
                return train_with_matrices(self.net, self.data, rows, stage, **common)
            dataset = self.data.dataset(rows, as_observed=stage == "observed")
            return self.net.train_stage(stage, dataset, **common)
        end = train_em(
            self.net,
            self.data,
            rows,
            learn_transition=config.learn_transition,
            tol=config.tol,
            **common,
        )
        if end.stopped:
            candidate.last_change = None
        elif max_epochs in (None, most):
            candidate.last_change = last_change(self.net, n_epochs)
        return end

    def set_dropout(self, candidate: Candidate) -> None:
        """Let the network drop as many hidden units as a candidate does."""
        hidden = self.net.network.hidden
        if candidate.dropout is not None and isinstance(hidden, MLP):
            hidden.dropout = candidate.dropout

    def attach(self, start: np.ndarray | AnnotatorNoise, *, learnable: bool = True) -> None:
        """Put a noise layer on the network, whose matrix, or matrices, are learned from a start."""
        network, config = self.net.network, self.config
        if isinstance(start, AnnotatorNoise):
            answers = self.data.answers
            assert answers is not None
            network.attach_annotator_noise(
                start.transitions,
                answers.answers_of_annotators(),
                annotator_prior=start.annotator_prior,
                answer_power=start.answer_power,
            )
        else:
            network.attach_class_noise(
                start,
                learnable=learnable and config.learn_transition and config.method != "em",
                n_targets=config.n_noise_targets,
            )

    def loss_after(
        self,
        fold: Fold,
        n_epochs: int,
        transition: np.ndarray | AnnotatorNoise | None,
        *,
        number: int = 0,
    ) -> float:
        """Return the held-out loss after so many joint epochs.

        With a matrix, or matrices of annotators; None goes on with the noise layer as it is, and
        rows in an order that belongs to a number.
        """
        self._reseed("start", number)
        if transition is not None:
            self.attach(transition)
        end = self.net.train_stage(
            "start",
            self.data.dataset(fold.train),
            self._watched(fold),
            max_epochs=n_epochs,
            patience=n_epochs,
            generator=self.generator,
            progress=self.progress,
        )
        return end.lowest_loss

    def unseen_log_likelihood(self, fold: Fold, transition: np.ndarray | None = None) -> np.ndarray:
        """Return the log-likelihood of the labels that are held out, of calibrated predictions.

        NaN for all other rows. With the noise of the network, or with that of a given matrix.
        """
        factors = self.net.label_factors(self.data.dataset(fold.valid))
        row, valid = factors.row.numpy(), np.asarray(fold.valid)

        def of_calibrated() -> np.ndarray:
            columns = factors.log_column.numpy()
            if transition is not None:
                columns = self._columns(valid, transition)
            weight = None if self.data.weight is None else self.data.weight[valid[row]]
            fit = sharpen(factors.clean_log_proba.numpy(), columns, weight)
            return np.bincount(row, fit.log_likelihood, minlength=len(valid))

        log_likelihood = np.full(len(self.data), np.nan)
        log_likelihood[valid] = self.net.group.once(of_calibrated)
        return log_likelihood

    def _columns(self, rows: np.ndarray, transition: np.ndarray) -> np.ndarray:
        """Return the log-probability of the label of each row given each true class."""
        data = self.data
        columns = np.log(np.maximum(transition, SMALLEST_PROBABILITY)).T[data.observed[rows]]
        if data.trusted is not None:
            checked = data.trusted.mask[rows]
            with np.errstate(divide="ignore"):
                columns[checked] = np.log(np.eye(data.n_classes))[data.target[rows[checked]]]
        return columns

    def start_over(self) -> None:
        """Give the network the weights that it had before any training."""
        self.net.network.noise = None
        self.net.network.load_state_dict(self.fresh, strict=False)

    def draw_new_weights(self, seed: int) -> None:
        """Begin with another network, of other weights, rows in another order and dropout."""
        self.seed = seed
        torch.manual_seed(seed)
        draw_new_weights(self.net.network)
        self.fresh = copy.deepcopy(self.net.network.state_dict())

    def state(self) -> State:
        network = self.net.network
        return copy.deepcopy(network.noise), copy.deepcopy(network.state_dict())

    def restore(self, state: State) -> None:
        self.net.network.noise = copy.deepcopy(state[0])
        self.net.network.load_state_dict(state[1])

    def checked_rows(self, fold: Fold) -> np.ndarray:
        """Return the rows to train on whose label was checked."""
        rows = self.data.rows_trusted
        return rows if fold.train is None else np.intersect1d(rows, fold.train)

    def _watched(self, fold: Fold, *, as_observed: bool = False) -> RowDataset | None:
        """Return the rows whose likelihood ends a stage: of many, some are enough."""
        if fold.valid is None:
            return None
        if not self.was_cross_fitted and not (as_observed and self.data.trusted):
            return self.held_out
        rows = fold.valid
        if self.was_cross_fitted:
            order = np.random.RandomState(self.seed).permutation(rows)
            rows = np.sort(order[: max(_FEWEST_ROWS_TO_WATCH, len(order) // 10)])
        dataset = self.data.dataset(rows, as_observed=as_observed)
        return dataset if len(dataset) else None

    def _patience(self, rows: np.ndarray | None) -> int:
        """Return `n_iter_no_change`, and more where an epoch is a few steps only."""
        n_steps = self._n_steps(rows)
        return max(self.config.n_iter_no_change, -(-_FEWEST_STEPS_OF_PATIENCE // n_steps))

    def _n_steps(self, rows: np.ndarray | None) -> int:
        """Return how many steps go over some rows, or all."""
        n_rows = len(self.data) if rows is None else len(rows)
        return -(-n_rows // self.net.rows_per_step)

    def _reseed(self, stage: str, number: int) -> None:
        """Draw the same order and dropout in a stage, whatever was trained before it."""
        seed = (self.seed + 10 * _STAGES.index(stage) + number) % 2**31
        self.generator.manual_seed(seed)
        torch.manual_seed(seed_of_process(seed, self.net.group.rank))

    def _start_of(self, candidate: Candidate, number: int | None) -> np.ndarray | AnnotatorNoise:
        """Return the matrix to start from in a fold, or on all rows.

        A confusion comes from the network as it is.
        """
        if candidate.start not in _CONFUSION_STARTS:
            start = candidate.transition if number is None else candidate.start_in(number)
            assert start is not None
            return start
        return self._confusion(candidate)

    def _confusion(self, candidate: Candidate) -> np.ndarray:
        """Count what the network as it is takes the rows for, held-out ones included."""
        data, rows = self.data, self.data.rows_observed
        log_proba = self.net.clean_log_proba(data.dataset(rows if data.trusted else None))
        check_no_nan(self.net, log_proba)
        start = _CONFUSION_STARTS[str(candidate.start)]
        found = self.net.group.once(
            partial(start, log_proba.numpy(), data.observed[rows], data.weight_of(rows))
        )
        candidate.transition = found
        return found

    def _attach_feature_noise(self, candidate: Candidate) -> None:
        """Start the c-model from the s-model: b_ij is taken over, u_ij = 0.

        For "hard_confusion" b_ij is counted anew, from the network of the s-model, as in the public
        code. On few rows, where the network of the s-model has learned wrong labels as well, the
        weights start over, but for a confusion.
        """
        network, n_targets = self.net.network, self.config.n_noise_targets
        if network.noise is None or network.noise.depends_on_features:
            return
        if candidate.start == "hard_confusion":
            network.attach_feature_noise(self._confusion(candidate), n_targets=n_targets)
            return
        network.let_noise_depend_on_features(n_targets=n_targets)
        if self.was_cross_fitted and candidate.start != "confusion":
            network.load_state_dict(self.fresh, strict=False)
