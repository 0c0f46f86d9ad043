r"""A transition matrix for each annotator, from answers and from what a network predicts.

Given the true label, the answers of a row are independent (A. P. Dawid and A. M. Skene, "Maximum
likelihood estimation of observer error-rates using the EM algorithm", Applied Statistics 28, 1979):

.. math:: p(z_1, \ldots, z_m \mid x) = \sum_i p(y=i \mid x) \prod_a T^a_{i z_a}^{\gamma}.

The exponent gamma is one. If annotators err on the same rows it is smaller: m answers then say
less than m independent ones. Each matrix is shrunk towards the one of all annotators together, by
a Dirichlet prior that is worth a few answers of each true class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.utils import gen_batches

from sknoisy._crowd.answers import Answers
from sknoisy._support.validation import FloatArray
from sknoisy._transition.counts import expected_transition, floored

#: Enough where predictions hold the classes in place. Of answers alone more iterations let a class
#: vanish into one that it is confused with.
_MAX_ITER, _MAX_ITER_ALONE = 30, 10
_TOLERANCE = 1e-4
_ELEMENTS_AT_ONCE = 2**22
_ANSWERS_OF_OTHERS = 2.0
_MOST_ROWS_TO_CHOOSE = 10_000
_SMALLEST_LOG_PROBA = -30.0

#: A prior worth so many answers makes all matrices the same.
ALL_ALIKE = 1e6

#: Answers of each true class that the matrix of all annotators is worth, where nothing is chosen.
DEFAULT_PRIOR = 4.0

#: Where no predictions tell whether annotators err alike.
_CAUTIOUS_POWER = 0.5

_POWERS = (1.0, 0.7, 0.5, 0.35, 0.25)
_PRIORS = (1.0, 4.0, 16.0, 64.0, ALL_ALIKE)
_SHARPNESSES = (0.4, 0.7, 1.0, 1.5, 2.2, 3.2)


class AnnotatorNoise(NamedTuple):
    """Transition matrices of annotators, and what they say of the true labels.

    Attributes
    ----------
    transitions : ndarray of shape (n_annotators, true, observed)
    posterior : ndarray of shape (n_rows, true)
        Of the true label, given the answers and, if there are any, predictions.
    answer_power : float
    annotator_prior : float
    """

    transitions: FloatArray
    posterior: FloatArray
    answer_power: float
    annotator_prior: float

    @classmethod
    def of(
        cls,
        transitions: FloatArray,
        answers: Answers,
        annotator_prior: float | None,
        answer_power: float | None,
    ) -> AnnotatorNoise:
        """Return given matrices, (n_annotators, true, observed) or one for all annotators."""
        shape = answers.n_annotators, answers.n_classes, answers.n_classes
        transitions = np.array(np.broadcast_to(transitions, shape))
        prior = DEFAULT_PRIOR if annotator_prior is None else annotator_prior
        power = 1.0 if answer_power is None else answer_power
        return cls(floored(transitions), np.empty((0, 0)), power, prior)


def mean_transition(transitions: FloatArray, answers: Answers) -> FloatArray:
    """Return the mean of the matrices, weighted by answers."""
    return np.asarray(np.average(transitions, axis=0, weights=answers.answers_of_annotators()))


def annotator_counts(
    posterior: np.ndarray, answers: Answers, weight: np.ndarray | None = None
) -> FloatArray:
    """Return soft counts of true against observed classes of each annotator.

    Parameters
    ----------
    posterior : ndarray of shape (n_rows, true)
    answers : Answers
    weight : ndarray of shape (n_rows,), default=None
        Sample weights.

    Returns
    -------
    ndarray of shape (n_annotators, true, observed)
    """
    weighted = np.asarray(posterior if weight is None else posterior * weight[:, None], np.float64)
    counts = answers.indicator().T @ weighted
    shape = answers.n_annotators, answers.n_classes, posterior.shape[1]
    return np.ascontiguousarray(counts.reshape(shape).transpose(0, 2, 1))


def annotator_quality(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the share of right answers of each annotator, with its standard error.

    Shrunk towards that of all annotators, which counts as two answers more.

    Parameters
    ----------
    counts : ndarray of shape (n_annotators, true, observed)
        Soft counts of true against observed classes.

    Returns
    -------
    quality, error : ndarray of shape (n_annotators,)
    """
    right, n_answers = np.trace(counts, axis1=1, axis2=2), counts.sum(axis=(1, 2))
    of_all = right.sum() / n_answers.sum()
    quality = (right + _ANSWERS_OF_OTHERS * of_all) / (n_answers + _ANSWERS_OF_OTHERS)
    return quality, np.sqrt(quality * (1.0 - quality) / (n_answers + _ANSWERS_OF_OTHERS))


