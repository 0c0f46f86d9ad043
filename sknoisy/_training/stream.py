"""Learning from a stream, in one pass over rows that come a chunk at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import unique_labels

from sknoisy._data.training_data import Observations
from sknoisy._support.labels import as_label_array
from sknoisy._support.progress import FitProgress
from sknoisy._support.random import draw_seed
from sknoisy._support.validation import refused_as
from sknoisy._training.net import NoiseAdaptationNet
from sknoisy._training.stages import Plan
from sknoisy._transition.starts import cluster_start, confusion_start, mixture_start

_ROWS_OF_A_BLOCK = 1000
_ROWS_OF_A_BLOCK_PER_CLASS = 10


def streams(classifier: Any) -> bool:
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
    with refused_as("classes", "hold all labels that will ever come"):
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
    """

    def __init__(self, random_state: np.random.RandomState) -> None:
        self.random_state = random_state
        self.prior: np.ndarray | float = 0.0
        self.n_rows = 0
        self.block: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.highest = -np.inf
        self.misses = 0

    def running_prior(self, prior: np.ndarray, n_rows: int) -> np.ndarray:
        """Return the mean clean probability of all rows so far, after that of a chunk."""
        self.n_rows += n_rows
        self.prior = self.prior + (prior - self.prior) * n_rows / self.n_rows
        return np.asarray(self.prior)

    def find_start(
        self, net: NoiseAdaptationNet, data: Observations, plan: Plan
    ) -> np.ndarray | None:
        """Return the matrix to start the noise layer from, or None while the baseline improves.

        The rows of a chunk are predicted before they are learned, so they are held-out rows.
        """
        if not isinstance(plan.transition_init, str):
            return plan.transition_init
        if not len(net.history):
            return None
        log_proba = net.clean_log_proba(data.dataset()).numpy()
        weight = np.ones(len(data)) if data.weight is None else data.weight
        self.block.append((log_proba, data.target, weight))
        needed = max(_ROWS_OF_A_BLOCK, _ROWS_OF_A_BLOCK_PER_CLASS * data.n_classes)
        if sum(len(target) for _, target, _ in self.block) < needed:
            return None
        log_proba, target, weight = (np.concatenate(part) for part in zip(*self.block, strict=True))
        self.block = []
        log_likelihood = log_proba[np.arange(len(target)), target]
        mean = np.average(log_likelihood, weights=weight)
        if mean > self.highest + log_likelihood.std() / np.sqrt(len(target)):
            self.highest, self.misses = mean, 0
        else:
            self.misses += 1
        if self.misses < plan.n_iter_no_change:
            return None
        if plan.transition_init == "confusion":
            return confusion_start(log_proba, target, weight)
        start = cluster_start if plan.transition_init == "cluster" else mixture_start
        return start(log_proba, target, weight, random_state=draw_seed(self.random_state))


def learn_chunk(
    net: NoiseAdaptationNet,
    data: Observations,
    plan: Plan,
    stream: Stream,
    progress: FitProgress,
) -> np.ndarray | None:
    """Go over the rows once.

    Returns
    -------
    ndarray of shape (true, observed) or None
        Where the noise layer starts, if it starts with these rows.
    """
    network = net.network
    start = None
    if plan.noise_model is None:
        network.noise = None
    elif network.noise is None:
        start = stream.find_start(net, data, plan)
    elif plan.noise_model == "c" and not network.noise.depends_on_features:
        start = network.noise.matrix()
    if start is not None:
        if plan.noise_model == "s":
            network.attach_class_noise(
                start, learnable=plan.learn_transition, n_targets=plan.n_noise_targets
            )
        else:
            network.attach_feature_noise(start, n_targets=plan.n_noise_targets)
    net.train_stage(
        "baseline" if network.noise is None else str(plan.noise_model),
        data.dataset(),
        None,
        max_epochs=1,
        patience=1,
        generator=torch.Generator().manual_seed(draw_seed(stream.random_state)),
        progress=progress,
        resume=True,
    )
    return start
