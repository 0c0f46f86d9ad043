"""A mixture of Gaussian classes whose labels are observed through noise.

Predictions for rows that a network was not trained on are spread around one centre for each true
class, wherever the labels went. The model makes that explicit,

``s_t | y=i ~ N(mu_i, Sigma)``, ``z_t | y=i ~ T_i``,

and EM fits centres, common covariance and transition matrix together, each in closed form. It
is discriminant analysis with label noise (N. D. Lawrence and B. Schölkopf, "Estimating a kernel
Fisher discriminant in the presence of label noise", ICML 2001; C. Bouveyron and S. Girard,
"Robust supervised classification with mixture models: learning from data with uncertain
labels", Pattern Recognition 42, 2009). Without the labels it is k-means with a covariance;
with T = identity it is plain linear discriminant analysis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches

from sknoisy._transition.calibration import mean_gain, parts
from sknoisy._transition.counts import floored, soft_counts

SMALLEST_LOG_PROBABILITY = -30.0
#: Kinds of mixtures whose wrong labels go to few classes, of those of `fit_noisy_mixture`.
SIMPLE_KINDS = "sparse", "symmetric"
_MIXTURE_ROWS = (5_000, 20_000)
_ROWS_PER_CLUSTER = 10
_ELEMENTS_AT_ONCE = 2**22
_PSEUDO_COUNT = 0.1
_LABELS_OF_RATE = 20.0
_LABELS_TAKEN_OFF = 2.0
_STEPS_TO_SPARSITY = 5
_SPREAD = 0.02
_SMALLEST_COUNT = 1e-9
_ERRORS_OF_SPARSE = 1.0
_MOST_OF_A_LABEL = 1.0
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)


class NoisyMixture(NamedTuple):
    """A fitted mixture.

    Attributes
    ----------
    transition : ndarray of shape (true, observed)
        Rows sum to one; unless `keep_names` was set, the classes are named so that as many labels
        are right as can be.
    log_likelihood : float
        Mean over the rows of ``log sum_i p(y=i | s_t) T[i, z_t]``: how well the observed labels
        are told from the scores. (The joint likelihood with the scores would reward a mixture
        that gives two centres to a large class and none to a rare one.)
    prior : ndarray of shape (true,)
    mean : ndarray of shape (true, n_scores)
    covariance : ndarray of shape (n_scores, n_scores)
    """

    transition: np.ndarray
    log_likelihood: float
    prior: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


class MixtureFit(NamedTuple):
    """A mixture, and how it was fitted.

    Attributes
    ----------
    mixture : NoisyMixture
    view : callable
        Turns log-probabilities into the scores that the mixture is one of.
    kind : str
        As of `fit_noisy_mixture`.
    rows : slice or ndarray of int of shape (n_rows,)
        Which rows it was fitted to.
    classes : ndarray of shape (n_rows,)
        From which classes EM started.
    """

    mixture: NoisyMixture
    view: Callable[[np.ndarray], np.ndarray]
    kind: str
    rows: slice | np.ndarray
    classes: np.ndarray

    @property
    def criterion(self) -> float:
        """Log-likelihood, less one label for each free frequency of a class (Akaike)."""
        n_free = len(self.mixture.prior) - 1 if self.kind == "free" else 0
        return self.mixture.log_likelihood - n_free / len(self.classes)

    def left_out(
        self,
        log_proba: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray | None,
        seed: int | None,
    ) -> np.ndarray:
        """Return the log-likelihood of each label beside a mixture that was fitted to others.

        Parameters
        ----------
        log_proba : ndarray of shape (n_samples, n_classes)
        target : ndarray of shape (n_samples,)
        weight : ndarray of shape (n_samples,) or None
        seed : int or None
            Of the parts that are left out in turn.

        Returns
        -------
        ndarray of shape (n_rows,)
        """
        scores, labels = self.view(log_proba[self.rows]), target[self.rows]
        weights = None if weight is None else weight[self.rows]
        part, log_likelihood = parts(len(labels), seed), np.empty(len(labels))
        for number in np.unique(part):
            out, kept = part == number, part != number
            found = fit_noisy_mixture(
                scores[kept],
                labels[kept],
                self.classes[kept],
                log_proba.shape[1],
                weight=None if weights is None else weights[kept],
                kind=self.kind,
            )
            log_likelihood[out] = label_log_likelihood(found, scores[out], labels[out])
        return log_likelihood


def most_likely_kind(
    fit: MixtureFit,
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    smooth: bool = True,
    random_state: int | None = None,
) -> MixtureFit:
    """Return the mixture with the structure that wrong labels seem to have, or the given one.

    From the given mixture EM goes on to a symmetric, a smooth and a sparse one. Labels are left out
    in turn, and the mixture beside which these are likeliest is taken, but the sparse one, which is
    the simplest, unless it is behind by a standard error. No label counts for more than one nat:
    those of rows that the network takes for another class are where a sparse matrix has next to
    nothing, and would decide alone. With fewer than ten rows a class there is no other mixture than
    the given one.

    Parameters
    ----------
    fit : MixtureFit
    log_proba, target, weight, random_state
        As of `fit_mixture`.
    smooth : bool, default=True
        Whether the smooth mixture may be returned. If not, the given one is where it would be.

    Returns
    -------
    MixtureFit
    """
    n_classes = log_proba.shape[1]
    if len(fit.classes) < _ROWS_PER_CLUSTER * n_classes:
        return fit
    scores, labels = fit.view(log_proba[fit.rows]), target[fit.rows]
    weights = None if weight is None else weight[fit.rows]
    fit = fit._replace(classes=most_likely_classes(fit.mixture, scores, labels))
    fitted = partial(fit_noisy_mixture, scores, labels, fit.classes, n_classes, weight=weights)
    others = [
        fit._replace(mixture=fitted(kind=kind), kind=kind)
        for kind in ("symmetric", "smooth", "sparse")
    ]
    left_out = [found.left_out(log_proba, target, weight, random_state) for found in [fit, *others]]

    def gain(number: int, other: int = 0) -> tuple[np.ndarray, np.ndarray]:
        of_labels = left_out[number] - left_out[other]
        return mean_gain(np.clip(of_labels, -_MOST_OF_A_LABEL, _MOST_OF_A_LABEL), weights)

    best = max(range(len(others)), key=lambda number: gain(number)[0])
    of_sparse, error = gain(len(others), best)
    if of_sparse >= -_ERRORS_OF_SPARSE * error:
        return others[-1]
    found = [fit, *others][best]
    return fit if found.kind == "smooth" and not smooth else found


def fit_mixture(
    log_proba: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
    starts: Sequence[np.ndarray] = (),
    n_clusterings: int = 1,
    keep_names: bool = False,
    kinds: Sequence[str] = ("free",),
) -> MixtureFit:
    """Fit the mixture of `mixture_start`.

    Parameters
    ----------
    log_proba, target, weight, random_state
        As of `mixture_start`.
    starts : sequence of ndarray of shape (n_samples,), default=()
        Classes of the rows that EM starts from as well.
    n_clusterings : int, default=1
        EM starts from so many clusterings of the predictions as well. With few rows each leads to
        another maximum.
    keep_names : bool, default=False
        Whether EM begins with `starts` only, and the classes have their names.
    kinds : sequence of {"free", "balanced", "sparse", "symmetric", "smooth"}, default=("free",)
        EM runs once for each of them, as `fit_noisy_mixture` describes it.

    Returns
    -------
    MixtureFit
        The best one.
    """
    n_classes = log_proba.shape[1]
    rows = capped_rows(len(log_proba), n_classes, random_state)
    some, labels = _floored(log_proba[rows]), target[rows]
    weights = None if weight is None else weight[rows]
    first = [classes[rows] for classes in starts]
    if not keep_names:
        first.insert(0, some.argmax(axis=1))
    if not keep_names and len(some) >= _ROWS_PER_CLUSTER * n_classes:
        rng = np.random.RandomState(random_state)
        for _ in range(n_clusterings):
            clusters = fit_clusters(some, weights, rng).labels_
            first.append(_named(clusters, labels, n_classes, weights))
    fit = partial(fit_noisy_mixture, n_classes=n_classes, weight=weights, keep_names=keep_names)
    fits = [
        MixtureFit(fit(scores, labels, classes, kind=kind), view, kind, rows, classes)
        for view in (_contrasts, _without_tails)
        for scores in [view(log_proba[rows])]
        for classes in first
        for kind in kinds
    ]
    return max(fits, key=lambda fit: fit.criterion)


def fit_noisy_mixture(
    scores: np.ndarray,
    target: np.ndarray,
    classes: np.ndarray,
    n_classes: int,
    *,
    weight: np.ndarray | None = None,
    pseudo_count: float = _PSEUDO_COUNT,
    shrinkage: float = 0.02,
    max_iter: int = 60,
    tol: float = 1e-4,
    keep_names: bool = False,
    kind: str = "free",
) -> NoisyMixture:
    """Fit the mixture by EM.

    With few rows of a class EM ends at one of many maxima, where one class may have lost its rows
    to another and stands for what nothing else explains. Balanced classes lead past most of these,
    and few wrong labels of each class, or even ones, leave less to chance.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_scores)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    classes : ndarray of shape (n_samples,)
        The class of each row that EM starts from.
    n_classes : int
    weight : ndarray of shape (n_samples,), default=None
        Sample weights.
    pseudo_count : float, default=0.1
        Rows' worth of labels, spread evenly, that are added to every true class.
    shrinkage : float, default=0.02
        Multiple of the mean variance that is added to the diagonal of the covariance.
    max_iter : int, default=60
    tol : float, default=1e-4
        EM stops when no entry of the matrix changes by more.
    keep_names : bool, default=False
        Whether the classes have the names of those that EM starts from.
    kind : {"free", "balanced", "sparse", "symmetric", "smooth"}, default="free"
        With "balanced" the classes are as frequent as their labels, so that as many labels come to
        a class as leave it, and the rates of wrong labels are shrunk to that of all, by twenty
        labels. With "sparse" two labels are taken off each count of wrong labels as well, or all
        that there are, and one wrong label in fifty is spread evenly. What is taken off grows to
        two in five steps. With "symmetric" they are taken off the sum of both counts of a pair of
        classes: as many labels are taken to go to the one as come from it, as where classes are
        hard to tell apart for those who label. With "smooth" as many labels are added to each count
        of wrong ones as make the counts most likely (see `_most_likely_strength`).

    Returns
    -------
    NoisyMixture
    """
    scores = np.ascontiguousarray(scores.T)
    weight = np.ones(len(target)) if weight is None else weight
    identity = np.eye(n_classes)
    responsibility = identity[:, classes] * weight
    transition = np.full((n_classes, n_classes), np.inf)
    share = np.bincount(target, weight, n_classes) + 1.0

    def matrix_of(counts: np.ndarray, step: int = max_iter) -> np.ndarray:
        if kind == "free":
            return _normalised(counts, pseudo_count)
        if kind == "balanced":
            return _with_shrunk_rates(counts, counts + pseudo_count / n_classes)
        if kind == "smooth":
            strength = _most_likely_strength(counts, pseudo_count / n_classes)
            return _with_shrunk_rates(counts, counts + strength)
        taken_off = _LABELS_TAKEN_OFF * min(1.0, step / _STEPS_TO_SPARSITY)
        wrong = counts if kind == "sparse" else counts + counts.T
        return _with_shrunk_rates(counts, np.maximum(wrong - taken_off, 0.0), spread=_SPREAD)

    for step in range(max_iter):
        last, transition = transition, matrix_of(responsibility @ identity[target], step)
        moments = _class_moments(scores, responsibility, shrinkage)
        if kind != "free":
            moments = share / share.sum(), *moments[1:]
        responsibility = _discriminant(scores, *moments)
        responsibility += np.log(transition)[:, target]
        _softmax(responsibility)
        responsibility *= weight
        is_sparse = kind not in SIMPLE_KINDS or step > _STEPS_TO_SPARSITY
        if is_sparse and np.abs(transition - last).max() < tol:
            break
    counts, log_likelihood = _counts(scores.T, target, weight, transition, *moments)
    name = np.arange(n_classes) if keep_names else heaviest_diagonal(counts)
    transition = matrix_of(counts[name])
    prior, mean, covariance = moments
    return NoisyMixture(transition, log_likelihood, prior[name], mean[name], covariance)


def recount(
    mixture: NoisyMixture,
    scores: np.ndarray,
    target: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    pseudo_count: float = _PSEUDO_COUNT,
) -> np.ndarray:
    """Count the matrix of a mixture that was fitted to few rows on more of them.

    Parameters
    ----------
    mixture : NoisyMixture
    scores : ndarray of shape (n_samples, n_scores)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    pseudo_count : float, default=0.1

    Returns
    -------
    ndarray of shape (true, observed)
    """
    weight = np.ones(len(target)) if weight is None else weight
    moments = mixture.prior, mixture.mean, mixture.covariance
    counts, _ = _counts(scores, target, weight, mixture.transition, *moments)
    return _normalised(counts, pseudo_count)


def label_log_likelihood(
    mixture: NoisyMixture, scores: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Log-likelihood of the observed label of each row, given its scores.

    Parameters
    ----------
    mixture : NoisyMixture
    scores : ndarray of shape (n_samples, n_scores)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    joint = _discriminant(scores.T, mixture.prior, mixture.mean, mixture.covariance)
    total = _softmax(joint.copy())
    joint += np.log(mixture.transition)[:, target]
    return _softmax(joint) - total


def most_likely_classes(
    mixture: NoisyMixture, scores: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Most likely true class of each row, given its scores and its observed label.

    Parameters are those of `label_log_likelihood`; the result is of shape (n_samples,).
    """
    joint = _discriminant(scores.T, mixture.prior, mixture.mean, mixture.covariance)
    return np.asarray((joint + np.log(mixture.transition)[:, target]).argmax(axis=0))