def with_true_labels(proba: FloatArray, true_label: np.ndarray | None) -> FloatArray:
    """Return probabilities that are certain of the rows whose true label is known, not -1."""
    if true_label is None:
        return proba
    known = (true_label >= 0)[:, None]
    return np.where(known, np.eye(proba.shape[1])[true_label], proba)


def shrunk_transitions(counts: FloatArray, annotator_prior: float) -> FloatArray:
    """Return the likeliest matrix of each annotator under a prior around that of all together.

    Parameters
    ----------
    counts : ndarray of shape (n_annotators, true, observed)
    annotator_prior : float
        How many answers of each true class the prior is worth.

    Returns
    -------
    ndarray of shape (n_annotators, true, observed)
        Rows sum to one.
    """
    pooled = expected_transition(counts.sum(axis=0))
    mass = counts.sum(axis=2, keepdims=True) + annotator_prior
    return floored((counts + annotator_prior * pooled) / mass)


def log_answer_table(transitions: FloatArray) -> FloatArray:
    """Return the log-probability of each answer given each true class, shape (n_codes, true)."""
    n_annotators, n_true, n_observed = transitions.shape
    columns = np.log(transitions).transpose(0, 2, 1)
    return np.ascontiguousarray(columns.reshape(n_annotators * n_observed, n_true))


