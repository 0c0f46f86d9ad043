"""The stages of training: baseline, start of the noise layer, direct training or EM."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from sknoisy._data.batches import ArrayDataset
from sknoisy._data.training_data import TrainingData
from sknoisy._net.net import SkorchNet, StageEnd
from sknoisy._net.progress import FitProgress
from sknoisy._support.random import draw_seed
from sknoisy._training.em import last_change, train_em, warn_of_no_convergence
from sknoisy._training.selection import Candidate, State, select
from sknoisy._training.summary import check_no_nan, summarise
from sknoisy._transition.calibration import sharpen
from sknoisy._transition.starts import (
    Estimate,
    calibrated_start,
    cluster_start,
    confident_start,
    confusion_start,
    hard_start,
    mixture_start,
    with_own_label_likeliest,
)

#: A class with fewer observed labels is left out of the noise.
FEWEST_LABELS = 10

_FEWEST_ROWS_TO_SPLIT = 64
_FEWEST_ROWS_TO_WATCH = 1000
_FEWEST_STEPS_OF_PATIENCE = 40
_CLEARLY_BETTER = 1e-3
_SHORT_TRAINING = 8  # one epoch for so many of the baseline

#: Standard errors by which a start must be better than a simpler one, and by which a noise model
#: must be better than none: a one-sided test at the level of 5 %.
_ERRORS_OF_STARTS = 1.0
_ERRORS_OF_NOISE_MODELS = 1.64

#: Passes over all rows for one over half of them. The same number of steps would be 0.5, the same
#: number of passes 1; in between both fail least (``examples/study/study_harm.py``).
_PASSES_OVER_ALL = 0.7

_STAGES = ("baseline", "start", "s", "c", "em")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: the parameters of the classifier with every "auto" resolved.

    Attributes
    ----------
    hold_out : bool
        `early_stopping`: whether rows are held out.
    stop_by_folds : bool
        Whether the length of a training on all rows is that of trainings on halves of them.
    keep_interrupted : bool
        `on_interrupt`: whether an interrupted fit ends with its best epoch.
    log_class_weight : ndarray of shape (n_classes,)
        Logarithms of `class_weight`.
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


class Fold(NamedTuple):
    """Rows to train on, and held-out rows; None stands for all and for none."""

    train: np.ndarray | None
    valid: np.ndarray | None


def train(
    net: SkorchNet,
    data: TrainingData,
    config: TrainingConfig,
    rng: np.random.RandomState,
    progress: FitProgress,
) -> Trainer:
    """Take a net through its stages; an interrupted one ends with its best epoch if it is told to.

    Parameters
    ----------
    net, data, config, rng, progress
        As for `Trainer`.

    Returns
    -------
    Trainer
        What was tried, and what was chosen.
    """
    net.check_callbacks(held_out=config.hold_out)
    trainer = Trainer(net, data, config, rng, progress)
    if config.keep_interrupted:
        net.keep_best_epoch()
    try:
        trainer.run()
    except KeyboardInterrupt:
        kept = net.end_interrupted(data.X, data.target)
        if kept is None:
            raise
        progress.end_interrupted()
        message = f"The fit is not complete. {kept}"
        warnings.warn(message, ConvergenceWarning, stacklevel=6)  # the call of fit
    net.end_training()
    return trainer


class Trainer:
    """Take a net through its stages, and keep the noise model only if it earns its place.

    Rows are held out, or, when they are few, each half is held out from a network that is trained
    on the other. What was held out ends each stage, gives the predictions from which the noise
    layer starts, and decides between the noise model and plain training.

    Parameters
    ----------
    net : SkorchNet
    data : TrainingData
    config : TrainingConfig
    rng : numpy.random.RandomState
        Source of the split, the order of the rows and the clusters.
    progress : FitProgress
        Is told of the stages and their epochs.

    Attributes
    ----------
    initial_transition : ndarray of shape (true, observed)
        Where the noise layer started.
    candidates : list of Candidate
        What was compared, plain training first. Empty if there was nothing to compare with.
    chosen : Candidate or None
        The one that the net was given.
    supported : ndarray of bool of shape (n_classes,)
        Classes with enough observed labels for an estimate of their noise.
    """

    def __init__(
        self,
        net: SkorchNet,
        data: TrainingData,
        config: TrainingConfig,
        rng: np.random.RandomState,
        progress: FitProgress,
    ) -> None:
        self.net = net
        self.data = data
        self.config = config
        self.progress = progress
        self.seed = draw_seed(rng)
        self.generator = torch.Generator()
        self.folds = self._make_folds()
        self.held_out = data.dataset(self.folds[0].valid) if len(self.folds) == 1 else None
        self.fresh = copy.deepcopy(net.network.state_dict())
        self.initial_transition = np.eye(data.n_classes)
        self.candidates: list[Candidate] = []
        self.chosen: Candidate | None = None
        self.supported = data.label_counts() >= FEWEST_LABELS

    @property
    def was_cross_fitted(self) -> bool:
        """Whether each half is held out in turn, and the last training is on all rows."""
        return len(self.folds) == 2

    def run(self) -> None:
        """Train the stages that the network has not been through, or the last one again."""
        config = self.config
        if self.net.network.noise is not None and config.learn_transition and config.noise_model:
            self._go_on()
        elif config.noise_model is None:
            self._finish(self._try("baseline"))
        elif not config.learn_transition:
            self._finish(self._try(self._joint_stage, "array", np.asarray(config.transition_init)))
        else:
            self._finish(self._select())
        last = self.chosen
        if last is not None and last.last_change is not None:
            config = self.config
            warn_of_no_convergence(last.last_change, config.max_em_iter, config.tol, stacklevel=8)

    def report(self) -> list[dict[str, Any]]:
        """Return what a user may want to know of the candidates."""
        return [candidate.report(self.candidates[0]) for candidate in self.candidates]

    # Candidates

    def _select(self) -> Candidate:
        """Train plainly, and with noise layers, and return what explains unseen labels best."""
        plain = self._try("baseline")
        starts = self._starts(plain)
        if not starts:
            self.candidates = [plain] if self.folds else []
            return plain
        before = plain if self._keeps_baseline(plain) else None
        tried = [
            self._try(self._joint_stage, *start, before=before)
            for start in self._fastest(plain, before, starts)
        ]
        # Of starts that are as good, the cautious one; the other where noise is taken for granted.
        ranked = tried if self.config.select_noise_model else tried[::-1]
        best = select(ranked, _ERRORS_OF_STARTS) if self.folds else tried[0]
        compared = [plain, best]
        if self.config.noise_model == "c":
            compared.append(self._try("c", best.start, best.transition, before=best))
        if self.folds:
            self.candidates = [plain, *tried, *compared[2:]]
        if not self.config.select_noise_model or not self.folds:
            return compared[-1]
        return select(compared, _ERRORS_OF_NOISE_MODELS)

    def _keeps_baseline(self, plain: Candidate) -> bool:
        """Whether joint training goes on from the weights of the baseline, as in the paper.

        It starts over from new weights, since the baseline has memorised wrong labels, unless it
        needed more than half of its epochs: new weights would need them again.
        """
        if (
            isinstance(self.config.transition_init, str)
            and self.config.transition_init == "confusion"
        ):
            return True
        return len(self.folds) == 1 and 2 * plain.epochs[0] > self.config.max_epochs

    @property
    def _joint_stage(self) -> str:
        return "em" if self.config.method == "em" else "s"

    def _try(
        self,
        stage: str,
        start: str | None = None,
        transition: np.ndarray | None = None,
        before: Candidate | None = None,
    ) -> Candidate:
        """Train a stage in each fold and judge it by the rows that are held out there."""
        candidate = Candidate(
            stage, start, transition, before, penalty=self._penalty(start, transition)
        )
        log_likelihood = np.full(len(self.data), np.nan)
        for number, fold in enumerate(self.folds):
            if before is None:
                self._start_over()
            else:
                self._restore(before.states[number])
            end = self._train(candidate, fold, number=number)
            clean_log_proba, log_column = self.net.label_factors(self.data.dataset(fold.valid))
            weight = None if self.data.weight is None else self.data.weight[fold.valid]
            log_likelihood[fold.valid] = sharpen(
                clean_log_proba.numpy(), log_column.numpy(), weight
            ).log_likelihood
            candidate.epochs.append(end.best_epoch)
            candidate.states.append(self._state())
        candidate.judge(log_likelihood, self.data.weight)
        return candidate

    def _penalty(self, start: str | None, transition: np.ndarray | None) -> float:
        """Return how much likelier a start makes the labels that it was estimated from.

        By half for each free entry, here those that stand for at least one label. Nothing where
        few of the labels that judge were among those of the estimate, or it was shrunk.
        """
        if not self.was_cross_fitted or transition is None or start in ("array", "calibrated"):
            return 0.0
        n_labels = transition * self.data.label_counts()[:, None]
        free = (n_labels >= 1) & ~np.eye(self.data.n_classes, dtype=bool)
        return int(np.count_nonzero(free)) / (2 * len(self.data))

    def _finish(self, chosen: Candidate) -> None:
        """Give the net what was chosen: the network of the fold, or one trained on all rows."""
        self.chosen = chosen
        if len(self.folds) == 1:
            self._restore(chosen.states[0])
        else:
            self._train_on_all_rows(chosen)
        of_interest = *chosen.chain, *self.candidates
        tried = [c.transition for c in of_interest if c.transition is not None]
        self.initial_transition = np.asarray(tried[0]) if tried else self.initial_transition

    def _train_on_all_rows(self, chosen: Candidate) -> None:
        self._start_over()
        for part in chosen.chain:
            self._train(part, Fold(None, None), max_epochs=self._epochs(part))

    def _epochs(self, candidate: Candidate) -> int:
        """Return how often to go over all rows, from the best epochs on halves of them."""
        most = self.config.max_em_iter if candidate.stage == "em" else self.config.max_epochs
        if not candidate.epochs or not self.config.stop_by_folds:
            return most
        return int(np.clip(round(_PASSES_OVER_ALL * np.mean(candidate.epochs)), 1, most))

    # Stages

    def _train(
        self, candidate: Candidate, fold: Fold, *, max_epochs: int | None = None, number: int = 0
    ) -> StageEnd:
        """Train one stage with the noise layer that belongs to it."""
        config, stage = self.config, candidate.stage
        self._reseed(stage, number)
        if stage == "baseline":
            self.net.network.noise = None
        elif stage == "c":
            self._attach_feature_noise(keep_weights=candidate.start == "confusion")
        else:
            self.net.network.attach_class_noise(
                self._start_of(candidate),
                learnable=config.learn_transition and stage != "em",
                n_targets=config.n_noise_targets,
            )
        common: dict[str, Any] = {
            "valid": self._watched(fold),
            "patience": self._patience(fold),
            "generator": self.generator,
            "progress": self.progress,
        }
        if stage != "em":
            train = self.data.dataset(fold.train)
            most = max_epochs or config.max_epochs
            return self.net.train_stage(stage, train, max_epochs=most, **common)
        end = train_em(
            self.net,
            self.data,
            fold.train,
            learn_transition=config.learn_transition,
            tol=config.tol,
            max_epochs=max_epochs or config.max_em_iter,
            **common,
        )
        if end.stopped:
            candidate.last_change = None
        elif max_epochs in (None, config.max_em_iter):
            candidate.last_change = last_change(self.net, config.max_em_iter)
        return end

    def _watched(self, fold: Fold) -> ArrayDataset | None:
        """Return the rows whose likelihood ends a stage: of a half, some are enough."""
        if fold.valid is None:
            return None
        if not self.was_cross_fitted:
            return self.held_out
        order = np.random.RandomState(self.seed).permutation(fold.valid)
        most = max(_FEWEST_ROWS_TO_WATCH, len(order) // 10)
        return self.data.dataset(np.sort(order[:most]))

    def _patience(self, fold: Fold) -> int:
        """Return `n_iter_no_change`, and more where an epoch is a few steps only."""
        n_rows = len(self.data) if fold.train is None else len(fold.train)
        n_steps = -(-n_rows // self.net.batch_size)
        return max(self.config.n_iter_no_change, -(-_FEWEST_STEPS_OF_PATIENCE // n_steps))

    def _reseed(self, stage: str, number: int) -> None:
        """Draw the same order and dropout in a stage, whatever was trained before it."""
        seed = (self.seed + 10 * _STAGES.index(stage) + number) % 2**31
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)

    def _start_of(self, candidate: Candidate) -> np.ndarray:
        """Return the matrix to start from; the paper's comes from the network as it is."""
        if candidate.start != "confusion":
            return np.asarray(candidate.transition)
        log_proba = self.net.clean_log_proba(self.data.dataset())
        check_no_nan(self.net, log_proba)
        candidate.transition = confusion_start(
            log_proba.numpy(), self.data.target, self.data.weight
        )
        return candidate.transition

    def _attach_feature_noise(self, *, keep_weights: bool) -> None:
        """Start the c-model from the s-model: b_ij is taken over, u_ij = 0.

        On few rows, where the network of the s-model has learned wrong labels as well, the weights
        start over.
        """
        network = self.net.network
        if network.noise is not None and not network.noise.depends_on_features:
            network.let_noise_depend_on_features(n_targets=self.config.n_noise_targets)
            if self.was_cross_fitted and not keep_weights:
                network.load_state_dict(self.fresh, strict=False)

    def _go_on(self) -> None:
        """Train the last stage once more, of a network that has a noise layer."""
        noise = self.net.network.noise
        noise_model = "c" if noise is not None and noise.depends_on_features else "s"
        self.initial_transition = summarise(self.net, self.data)[1]
        fold = self.folds[0] if len(self.folds) == 1 else Fold(None, None)
        stages = [self._joint_stage] if noise_model == "s" or self.config.noise_model == "s" else []
        stages += ["c"] if self.config.noise_model == "c" else []
        for stage in stages:
            self.chosen = Candidate(stage, "array", self.initial_transition)
            self._train(self.chosen, fold)

    def _start_over(self) -> None:
        """Give the network the weights that it had before any training."""
        self.net.network.noise = None
        self.net.network.load_state_dict(self.fresh, strict=False)

    def _state(self) -> State:
        network = self.net.network
        return copy.deepcopy(network.noise), copy.deepcopy(network.state_dict())

    def _restore(self, state: State) -> None:
        self.net.network.noise = copy.deepcopy(state[0])
        self.net.network.load_state_dict(state[1])

    # The start of the noise layer

    def _starts(self, plain: Candidate) -> list[tuple[str, np.ndarray | None]]:
        """Return names and matrices that the noise layer may start from, the simplest first.

        The paper's start, None, is computed from the network that training goes on from.
        """
        init = self.config.transition_init
        if not isinstance(init, str):
            return [("array", init)]
        if init == "confusion":
            return [(init, None)]
        if not self.folds or self.supported.sum() < 2:
            return []
        log_proba = self._predictions(plain)
        if init == "cluster":
            clusters = self._estimate(partial(cluster_start, random_state=self.seed), log_proba)
            return [(init, clusters.transition)]
        unseen = np.concatenate([np.asarray(fold.valid) for fold in self.folds])
        calibrated = partial(calibrated_start, random_state=self.seed)
        mixture = partial(mixture_start, random_state=self.seed)
        simple = self._estimate(calibrated, log_proba, unseen)
        found = {"mixture": self._estimate(mixture, log_proba)}
        if self.was_cross_fitted and self.config.select_noise_model:
            gain = found["mixture"].log_likelihood - simple.log_likelihood
            if gain <= self._penalty("mixture", found["mixture"].transition):
                found = {}
        elif not self.was_cross_fitted:
            found["confident"] = self._estimate(confident_start, log_proba)
            found["hard"] = self._estimate(hard_start, log_proba)
            found = self._most_likely(found)
        found = {"calibrated": simple, **found}
        return [
            (name, with_own_label_likeliest(estimate.transition))
            for name, estimate in found.items()
        ]

    def _predictions(self, plain: Candidate) -> np.ndarray:
        """Return what the baselines say of all rows, those of halves of the rows held out."""
        log_proba = np.empty((len(self.data), self.data.n_classes))
        for fold, state in zip(self.folds, plain.states, strict=True):
            self._restore(state)
            rows = fold.valid if self.was_cross_fitted else None
            predicted = self.net.clean_log_proba(self.data.dataset(rows))
            check_no_nan(self.net, predicted)
            log_proba[slice(None) if rows is None else rows] = predicted.numpy()
        return log_proba

    def _estimate(
        self, start: Callable[..., Any], log_proba: np.ndarray, rows: np.ndarray | None = None
    ) -> Estimate:
        """Estimate the noise among the classes with enough labels; others keep their label."""
        classes = np.flatnonzero(self.supported)
        rows = np.arange(len(self.data)) if rows is None else rows
        rows = rows[self.supported[self.data.target[rows]]]
        seen = log_proba[np.ix_(rows, classes)]
        found = start(
            seen - np.logaddexp.reduce(seen, axis=1, keepdims=True),
            np.searchsorted(classes, self.data.target[rows]),
            None if self.data.weight is None else self.data.weight[rows],
        )
        found = found if isinstance(found, Estimate) else Estimate(found, np.nan)
        transition = np.eye(self.data.n_classes)
        transition[np.ix_(classes, classes)] = found.transition
        return found._replace(transition=transition)

    def _most_likely(self, starts: dict[str, Estimate]) -> dict[str, Estimate]:
        """Return the start under which held-out labels are likeliest after one joint epoch.

        The first one wins unless another is clearly better.
        """
        losses, baseline = [], self._state()
        for start in starts.values():
            losses.append(self._loss_after(1, start.transition))
            self._restore(baseline)
        losses[0] -= _CLEARLY_BETTER
        best = list(starts)[int(np.argmin(losses))]
        return {best: starts[best]}

    def _fastest(
        self,
        plain: Candidate,
        before: Candidate | None,
        starts: list[tuple[str, np.ndarray | None]],
    ) -> list[tuple[str, np.ndarray | None]]:
        """Return the start that is ahead after a short joint training.

        All starts, if rows are few and all of them can be trained in full.
        """
        if self.was_cross_fitted or len(starts) == 1:
            return starts
        losses = []
        for _, start in starts:
            if before is None:
                self._start_over()
            else:
                self._restore(before.states[0])
            n_epochs = max(1, plain.epochs[0] // _SHORT_TRAINING)
            losses.append(self._loss_after(n_epochs, np.asarray(start)))
        return [starts[int(np.argmin(losses))]]

    def _loss_after(self, n_epochs: int, transition: np.ndarray) -> float:
        """Return the held-out loss after so many joint epochs."""
        (fold,) = self.folds
        self._reseed("start", 0)
        self.net.network.attach_class_noise(transition, n_targets=self.config.n_noise_targets)
        end = self.net.train_stage(
            "start",
            self.data.dataset(fold.train),
            self.held_out,
            max_epochs=n_epochs,
            patience=n_epochs,
            generator=self.generator,
            progress=self.progress,
        )
        return end.lowest_loss

    @property
    def _needs_folds(self) -> bool:
        """Whether what is held out decides anything: the length of a training, or a choice."""
        config = self.config
        return config.stop_by_folds or (config.noise_model is not None and config.learn_transition)

    def _make_folds(self) -> list[Fold]:
        """Return the ways to hold rows out."""
        data, n_rows = self.data, len(self.data)
        if not self.config.hold_out:
            if n_rows < _FEWEST_ROWS_TO_SPLIT or not self._needs_folds:
                return []
            half = stratified_halves(data.target, self.seed)
            halves = [np.flatnonzero(half == number) for number in (0, 1)]
            return [Fold(*halves), Fold(*halves[::-1])]
        n_valid = min(max(round(self.config.validation_fraction * n_rows), 1), n_rows - 1)
        counts = np.bincount(data.target)
        stratify = counts.min() >= 2 and min(n_valid, n_rows - n_valid) >= len(counts)
        train, valid = train_test_split(
            np.arange(n_rows),
            test_size=n_valid,
            stratify=data.target if stratify else None,
            random_state=self.seed,
        )
        return [Fold(np.sort(train), np.sort(valid))]


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
