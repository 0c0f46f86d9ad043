"""Estimates of the noise from what a network says of rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sknoisy._data.training_data import TrainingData
from sknoisy._data.trusted import UNKNOWN
from sknoisy._stages.folds import Fold
from sknoisy._stages.selection import Start
from sknoisy._stages.stages import TrainingConfig
from sknoisy._transition.calibration import are_few_rows, mean_gain
from sknoisy._transition.many_classes import sparse_mixture_start
from sknoisy._transition.starts import (
    Estimate,
    calibrated_start,
    cluster_start,
    confident_start,
    hard_start,
    mixture_start,
    recounted_start,
    sparse_start,
    uniform_start,
)

#: A class with fewer observed labels is left out of the noise.
FEWEST_LABELS = 10

#: With more classes than these the mixture is the sparse one, and predictions come in parts.
MANY_CLASSES = 100

#: The noise is estimated again from the network that was trained jointly, while rows times classes
#: are not too many for memory: where starts are poor, as with few rows or from so many classes on;
#: and to refine it where rows are not many, since more of each class gained nothing, and there are
#: classes enough for most entries of a row to be zero. With a class more, matrices of few entries
#: are sought and believed: fewer lose by it.
MANY_CLASSES_FOR_A_START = 50
FEWEST_CLASSES_TO_REFINE = 5
ROWS_TO_REFINE = 100, 600
FEWEST_CLASSES_FOR_STRUCTURE = 6
MOST_PREDICTIONS_TO_RECOUNT = 20_000_000

#: Standard errors by which an estimate must be behind, beside the same predictions, to be left out.
ERRORS_OF_ESTIMATES = 2.0

#: Total variation, mean over the classes and that of any class, of starts that one training stands
#: for, and of a start that says so little noise that training with it is plain training.
ALL_BUT_THE_SAME = 0.02, 0.1
ALL_BUT_NONE = 0.005, 0.05

#: Mean total variation of matrices from which on a network that was trained with one is not worth
#: keeping for the other.
FAR_APART = 0.1

#: From row numbers to log-probabilities, an array of shape (n_rows, n_classes).
Predict = Callable[[np.ndarray], np.ndarray]


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
        Classes with enough observed labels for an estimate of their noise, or with checked ones.
    optimism : float
        By how much the last sparse or calibrated estimate explains a label better that it was
        estimated from: measured for that of a jointly trained network, and before that by the
        entries of the calibrated one, but zero with few classes or few rows of each.
    """

    def __init__(
        self, data: TrainingData, config: TrainingConfig, folds: Sequence[Fold], seed: int
    ) -> None:
        self.data = data
        self.config = config
        self.folds = folds
        self.seed = seed
        self.optimism = 0.0
        checked = np.bincount(data.target[data.rows_trusted], minlength=data.n_classes)
        self.supported = (data.label_counts() >= FEWEST_LABELS) | (checked > 0)

    def estimates(self, predict: Predict) -> dict[str, Estimate]:
        """Return the starts of `transition_init` by name, the most cautious first.

        Parameters
        ----------
        predict : callable
            From an array of row numbers to log-probabilities of shape (n_rows, n_classes): what the
            network says of these rows, or those of the folds of the rows they were not trained on.
        """
        if self.config.transition_init != "cluster" and self.data.n_classes > MANY_CLASSES:
            return {
                "calibrated": self.estimate(self._seeded(calibrated_start), predict, self.unseen),
                "mixture": self._estimate_by_parts(self._seeded(sparse_mixture_start), predict),
            }
        if self.config.hold_out:
            predict = predict(np.arange(len(self.data))).astype(np.float64).__getitem__
        if self.config.transition_init == "cluster":
            return {"cluster": self.estimate(self._seeded(cluster_start), predict)}
        hold_out = self.config.hold_out
        found = self._without_counts(predict)
        simple, mixture = found["calibrated"], found["mixture"]
        if hold_out:
            found = {"uniform": self.estimate(uniform_start, predict, self.unseen), **found}
            found["confident"] = self.estimate(confident_start, predict)
            found["hard"] = self.estimate(hard_start, predict)
        elif self.leaves_parts_out:
            others = [of_others._without_counts(predict) for of_others in self._without_parts()]
            found = {
                name: one._replace(of_parts=[other[name].transition for other in others])
                for name, one in found.items()
            }
        elif self.config.select_noise_model and not (mixture.is_simple and self.can_tell_structure):
            # One of few parameters explains less by itself, but is mostly nearer to the truth.
            gain = mixture.log_likelihood - simple.log_likelihood
            if gain <= self.of_entries(mixture.transition):
                del found["mixture"]
        return found

    def _without_counts(self, predict: Predict) -> dict[str, Estimate]:
        """Return the calibrated start and the mixture; predictions are of all rows at once."""
        calibrated = partial(calibrated_start, may_be_uniform=not self.config.hold_out)
        mixture = partial(mixture_start, smooth=self.judges_apart)
        return {
            "calibrated": self.estimate(self._seeded(calibrated), predict),
            "mixture": self.estimate(self._seeded(mixture), predict),
        }

    @property
    def leaves_parts_out(self) -> bool:
        """Whether each part of the rows judges an estimate from the others.

        Few rows of each class leave much to chance: an estimate explains the labels that it was
        made from far better than others, by more than its entries tell. With more rows an estimate
        from some parts is too far from that of all.
        """
        return self.has_few_rows and len(self.folds) > 1 and self.data.trusted is None

    def _without_parts(self) -> list[NoiseEstimator]:
        """Return an estimator for each part, which estimates from the others."""
        return [
            NoiseEstimator(self.data, self.config, others, self.seed)
            for part in self.folds
            for others in [[fold for fold in self.folds if fold is not part]]
        ]

    @property
    def can_tell_structure(self) -> bool:
        """Whether a mixture is worth more than it explains; with few rows starts are refined."""
        return self.has_some_classes and not self.has_few_rows

    @property
    def has_some_classes(self) -> bool:
        """Whether a class has so many others that most entries of its row may be zero."""
        return int(self.supported.sum()) >= FEWEST_CLASSES_FOR_STRUCTURE

    @property
    def has_few_rows(self) -> bool:
        """Whether the rows of a class are too few for all entries of its row of the matrix.

        Among the classes whose noise is estimated; very many keep one rate in any case.
        """
        n_rows, n_classes = self._supported_shape
        return n_classes <= MANY_CLASSES and are_few_rows(n_rows, n_classes)

    @property
    def _can_refine(self) -> bool:
        """Whether rows and classes are some, so that another estimate may be better."""
        n_rows, n_classes = self._supported_shape
        some = FEWEST_CLASSES_TO_REFINE <= n_classes <= MANY_CLASSES
        return some and are_few_rows(n_rows, n_classes, *ROWS_TO_REFINE)

    @property
    def _supported_shape(self) -> tuple[int, int]:
        """Number of rows, and of classes, whose noise is estimated."""
        return len(self._supported_rows(self.data.rows_observed)), int(self.supported.sum())

    @property
    def starts_are_poor(self) -> bool:
        """Whether the baseline knows too little for a good start: few rows, or many classes."""
        return self.has_few_rows or self.has_many_classes

    @property
    def has_many_classes(self) -> bool:
        """Whether classes are too many for a good start, however many rows there are."""
        return self.config.hold_out and self.data.n_classes >= MANY_CLASSES_FOR_A_START

    @property
    def can_recount(self) -> bool:
        """Whether the noise is estimated again from the network that was trained jointly."""
        init = self.config.transition_init
        return (
            isinstance(init, str)
            and init == "auto"
            and bool(self.folds)
            and (self.starts_are_poor or self._can_refine)
            and self.data.n_classes * len(self.data) <= MOST_PREDICTIONS_TO_RECOUNT
        )

    def recounts(
        self, predict: Predict, *, balanced: bool = True, sparse: bool = True
    ) -> dict[str, Estimate]:
        """Return estimates from the clean predictions of a network that was trained jointly.

        One is that of one wrong label a class, unless labels that were left out are clearly
        likelier beside a matrix that is shrunk to one rate. Where rows are held out and starts are
        not poor, the mixture is another.

        Parameters
        ----------
        predict : callable
            As for `estimates`.
        balanced : bool, default=True
            Whether one wrong label a class is sought where classes are as frequent as their labels.
        sparse : bool, default=True
            Whether one wrong label a class is sought where the rows of a class are not few.

        Returns
        -------
        dict of str to Estimate
            By the name of the start.
        """
        predict = predict(np.arange(len(self.data))).astype(np.float64).__getitem__
        found = self._recounted(predict, balanced=balanced, sparse=sparse)
        if self.config.hold_out and not self.starts_are_poor:
            start = self._seeded(partial(mixture_start, from_clusters=False))
            found["mixture"] = self.estimate(start, predict)
        return found

    def _recounted(self, predict: Predict, *, balanced: bool, sparse: bool) -> dict[str, Estimate]:
        observed = self.data.rows_observed
        unseen = np.isin(self._supported_rows(observed), self.unseen)
        if sparse or self.has_few_rows:
            start, rows = self._seeded(sparse_start), self.counted
            start = partial(start, may_be_symmetric=self.has_some_classes)
            if self.config.hold_out:
                start = partial(start, judged=unseen, apart=self.judges_apart)
                rows = observed
            elif self.leaves_parts_out:
                start = partial(start, part=self._parts_of(self._supported_rows(rows)))
            found = self.estimate(start, predict, rows)
            shrunk = self._seeded(partial(calibrated_start, left_out=True))
            simple = self.estimate(shrunk, predict, self.unseen)
            if not self._is_behind(found, simple):
                if balanced:
                    found = self.estimate(partial(start, balanced=True), predict, rows)
                self.optimism = found.optimism
                return {"sparse": found}
            if not self.config.hold_out:
                self.optimism = simple.optimism
                return {"calibrated": self._with_parts(simple, shrunk, predict)}
        recounted = partial(recounted_start, unseen=np.flatnonzero(unseen), apart=self.judges_apart)
        return {"recounted": self.estimate(recounted, predict, observed)}

    def _parts_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of the fold that holds each of some rows out."""
        part = np.empty(len(self.data), dtype=np.intp)
        for number, fold in enumerate(self.folds):
            part[fold.valid] = number
        return part[rows]

    def _with_parts(
        self, estimate: Estimate, start: Callable[..., Any], predict: Predict
    ) -> Estimate:
        """Return an estimate with those without each part, if parts judge it."""
        others = self._without_parts() if self.leaves_parts_out else []
        found = [other.estimate(start, predict, other.unseen).transition for other in others]
        return estimate._replace(of_parts=found)

    def _is_behind(self, estimate: Estimate, other: Estimate) -> bool:
        """Whether it explains labels that were left out clearly worse than another one.

        So it is if they cannot be compared, since the other was estimated from some rows only.
        """
        assert estimate.left_out is not None
        if other.left_out is None or len(other.left_out) != len(estimate.left_out):
            return True
        weight = self.data.weight_of(self._supported_rows(self.unseen))
        gain, error = mean_gain(estimate.left_out - other.left_out, weight)
        return bool(gain < -ERRORS_OF_ESTIMATES * error)

    @property
    def unseen(self) -> np.ndarray:
        """Rows that some network was not trained on."""
        return np.sort(np.concatenate([np.asarray(fold.valid) for fold in self.folds]))

    @property
    def judges_apart(self) -> bool:
        """Whether the labels that choose among the starts are not among those of the estimates.

        A label makes the entry that it was counted in likelier, by more than most starts differ.
        With many classes what was held out is counted as well: a network has seen the other rows,
        and of what it says of these little is left but their labels. Where each part is held out in
        turn, all are counted, and starts pay for their entries (see `penalty`), or with few rows
        each part judges an estimate from the others (see `leaves_parts_out`).
        """
        return self.config.hold_out and not self.has_many_classes

    @property
    def counted(self) -> np.ndarray:
        """Rows that a start is estimated from."""
        if self.judges_apart:
            return np.setdiff1d(np.arange(len(self.data)), self.unseen)
        return np.arange(len(self.data)) if self.config.hold_out else self.unseen

    def _supported_rows(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.supported[self.data.observed[rows]]]

    def _seeded(self, start: Callable[..., Any]) -> Callable[..., Any]:
        return partial(start, random_state=self.seed)

    def penalty(self, start: str | None, transition: Start) -> float:
        """Return how much likelier a start makes the labels that it was estimated from.

        By half for each free entry, here those that stand for at least one label. Nothing where no
        labels that judge, or few of them, were among those of the estimate; for a sparse or
        calibrated one that is `optimism`.
        """
        if self.config.hold_out or start == "array":
            return 0.0
        if start in ("sparse", "calibrated"):
            return self.optimism
        return self.of_entries(transition) if isinstance(transition, np.ndarray) else 0.0

    def of_entries(self, transition: np.ndarray, shrunk_by: float = 0.0) -> float:
        """Return half a label for each free entry; one that was shrunk is free by its own share."""
        counts = self.data.label_counts()[:, None]
        free = (transition * counts >= 1) & ~np.eye(self.data.n_classes, dtype=bool)
        share = counts / np.maximum(counts + shrunk_by, 1.0)
        return float((free * share).sum() / (2 * len(self.data)))

    def estimate(
        self, start: Callable[..., Any], predict: Predict, rows: np.ndarray | None = None
    ) -> Estimate:
        """Estimate the noise from the predictions for these rows, or for `counted`."""

        def of_all(predict: Predict, target: np.ndarray, weight: np.ndarray | None) -> Any:
            return start(predict(np.arange(len(target))), target, weight)

        return self._estimate_by_parts(of_all, predict, rows)

    def _estimate_by_parts(
        self, start: Callable[..., Any], predict: Predict, rows: np.ndarray | None = None
    ) -> Estimate:
        """Estimate the noise among the classes with enough labels; others keep their label."""
        data, classes = self.data, np.flatnonzero(self.supported)
        if rows is None:
            rows = self.counted
        rows = self._supported_rows(rows[data.observed[rows] != UNKNOWN])

        def among_classes(part: np.ndarray) -> np.ndarray:
            seen = predict(rows[part])
            if len(classes) == data.n_classes:
                return seen
            seen = seen[:, classes]
            return np.asarray(seen - np.logaddexp.reduce(seen, axis=1, keepdims=True))

        found = start(
            among_classes,
            np.searchsorted(classes, data.observed[rows]),
            data.weight_of(rows),
        )
        found = found if isinstance(found, Estimate) else Estimate(found, np.nan)

        def among_all(matrix: np.ndarray) -> np.ndarray:
            transition = np.eye(data.n_classes)
            transition[np.ix_(classes, classes)] = matrix
            return transition

        return found._replace(
            transition=among_all(found.transition),
            of_parts=[among_all(matrix) for matrix in found.of_parts],
        )


def all_but_the_same(transition: np.ndarray, other: np.ndarray) -> bool:
    """Whether training from one matrix stands for training from the other."""
    return _are_near(transition, other, *ALL_BUT_THE_SAME)


def are_far(transition: np.ndarray, other: np.ndarray) -> bool:
    """Whether training with one matrix is of little worth for training with the other."""
    return not _are_near(transition, other, FAR_APART, np.inf)


def say_no_noise(starts: Sequence[np.ndarray]) -> bool:
    """Whether training with the noise of these matrices would be plain training."""
    return all(_are_near(start, np.eye(len(start)), *ALL_BUT_NONE) for start in starts)


def _are_near(transition: np.ndarray, other: np.ndarray, mean: float, largest: float) -> bool:
    distance = 0.5 * np.abs(transition - other).sum(axis=1)
    return bool(distance.mean() < mean and distance.max() < largest)
