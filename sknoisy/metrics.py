"""Scores that need no clean labels, and the error of an estimated transition matrix.

Transition matrices are (true, observed): row ``i`` is the distribution of the observed label when
the true class is ``i``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The public make_scorer hands over predictions only, not the estimator, and sklearn's
# ScoringMonitor recognises a scorer by this class.
from sklearn.metrics._scorer import _BaseScorer
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d, gen_batches
from sklearn.utils.multiclass import unique_labels

from sknoisy._crowd.annotators import log_answer_table
from sknoisy._crowd.answers import has_answers
from sknoisy._support.labels import as_label_array
from sknoisy._support.meta_estimators import unwrap_fitted
from sknoisy._support.validation import (
    FloatArray,
    check_transition_matrix,
    class_indices,
    parameter_error,
)

__all__ = [
    "noise_corrected_accuracy",
    "noise_corrected_accuracy_scorer",
    "noisy_log_likelihood_scorer",
    "transition_matrix_error",
]

# Relative size under which a singular value of a transition matrix counts as zero: above what
# single precision leaves of an exact zero.
_SINGULAR = 1e-6

# Elements of the transition matrices held at a time, (n_samples, true, observed).
_BATCH_ELEMENTS = 2**22


def transition_matrix_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """Mean total variation distance between the rows of two transition matrices.

    The distance of a row is the largest error in the probability of any set of observed classes,
    half the sum of the absolute differences.

    Parameters
    ----------
    estimated : array-like of shape (true, observed) or (n_samples, true, observed)
        Estimated matrix, or one per sample.
    true : array-like of the same shape
        True matrix, with the classes in the same order.

    Returns
    -------
    float
        From 0 (equal) to 1 (no observed class in common). Every true class counts the same, however
        frequent it is.

    Raises
    ------
    ValueError
        If the shapes differ or an argument is not a transition matrix.

    Examples
    --------
    >>> from sknoisy.metrics import transition_matrix_error
    >>> transition_matrix_error([[1, 0], [0, 1]], [[0.75, 0.25], [0, 1]])
    0.125
    """
    if np.shape(estimated) != np.shape(true):
        raise ValueError(
            f"estimated must have the shape of true, {np.shape(true)}, got {np.shape(estimated)}."
        )
    n_samples = len(np.asarray(true)) if np.ndim(true) == 3 else None
    estimate = check_transition_matrix(estimated, name="estimated", n_samples=n_samples)
    truth = check_transition_matrix(true, name="true", n_samples=n_samples)
    return float(np.abs(estimate - truth).sum(axis=-1).mean() / 2)


@overload
def noise_corrected_accuracy(
    y_observed: ArrayLike,
    y_pred: ArrayLike,
    transition_matrix: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    return_variance: Literal[False] = ...,
) -> float: ...


@overload
def noise_corrected_accuracy(
    y_observed: ArrayLike,
    y_pred: ArrayLike,
    transition_matrix: ArrayLike,
    *,
    labels: ArrayLike | None = ...,
    sample_weight: ArrayLike | None = ...,
    return_variance: Literal[True],
) -> tuple[float, float]: ...


def noise_corrected_accuracy(
    y_observed: ArrayLike,
    y_pred: ArrayLike,
    transition_matrix: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    return_variance: bool = False,
) -> float | tuple[float, float]:
    r"""Estimate the accuracy on the true labels from observed ones and the transition matrix.

    Unbiased if the matrix is right and the samples were not used to fit the predictions. It may
    therefore fall outside [0, 1].

    Parameters
    ----------
    y_observed : array-like of shape (n_samples,)
        Observed, possibly wrong labels.
    y_pred : array-like of shape (n_samples,)
        Predictions of the true labels.
    transition_matrix : array-like of shape (true, observed) or (n_samples, true, observed)
        Probability of each observed label given the true one; one matrix, or one per sample.
    labels : array-like of shape (n_classes,), default=None
        The labels in the order of the rows and columns. None: the sorted distinct labels in
        `y_observed` and `y_pred`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples in the mean.
    return_variance : bool, default=False
        Whether to return the estimated variance of the estimate as well.

    Returns
    -------
    accuracy : float
        Estimated accuracy on the true labels.
    variance : float
        Only with `return_variance`. Variance over samples of this size, treating the matrix as
        known; its square root is the standard error. It does not change if all weights are
        multiplied by a number: a weight of 2 is not a second observation. NaN for a single sample.

    Raises
    ------
    ValueError
        If the lengths differ, a label is not in `labels` or the matrix is not a transition matrix
        over `labels`.

    See Also
    --------
    noise_corrected_accuracy_scorer : The same for an estimator and its own matrix.

    Notes
    -----
    With observed label z, prediction c and matrix T, the sample counts
    :math:`(T^{-1})_{zc}` towards the accuracy, since for true label i

    .. math:: \sum_z T_{iz} (T^{-1})_{zc} = 1\{i = c\}.

    This is the backward correction [1]_ of the zero-one loss. The closer T is to a singular
    matrix, the larger is the variance. For a singular T no unbiased estimate exists and the
    pseudo-inverse stands in: among classes with the same row of T, a prediction of one of m counts
    as the share 1 / m whichever of them is true.

    References
    ----------
    .. [1] G. Patrini, A. Rozza, A. Menon, R. Nock and L. Qu, "Making deep neural networks robust to
       label noise: a loss correction approach", CVPR 2017.

    Examples
    --------
    >>> from sknoisy.metrics import noise_corrected_accuracy
    >>> T = [[0.75, 0.25], [0.25, 0.75]]
    >>> print(f"{noise_corrected_accuracy([0, 0, 1, 0], [0, 0, 1, 1], T):.2f}")
    1.00
    """
    observed, predicted = _labels("y_observed", y_observed), _labels("y_pred", y_pred)
    check_consistent_length(observed, predicted)
    known = unique_labels(observed, predicted)
    names = known if labels is None else _labels("labels", labels)
    if np.any(class_indices(known, names) < 0):
        raise ValueError(
            f"y_observed and y_pred must hold only labels in labels, {names.tolist()}, "
            f"got {known.tolist()}."
        )
    transition = check_transition_matrix(transition_matrix, n_samples=len(observed))
    if transition.shape[-1] != len(names):
        raise ValueError(
            f"transition_matrix must have a row and a column for each of the {len(names)} labels "
            f"{names.tolist()}, got shape {transition.shape}. Pass labels if some are missing."
        )
    counts = _estimated_correctness(
        class_indices(observed, names), class_indices(predicted, names), transition
    )
    share = _shares(sample_weight, len(counts))
    accuracy = float(share @ counts)
    if not return_variance:
        return accuracy
    n_counted = np.count_nonzero(share)
    if n_counted == 1:
        return accuracy, float("nan")
    variance = share**2 @ (counts - accuracy) ** 2 * n_counted / (n_counted - 1)
    return accuracy, float(variance)


def _labels(name: str, values: ArrayLike) -> NDArray[np.generic]:
    with parameter_error(name, "hold labels that are all strings or all numbers"):
        return np.asarray(column_or_1d(as_label_array(values)))


def _estimated_correctness(
    observed: NDArray[np.intp], predicted: NDArray[np.intp], transition: FloatArray
) -> FloatArray:
    """Estimate of whether each prediction is the true label, unbiased given that label.

    Parameters
    ----------
    observed, predicted : ndarray of shape (n_samples,)
        Class indices; an observed one of -1, no class of the matrix, counts as a wrong prediction.
    transition : ndarray of shape (true, observed) or (n_samples, true, observed)
        One matrix, or one per sample.

    Returns
    -------
    ndarray of shape (n_samples,)
        Element (observed, predicted) of the inverse of the matrix.
    """
    inverse = np.linalg.pinv(transition, rcond=_SINGULAR)
    per_sample = np.broadcast_to(inverse, (len(observed), *inverse.shape[-2:]))
    return np.where(observed < 0, 0.0, per_sample[np.arange(len(observed)), observed, predicted])


def _shares(sample_weight: ArrayLike | None, n_samples: int) -> FloatArray:
    """Weights of the samples in a mean, (n_samples,), which sum to one."""
    weight = np.ones(n_samples)
    if sample_weight is not None:
        weight = column_or_1d(np.asarray(sample_weight), dtype=np.float64)
        check_consistent_length(np.empty(n_samples), weight)
    if not np.all(np.isfinite(weight) & (weight >= 0)) or not np.any(weight > 0):
        raise ValueError(
            "sample_weight must be finite and non-negative with at least one positive weight, "
            f"got {sample_weight!r}."
        )
    return np.asarray(weight / weight.sum())


def _noisy_log_likelihood(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    annotators: ArrayLike | None = None,
) -> float:
    """Mean log-likelihood of the observed labels `y`; see `noisy_log_likelihood_scorer`."""
    if has_answers(y, annotators):
        return _answer_log_likelihood(estimator, X, y, sample_weight, annotators)
    classifier, X = unwrap_fitted(estimator, X, "predict_noisy_proba")
    noisy_proba = np.asarray(classifier.predict_noisy_proba(X), dtype=np.float64)
    observed = _observed_indices(classifier, y, len(noisy_proba))
    likelihood = noisy_proba[np.arange(len(observed)), observed]
    # A floor that does not depend on the dtype keeps single and double precision comparable.
    likelihood = np.maximum(np.where(observed < 0, 0, likelihood), np.finfo(np.float64).eps)
    return float(_shares(sample_weight, len(observed)) @ np.log(likelihood))


def _answer_log_likelihood(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None, annotators: Any
) -> float:
    """Mean log-likelihood of single answers, of which a row can have several."""
    classifier, X = unwrap_fitted(estimator, X, "predict_noisy_proba")
    clean_log_proba, answers, transitions = classifier._answer_factors(X, y, annotators)
    log_column = log_answer_table(transitions)[answers.code]
    likelihood = np.exp(clean_log_proba[answers.row] + log_column).sum(axis=1)
    likelihood = np.maximum(likelihood, np.finfo(np.float64).eps)
    weight = None if sample_weight is None else np.asarray(sample_weight)[answers.row]
    return float(_shares(weight, len(likelihood)) @ np.log(likelihood))


def _noise_corrected_accuracy(
    estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Estimated accuracy on the true labels; see `noise_corrected_accuracy_scorer`."""
    classifier, X = unwrap_fitted(estimator, X, "predict_transition")
    predicted = class_indices(np.asarray(classifier.predict(X)), np.asarray(classifier.classes_))
    observed = _observed_indices(classifier, y, len(predicted))
    share = _shares(sample_weight, len(predicted))
    if classifier.noise_model not in ("c", "auto"):
        transition = check_transition_matrix(classifier.transition_matrix_)
        counts = _estimated_correctness(observed, predicted, transition)
        return float(share @ counts)
    counts = np.empty(len(predicted))
    batch_size = max(1, _BATCH_ELEMENTS // len(classifier.classes_) ** 2)
    for batch in gen_batches(len(counts), batch_size):
        transition = check_transition_matrix(
            classifier.predict_transition(_safe_indexing(X, batch)),
            n_samples=batch.stop - batch.start,
        )
        counts[batch] = _estimated_correctness(observed[batch], predicted[batch], transition)
    return float(share @ counts)


def _observed_indices(classifier: Any, y: ArrayLike, n_samples: int) -> NDArray[np.intp]:
    """Class indices of the observed labels, (n_samples,), -1 for labels unseen in fit."""
    labels = _labels("y", y)
    classes = np.asarray(classifier.classes_)
    check_consistent_length(np.empty(n_samples), labels)
    unique_labels(classes, labels)  # refuses strings against numbers, which would all be unseen
    return class_indices(labels, classes)


class _EstimatorScorer(_BaseScorer):
    """Scorer of a function of the fitted estimator, not only of its predictions.

    Parameters
    ----------
    name : str
        Name of the scorer, its repr.
    score_func : callable
        ``score_func(estimator, X, y, sample_weight=None)``, greater is better.
    """

    def __init__(self, name: str, score_func: Callable[..., float]) -> None:
        super().__init__(score_func, sign=1, kwargs={}, response_method="predict")
        self._name = name

    def _score(
        self, method_caller: Callable[..., Any], estimator: Any, X: Any, y_true: Any, **kwargs: Any
    ) -> float:
        """Score the estimator itself; `method_caller` would hide all but its predictions."""
        score = float(self._score_func(estimator, X, y_true, **kwargs))
        if not np.isfinite(score):
            raise ValueError(
                f"{self._name} must be a finite number; {type(estimator).__name__} gave {score}: "
                "its probabilities or its transition matrix are not finite."
            )
        return score

    def __repr__(self) -> str:
        return self._name


noisy_log_likelihood_scorer = _EstimatorScorer("noisy_log_likelihood_scorer", _noisy_log_likelihood)
"""Scorer for choosing a model on noisy labels: mean log-likelihood of the observed labels.

``noisy_log_likelihood_scorer(estimator, X, y, sample_weight=None)`` is the mean of
``log p(observed label | x)`` under ``estimator.predict_noisy_proba``, the clean probabilities seen
through the transition matrix; greater is better. `estimator` is a fitted classifier with that
method, a pipeline that ends in one, or a fitted search over either. Pass the scorer as ``scoring``
to `GridSearchCV`, `HalvingGridSearchCV`, `cross_validate` and their like. With metadata routing,
ask for weights on a copy, ``copy.deepcopy(scorer).set_score_request(sample_weight=True)``, since
the scorer itself is shared by all who import it.

Probabilities are floored at the precision of float64, 2.2e-16, as `sklearn.metrics.log_loss` does.
A label that was not in the training data has probability zero and so counts -36.04 for every
candidate fitted to the same rows: the scores stay finite and their differences are as if such rows
had been left out. Classes missing from `y` make no difference.

With several answers a row, y of shape (n_samples, n_columns), it is the mean over the answers of
``log p(answer of this annotator | x)``, each without the help of the others; an annotator who was
not there in fit has the mean matrix. In the compact form pass `annotators` too, with metadata
routing ``set_score_request(annotators=True)`` on a copy. Rows without an answer make no difference.

An estimator without ``predict_noisy_proba`` raises a TypeError.
"""

noise_corrected_accuracy_scorer = _EstimatorScorer(
    "noise_corrected_accuracy_scorer", _noise_corrected_accuracy
)
"""Scorer that estimates the accuracy on the true labels from noisy ones.

``noise_corrected_accuracy_scorer(estimator, X, y, sample_weight=None)`` is
`noise_corrected_accuracy` of the predictions with the estimator's own matrix: its
``transition_matrix_`` or, if its noise depends on the features (``noise_model="c"``), its
``predict_transition(X)``. With ``noise_model=None`` the matrix is the identity and the score is the
plain accuracy on the observed labels. Pipelines and searches as for `noisy_log_likelihood_scorer`.
A row whose observed label was not in the training data counts as wrong.

Each candidate is judged through its own matrix, so a wrong matrix can win. Choose models with
`noisy_log_likelihood_scorer` and report this one; or, where the matrix is known, choose with
``make_scorer(noise_corrected_accuracy, transition_matrix=T, labels=classes)``.
"""