def clean_log_proba(mixture: NoisyMixture, scores: np.ndarray) -> np.ndarray:
    """Log-probabilities of the true label of each row, given its scores.

    Parameters
    ----------
    mixture : NoisyMixture
    scores : ndarray of shape (n_samples, n_scores)

    Returns
    -------
    ndarray of shape (n_samples, true)
    """
    joint = _discriminant(scores.T, mixture.prior, mixture.mean, mixture.covariance)
    joint -= _softmax(joint.copy())
    return joint.T


def _normalised(counts: np.ndarray, pseudo_count: float) -> np.ndarray:
    counts = counts + pseudo_count / len(counts)
    return counts / counts.sum(axis=1, keepdims=True)


def _with_shrunk_rates(counts: np.ndarray, wrong: np.ndarray, *, spread: float = 0.0) -> np.ndarray:
    """Return a matrix whose rates of wrong labels are shrunk to that of all.

    Parameters
    ----------
    counts : ndarray of shape (true, observed)
    wrong : ndarray of shape (true, observed)
        What the wrong labels of a class are proportional to; the diagonal does not matter.
    spread : float, default=0.0
        Part of them that is spread evenly.
    """
    right, mass, evenly = np.diag(counts), counts.sum(axis=1), 1.0 - np.eye(len(counts))
    rate = 1.0 - right.sum() / max(mass.sum(), _SMALLEST_COUNT)
    rates = (mass - right + _LABELS_OF_RATE * rate) / (mass + _LABELS_OF_RATE)
    shares = (wrong + _SMALLEST_COUNT) * evenly
    shares *= (1.0 - spread) / shares.sum(axis=1, keepdims=True)
    shares += spread * evenly / evenly.sum(axis=1)
    return floored(np.diag(1.0 - rates) + rates[:, None] * shares)


