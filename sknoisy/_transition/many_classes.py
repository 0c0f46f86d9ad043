"""The mixture of `mixture.py` for many classes: few scores, and few classes in question for a row.

What a network says of k classes has as many dimensions as its last hidden layer at most, and of a
row only its likeliest classes are in question. So the scores are projected to their principal
components, responsibilities are kept for a few classes of each row, and counts for the pairs of
classes that occur: an iteration costs rows x classes in question x components, and not rows x k^2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.special import gammaln, logsumexp
from sklearn.decomposition import PCA
from sklearn.utils import gen_batches

from sknoisy._transition.mixture import SMALLEST_LOG_PROBABILITY
from sknoisy._transition.starts import Estimate

_N_COMPONENTS = 64
_N_CANDIDATES = 12
_ROWS_OF_COMPONENTS = 5_000
_ELEMENTS_AT_ONCE = 2**22
_MAX_ITER = 30
_TOLERANCE = 1e-3
_SHRINKAGE = 0.02
_SMALLEST_COUNT = 1e-9
_STRENGTHS = np.geomspace(0.1, 1000.0, 25)


def sparse_mixture_start(
    predict: Callable[[np.ndarray], np.ndarray],
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
) -> Estimate:
    """Return the matrix of a mixture of many Gaussian classes with noisy labels.

    Each row is shrunk towards one rate of errors for all classes, as strongly as the counts of all
    rows together make likeliest (empirical Bayes).

    Parameters
    ----------
    predict : callable
        From an array of row numbers to log-probabilities of shape (n_rows, n_classes). It is called
        for a part of the rows at a time, and twice for five thousand of them.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    weight : ndarray of shape (n_samples,), default=None
    random_state : int or None, default=None
        Of the rows that the components are found from.

    Returns
    -------
    Estimate
    """
    transition, log_likelihood = fit_sparse_mixture(
        predict, target, weight, random_state=random_state
    )
    return Estimate(transition, float(np.average(log_likelihood, weights=weight)))


def fit_sparse_mixture(
    predict: Callable[[np.ndarray], np.ndarray],
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    random_state: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the mixture of `sparse_mixture_start`; the parameters are the same.

    Returns
    -------
    transition : ndarray of shape (true, observed)
    log_likelihood : ndarray of shape (n_samples,)
        Log-likelihood of the observed label of each row. The mixture learns nothing from the label
        of a row of weight zero.
    """
    weight = np.ones(len(target)) if weight is None else weight.astype(np.float64)
    scores, candidates, n_classes = _project(predict, target, random_state)
    codes, pair = np.unique(candidates * n_classes + target[:, None], return_inverse=True)
    pair = pair.reshape(candidates.shape)
    pairs = _Pairs(codes, n_classes)
    responsibility = np.zeros(candidates.shape)
    responsibility[:, 0] = 1.0  # the likeliest class comes first
    mean = -np.inf
    for _ in range(_MAX_ITER):
        weighted = responsibility * weight[:, None]
        transition, _, _ = pairs.transition(_counts(pair, weighted, len(codes)))
        log_clean = _discriminant(scores, candidates, weighted, n_classes)
        joint = log_clean + np.log(transition)[pair]
        evidence = logsumexp(joint, axis=1)
        responsibility = np.exp(joint - evidence[:, None])
        log_likelihood = evidence - logsumexp(log_clean, axis=1)
        last, mean = mean, np.average(log_likelihood, weights=weight)
        if abs(mean - last) < _TOLERANCE:
            break
    counts = _counts(pair, responsibility * weight[:, None], len(codes))
    return pairs.renamed(counts).matrix(counts), log_likelihood


def _counts(pair: np.ndarray, responsibility: np.ndarray, n_pairs: int) -> np.ndarray:
    """Return the expected number of rows of each pair."""
    return np.bincount(pair.ravel(), responsibility.ravel(), n_pairs)


