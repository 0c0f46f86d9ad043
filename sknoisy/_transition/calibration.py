r"""Calibration of predictions and transition matrix on rows that were held out.

A network that learned from noisy labels is too sure of itself, or not sure enough, on new rows;
with it, the posterior of the true label and the noise rate are wrong even if the ranking is
right. One parameter mends most of that, the sharpness :math:`\beta` of the clean probabilities
(temperature scaling; C. Guo et al., "On calibration of modern neural networks", ICML 2017), here
fitted through the noise, together with the transition matrix:

.. math:: \max_{\beta, T} \sum_t \log \sum_i T_{i z_t} \frac{p(y=i|x_t)^\beta}
    {\sum_k p(y=k|x_t)^\beta}.

If the sharpened probabilities are calibrated and the noise depends on the true class only, this T
is consistent, however weak the network: no more is needed of :math:`p` than that it says right
how often it is right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit, logsumexp, softmax

from sknoisy._support.validation import FloatArray
from sknoisy._transition.counts import floored, soft_counts

#: Below this log-probability a class is out of the question; what is above it is sharpened.
_SMALLEST_LOG_PROBA = -50.0

_SMALLEST_TRANSITION = 1e-12
_MAX_STEPS = 500
_MOST_ROWS_TO_SHARPEN = 10_000
_MOST_ROWS_FOR_ONE_RATE = 5_000
_GAP = 0.1

#: With fewer rows for each entry of the matrix, and for each class, not all entries can be told.
_FEW_ROWS_PER_ENTRY = 4
_FEW_ROWS_PER_CLASS = 100

#: With fewer of them a simpler matrix may be nearer to the true one than the likeliest one.
SOME_ROWS = 100, 1000

#: Labels that the common rate stands for in each row of the matrix, the most cautious first.
_STRENGTHS = (4000.0, 1000.0, 320.0, 160.0, 80.0, 40.0, 20.0)
_PARTS = 5

#: Standard errors by which a freer matrix must be behind for wrong labels to be taken for uniform.
_ERRORS_OF_UNIFORM = 3.0

_FIRST_RATE = 0.4
_LABELS_OF_RATE = 100.0
_POWER = 3.0
_POWER_OF_BOTH = 1.5
_SPREAD = 0.05
_STEPS_TO_POWER = 10
_STEPS_OF_SHARPNESS = 5
_MOST_SPARSE_STEPS = 60
_LEAST_GAIN = 1e-4
_STEPS_OF_BALANCE = 5
_STEP_OF_BALANCE = 0.7
_SMALLEST_SHARPNESS = 0.5

#: Where it is sought.
LOG_SHARPNESS = (np.log(0.02), np.log(20.0))


class Recalibration(NamedTuple):
    """Clean probabilities of calibrated sharpness, and the noise that goes with them.

    Attributes
    ----------
    sharpness : float
        The exponent, above one where the network was less sure than it might be.
    clean_log_proba : ndarray of shape (n_samples, true)
    transition : ndarray of shape (true, observed) or None
        None where the noise was given for each row.
    log_column : ndarray of shape (n_samples, true)
        Element (t, i) is the log-probability of the observed label of row t if i is true.
    n_parameters : int
        How many numbers were fitted.
    left_out : ndarray of shape (n_samples,) or None
        Log-likelihood of each label beside a matrix that was fitted to other ones.
    offset : ndarray of shape (true,)
        What was added to the log-probabilities of each class before they were sharpened.
    shrunk_by : float
        By how many labels each row of the matrix was shrunk to one rate.
    """

    sharpness: float
    clean_log_proba: FloatArray
    transition: FloatArray | None
    log_column: FloatArray
    n_parameters: int = 1
    left_out: FloatArray | None = None
    offset: FloatArray | float = 0.0
    shrunk_by: float = 0.0

    @property
    def posterior(self) -> FloatArray:
        """Posterior of the true label, shape (n_samples, true)."""
        return softmax(self.clean_log_proba + self.log_column, axis=1)

    @property
    def log_likelihood(self) -> FloatArray:
        """Log-likelihood of the observed labels, shape (n_samples,)."""
        return logsumexp(self.clean_log_proba + self.log_column, axis=1)


def recalibrate(
    log_proba: FloatArray,
    target: np.ndarray,
    start: FloatArray,
    *,
    weight: np.ndarray | None = None,
    pseudo_count: float = 1.0,
) -> Recalibration:
    """Fit sharpness and transition matrix to the observed labels.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
        Clean log-probabilities of rows that the network was not trained on.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    start : ndarray of shape (true, observed)
        Where the search starts. Rows sum to one.
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.
    pseudo_count : float, default=1.0
        Labels that are added for each entry of the matrix, distributed over the row as in
        `start`: what keeps many classes with few rows each from being fitted to the letter.

    Returns
    -------
    Recalibration
    """
    n_classes = log_proba.shape[1]
    log_proba = np.maximum(log_proba, _SMALLEST_LOG_PROBA)
    order = np.argsort(target, kind="stable")
    edges = np.searchsorted(target[order], np.arange(n_classes + 1))
    sorted_log_proba = log_proba[order]
    share = np.bincount(target, weight, minlength=n_classes)
    share = share / share.sum()
    weights = np.split(np.ones(len(target)) if weight is None else weight[order], edges[1:-1])
    # Away from the edge, where EM would not get off, and no entry without any evidence.
    transition = prior = 0.99 * start + 0.01 * share

    def loss(log_sharpness: float) -> float:
        nonlocal transition
        proba = softmax(np.exp(log_sharpness) * sorted_log_proba, axis=1)
        transition, log_likelihood = most_likely_transition(
            np.split(proba, edges[1:-1]), weights, transition, pseudo_count * n_classes * prior
        )
        return -log_likelihood

    found = minimize_scalar(loss, bounds=LOG_SHARPNESS, method="bounded", options={"xatol": 0.01})
    loss(found.x)
    sharpness = float(np.exp(found.x))
    clean = log_softmax(sharpness * log_proba, axis=1)
    n_parameters = 1 + n_classes * (n_classes - 1)
    return Recalibration(sharpness, clean, transition, np.log(transition).T[target], n_parameters)


def most_likely_transition(
    proba: list[FloatArray],
    weight: list[FloatArray],
    start: FloatArray,
    pseudo_counts: FloatArray,
) -> tuple[FloatArray, float]:
    """Maximise the likelihood of the observed labels over the matrix, by accelerated EM.

    The problem is concave. Two steps of EM are extrapolated to a longer one (R. Varadhan and
    C. Roland, "Simple and globally convergent methods for accelerating the convergence of any
    EM algorithm", Scandinavian Journal of Statistics 35, 2008).

    Parameters
    ----------
    proba : list of ndarray of shape (n_j, true)
        Clean probabilities of the rows with each observed label.
    weight : list of ndarray of shape (n_j,)
        Sample weights of these rows.
    start : ndarray of shape (true, observed)
        Entries are positive.
    pseudo_counts : ndarray of shape (true, observed)
        Labels that are added to those observed.

    Returns
    -------
    transition : ndarray of shape (true, observed)
    log_likelihood : float
        Of the labels and the pseudo-counts, at most 0.1 below its maximum (the gap of Frank
        and Wolfe), unless that takes more than 500 steps.
    """

    def step(transition: FloatArray) -> tuple[FloatArray, float, float]:
        """Return the matrix after a step of EM, its likelihood, and a bound of the gap."""
        likelihoods = [p @ transition[:, j] for j, p in enumerate(proba)]
        gradient = np.stack(
            [p.T @ (w / q) for p, w, q in zip(proba, weight, likelihoods, strict=True)], 1
        )
        gradient += pseudo_counts / transition
        value = sum(float(w @ np.log(q)) for w, q in zip(weight, likelihoods, strict=True))
        value += float((pseudo_counts * np.log(transition)).sum())
        counts = gradient * transition
        mass = counts.sum(axis=1, keepdims=True)
        gap = float((gradient.max(axis=1) - mass[:, 0]).sum())
        return floored(counts / mass, _SMALLEST_TRANSITION), value, gap

    transition, best = floored(start, _SMALLEST_TRANSITION), -np.inf
    safe = transition
    for _ in range(_MAX_STEPS):
        first, value, gap = step(transition)
        if value < best:  # the extrapolation went too far
            transition, best = safe, -np.inf
            continue
        best = value
        if gap < _GAP:
            break
        safe = step(first)[0]
        change, bend = first - transition, safe - 2 * first + transition
        length = np.sqrt((change**2).sum() / max((bend**2).sum(), 1e-300))
        if length > 1:
            further = transition + 2 * length * change + length**2 * bend
            transition = floored(further, _SMALLEST_TRANSITION)
        else:
            transition = safe
    else:
        transition, best = safe, step(safe)[1]  # not one that may have gone too far
    return transition, best


def fit_pooled_noise(
    log_proba: FloatArray, target: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, float]:
    """Fit sharpness and the rate of errors that are spread evenly over all other classes.

    They are two numbers: of very many rows every second or third is enough.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    sharpness : float
    rate : float
        Share of wrong labels.
    """
    n_classes = log_proba.shape[1]
    some = slice(None, None, -(-len(target) // _MOST_ROWS_FOR_ONE_RATE))
    log_proba, target = np.maximum(log_proba[some], _SMALLEST_LOG_PROBA), target[some]
    weight = None if weight is None else weight[some]
    log_proba = log_proba - log_proba.max(axis=1, keepdims=True)
    own_log_proba = log_proba[np.arange(len(target)), target]

    def loss(parameters: np.ndarray) -> float:
        log_sharpness, log_odds = parameters
        sharpness = np.exp(np.clip(log_sharpness, *LOG_SHARPNESS))
        own = np.exp(sharpness * own_log_proba) / np.exp(sharpness * log_proba).sum(axis=1)
        wrong = expit(log_odds) / (n_classes - 1)
        likelihood = wrong + own * (1.0 - n_classes * wrong)
        return -float(np.average(np.log(np.maximum(likelihood, 1e-300)), weights=weight))

    # The likelihood may have a maximum for each of them: sharp with noise, and blurred without.
    tried = [
        minimize(loss, [0.0, logit(rate)], method="Nelder-Mead", options={"xatol": 0.01})
        for rate in (0.02, 0.3)
    ]
    best = min(tried, key=lambda found: found.fun)
    most = 0.95 * (n_classes - 1) / n_classes
    sharpness = np.exp(np.clip(best.x[0], *LOG_SHARPNESS))
    return float(sharpness), min(float(expit(best.x[1])), most)


def uniform_noise(rate: float, n_classes: int) -> FloatArray:
    """Return the matrix (true, observed) of errors that are spread evenly over other classes."""
    wrong = rate / (n_classes - 1)
    return np.full((n_classes, n_classes), wrong) + (1.0 - n_classes * wrong) * np.eye(n_classes)


def with_pooled_noise(
    log_proba: FloatArray, target: np.ndarray, weight: np.ndarray | None = None
) -> Recalibration:
    """Fit sharpness and one rate of errors for all classes; parameters as of `fit_pooled_noise`."""
    sharpness, rate = fit_pooled_noise(log_proba, target, weight)
    transition = uniform_noise(rate, log_proba.shape[1])
    log_column = np.log(np.maximum(transition, _SMALLEST_TRANSITION)).T[target]
    fit = with_sharpness(log_proba, log_column, sharpness, n_parameters=2)
    return fit._replace(transition=transition)


def are_few_rows(
    n_samples: int,
    n_classes: int,
    of_entry: int = _FEW_ROWS_PER_ENTRY,
    of_class: int = _FEW_ROWS_PER_CLASS,
) -> bool:
    """Whether the rows of a class are too few for all entries of its row of the matrix.

    Fewer than so many for each other class; so many for all of them are enough.
    """
    return n_samples < min(of_entry * (n_classes - 1), of_class) * n_classes


def shrunk_to_pooled_noise(
    log_proba: FloatArray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    left_out: bool = False,
    may_be_uniform: bool = False,
    random_state: int | None = None,
) -> Recalibration:
    """Fit sharpness and matrix, whose rows are shrunk to the one rate of `fit_pooled_noise`.

    By twenty labels a row. With few rows of each class by 20 to 4000: by as few as explain labels
    that are left out in turn no worse than the best number, by one standard error.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.
    left_out : bool, default=False
        Whether rows that are not few are treated as few ones, since the likelihood of labels that
        are left out is of interest.
    may_be_uniform : bool, default=False
        Whether the rows of the matrix are shrunk by 4000 labels if they explain labels that are
        left out worse once they are shrunk by 1000, by three standard errors: then what tells one
        wrong label from another is chance.
    random_state : int or None, default=None
        Of the parts that are left out.
    """
    n_classes = log_proba.shape[1]
    sharpness, rate = fit_pooled_noise(log_proba, target, weight)
    pooled = uniform_noise(rate, n_classes)
    weights = np.ones(len(target)) if weight is None else weight

    def with_strength(strength: float) -> Recalibration:
        found = recalibrate(
            log_proba, target, pooled, weight=weight, pseudo_count=strength / n_classes
        )
        return found._replace(shrunk_by=strength)

    def of_left_out(strengths: tuple[float, ...]) -> FloatArray:
        proba = np.exp(raise_to(log_proba, sharpness))
        prior = 0.99 * pooled + 0.01 * np.bincount(target, weights, n_classes) / weights.sum()
        return _left_out(proba, target, weights, prior, strengths, random_state)

    if left_out or are_few_rows(len(target), n_classes):
        likelihoods = of_left_out(_STRENGTHS)
        best = _weakest_as_good(likelihoods, weights)
        return with_strength(_STRENGTHS[best])._replace(left_out=likelihoods[best])
    if may_be_uniform:
        likelihoods = of_left_out(_STRENGTHS[:2])
        gain, error = mean_gain(likelihoods - likelihoods[0], weights)
        if gain[1] < -_ERRORS_OF_UNIFORM * error[1]:
            return with_strength(_STRENGTHS[0])
    return with_strength(_STRENGTHS[-1])


def _left_out(
    proba: FloatArray,
    target: np.ndarray,
    weight: np.ndarray,
    prior: FloatArray,
    strengths: tuple[float, ...],
    random_state: int | None,
) -> FloatArray:
    """Return log-likelihoods of labels beside a matrix that was fitted to those of other parts.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, true)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,)
        Sample weights.
    prior : ndarray of shape (true, observed)
        What the rows of the matrix are shrunk to.
    strengths : tuple of float
        By so many labels.
    random_state : int or None
        Of the parts.

    Returns
    -------
    ndarray of shape (n_strengths, n_samples)
    """
    likelihoods = np.empty((len(strengths), len(target)))
    part = parts(len(target), random_state)
    for number in np.unique(part):
        out, transition = part == number, prior
        of_class = [~out & (target == observed) for observed in range(len(prior))]
        seen, mass = [proba[rows] for rows in of_class], [weight[rows] for rows in of_class]
        for i, strength in enumerate(strengths):
            transition, _ = most_likely_transition(seen, mass, transition, strength * prior)
            likelihoods[i, out] = np.log((proba[out] * transition.T[target[out]]).sum(axis=1))
    return likelihoods


def _weakest_as_good(left_out: FloatArray, weight: np.ndarray) -> int:
    """Return the last row of likelihoods that is within a standard error of the best one."""
    gain, error = mean_gain(left_out - left_out[int((left_out @ weight).argmax())], weight)
    return int(np.flatnonzero(gain >= -error)[-1])


def mean_gain(gains: FloatArray, weight: np.ndarray | None) -> tuple[FloatArray, FloatArray]:
    """Return the mean gain of a label, and its standard error.

    Parameters
    ----------
    gains : ndarray of shape (..., n_samples)
        By how much likelier each label is.
    weight : ndarray of shape (n_samples,) or None
    """
    if weight is not None:
        gains = gains * weight / weight.mean()
    return gains.mean(axis=-1), gains.std(axis=-1) / np.sqrt(gains.shape[-1])


def fit_sparse_noise(
    log_proba: FloatArray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    balanced: bool = False,
    symmetric: bool = False,
) -> Recalibration:
    """Fit sharpness and a matrix of classes that turn into one wrong label each, for the most part.

    EM fits ``T_ii = 1 - r_i``, ``T_ij = r_i w_ij``. The shares of the wrong labels are the
    expected counts of (true, observed) raised to a power, ``w_ij ~ c_ij^g``, with one label in
    twenty spread evenly. The power rises from one to three, as in deterministic annealing (K. Rose,
    "Deterministic annealing for clustering, compression, classification, regression, and related
    optimization problems", Proceedings of the IEEE 86, 1998), so that no label is chosen before
    most are explained. The rates are shrunk to that of all classes, by a hundred labels.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.
    balanced : bool, default=False
        Whether the clean probabilities of each class are multiplied by a factor that makes their
        mean the share of its observed labels. A network that was trained with a wrong matrix may
        give the rows of one class to another one, whose wrong labels the labels of these rows then
        seem to be; so it confirms the matrix, unless the first class gets its rows back. The
        shares are those of the true classes where as many labels come to a class as leave it.
    symmetric : bool, default=False
        Whether classes are confused with one another: as many labels go from one to the other as
        come from there. The counts of both are added, and the power rises to one and a half, so
        that a class may be confused with some others.
    """
    n_classes = log_proba.shape[1]
    transition, evenly = uniform_noise(_FIRST_RATE, n_classes), uniform_noise(1.0, n_classes)
    share = np.bincount(target, weight, n_classes) + 1.0
    share, offset, last = share / share.sum(), np.zeros(n_classes), -np.inf
    power = _POWER_OF_BOTH if symmetric else _POWER
    for step in range(_MOST_SPARSE_STEPS):
        if step % _STEPS_OF_SHARPNESS == 0:
            fit = sharpen(log_proba + offset, np.log(transition).T[target], weight)
            now = float(np.average(fit.log_likelihood, weights=weight))
            if step > _STEPS_TO_POWER and now - last < _LEAST_GAIN:
                break
            last = now
        if balanced:
            offset = _balancing(log_proba, offset, fit.sharpness, share, weight)
        log_column = np.log(transition).T[target]
        fit = with_sharpness(log_proba + offset, log_column, fit.sharpness)
        counts = soft_counts(fit.posterior, target, n_classes, weight)
        right, mass = np.diag(counts).copy(), counts.sum(axis=1)
        rate = 1.0 - right.sum() / mass.sum()
        rates = (mass - right + _LABELS_OF_RATE * rate) / (mass + _LABELS_OF_RATE)
        np.fill_diagonal(counts, 0.0)
        if symmetric:
            counts += counts.T
        wrong = floored(counts / np.maximum(counts.max(axis=1, keepdims=True), 1e-300))
        wrong **= 1.0 + (power - 1.0) * min(1.0, step / _STEPS_TO_POWER)
        wrong = (1.0 - _SPREAD) * wrong / wrong.sum(axis=1, keepdims=True) + _SPREAD * evenly
        np.fill_diagonal(wrong, 0.0)
        wrong /= wrong.sum(axis=1, keepdims=True)
        transition = floored(np.diag(1.0 - rates) + rates[:, None] * wrong, _SMALLEST_TRANSITION)
    log_column = np.log(transition).T[target]
    return fit._replace(transition=transition, log_column=log_column, offset=offset)


def _balancing(
    log_proba: FloatArray,
    offset: FloatArray,
    sharpness: float,
    share: FloatArray,
    weight: np.ndarray | None,
) -> FloatArray:
    """Return what to add to log-probabilities so that the classes come nearer to given shares.

    A few steps of iterative scaling; the next call goes on from them.
    """
    for _ in range(_STEPS_OF_BALANCE):
        mean = np.average(np.exp(raise_to(log_proba + offset, sharpness)), axis=0, weights=weight)
        step = np.log(share / np.maximum(mean, 1e-300))
        offset = offset + _STEP_OF_BALANCE * step / max(sharpness, _SMALLEST_SHARPNESS)
    return offset


def parts(n_samples: int, random_state: int | None) -> np.ndarray:
    """Return the number of the part of each row, of five that are left out in turn."""
    return np.random.RandomState(random_state).permutation(n_samples) % _PARTS


def without_noise(log_proba: FloatArray, target: np.ndarray) -> Recalibration:
    """Fit the sharpness alone, and take all labels for right.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    """
    identity = np.eye(log_proba.shape[1])
    log_column = np.log(np.maximum(identity, 1e-300))[target]
    return sharpen(log_proba, log_column)._replace(transition=identity)


def sharpen(
    log_proba: FloatArray, log_column: FloatArray, weight: np.ndarray | None = None
) -> Recalibration:
    """Fit the sharpness alone, where the noise of each row is given.

    It is one number: of very many rows every second or third is enough.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
    log_column : ndarray of shape (n_samples, true)
        Element (t, i) is the log-probability of the observed label of row t if i is true.
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    Recalibration
    """
    rows = slice(None, None, -(-len(log_proba) // _MOST_ROWS_TO_SHARPEN))
    some, column = np.maximum(log_proba[rows], _SMALLEST_LOG_PROBA), log_column[rows]
    of_rows = None if weight is None else weight[rows]

    def loss(log_sharpness: float) -> float:
        clean = log_softmax(np.exp(log_sharpness) * some, axis=1)
        return -float(np.average(logsumexp(clean + column, axis=1), weights=of_rows))

    found = minimize_scalar(loss, bounds=LOG_SHARPNESS, method="bounded")
    return with_sharpness(log_proba, log_column, float(np.exp(found.x)))


def raise_to(log_proba: FloatArray, sharpness: float) -> FloatArray:
    """Raise probabilities to a power and normalise them; all in logarithms, (n_samples, true)."""
    return log_softmax(sharpness * np.maximum(log_proba, _SMALLEST_LOG_PROBA), axis=1)


def with_sharpness(
    log_proba: FloatArray, log_column: FloatArray, sharpness: float, *, n_parameters: int = 1
) -> Recalibration:
    """Apply a sharpness that was fitted to other rows; parameters as of `sharpen`."""
    clean_log_proba = raise_to(log_proba, sharpness)
    return Recalibration(sharpness, clean_log_proba, None, log_column, n_parameters)
