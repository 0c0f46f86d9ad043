"""Noise models for given out-of-sample probabilities, and the choice between them.

The probabilities are those of a classifier that was trained on the observed labels as they are, for
rows that it did not see. A noise model maps them to probabilities of the true label and has a
transition matrix; together they say how likely each observed label is. Each model is fitted to a
part of the rows and judged by the labels of the others, so that a flexible one is not taken for its
flexibility, and a hard problem not for noise. What such labels cannot tell from the best model is
averaged with it.

Then each row learns from its neighbours, rows with similar predictions: its probabilities are
averaged with their posteriors, as far as that makes the labels of the rows likelier, which their
neighbours' posteriors have not seen. It is an M-step with a classifier by nearest neighbours, which
finds what a linear map of the predictions cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import gen_batches

from sknoisy._support.threads import threads_for_classes
from sknoisy._support.validation import FloatArray
from sknoisy._transition.calibration import (
    Recalibration,
    raise_to,
    recalibrate,
    sharpen,
    uniform_noise,
    with_pooled_noise,
    without_noise,
)
from sknoisy._transition.counts import floored, soft_counts
from sknoisy._transition.mixture import clean_log_proba as of_mixture
from sknoisy._transition.mixture import fit_mixture
from sknoisy._transition.softmax_layer import SoftmaxLayer, fit_softmax_layer, fit_tied_layer

#: Of each row what is below this probability makes no difference to a layer.
_SMALLEST_SCORE = 0.01

_SMALLEST_TRANSITION = 1e-12

#: Models are fitted to 4,000 to 20,000 rows, the fewer the more classes there are, and judged
#: by halves of them; of few rows a half would say too little.
_ROWS_TO_FIT = (4_000, 20_000)
_FEWEST_ROWS_FOR_HALVES = 5_000
_PARTS_OF_FEW_ROWS = 4

#: Labels that draw a free matrix to what it starts from: where it is fitted to rows that its model
#: did not see, where it is fitted along with a layer, and where nothing else corrects errors.
_FEW_PRIOR_LABELS = 10.0
_PRIOR_LABELS = 20.0
_MANY_PRIOR_LABELS = 100.0

#: With a rate of zero nothing would be drawn to noise.
_SMALLEST_RATE = 0.02

#: Standard errors by which noise must be likelier, to be counted.
_ERRORS = 0.5

#: Numbers of neighbours that are tried, and of neighbours that the row itself stands for. Of twenty
#: pairs the best one must make labels likelier by three standard errors: by chance it does so in
#: three of a hundred data sets at most (Bonferroni).
_NEIGHBOURS = (3, 5, 10, 20, 30)
_OWN_WEIGHTS = (1.0, 3.0, 10.0, 30.0)
_ERRORS_OF_NEIGHBOURS = 3.0

#: More classes than these have no layers, or no mixture.
_MOST_CLASSES_FOR_LAYERS = 50
_MOST_CLASSES_FOR_MIXTURES = 100

_STEPS_ON_ALL_ROWS = 5
_ELEMENTS_AT_ONCE = 2**21
_ELEMENTS_FOR_ONE_RATE = 200_000


class NoiseModel(NamedTuple):
    """A fitted noise model.

    Attributes
    ----------
    predict : callable
        From log-probabilities of the observed labels to those of the true ones, both of shape
        (n_samples, n_classes).
    transition : ndarray of shape (true, observed)
    """

    predict: Callable[[FloatArray], FloatArray]
    transition: FloatArray

    def log_column(self, target: np.ndarray) -> FloatArray:
        """Return log p(observed label | true label), shape (n_samples, true)."""
        return _log_column(self.transition, target)


def _log_column(transition: FloatArray, target: np.ndarray) -> FloatArray:
    return np.log(np.maximum(transition, _SMALLEST_TRANSITION)).T[target]


#: From rows to a model that is fitted to them.
Fit = Callable[["_Rows"], NoiseModel]


class NoiseFit(NamedTuple):
    """What the probabilities and the chosen noise model say.

    Attributes
    ----------
    name : str
        Of the noise model that makes unseen labels likeliest.
    recalibration : Recalibration
        Of all rows, with the matrix of the noise model, whether noise was detected or not.
    held_out : Recalibration
        Of the rows that the models were judged by, each by a model that was not fitted to it.
    rows : ndarray of shape (n_rows,)
        Which rows these are.
    gains : list of ndarray of shape (n_rows,)
        Log-likelihood of the labels of these rows with the noise model, less that without noise:
        with sharpened probabilities and, up to fifty classes, with a linear map of them.
    """

    name: str
    recalibration: Recalibration
    held_out: Recalibration
    rows: np.ndarray
    gains: list[FloatArray]

    @property
    def is_likelier(self) -> bool:
        """Whether noise explains labels of unseen rows better than any way without.

        By half a standard error at least. It is no test, which would find no noise in small data
        that are full of it; what is found in error is little, since the models are cautious.
        """
        return all(gain.mean() > _ERRORS * gain.std() / np.sqrt(len(gain)) for gain in self.gains)


def fit_noise_model(
    log_proba: FloatArray, target: np.ndarray, *, random_state: int | None = 0
) -> NoiseFit:
    """Fit noise models of rising flexibility and keep those that explain unseen labels best.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, n_classes)
        Log-probabilities of the observed labels, for rows that the classifier did not see.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    random_state : int or None, default=0
        Of the rows that models are fitted to, and of their parts.

    Returns
    -------
    NoiseFit
    """
    n_samples, n_classes = log_proba.shape
    random = np.random.RandomState(random_state)
    n_most = int(np.clip(4e7 / n_classes**2, *_ROWS_TO_FIT))
    rows = np.sort(random.permutation(n_samples)[:n_most])
    some, labels = log_proba[rows], target[rows]
    few = n_classes <= _MOST_CLASSES_FOR_LAYERS
    n_parts = _PARTS_OF_FEW_ROWS if few and len(rows) < _FEWEST_ROWS_FOR_HALVES else 2
    order = np.lexsort((random.permutation(len(rows)), labels))
    part = np.empty(len(rows), dtype=np.intp)
    part[order] = np.arange(len(rows)) % n_parts
    models = {name: _MODELS[name] for name in _names(n_classes)}
    nulls = {name: fit for name, fit in _WITHOUT.items() if few or name == "sharpened"}
    with threads_for_classes(n_classes):
        unseen = _cross_fit({**models, **nulls}, some, labels, part)
        scores = {name: _log_likelihood(unseen[name], labels) for name in unseen}
        name = max(models, key=lambda name: scores[name].mean())
        alike = [other for other in models if _is_as_good(scores[other], scores[name])]
        every = _Rows(some, labels)
        fitted = [models[other](every) for other in alike]
        start = np.mean([model.transition for model in fitted], axis=0)
        held_out = _recalibrated(
            alike, _mean([unseen[other].clean_log_proba for other in alike]), labels, start
        )
        clean = raise_to(_mean([model.predict(log_proba) for model in fitted]), held_out.sharpness)
        if few and len(rows) > _NEIGHBOURS[-1] + 1:
            held_out, clean = _learn_from_neighbours(
                held_out, clean, _scores(log_proba), rows, labels, alike
            )
        transition = held_out.transition
        assert transition is not None
        if len(rows) < n_samples:
            transition = _recount(clean, target, transition)
    log_column = _log_column(transition, target)
    of_all = held_out._replace(clean_log_proba=clean, transition=transition, log_column=log_column)
    gains = [scores[name] - scores[null] for null in nulls]
    return NoiseFit(name, of_all, held_out, rows, gains)


def _names(n_classes: int) -> Sequence[str]:
    """Return the names of the models for so many classes, the simplest first."""
    if n_classes <= _MOST_CLASSES_FOR_LAYERS:
        return tuple(_MODELS)
    return _OF_MANY_CLASSES if n_classes <= _MOST_CLASSES_FOR_MIXTURES else _OF_VERY_MANY_CLASSES


class _Unseen(NamedTuple):
    """What models that were not fitted to a row say of it; arrays of shape (n_rows, true)."""

    clean_log_proba: FloatArray
    log_column: FloatArray


def _cross_fit(
    models: dict[str, Fit], log_proba: FloatArray, target: np.ndarray, part: np.ndarray
) -> dict[str, _Unseen]:
    """Fit the models to the rows outside each part, and let them judge those inside."""
    unseen = {name: _Unseen(*np.empty((2, *log_proba.shape))) for name in models}
    for number in range(part.max() + 1):
        inside = part == number
        rows = _Rows(log_proba[~inside], target[~inside])
        for name, fit in models.items():
            model = fit(rows)
            unseen[name].clean_log_proba[inside] = model.predict(log_proba[inside])
            unseen[name].log_column[inside] = model.log_column(target[inside])
    return unseen


def _is_as_good(score: FloatArray, best: FloatArray) -> bool:
    """Whether labels are less likely by one standard error at most."""
    loss = best - score
    return bool(loss.mean() <= loss.std() / np.sqrt(len(loss)))


def _mean(log_proba: Sequence[FloatArray]) -> FloatArray:
    """Return logarithms of mean probabilities."""
    if len(log_proba) == 1:
        return log_proba[0]
    return np.asarray(logsumexp(log_proba, axis=0)) - np.log(len(log_proba))


def _recalibrated(
    names: Sequence[str], log_proba: FloatArray, target: np.ndarray, start: FloatArray
) -> Recalibration:
    """Fit sharpness and matrix once more, to what was said of rows that no model did see."""
    free = [name for name in names if name not in _UNIFORM]
    if not free:
        return with_pooled_noise(log_proba, target)
    n_prior = np.mean([_MANY_PRIOR_LABELS if n == "matrix" else _FEW_PRIOR_LABELS for n in free])
    strength = float(n_prior) / log_proba.shape[1]
    return recalibrate(log_proba, target, start, pseudo_count=strength)


def _learn_from_neighbours(
    held_out: Recalibration,
    clean: FloatArray,
    scores: FloatArray,
    rows: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
) -> tuple[Recalibration, FloatArray]:
    """Average probabilities with the posteriors of rows that have similar predictions.

    Parameters
    ----------
    held_out : Recalibration
        Of `rows`, by models that were not fitted to them.
    clean : ndarray of shape (n_samples, true)
        Log-probabilities of all rows.
    scores : ndarray of shape (n_samples, n_classes)
        By which rows are similar.
    rows : ndarray of shape (n_rows,)
        Rows that may be neighbours. No row is its own.
    labels : ndarray of shape (n_rows,)
        Their encoded observed labels.
    names : sequence of str
        Of the noise models.

    Returns
    -------
    held_out : Recalibration
    clean : ndarray of shape (n_samples, true)
        The same as given, unless the labels of the rows become clearly likelier.
    """
    neighbours = _neighbours(scores, rows)
    posterior, proba = held_out.posterior, np.exp(held_out.clean_log_proba)
    column = np.exp(held_out.log_column)
    total, n_summed, gains = np.zeros_like(proba), 0, {}
    for n_neighbours in _NEIGHBOURS:
        while n_summed < n_neighbours:
            total += posterior[neighbours[rows, n_summed]]
            n_summed += 1
        for weight in _OWN_WEIGHTS:
            likelihood = ((total + weight * proba) * column).sum(axis=1) / (n_neighbours + weight)
            gain = np.log(np.maximum(likelihood, 1e-300)) - held_out.log_likelihood
            gains[weight, n_neighbours] = gain
    best = max(gains.values(), key=lambda gain: gain.mean())
    if best.mean() <= _ERRORS_OF_NEIGHBOURS * best.std() / np.sqrt(len(best)):
        return held_out, clean
    # As near to what was given as is as good.
    weight = max(weight for (weight, _), gain in gains.items() if _is_as_good(gain, best))
    n_neighbours = max(_NEIGHBOURS, key=lambda number: gains[weight, number].mean())
    transition = held_out.transition
    assert transition is not None
    smooth = _smoothed(posterior, held_out.clean_log_proba, neighbours[rows, :n_neighbours], weight)
    found = _recalibrated(names, smooth, labels, transition)
    posterior = softmax(clean[rows] + held_out.log_column, axis=1)
    smooth = _smoothed(posterior, clean, neighbours[:, :n_neighbours], weight)
    return found, raise_to(smooth, found.sharpness)


def _neighbours(scores: FloatArray, rows: np.ndarray) -> np.ndarray:
    """Return positions in `rows` of the rows that are nearest to each row, the nearest first."""
    n_most = _NEIGHBOURS[-1]
    scores = scores.astype(np.float32)  # brute force takes a quarter of the time of a tree
    search = NearestNeighbors(n_neighbors=n_most + 1, algorithm="brute").fit(scores[rows])
    found = search.kneighbors(scores, return_distance=False)
    position = np.full(len(scores), -1)
    position[rows] = np.arange(len(rows))
    left_out = found == position[:, None]
    left_out[~left_out.any(axis=1), -1] = True
    return found[~left_out].reshape(len(scores), n_most)


def _smoothed(
    posterior: FloatArray, log_proba: FloatArray, neighbours: np.ndarray, weight: float
) -> FloatArray:
    """Return logarithms of the mean of posteriors of neighbours and of weighted probabilities."""
    total = weight * np.exp(log_proba)
    for nearest in neighbours.T:
        total += posterior[nearest]
    return np.log(np.maximum(total / total.sum(axis=1, keepdims=True), _SMALLEST_TRANSITION))


def _log_likelihood(unseen: _Unseen, target: np.ndarray) -> FloatArray:
    joint = unseen.clean_log_proba + unseen.log_column
    return np.log(np.maximum(np.exp(joint).sum(axis=1), 1e-300))


def _recount(log_clean: FloatArray, target: np.ndarray, transition: FloatArray) -> FloatArray:
    """Take a few steps of EM on all rows, of a matrix that was fitted to some of them."""
    n_classes, prior = len(transition), _PRIOR_LABELS * transition
    batches = list(gen_batches(len(target), max(1, _ELEMENTS_AT_ONCE // n_classes)))
    for _ in range(_STEPS_ON_ALL_ROWS):
        counts = prior.copy()
        for rows in batches:
            posterior = np.exp(log_clean[rows]) * transition.T[target[rows]]
            posterior /= posterior.sum(axis=1, keepdims=True)
            counts += soft_counts(posterior, target[rows], n_classes)
        transition = counts / counts.sum(axis=1, keepdims=True)
    return transition


# The models


class _Rows:
    """Rows that models are fitted to, and the simple models that others start from.

    Parameters
    ----------
    log_proba : ndarray of shape (n_rows, n_classes)
    target : ndarray of shape (n_rows,)
    """

    def __init__(self, log_proba: FloatArray, target: np.ndarray) -> None:
        self.log_proba = log_proba
        self.target = target
        self.n_classes = log_proba.shape[1]

    @cached_property
    def scores(self) -> FloatArray:
        return _scores(self.log_proba)

    @cached_property
    def uniform(self) -> NoiseModel:
        """One sharpness and one rate of errors."""
        every = max(1, self.log_proba.size // _ELEMENTS_FOR_ONE_RATE)
        fit = with_pooled_noise(self.log_proba[::every], self.target[::every])
        assert fit.transition is not None
        return _sharpened(fit.sharpness, fit.transition)

    @cached_property
    def prior(self) -> FloatArray:
        """Errors at that rate, which free matrices are drawn to."""
        rate = 1.0 - self.uniform.transition[0, 0]
        return uniform_noise(max(rate, _SMALLEST_RATE), self.n_classes)

    def matrix(self, n_prior: float) -> NoiseModel:
        """One sharpness and a free matrix, with so many labels a class added to those observed."""
        fit = recalibrate(
            self.log_proba, self.target, self.prior, pseudo_count=n_prior / self.n_classes
        )
        assert fit.transition is not None
        return _sharpened(fit.sharpness, fit.transition)

    @cached_property
    def start(self) -> NoiseModel:
        """The free matrix that richer models start from."""
        return self.matrix(_PRIOR_LABELS)

    @cached_property
    def mixture(self) -> NoiseModel:
        """Gaussian classes with noisy labels."""
        posterior = self.start.predict(self.log_proba) + self.start.log_column(self.target)
        fit = fit_mixture(
            self.log_proba,
            self.target,
            random_state=0,
            starts=[posterior.argmax(axis=1)],
            n_clusterings=int(self.n_classes <= _MOST_CLASSES_FOR_LAYERS),
        )
        mixture = fit.mixture
        return NoiseModel(lambda given: of_mixture(mixture, fit.view(given)), mixture.transition)

    @cached_property
    def tied(self) -> SoftmaxLayer:
        """A layer whose weights are the matrix."""
        start = self.start.transition
        return fit_tied_layer(self.scores, self.target, start, prior=_PRIOR_LABELS * self.prior)

    def layer(self, penalty: float, matrix: str) -> NoiseModel:
        """Fit a softmax layer.

        Parameters
        ----------
        penalty : float
            Of its weights.
        matrix : {"fixed", "uniform", "matrix", "tied", "mixture"}
            "fixed" is the identity, "uniform" has one rate of errors; "matrix", "tied" and
            "mixture" are free and start from these models.
        """
        bias: FloatArray = np.zeros(self.n_classes)
        if matrix == "tied":
            weight, bias, transition = self.tied
        elif matrix == "mixture":
            weight, bias = _linear_map(self.scores, self.mixture.predict(self.log_proba))
            transition = floored(self.mixture.transition, 1e-4)
        else:
            by_name = {"fixed": np.eye(self.n_classes), "uniform": self.prior}
            transition = by_name.get(matrix, self.start.transition)
            log_column = np.log(np.maximum(transition, 1e-300)).T[self.target]
            weight = sharpen(self.scores, log_column).sharpness * np.eye(self.n_classes)
        layer = fit_softmax_layer(
            self.scores,
            self.target,
            SoftmaxLayer(weight, bias, transition),
            penalty=penalty,
            matrix=matrix if matrix in ("fixed", "uniform") else _drawn_to_its_rate(transition),
        )
        return _on_scores(layer)


#: The two ways to explain labels without noise.
_WITHOUT: dict[str, Fit] = {
    "sharpened": lambda rows: _sharpened(
        without_noise(rows.log_proba, rows.target).sharpness, np.eye(rows.n_classes)
    ),
    "layer": lambda rows: rows.layer(10.0, "fixed"),
}

#: The simplest first.
_MODELS: dict[str, Fit] = {
    "uniform": lambda rows: rows.uniform,
    "matrix": lambda rows: rows.matrix(_MANY_PRIOR_LABELS),
    "layer, uniform": lambda rows: rows.layer(10.0, "uniform"),
    "mixture": lambda rows: rows.mixture,
    "layer, matrix": lambda rows: rows.layer(10.0, "matrix"),
    "tied layer": lambda rows: _on_scores(rows.tied),
    "layer on tied": lambda rows: rows.layer(10.0, "tied"),
    "free layer, matrix": lambda rows: rows.layer(1.0, "matrix"),
    "layer on mixture": lambda rows: rows.layer(1.0, "mixture"),
}
_UNIFORM = ("uniform", "layer, uniform")
_OF_MANY_CLASSES = ("uniform", "matrix", "mixture")
_OF_VERY_MANY_CLASSES = ("uniform", "matrix")


def _drawn_to_its_rate(transition: FloatArray) -> FloatArray:
    """Return labels that draw the errors of all classes to the mean rate of a matrix."""
    rate = float(np.mean(1.0 - np.diag(transition)))
    return _PRIOR_LABELS * uniform_noise(max(rate, _SMALLEST_RATE), len(transition))


def _sharpened(sharpness: float, transition: FloatArray) -> NoiseModel:
    return NoiseModel(lambda given: raise_to(given, sharpness), transition)


def _on_scores(layer: SoftmaxLayer) -> NoiseModel:
    return NoiseModel(lambda given: layer.clean_log_proba(_scores(given)), layer.transition)


def _scores(log_proba: FloatArray) -> FloatArray:
    scores = np.log(np.exp(log_proba) + min(_SMALLEST_SCORE, 1.0 / log_proba.shape[1]))
    return scores - scores.mean(axis=1, keepdims=True)


def _linear_map(scores: FloatArray, log_clean: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return weights and biases that give about these log-probabilities, by ridge regression."""
    wanted = np.maximum(log_clean, np.log(_SMALLEST_TRANSITION))
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    middle, level = scores.mean(axis=0), wanted.mean(axis=0)
    centred = scores - middle
    ridge = 1e-3 * len(scores) * np.eye(scores.shape[1])
    weight = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (wanted - level))
    return weight, level - middle @ weight
