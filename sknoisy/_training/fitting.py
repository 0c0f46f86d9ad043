"""A fit from its beginning to its end, and doubts whether it is worth anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sknoisy._data.training_data import TrainingData
from sknoisy._net.net import SkorchNet
from sknoisy._net.progress import FitProgress
from sknoisy._stages.folds import FEWEST_ROWS
from sknoisy._stages.selection import ERRORS_OF_NOISE_MODELS
from sknoisy._stages.stages import TrainingConfig
from sknoisy._training.annotators import AnnotatorTrainer
from sknoisy._training.noise_estimates import FEWEST_LABELS
from sknoisy._training.trainer import Trainer
from sknoisy._training.trusted import TrustedTrainer
from sknoisy.exceptions import UnreliableFitWarning

_SMALLEST_GAIN = 1e-3
_MOST_NAMES = 5


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
    checks = data.trusted is not None and config.noise_model is not None
    kind: type[Trainer] = TrustedTrainer if checks else Trainer
    kind = AnnotatorTrainer if data.learns_from_answers else kind
    trainer = kind(net, data, config, rng, progress)
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


def warn_of_unreliable_fit(
    net: SkorchNet,
    data: TrainingData,
    trainer: Trainer,
    transition: np.ndarray,
) -> None:
    """Warn once for each reason to doubt a fit.

    Parameters
    ----------
    net : SkorchNet
        After training.
    data : TrainingData
    trainer : Trainer
        After training.
    transition : ndarray of shape (true, observed)
        What was learned of the noise.
    """
    messages = list(_doubts(net, data, trainer, transition))
    for message in messages if net.group.is_first else ():
        warnings.warn(message, UnreliableFitWarning, stacklevel=6)  # the call of fit


def _doubts(
    net: SkorchNet,
    data: TrainingData,
    trainer: Trainer,
    transition: np.ndarray,
) -> Iterator[str]:
    config = trainer.config
    if _says_no_more_than_frequencies(net, data, trainer):
        yield (
            "The observed labels are predicted no better than by their frequencies: X says "
            f"nothing about them that this network could learn with lr={net.lr}. Check that the "
            "rows of X and y belong together; try another `lr`, `module` or `batch_size`, or more "
            "rows. The predictions are worth little."
        )
    if net.network.hidden_scale != 1.0:
        yield (
            "The outputs of `module` had a root mean square of "
            f"{net.network.hidden_scale:.2g} before training, at which the softmax layer is "
            "saturated; they are divided by that number. Scale X, for instance with "
            "StandardScaler in a pipeline, or normalise inside `module`."
        )
    if config.noise_model is None or not config.learn_transition:
        return
    estimated = isinstance(config.transition_init, str) and not config.counts_confusion
    estimated &= not data.learns_from_answers
    n_others = len(data) - len(data.rows_trusted)
    few = data.trusted is not None and n_others < FEWEST_ROWS
    if estimated and not few and not trainer.estimator.supported.all():
        left_out = _names(data.classes[~trainer.estimator.supported])
        yield (
            f"Classes with fewer than {FEWEST_LABELS} observed labels cannot support an estimate "
            f"of their noise: the labels of {left_out} are assumed correct. Collect more labels "
            "of these classes, merge them, or leave them out."
        )
    elif estimated and (few or not trainer.folds):
        yield (
            f"{n_others} rows are too few to estimate label noise: all labels are assumed "
            "correct, as with noise_model=None. Collect more rows, or pass a known matrix as "
            "`transition_init`."
        )
    own = np.diag(transition)
    doubtful = own < transition.max(axis=1)
    doubtful[data.target[data.rows_trusted]] = False  # checked labels name these classes
    if doubtful.any():
        named = _names(data.classes[doubtful])
        yield (
            f"For the true class {named} another label is likelier than its own: the "
            "classes may have been confused with one another, since labels alone do not "
            "tell which is which. Look at `transition_matrix_`, compare with noise_model=None, or "
            "have a few labels of each class checked and pass them as `trusted`."
        )


def _names(labels: np.ndarray) -> str:
    named = ", ".join(repr(label) for label in labels[:_MOST_NAMES].tolist())
    left = len(labels) - _MOST_NAMES
    return named if left <= 0 else f"{named} and {left} more"


def _says_no_more_than_frequencies(net: SkorchNet, data: TrainingData, trainer: Trainer) -> bool:
    """Whether labels, unseen ones where rows are held out, are as likely without the network."""
    labels, row = data.target, np.arange(len(data))
    if data.answers is not None and net.network.noise is not None:
        labels, row = data.answers.label, data.answers.row
    weight = None if data.weight is None else data.weight[row]
    share = np.bincount(labels, weight, data.n_classes)
    log_share = np.log(np.maximum(share / share.sum(), 1e-300))[labels]
    log_share = np.bincount(row, log_share, minlength=len(data))
    if trainer.chosen is not None and len(trainer.chosen.rows):
        chosen = trainer.chosen
        gains = (chosen.log_likelihood - log_share[chosen.rows]) * chosen.weight
        error = gains.std() / np.sqrt(len(gains))
        return bool(gains.mean() <= ERRORS_OF_NOISE_MODELS * error)
    factors = net.label_factors(data.dataset())
    joint: Any = (factors.clean_log_proba + factors.log_column).double().logsumexp(dim=1).numpy()
    joint = np.bincount(factors.row.numpy(), joint, minlength=len(data))
    return bool(np.average(joint - log_share, weights=data.weight) <= _SMALLEST_GAIN)