def _project(
    predict: Callable[[np.ndarray], np.ndarray], target: np.ndarray, random_state: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return principal scores of each row, its classes in question, and how many classes there are.

    In question are the likeliest classes, in order, and the observed one.
    """
    n_samples = len(target)
    some = np.random.RandomState(random_state).permutation(n_samples)[:_ROWS_OF_COMPONENTS]
    seen = _centred(predict(np.sort(some)))
    n_classes = seen.shape[1]
    n_components = min(_N_COMPONENTS, n_classes - 1, len(some))
    components = PCA(n_components, svd_solver="randomized", random_state=random_state).fit(seen)
    n_candidates = min(_N_CANDIDATES, n_classes)
    scores = np.empty((n_samples, n_components), dtype=np.float32)
    candidates = np.empty((n_samples, n_candidates), dtype=np.intp)
    for rows in gen_batches(n_samples, max(1, _ELEMENTS_AT_ONCE // n_classes)):
        part = predict(np.arange(n_samples)[rows])
        scores[rows] = components.transform(_centred(part))
        candidates[rows] = _likeliest(part, target[rows], n_candidates)
    return scores, candidates, n_classes


def _likeliest(log_proba: np.ndarray, target: np.ndarray, n_candidates: int) -> np.ndarray:
    """Return the likeliest classes of each row, the last one replaced by an absent observed one."""
    likeliest = np.argpartition(-log_proba, n_candidates - 1, axis=1)[:, :n_candidates]
    order = np.argsort(-np.take_along_axis(log_proba, likeliest, axis=1), axis=1)
    likeliest = np.take_along_axis(likeliest, order, axis=1)
    absent = (likeliest != target[:, None]).all(axis=1)
    likeliest[absent, -1] = target[absent]
    return likeliest


def _centred(log_proba: np.ndarray) -> np.ndarray:
    floored = np.maximum(log_proba, SMALLEST_LOG_PROBABILITY).astype(np.float32)
    return floored - floored.mean(axis=1, keepdims=True)


class _Pairs:
    """The pairs of a true and an observed class that are in question.

    Parameters
    ----------
    codes : ndarray of int of shape (n_pairs,)
        Number of the true class times the number of classes plus the number of the observed one.
    n_classes : int
    """

    def __init__(self, codes: np.ndarray, n_classes: int) -> None:
        self.n_classes = n_classes
        self.true, self.observed = np.divmod(codes, n_classes)
        self.right = self.true == self.observed

    def transition(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the probability of each pair, and that of other wrong labels and of the right one.

        The latter for each class, where such a label does not occur.
        """
        mass = np.bincount(self.true, counts, self.n_classes)
        rate = 1.0 - (counts[self.right].sum() + 1.0) / (counts.sum() + 2.0)
        wrong, right = rate / (self.n_classes - 1), 1.0 - rate
        pooled = np.where(self.right, right, wrong)
        strength = self._strength(counts, mass, pooled)
        share = strength / (mass + strength)
        of_pairs = (counts + strength * pooled) / (mass + strength)[self.true]
        return of_pairs, share * wrong, share * right

    def _strength(self, counts: np.ndarray, mass: np.ndarray, pooled: np.ndarray) -> float:
        """Return the weight of the pooled rate, in labels, that makes the counts likeliest.

        The counts of a class are Dirichlet-multinomial.
        """

        def log_evidence(strength: float) -> float:
            prior = strength * pooled
            of_classes = gammaln(strength) - gammaln(mass + strength)
            return float(of_classes.sum() + (gammaln(counts + prior) - gammaln(prior)).sum())

        return float(max(_STRENGTHS, key=log_evidence))

    def matrix(self, counts: np.ndarray) -> np.ndarray:
        """Return the matrix (true, observed)."""
        of_pairs, wrong, right = self.transition(counts)
        transition = np.repeat(wrong[:, None], self.n_classes, axis=1)
        np.fill_diagonal(transition, right)
        transition[self.true, self.observed] = of_pairs
        return transition / transition.sum(axis=1, keepdims=True)

    def renamed(self, counts: np.ndarray) -> _Pairs:
        """Name the true classes so that as many labels as can be are right."""
        size = (self.n_classes, self.n_classes)
        stored = sparse.csr_array((counts, (self.true, self.observed)), shape=size)
        every = sparse.eye_array(self.n_classes, format="csr") * _SMALLEST_COUNT
        cluster, name = min_weight_full_bipartite_matching(stored + every, maximize=True)
        named = np.empty(self.n_classes, dtype=np.intp)
        named[cluster] = name
        return _Pairs(named[self.true] * self.n_classes + self.observed, self.n_classes)


def _discriminant(
    scores: np.ndarray, candidates: np.ndarray, responsibility: np.ndarray, n_classes: int
) -> np.ndarray:
    """Return ``log p(y=i | s_t)`` of the classes in question, up to a constant of each row."""
    n_samples, n_candidates = candidates.shape
    rows = np.arange(0, n_samples * n_candidates + 1, n_candidates)
    weighted = sparse.csr_array(
        (responsibility.ravel(), candidates.ravel(), rows), shape=(n_samples, n_classes)
    )
    mass = np.asarray(weighted.sum(axis=0)) + 1e-9
    mean = (weighted.T @ scores) / mass[:, None]
    total = responsibility.sum(axis=1)
    scatter = (scores.T * total) @ scores - (mean.T * mass) @ mean
    covariance = scatter / mass.sum()
    ridge = _SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-8
    direction = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), mean.T).T
    offset = np.log(mass / mass.sum()) - 0.5 * (mean * direction).sum(axis=1)
    direction, log_clean = direction.astype(np.float32), np.empty(candidates.shape)
    for part in gen_batches(
        n_samples, max(1, _ELEMENTS_AT_ONCE // (n_candidates * scores.shape[1]))
    ):
        log_clean[part] = np.einsum("td,tmd->tm", scores[part], direction[candidates[part]])
    return log_clean + offset[candidates]
