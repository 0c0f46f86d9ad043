"""Estimates of the noise from what a network says of rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sknoisy._data.folds import Fold
from sknoisy._data.training_data import TrainingData
from sknoisy._training.stages import TrainingConfig
from sknoisy._transition.starts import (
    Estimate,
    calibrated_start,
    cluster_start,
    confident_start,
    hard_start,
    mixture_start,
)

#: A class with fewer observed labels is left out of the noise.
FEWEST_LABELS = 10


class NoiseEstimator:
    """Estimate transition matrices that the noise layer may start from.

    Parameters
    ----------
    data : TrainingData
    config : TrainingConfig
    folds : sequence of Fold
        Which rows the network was not trained on.
    seed : int
        Of the clusters.

    Attributes
    ----------
    supported : ndarray of bool of shape (n_classes,)
        Classes with enough observed labels for an estimate of their noise.
    """

    def __init__(
        self, data: TrainingData, config: TrainingConfig, folds: Sequence[Fold], seed: int
    ) -> None:
        self.data = data
        self.config = config
        self.folds = folds
        self.seed = seed
        self.supported = data.label_counts() >= FEWEST_LABELS

    def estimates(self, log_proba: np.ndarray) -> dict[str, Estimate]:
        """Return the starts of `transition_init` by name, the most cautious first.

        Parameters
        ----------
        log_proba : ndarray of shape (n_samples, n_classes)
            What the network says of all rows, or those of the folds of the rows they were not
            trained on.
        """
        if self.config.transition_init == "cluster":
            clusters = partial(cluster_start, random_state=self.seed)
            return {"cluster": self._estimate(clusters, log_proba)}
        unseen = np.concatenate([np.asarray(fold.valid) for fold in self.folds])
        calibrated = partial(calibrated_start, random_state=self.seed)
        simple = self._estimate(calibrated, log_proba, unseen)
        mixture = self._estimate(partial(mixture_start, random_state=self.seed), log_proba)
        found = {"calibrated": simple, "mixture": mixture}
        if len(self.folds) == 1:
            found["confident"] = self._estimate(confident_start, log_proba)
            found["hard"] = self._estimate(hard_start, log_proba)
        elif self.config.select_noise_model:
            gain = mixture.log_likelihood - simple.log_likelihood
            if gain <= self.penalty("mixture", mixture.transition):
                del found["mixture"]
        return found

    def penalty(self, start: str | None, transition: np.ndarray | None) -> float:
        """Return how much likelier a start makes the labels that it was estimated from.

        By half for each free entry, here those that stand for at least one label. Nothing where
        few of the labels that judge were among those of the estimate, or it was shrunk.
        """
        if len(self.folds) == 1 or transition is None or start in ("array", "calibrated"):
            return 0.0
        n_labels = transition * self.data.label_counts()[:, None]
        free = (n_labels >= 1) & ~np.eye(self.data.n_classes, dtype=bool)
        return int(np.count_nonzero(free)) / (2 * len(self.data))

    def _estimate(
        self, start: Callable[..., Any], log_proba: np.ndarray, rows: np.ndarray | None = None
    ) -> Estimate:
        """Estimate the noise among the classes with enough labels; others keep their label."""
        data, classes = self.data, np.flatnonzero(self.supported)
        rows = np.arange(len(data)) if rows is None else rows
        rows = rows[self.supported[data.target[rows]]]
        seen = log_proba[np.ix_(rows, classes)]
        found = start(
            seen - np.logaddexp.reduce(seen, axis=1, keepdims=True),
            np.searchsorted(classes, data.target[rows]),
            None if data.weight is None else data.weight[rows],
        )
        found = found if isinstance(found, Estimate) else Estimate(found, np.nan)
        transition = np.eye(data.n_classes)
        transition[np.ix_(classes, classes)] = found.transition
        return found._replace(transition=transition)