def fit_annotators(
    answers: Answers,
    log_proba: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    *,
    annotator_prior: float = 1.0,
    answer_power: float = 1.0,
    start: FloatArray | None = None,
    max_iter: int | None = None,
    true_label: np.ndarray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Estimate the matrices by expectation maximisation; what is predicted stays as it is.

    Parameters
    ----------
    answers : Answers
    log_proba : ndarray of shape (n_rows, n_classes), default=None
        Predicted log-probabilities of the true labels. None stands for the shares of the classes,
        which are then estimated as well, as Dawid and Skene do.
    weight : ndarray of shape (n_rows,), default=None
        Sample weights.
    annotator_prior, answer_power : float, default=1.0
    start : ndarray of shape (n_rows, n_classes), default=None
        Posteriors to start from; None stands for the shares of the votes.
    max_iter : int, default=None
        None is 30 with predictions and 10 without.
    true_label : ndarray of int of shape (n_rows,), default=None
        Of rows where it is known, -1 elsewhere.

    Returns
    -------
    transitions : ndarray of shape (n_annotators, true, observed)
    posterior : ndarray of shape (n_rows, true)
    """
    indicator = answers.indicator()
    if start is None:
        votes = answers.votes()
        start = (votes + 1e-3) / (votes + 1e-3).sum(axis=1, keepdims=True)
        if log_proba is not None:
            start = softmax(np.log(start) + log_proba, axis=1)
    posterior = with_true_labels(start, true_label)
    if max_iter is None:
        max_iter = _MAX_ITER_ALONE if log_proba is None else _MAX_ITER
    for _ in range(max_iter):
        counts = annotator_counts(posterior, answers, weight)
        transitions = shrunk_transitions(counts, annotator_prior)
        if log_proba is None:
            share = np.average(posterior, axis=0, weights=weight)
            log_prior = np.log(np.maximum(share, 1e-12))
        else:
            log_prior = log_proba
        table = answer_power * log_answer_table(transitions)
        last, posterior = posterior, softmax(log_prior + indicator @ table, axis=1)
        posterior = with_true_labels(posterior, true_label)
        if np.abs(posterior - last).max() < _TOLERANCE:
            break
    return transitions, posterior


def unseen_log_likelihood(
    answers: Answers, log_proba: np.ndarray, transitions: FloatArray, answer_power: float
) -> FloatArray:
    """Return how likely each answer is, given the other ones of the row and the prediction.

    ``log p(z_a | x, z_b: b != a)``: a probability, whatever the power is, so that powers can be
    compared by it.

    Parameters
    ----------
    answers : Answers
    log_proba : ndarray of shape (n_rows, n_classes)
    transitions : ndarray of shape (n_annotators, true, observed)
    answer_power : float

    Returns
    -------
    ndarray of shape (n_answers,)
    """
    table = log_answer_table(transitions)
    weighted = answer_power * table
    joint = log_proba + answers.indicator() @ weighted
    row, code = answers.row, answers.code
    found = np.empty(len(code))
    for part in gen_batches(len(code), max(1, _ELEMENTS_AT_ONCE // answers.n_classes)):
        others = joint[row[part]] - weighted[code[part]]
        both = logsumexp(others + table[code[part]], axis=1)
        found[part] = both - logsumexp(others, axis=1)
    return found


def explained_log_likelihood(
    log_proba: np.ndarray,
    answers: Answers,
    weight: np.ndarray | None,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> FloatArray:
    """Return how well predictions explain answers, by matrices that come from other rows.

    Networks can be compared by it, whether they were trained through matrices or not.

    Parameters
    ----------
    log_proba : ndarray of shape (n_rows, n_classes)
    answers : Answers
    weight : ndarray of shape (n_rows,) or None
        Sample weights.
    parts : sequence of pairs of ndarray of int
        Rows from which the matrices are estimated, and rows whose answers are explained.

    Returns
    -------
    ndarray of shape (n_rows,)
        Sum over the answers of a row of ``log p(z_a | x)``, with the sharpness of the predictions
        that suits them best. NaN for rows that are not explained.
    """
    search = _Search(log_proba, answers, weight, parts)
    power = _CAUTIOUS_POWER if (answers.counts > 1).any() else 1.0
    setting = _Setting(DEFAULT_PRIOR, power)
    best = search.best_of(setting, "sharpness", _SHARPNESSES, given_others=False)
    found = np.full(len(answers), np.nan)
    found[search.judging] = search.log_likelihood(best, given_others=False)
    return found


def estimate_annotators(
    log_proba: np.ndarray | None,
    answers: Answers,
    weight: np.ndarray | None = None,
    *,
    annotator_prior: float | None = None,
    answer_power: float | None = None,
    held_out: np.ndarray | None = None,
    true_label: np.ndarray | None = None,
    random_state: int | None = None,
) -> AnnotatorNoise:
    """Estimate the matrices, with prior, power and sharpness that suit unseen answers best.

    Half of the rows are used for the estimate and the other half to judge it, and the other way
    round; or the rows that are held out judge. One of the three is varied at a time.

    An answer can be judged given the other ones of its row, or given the prediction alone. The
    first takes agreement for truth where annotators err alike, the second says little of how sure
    several answers make: the power is the smaller of those that the two suggest.

    Parameters
    ----------
    log_proba : ndarray of shape (n_rows, n_classes) or None
        What a network predicts for these rows that was not trained on them, or on none that is
        held out. None stands for the answers alone: nothing then tells errors that are alike from
        truths, so nothing is chosen.
    answers : Answers
    weight : ndarray of shape (n_rows,), default=None
        Sample weights.
    annotator_prior, answer_power : float or None
        None is the best of a few values; without predictions it is 4 and 0.5.
    held_out : ndarray of int, default=None
        The rows that judge.
    true_label : ndarray of int of shape (n_rows,), default=None
        Of rows where it is known, -1 elsewhere.
    random_state : int, default=None
        Of the halves, and of the rows where there are very many.

    Returns
    -------
    AnnotatorNoise
    """
    several = bool((answers.counts > 1).any())
    best = _Setting(
        DEFAULT_PRIOR if annotator_prior is None else annotator_prior,
        (_CAUTIOUS_POWER if several else 1.0) if answer_power is None else answer_power,
    )
    if log_proba is None:
        # A power below one belongs beside predictions: of answers alone it would only make classes
        # vanish.
        transitions, posterior = fit_annotators(
            answers, weight=weight, annotator_prior=best.prior, true_label=true_label
        )
        return AnnotatorNoise(transitions, posterior, best.power, best.prior)
    if true_label is not None:
        certain = _SMALLEST_LOG_PROBA * (1.0 - np.eye(answers.n_classes))[true_label]
        log_proba = np.where((true_label >= 0)[:, None], certain, log_proba)
    order = np.random.RandomState(random_state).permutation(len(answers))
    if held_out is None:
        order = order[:_MOST_ROWS_TO_CHOOSE]
        parts = [(order[::2], order[1::2]), (order[1::2], order[::2])]
    else:
        seen = order[~np.isin(order, held_out)][:_MOST_ROWS_TO_CHOOSE]
        parts = [(seen, held_out[:_MOST_ROWS_TO_CHOOSE])]
    search = _Search(log_proba, answers, weight, parts)
    powers = _POWERS if answer_power is None and several else ()
    priors = _PRIORS if annotator_prior is None else ()
    for name, grid in (
        ("power", powers),
        ("prior", priors),
        ("sharpness", _SHARPNESSES),
        ("power", powers),
        ("prior", priors),
    ):
        best = search.best_of(best, name, grid, given_others=True)
    by_prediction = best
    for power in powers:  # from the largest one
        candidate = best._replace(power=power)
        candidate = search.best_of(candidate, "sharpness", _SHARPNESSES, given_others=False)
        if power == _POWERS[0] or search.is_clearly_better(candidate, by_prediction):
            by_prediction = candidate
    best = min(by_prediction, best, key=lambda setting: setting.power)
    clean = _sharpened(log_proba, best.sharpness)
    transitions, posterior = _fit(answers, clean, weight, best)
    return AnnotatorNoise(transitions, posterior, best.power, best.prior)


class _Setting(NamedTuple):
    prior: float
    power: float
    sharpness: float = 1.0


class _Search:
    """How well settings explain answers that were not used for the estimate."""

    def __init__(
        self,
        log_proba: np.ndarray,
        answers: Answers,
        weight: np.ndarray | None,
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self.log_proba = log_proba
        self.answers = answers
        self.weight = np.ones(len(answers)) if weight is None else weight
        self.parts = parts
        self._judged: dict[tuple[_Setting, bool], FloatArray] = {}

    def best_of(
        self, setting: _Setting, name: str, grid: Sequence[float], *, given_others: bool
    ) -> _Setting:
        """Return the setting with the best value of one of its parts."""
        best = setting
        for value in grid:
            candidate = setting._replace(**{name: value})
            if self._mean(candidate, given_others) > self._mean(best, given_others):
                best = candidate
        return best

    def is_clearly_better(self, setting: _Setting, other: _Setting) -> bool:
        """Whether predictions alone explain answers better by more than a standard error."""
        gains = self.log_likelihood(setting, False) - self.log_likelihood(other, False)
        weight = self.weight[self.judging]
        mean = float(np.average(gains, weights=weight))
        error = float(np.sqrt(np.sum(weight**2 * (gains - mean) ** 2)) / weight.sum())
        return mean > error

    def _mean(self, setting: _Setting, given_others: bool) -> float:
        values = self.log_likelihood(setting, given_others)
        return float(np.average(values, weights=self.weight[self.judging]))

    @property
    def judging(self) -> np.ndarray:
        """The rows that judge."""
        return np.concatenate([judging for _, judging in self.parts])

    def log_likelihood(self, setting: _Setting, given_others: bool) -> FloatArray:
        """Return the sum of the log-likelihoods of the answers of each row that judges."""
        if (setting, given_others) not in self._judged:
            for of_others, found in zip((True, False), self._explain(setting), strict=True):
                self._judged[setting, of_others] = found
        return self._judged[setting, given_others]

    def _explain(self, setting: _Setting) -> tuple[FloatArray, FloatArray]:
        found: tuple[list[FloatArray], list[FloatArray]] = ([], [])
        for seen, judging in self.parts:
            clean = _sharpened(self.log_proba[seen], setting.sharpness)
            transitions, _ = _fit(self.answers.take(seen), clean, self.weight[seen], setting)
            others = self.answers.take(judging)
            clean = _sharpened(self.log_proba[judging], setting.sharpness)
            for power, values in zip((setting.power, 0.0), found, strict=True):
                each = unseen_log_likelihood(others, clean, transitions, power)
                values.append(np.bincount(others.row, each, len(judging)).astype(np.float64))
        return np.concatenate(found[0]), np.concatenate(found[1])


def _sharpened(log_proba: np.ndarray, sharpness: float) -> FloatArray:
    return np.asarray(log_softmax(sharpness * np.maximum(log_proba, _SMALLEST_LOG_PROBA), axis=1))


def _fit(
    answers: Answers, clean: FloatArray, weight: np.ndarray | None, setting: _Setting
) -> tuple[FloatArray, FloatArray]:
    return fit_annotators(
        answers, clean, weight, annotator_prior=setting.prior, answer_power=setting.power
    )