def _most_likely_strength(counts: np.ndarray, least: float) -> float:
    """Return how many labels to add to each count of wrong ones (empirical Bayes).

    The shares of the wrong labels of a class are taken to be drawn from a Dirichlet distribution
    whose parameters are all ``a``. The counts are then Dirichlet-multinomial, and the most likely
    ``a`` is returned: little if each class turns into few others, and so much that the shares are
    all but even if what tells one wrong label from another is chance (T. P. Minka, "Estimating a
    Dirichlet distribution", 2000).

    Parameters
    ----------
    counts : ndarray of shape (true, observed)
    least : float
        What to choose from besides a hundredth to a thousand labels.
    """
    n_others = len(counts) - 1
    wrong = counts[~np.eye(len(counts), dtype=bool)].reshape(-1, n_others)
    strengths = np.array([least, *_STRENGTHS])[:, None]
    of_rows = gammaln(n_others * strengths) - gammaln(wrong.sum(axis=1) + n_others * strengths)
    of_entries = gammaln(wrong.ravel() + strengths) - gammaln(strengths)
    log_likelihood = of_rows.sum(axis=1) + of_entries.sum(axis=1)
    return float(strengths[int(np.argmax(log_likelihood)), 0])


def _counts(
    scores: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    transition: np.ndarray,
    *moments: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return expected counts (true, observed) and the mean log-likelihood of the labels."""
    n_classes = len(transition)
    identity, counts, log_likelihood = np.eye(n_classes), np.zeros((n_classes, n_classes)), 0.0
    for part in gen_batches(len(target), max(1, _ELEMENTS_AT_ONCE // n_classes)):
        responsibility = _discriminant(scores[part].T, *moments)
        log_proba = -_softmax(responsibility.copy())
        responsibility += np.log(transition)[:, target[part]]
        log_proba += _softmax(responsibility)
        responsibility *= weight[part]
        counts += responsibility @ identity[target[part]]
        log_likelihood += log_proba @ weight[part]
    return counts, float(log_likelihood / weight.sum())


def _class_moments(
    scores: np.ndarray, responsibility: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prior and mean of each class and their common covariance, from weighted shares.

    Parameters
    ----------
    scores : ndarray of shape (n_scores, n_samples)
    responsibility : ndarray of shape (n_classes, n_samples)
    shrinkage : float

    Returns
    -------
    prior : ndarray of shape (n_classes,)
    mean : ndarray of shape (n_classes, n_scores)
    covariance : ndarray of shape (n_scores, n_scores)
    """
    mass = responsibility.sum(axis=1) + 1e-9
    mean = responsibility @ scores.T / mass[:, None]
    scatter = (scores * responsibility.sum(axis=0)) @ scores.T - (mean.T * mass) @ mean
    covariance = scatter / mass.sum()
    ridge = shrinkage * np.trace(covariance) / len(covariance) + 1e-8
    return mass / mass.sum(), mean, covariance + ridge * np.eye(len(covariance))


def _discriminant(
    scores: np.ndarray, prior: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """``log p(y=i | s_t)`` up to a constant of each row, shape (n_classes, n_samples).

    It is linear in the scores.
    """
    direction = np.linalg.solve(covariance, mean.T)
    offset = np.log(prior) - 0.5 * (mean.T * direction).sum(axis=0)
    return direction.T @ scores + offset[:, None]


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits into probabilities of the first axis, in place; return their log-sum-exp.

    scipy's functions take several times as long for a few classes and many rows.
    """
    largest = logits.max(axis=0)
    logits -= largest
    np.exp(logits, out=logits)
    total = logits.sum(axis=0)
    logits /= total
    return largest + np.log(total)


def heaviest_diagonal(counts: np.ndarray) -> np.ndarray:
    """Order of the rows that maximises the trace (Hungarian method).

    Parameters
    ----------
    counts : ndarray of shape (clusters, observed)
        Labels in each cluster. With counts the most labels are taken for right; with rows that
        sum to one a small class would weigh as much as a large one.

    Returns
    -------
    ndarray of shape (observed,)
        Index of the cluster that is named after each observed class.
    """
    cluster, name = linear_sum_assignment(-counts)
    order = np.empty(len(cluster), dtype=np.intp)
    order[name] = cluster
    return order


def fit_clusters(
    log_proba: np.ndarray,
    weight: np.ndarray | None,
    random_state: int | np.random.RandomState | None,
) -> KMeans:
    """Return as many clusters of predictions as there are classes."""
    kmeans = KMeans(log_proba.shape[1], n_init=4, random_state=random_state)
    with warnings.catch_warnings():
        # Fewer different predictions than classes leave clusters empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit(hellinger_roots(log_proba), sample_weight=weight)


def _named(
    clusters: np.ndarray, target: np.ndarray, n_classes: int, weight: np.ndarray | None
) -> np.ndarray:
    """Return the classes of clusters, of which as many labels are right as can be."""
    identity = np.eye(n_classes)
    counts = soft_counts(identity[clusters], target, n_classes, weight)
    return np.argsort(heaviest_diagonal(counts))[clusters]


def hellinger_roots(log_proba: np.ndarray) -> np.ndarray:
    """Return square roots of probabilities, whose distances are Hellinger's."""
    return np.exp(0.5 * log_proba.astype(np.float64))


def capped_rows(n_samples: int, n_classes: int, seed: int | None) -> np.ndarray | slice:
    """Return as many rows as clustering can go over in a fraction of a training stage."""
    most = int(np.clip(4e7 / n_classes**2, *_MIXTURE_ROWS))
    if n_samples <= most:
        return slice(None)
    return np.random.RandomState(seed).permutation(n_samples)[:most]


def _contrasts(log_proba: np.ndarray) -> np.ndarray:
    """Project log-probabilities to the k - 1 dimensions in which they differ."""
    log_proba, n_classes = _floored(log_proba), log_proba.shape[1]
    centring = np.eye(n_classes) - 1.0 / n_classes
    return log_proba @ np.linalg.svd(centring)[0][:, : n_classes - 1]


def _without_tails(log_proba: np.ndarray) -> np.ndarray:
    """Return logarithms that see no probability below a hundredth."""
    proba = np.exp(_floored(log_proba))
    proba += 0.01
    return np.log(proba, out=proba)


def _floored(log_proba: np.ndarray) -> np.ndarray:
    return np.maximum(log_proba.astype(np.float64), SMALLEST_LOG_PROBABILITY)
