"""Learning from a stream, in one pass over rows that come a chunk at a time."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import unique_labels

from sknoisy._data.columns import ColumnStatistics
from sknoisy._data.training_data import TrainingData
from sknoisy._distributed.rows import column_statistics
from sknoisy._model.annotator_noise import AnnotatorTransition
from sknoisy._model.network import MLP, NoisyLabelModule
from sknoisy._net.net import SkorchNet
from sknoisy._net.progress import FitProgress
from sknoisy._stages.folds import stratified_parts
from sknoisy._stages.selection import (
    ERRORS_OF_NOISE_MODELS,
    Candidate,
    select_noise_model,
    select_start,
)
from sknoisy._stages.stages import TrainingConfig
from sknoisy._support.labels import as_label_array
from sknoisy._support.random import draw_seed, seed_of_process
from sknoisy._support.validation import parameter_error
from sknoisy._training.annotators import AnnotatorStream
from sknoisy._training.noise_estimates import MANY_CLASSES
from sknoisy._transition.calibration import sharpen, with_sharpness
from sknoisy._transition.many_classes import fit_sparse_mixture
from sknoisy._transition.mixture import label_log_likelihood
from sknoisy._transition.starts import (
    calibrate,
    cluster_start,
    confusion_start,
    fit_mixture,
    hard_start,
    with_own_label_likeliest,
)
from sknoisy._transition.trusted import named_by_counts, trusted_counts

_ROWS_OF_A_BLOCK = 1000
_ROWS_OF_A_BLOCK_PER_CLASS = 10

Block = list[tuple[np.ndarray, ...]]


def supports_partial_fit(classifier: Any) -> bool:
    """Whether the parameters of a classifier let it learn from a stream."""
    if classifier.method == "em":
        raise AttributeError(
            "partial_fit needs method='direct', got method='em': its posteriors belong to rows "
            "that are kept."
        )
    return True


def stream_classes(classifier: Any, classes: Any) -> np.ndarray:
    """Return the labels of a stream, those of the calls before or those that are given.

    Raises
    ------
    ValueError
        If there are none, or if the two differ.
    """
    if classifier.class_weight == "balanced":
        raise ValueError(
            "class_weight='balanced' needs all labels at once; in partial_fit give a dict of "
            "weights."
        )
    fitted = hasattr(classifier, "net_")
    if classes is None:
        if not fitted:
            raise ValueError(
                "classes must be passed on the first call to partial_fit: all labels that will "
                "ever come."
            )
        return classifier.classes_
    with parameter_error("classes", "hold all labels that will ever come"):
        labels = unique_labels(as_label_array(classes))
    if fitted and not np.array_equal(labels, classifier.classes_):
        raise ValueError(
            f"`classes` must be the same in every call to partial_fit, "
            f"{classifier.classes_.tolist()!r}; got {labels.tolist()!r}."
        )
    return labels


class Stream:
    """What is kept from one chunk to the next, besides the net.

    Parameters
    ----------
    random_state : numpy.random.RandomState
        Source of the order of the rows.
    follow_columns : bool
        Whether mean and scale of the columns are those of all rows so far, and not those of the
        rows that the network was fitted to before.
    """

    def __init__(self, random_state: np.random.RandomState, *, follow_columns: bool) -> None:
        self.random_state = random_state
        self.columns = ColumnStatistics() if follow_columns else None
        self.prior: np.ndarray | float = 0.0
        self.n_rows = 0
        self.block: Block = []
        self.highest = -np.inf
        self.misses = 0
        self.baseline: NoisyLabelModule | None = None
        self.annotators = AnnotatorStream()
        self.checked: np.ndarray | None = None

    def running_prior(self, prior: np.ndarray, n_rows: int) -> np.ndarray:
        """Return the mean clean probability of all rows so far, after that of a chunk."""
        self.n_rows += n_rows
        self.prior = self.prior + (prior - self.prior) * n_rows / self.n_rows
        return np.asarray(self.prior)

    def account_of(
        self, net: SkorchNet, data: TrainingData, config: TrainingConfig
    ) -> dict[str, Any]:
        """Return what the summary must know of a chunk: what was before it, and what is unknown."""
        return {
            "running_prior": partial(self.running_prior, n_rows=len(data)),
            "noise_is_unknown": config.noise_model is not None and net.network.noise is None,
            "annotator_counts": self.annotators.counts,
        }

    def standardize(self, net: SkorchNet, data: TrainingData) -> None:
        """Let the default network standardise its input by all rows so far."""
        hidden = net.network.hidden
        if self.columns is not None and isinstance(hidden, MLP):
            # The old ones are put back after a fault.
            self.columns = column_statistics(data, net.group, self.columns)
            hidden.restandardize(self.columns.mean, self.columns.scale)

    def full_block(self, n_classes: int, *new: np.ndarray) -> list[np.ndarray] | None:
        """Add rows to the block; return it and begin another one if that makes it large enough."""
        self.block = [*self.block, new]
        needed = max(_ROWS_OF_A_BLOCK, _ROWS_OF_A_BLOCK_PER_CLASS * n_classes)
        if sum(len(part[0]) for part in self.block) < needed:
            return None
        block = [np.concatenate(part) for part in zip(*self.block, strict=True)]
        self.block = []
        return block

    def find_start(
        self, net: SkorchNet, data: TrainingData, config: TrainingConfig
    ) -> np.ndarray | None:
        """Return the matrix to start the noise layer from, or None while there is no need of one.

        The rows of a chunk are predicted before they are learned, so they are held-out rows. There
        is no need while the baseline improves, nor as long as it explains them as well alone.
        """
        if not isinstance(config.transition_init, str):
            return config.transition_init
        if not len(net.history):
            return None
        log_proba = net.clean_log_proba(data.dataset()).numpy()
        self._count_checked(log_proba, data)
        rows = data.rows_observed
        block = self.full_block(
            data.n_classes, log_proba[rows], data.observed[rows], _weight(data)[rows]
        )
        if block is None:
            return None
        log_proba, target, weight = block
        log_likelihood = log_proba[np.arange(len(target)), target]
        mean = np.average(log_likelihood, weights=weight)
        if mean > self.highest + log_likelihood.std() / np.sqrt(len(target)):
            self.highest, self.misses = mean, 0
        else:
            self.misses += 1
        if self.misses < config.n_iter_no_change:
            return None
        seed = draw_seed(self.random_state)
        if config.transition_init == "confusion":
            return confusion_start(log_proba, target, weight)
        if config.transition_init == "hard_confusion":
            return hard_start(log_proba, target, weight)
        if config.transition_init == "cluster":
            return cluster_start(log_proba, target, weight, random_state=seed)
        start = net.group.once(
            partial(
                start_from_block,
                log_proba,
                target,
                weight,
                seed,
                compare=config.select_noise_model,
            )
        )
        self.misses = 0
        if start is None:
            return None
        if self.checked is None:
            return with_own_label_likeliest(start)
        return named_by_counts(start, self.checked)

    def _count_checked(self, log_proba: np.ndarray, data: TrainingData) -> None:
        """Count predictions for checked rows of all chunks, which tell the names of the classes."""
        if data.trusted is None:
            return
        rows = data.rows_trusted
        counts = trusted_counts(np.exp(log_proba[rows]), data.target[rows], data.weight_of(rows))
        self.checked = counts if self.checked is None else self.checked + counts

    def try_out(self, net: SkorchNet) -> None:
        """Keep the baseline until the noise layer has proved to explain new rows better."""
        self.baseline = copy.deepcopy(net.network).eval()
        self.block, self.misses = [], 0

    def judge(self, net: SkorchNet, data: TrainingData, config: TrainingConfig) -> None:
        """Compare network and noise layer with the baseline that they came from, by new rows.

        The baseline is put back when they explain the observed labels worse, or no better in
        `n_iter_no_change` blocks of rows.
        """
        assert self.baseline is not None
        dataset = data.dataset()
        both = net.label_factors(dataset), net.label_factors(dataset, self.baseline)
        factors = [factor for found in both for factor in found[:2]]
        block = self.full_block(
            data.n_classes, *(factor.numpy() for factor in factors), _weight(data)
        )
        if block is None:
            return
        joint, alone = Candidate("s"), Candidate("baseline")
        for candidate, at in ((joint, 0), (alone, 2)):
            fit = net.group.once(partial(sharpen, block[at], block[at + 1], block[-1]))
            candidate.judge(fit.log_likelihood, block[-1])
        gain, error = joint.gain(alone)
        self.misses += 1
        if gain > ERRORS_OF_NOISE_MODELS * error:
            self.baseline = None
        elif gain < -ERRORS_OF_NOISE_MODELS * error or self.misses >= config.n_iter_no_change:
            net.network.noise = None
            net.network.load_state_dict(self.baseline.state_dict())
            self.baseline, self.misses = None, 0


def start_from_block(
    log_proba: np.ndarray, target: np.ndarray, weight: np.ndarray, seed: int, *, compare: bool
) -> np.ndarray | None:
    """Return the start that explains labels best which it was not estimated from.

    Each start is estimated from one half of the rows and judged by the other half.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        Predictions for rows that were not learned yet.
    target, weight : ndarray of shape (n_samples,)
        Encoded observed labels and sample weights.
    seed : int
    compare : bool
        Whether None, no noise, is returned if no start is better than the predictions alone.

    Returns
    -------
    ndarray of shape (true, observed) or None
    """
    half = stratified_parts(target, seed)
    seen, unseen = half == 0, half == 1
    given = log_proba[seen], target[seen], weight[seen]
    n_classes = log_proba.shape[1]

    def judged(name: str, transition: np.ndarray, log_likelihood: np.ndarray) -> Candidate:
        candidate = Candidate("start", name, transition)
        candidate.judge(log_likelihood, weight[unseen])
        return candidate

    def beside_predictions(name: str, transition: np.ndarray, sharpness: float) -> Candidate:
        with np.errstate(divide="ignore"):
            column = np.log(transition).T[target[unseen]]
        fit = with_sharpness(log_proba[unseen], column, sharpness)
        return judged(name, transition, fit.log_likelihood)

    identity = np.where(np.eye(n_classes, dtype=bool), 0.0, -np.inf)[target[seen]]
    plain = beside_predictions(
        "none", np.eye(n_classes), sharpen(given[0], identity, given[2]).sharpness
    )
    calibrated = calibrate(*given, random_state=seed)
    assert calibrated.transition is not None
    starts = [beside_predictions("calibrated", calibrated.transition, calibrated.sharpness)]
    if n_classes > MANY_CLASSES:
        transition, by_mixture = fit_sparse_mixture(
            log_proba.__getitem__, target, np.where(seen, weight, 0.0), random_state=seed
        )
        starts.append(judged("mixture", transition, by_mixture[unseen]))
    else:
        fit = fit_mixture(*given, random_state=seed)
        scores = fit.view(log_proba[unseen])
        by_mixture = label_log_likelihood(fit.mixture, scores, target[unseen])
        starts.append(judged("mixture", fit.mixture.transition, by_mixture))
    best = select_start(starts, cautious=True)  # half a block is few rows
    if compare and select_noise_model([plain, best]) is plain:
        return None
    return np.asarray(best.transition)


def _weight(data: TrainingData) -> np.ndarray:
    return np.ones(len(data)) if data.weight is None else data.weight


def fit_chunk(
    net: SkorchNet,
    data: TrainingData,
    config: TrainingConfig,
    stream: Stream,
    progress: FitProgress,
) -> np.ndarray | None:
    """Go over the rows once.

    Returns
    -------
    ndarray of shape (true, observed) or None
        Where the noise layer starts, if it starts with these rows.
    """
    net.check_callbacks(held_out=False)
    if config.noise_model == "auto":  # nothing is held out to choose by
        config = replace(config, noise_model=net.network.noise_model or "s")
    if (
        data.answers is None
        and isinstance(net.network.noise, AnnotatorTransition)
        and len(data.rows_observed)
    ):
        raise ValueError(
            "`y` must say who gave each label, as in the calls before: pass `annotators`, or a "
            "column for each annotator."
        )
    if not net.group.is_first:
        torch.manual_seed(seed_of_process(torch.initial_seed(), net.group.rank))
    stream.standardize(net, data)
    if stream.baseline is not None:
        stream.judge(net, data, config)
    network = net.network
    start = None
    if config.noise_model is None:
        network.noise = None
    elif data.learns_from_answers:
        start = stream.annotators.learn(net, data, config, draw_seed(stream.random_state))
    elif network.noise is None:
        start = stream.find_start(net, data, config)
        if (
            start is not None
            and isinstance(config.transition_init, str)
            and config.select_noise_model
        ):
            stream.try_out(net)
    elif config.noise_model == "c" and not network.noise.depends_on_features:
        start = network.noise.matrix()
    if start is not None and not isinstance(network.noise, AnnotatorTransition):
        if config.noise_model == "s":
            network.attach_class_noise(
                start, learnable=config.learn_transition, n_targets=config.n_noise_targets
            )
        else:
            network.attach_feature_noise(start, n_targets=config.n_noise_targets)
    net.train_stage(
        "baseline" if network.noise is None else str(config.noise_model),
        data.dataset(),
        None,
        max_epochs=1,
        patience=1,
        generator=torch.Generator().manual_seed(draw_seed(stream.random_state)),
        progress=progress,
        resume=True,
    )
    net.end_training()
    return start
