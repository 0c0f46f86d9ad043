r"""How well the labels determine the transition matrix, and whether there is noise at all.

Given calibrated clean probabilities :math:`p_{ti}` for rows that the network was not trained on,
observed labels are draws from :math:`q_{tj} = \sum_i p_{ti} T_{ij}`, and the Fisher information of
T is

.. math:: I_{ij,i'j} = \sum_t p_{ti}\, p_{ti'} / q_{tj},

zero between different observed classes j.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, ttest_1samp
from sklearn.utils import Bunch

from sknoisy._crowd.answers import has_answers
from sknoisy._support import validation
from sknoisy._support.meta_estimators import unwrap_unfitted
from sknoisy._support.validation import FloatArray
from sknoisy._transition.calibration import (
    LOG_SHARPNESS,
    Recalibration,
    recalibrate,
    sharpen,
    with_sharpness,
)
from sknoisy.inspection._answers import annotator_intervals, refuse_probabilities
from sknoisy.inspection._cross_fitting import (
    NEEDED,
    HeldOut,
    always_with_noise_model,
    best_of_search,
    out_of_fold_log_probabilities,
    partition,
    without_noise_model,
)
from sknoisy.inspection._evidence import (
    DEFAULT_CV,
    LabelEvidence,
    checked_rows,
    fit_to_probabilities,
    has_noise_model,
)
from sknoisy.inspection._trusted import compare_with_trusted

#: Hardly any: added labels would draw the estimate away from the middle of the interval.
_PSEUDO_COUNT = 0.1

#: Their time grows with the fourth power of the number of classes.
_MOST_CLASSES_FOR_INTERVALS = 50

#: Sharpness is sought between bounds: its logarithm has at most the variance of a uniform draw.
_LEAST_INFORMATION = 12 / np.diff(LOG_SHARPNESS).item() ** 2


def transition_interval(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    cv: Any = None,
    *,
    confidence: float = 0.9,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
    annotators: ArrayLike | None = None,
) -> Bunch:
    r"""Estimate the transition matrix on held-out rows, with intervals for its entries.

    Parameters
    ----------
    estimator : estimator
        Any classifier with ``predict_proba``. A `NoisyLabelClassifier`, also inside a pipeline or a
        search, uses its own noise model, which must be ``"s"``. The estimator is cloned and need
        not be fitted. None with `pred_proba`.
    X : {array-like, CSR matrix, DataFrame, data set} of shape (n_samples, ...)
        None with `pred_proba`.
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        As in `label_quality`: every row is held out once. None is 5 stratified folds.
    confidence : float, default=0.9
        Confidence level of each single interval.
    groups : array-like of shape (n_samples,), default=None
        Groups for splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Out-of-sample probabilities of the observed labels, in place of `estimator` and `cv`.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        Number of folds that are fitted at the same time.
    annotators : array-like of the shape of y, default=None
        Who gave each answer if `y` has several for a row, as in `NoisyLabelClassifier.fit`.

    Returns
    -------
    Bunch
        With the attributes

        transition_matrix : ndarray of shape (n_classes, n_classes)
            Rows are true classes, columns observed ones. Close to ``transition_matrix_`` of an
            estimator fitted to all rows, but not the same: that estimator was trained on the labels
            that it explains.
        standard_error : ndarray of shape (n_classes, n_classes)
            Standard errors of its entries.
        lower, upper : ndarray of shape (n_classes, n_classes)
            Ends of the intervals, within 0 and 1.
        classes : ndarray of shape (n_classes,)
            Classes of rows and columns.

        With several answers a row, `annotator_transitions`, `standard_error`, `lower` and `upper`
        are of shape (n_annotators, n_classes, n_classes), `annotators` names the annotators, and
        the matrix is their mean. Without `cv` the fitted estimator is used.

    Raises
    ------
    TypeError
        If the estimator has no ``predict_proba``.
    ValueError
        If its own noise model is None or ``"c"``, if its matrix is not learned, if `confidence` is
        not between 0 and 1, or if `X`, `y` and `cv` are not as in `label_quality`.

    See Also
    --------
    noise_test : Is there noise at all?

    Notes
    -----
    The sharpness of the probabilities and the matrix are fitted to the observed labels of held-out
    rows. The standard errors are those of maximum likelihood, from the Fisher information of both,
    with rows of the matrix that sum to one. The intervals are Wilson's (E. B. Wilson, "Probable
    inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 1927), widened by the information that is lost because the true
    labels are not seen. Unlike an estimate plus and minus its error, they are valid near 0 and 1.

    They describe how far chance in the labels may have moved the matrix, assuming that the noise
    depends on the true class alone and that the probabilities are calibrated up to their sharpness.
    They do not cover errors of the noise model itself. The bootstrap would answer the same question
    at many times the cost.

    The time grows with the fourth power of the number of classes: seconds at 100.

    The intervals of annotators are those of Dirichlet posteriors, given the posteriors of the true
    labels; the uncertainty of the latter is not included.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import transition_interval
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:800] / 16, y[:800]
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> classifier = NoisyLabelClassifier(lr=0.01, max_epochs=10, random_state=0)
    >>> interval = transition_interval(classifier, X, y_observed, cv=2)
    >>> bool(interval.lower[3, 4] < 0.4 < interval.upper[3, 4])
    True
    """
    confidence = validation.check_confidence(confidence)
    if has_answers(y, annotators):
        refuse_probabilities(pred_proba)
        return annotator_intervals(estimator, X, y, annotators, cv, groups, confidence)
    X, labels, _ = checked_rows(X, y)
    if pred_proba is None and has_noise_model(estimator):
        rows = partition(DEFAULT_CV if cv is None else cv, X, labels, groups)
        estimator = best_of_search(estimator, X, labels)
        classifier = unwrap_unfitted(estimator, NEEDED)
        if classifier.noise_model != "s" or not classifier.learn_transition:
            raise ValueError(
                "Intervals are those of the one matrix that noise_model='s' learns; got "
                f"noise_model={classifier.noise_model!r}, "
                f"learn_transition={classifier.learn_transition!r}."
            )
        kept = always_with_noise_model(estimator)
        held_out = out_of_fold_log_probabilities(kept, X, rows, n_jobs)
        log_proba, target, start = held_out.clean_log_proba, rows.target, held_out.transition
        names = rows.classes
    else:
        names, target, found = fit_to_probabilities(
            estimator,
            X,
            labels,
            cv,
            groups=groups,
            pred_proba=pred_proba,
            classes=classes,
            n_jobs=n_jobs,
        )
        log_proba, target = found.held_out.clean_log_proba, target[found.rows]
        assert found.held_out.transition is not None
        start = found.held_out.transition
    fit = recalibrate(log_proba, target, start, pseudo_count=_PSEUDO_COUNT)
    assert fit.transition is not None
    variance = transition_variance(fit)
    n_rows = np.exp(fit.clean_log_proba).sum(axis=0)
    lower, upper = wilson_interval(fit.transition, variance, n_rows, confidence)
    return Bunch(
        transition_matrix=fit.transition,
        standard_error=np.sqrt(variance),
        lower=lower,
        upper=upper,
        classes=names,
    )


def noise_test(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    cv: Any = None,
    *,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
    trusted: ArrayLike | None = None,
    noisy_label: ArrayLike | None = None,
    random_state: Any = 0,
) -> Bunch:
    r"""Test whether there is label noise at all, or whether checked labels agree with a matrix.

    The observed labels of held-out rows are predicted with and without a noise model. The null
    hypothesis is that the noise model does not make them more likely.

    With `trusted`, a different question is answered: is the matrix that is learned without any
    checked label compatible with the checked labels?

    Parameters
    ----------
    estimator : estimator
        Any classifier with ``predict_proba``. A `NoisyLabelClassifier`, also inside a pipeline or a
        search, uses its own noise model. The estimator is cloned and need not be fitted. None with
        `pred_proba`.
    X : {array-like, CSR matrix, DataFrame, data set} of shape (n_samples, ...)
        None with `pred_proba`.
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        As in `label_quality`: every row is held out once. None is 5 stratified folds.
    groups : array-like of shape (n_samples,), default=None
        Groups for splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Out-of-sample probabilities of the observed labels, in place of `estimator` and `cv`.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        Number of folds that are fitted at the same time.
    trusted : array-like of bool of shape (n_samples,), default=None
        Rows whose label was checked: `y` holds the true label there. Only for a
        `NoisyLabelClassifier`, also inside a pipeline or a search. `cv` and `groups` are ignored.
    noisy_label : array-like of shape (n_samples,), default=None
        Labels that were observed for the checked rows before, where known, as in
        `NoisyLabelClassifier.fit`.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws of the test with `trusted`.

    Returns
    -------
    Bunch
        With `trusted`, the attributes

        pvalue : float
            Small if the learned matrix and the checked labels do not agree.
        statistic : float
            Twice the log-likelihood ratio of the counts of checked rows.
        transition_matrix : ndarray of shape (n_classes, n_classes)
            Learned from the rows that were not checked.
        counted_transition : ndarray of shape (n_classes, n_classes)
            Counted on the checked rows; the identity for classes without any.
        n_trusted : ndarray of shape (n_classes,)
            Number of checked rows of each class.
        classes : ndarray of shape (n_classes,)
            Classes of rows and columns.

        Otherwise the attributes

        pvalue : float
            One-sided: small if there is noise.
        statistic : float
            Gain over its standard error.
        log_likelihood_gain : float
            Mean log-likelihood of an observed label with the noise model, minus that without it, in
            nats per row.
        standard_error : float
            Standard error of the gain.
        noise_rate : float
            Expected share of wrong labels among the rows, if there is noise.

    Raises
    ------
    TypeError
        If the estimator has no ``predict_proba``.
    ValueError
        If the noise model of a `NoisyLabelClassifier` is None, or if `X`, `y` and `cv` are not as
        in `label_quality`.

    See Also
    --------
    transition_interval : What the noise looks like, and how certain that is.

    Notes
    -----
    With noise, labels are predicted by the network and its noise layer, or by the known matrix, to
    which one label is added for each true class, drawn like the observed ones. There are two
    alternatives without noise: the same network fitted without a noise layer, and the clean
    probabilities of the network with it. The sharpness of all three is fitted to the rows of the
    other folds, so that a network that is merely overconfident is not evidence of noise. Gains of
    the rows are compared with zero by Student's t-test, which holds for differences of
    cross-validated losses (P. Bayle, A. Bayle, L. Janson, L. Mackey, "Cross-validation confidence
    intervals for test error", NeurIPS 2020). The result is that of the comparison with the larger
    p-value: both alternatives must be rejected.

    For other classifiers and for given probabilities, the noise model is the one that explains the
    labels of unseen rows best (see `label_quality`), and the two alternatives are the sharpened
    probabilities and a linear layer on their logarithms.

    With `trusted`, a clone is fitted to the other rows. Checked rows are counted by true class and
    observed label, for which stands what the clone predicts where it is not known. The likelihood
    ratio of these counts against the learned matrix is compared with 999 draws of it under the
    hypothesis that the matrix is right: observed labels are drawn by the matrix, whose own
    uncertainty is that of a Dirichlet distribution, and true labels of rows without an observed
    label as they are predicted, after sharpening. This test finds two classes that were
    swapped.

    Noise is told from overlapping classes by being the same wherever a class occurs. A large
    p-value does not mean that all labels are right: there may be too few rows, and every network
    learns wrong labels that follow the features.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import noise_test
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:800] / 16, y[:800]
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> classifier = NoisyLabelClassifier(lr=0.01, max_epochs=10, random_state=0)
    >>> bool(noise_test(classifier, X, y_observed, cv=2).pvalue < 0.01)
    True
    """
    if trusted is not None:
        refuse_probabilities(pred_proba)
        return compare_with_trusted(estimator, X, y, trusted, noisy_label, random_state)
    X, labels, _ = checked_rows(X, y)
    if pred_proba is None and has_noise_model(estimator):
        rows = partition(DEFAULT_CV if cv is None else cv, X, labels, groups)
        estimator = best_of_search(estimator, X, labels)
        classifier = unwrap_unfitted(estimator, NEEDED)
        if classifier.noise_model is None:
            raise ValueError("A test of noise needs a noise model; got noise_model=None.")
        kept = always_with_noise_model(estimator)
        noisy = out_of_fold_log_probabilities(kept, X, rows, n_jobs)
        plain = out_of_fold_log_probabilities(without_noise_model(estimator), X, rows, n_jobs)
        folds = [test for _, test in rows.splits]
        gains, n_wrong = _gains_of_noise(noisy, plain, rows.target, folds)
        return judge_gains(gains, n_wrong / len(labels))
    _, _, found = fit_to_probabilities(
        estimator,
        X,
        labels,
        cv,
        groups=groups,
        pred_proba=pred_proba,
        classes=classes,
        n_jobs=n_jobs,
    )
    fit = found.recalibration
    assert fit.transition is not None
    wrong = np.exp(fit.clean_log_proba) @ (1.0 - np.diag(fit.transition))
    return judge_gains(found.gains, float(wrong.mean()))


def judge_gains(gains: list[FloatArray], noise_rate: float) -> Bunch:
    """Test whether gains in log-likelihood are above zero, and return the least certain result.

    Parameters
    ----------
    gains : list of ndarray of shape (n_rows,)
        With noise over each way to be without.
    noise_rate : float
        If there is noise.
    """
    results = []
    for gain in gains:
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        statistic, pvalue = ttest_1samp(gain, 0.0, alternative="greater") if error else (0.0, 0.5)
        results.append(
            Bunch(
                pvalue=float(pvalue),
                statistic=float(statistic),
                log_likelihood_gain=float(gain.mean()),
                standard_error=float(error),
                noise_rate=noise_rate,
            )
        )
    return max(results, key=lambda result: result.pvalue)


def judge_evidence(evidence: LabelEvidence) -> Bunch | None:
    """Return what `noise_test` says of these labels; None if none were held out."""
    rate = evidence.n_wrong(evidence.posterior) / len(evidence.target)
    if evidence.unseen is not None:
        gains, n_wrong = _gains_of_noise(*evidence.unseen, evidence.target, list(evidence.folds))
        return judge_gains(gains, n_wrong / len(evidence.target))
    return None if evidence.gains is None else judge_gains(evidence.gains, rate)


def rate_interval(evidence: LabelEvidence, confidence: float = 0.9) -> tuple[float, float] | None:
    """Return an interval of the share of wrong labels; None without a matrix from unseen rows.

    As of `transition_interval`, for the mean of the diagonal weighted by the classes.
    """
    fit = evidence.held_out
    if fit is None or fit.transition is None or len(fit.transition) > _MOST_CLASSES_FOR_INTERVALS:
        return None
    assert evidence.held_out_target is not None
    start = 0.99 * fit.transition + 0.01 / len(fit.transition)
    target = evidence.held_out_target
    fit = recalibrate(fit.clean_log_proba, target, start, pseudo_count=_PSEUDO_COUNT)
    assert fit.transition is not None
    share = np.exp(fit.clean_log_proba).mean(axis=0)
    variance = _covariance(fit).of_diagonal(share)
    right = np.array([[share @ np.diag(fit.transition)]])
    n_rows = np.array([float(len(target))])
    lower, upper = wilson_interval(right, np.array([[variance]]), n_rows, confidence)
    low, high = 1.0 - upper.item(), 1.0 - lower.item()
    if not np.any(evidence.transition != np.eye(len(share))):
        low = 0.0  # noise may be, and was not counted
    return low, high


def _gains_of_noise(
    noisy: HeldOut, plain: HeldOut, target: np.ndarray, folds: list[np.ndarray]
) -> tuple[list[FloatArray], float]:
    """Return gains over being without noise in two ways, and the number of wrong labels."""
    column = _add_one_smoothing(noisy, target)
    alternative, n_wrong = _predict_labels(noisy.clean_log_proba, column, target, folds)
    gains = []
    for without in (noisy, plain):
        null, _ = _predict_labels(without.clean_log_proba, plain.log_column, target, folds)
        gains.append(alternative - null)
    return gains, n_wrong


def _add_one_smoothing(held_out: HeldOut, target: np.ndarray) -> FloatArray:
    """Add to the noise of each true class one label that is drawn like the observed ones.

    Labels that no row of a class had are improbable then, and not impossible.

    Returns
    -------
    log_column : ndarray of shape (n_samples, true)
    """
    share = np.bincount(target)[target][:, None] / len(target)
    n_rows = np.exp(held_out.clean_log_proba).sum(axis=0)
    return np.log((n_rows * np.exp(held_out.log_column) + share) / (n_rows + 1))


def _predict_labels(
    log_proba: FloatArray, log_column: FloatArray, target: np.ndarray, folds: list[np.ndarray]
) -> tuple[FloatArray, float]:
    """Predict the observed labels of each fold, sharpened as is best for the others.

    Parameters
    ----------
    log_proba : ndarray of shape (n_samples, true)
        Clean log-probabilities from networks that did not see the row.
    log_column : ndarray of shape (n_samples, true)
        Element (t, i) is the log-probability of the observed label of row t if i is true.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    folds : list of ndarray
        Rows of each.

    Returns
    -------
    log_likelihood : ndarray of shape (n_samples,)
    n_wrong : float
        Expected number of wrong labels.
    """
    likelihood, n_wrong = np.empty(len(target)), 0.0
    for rows in folds:
        others = np.setdiff1d(np.arange(len(target)), rows)
        sharpness = sharpen(log_proba[others], log_column[others]).sharpness
        fit = with_sharpness(log_proba[rows], log_column[rows], sharpness)
        likelihood[rows] = fit.log_likelihood
        n_wrong += float(np.sum(1.0 - fit.posterior[np.arange(len(rows)), target[rows]]))
    return likelihood, n_wrong


class _Covariance(NamedTuple):
    """Covariance of the entries of a matrix, by columns.

    That of two entries is the one within their column, if it is the same, less what rows that sum
    to one take away, plus what the sharpness, estimated along, adds.

    Attributes
    ----------
    columns : callable
        Yields the covariance of each column, (true, true), and its information in common with
        sharpness, (true,), without the constraint of the rows.
    fixed : ndarray of shape (true, true)
        Inverse of the covariance of the sums of the rows.
    direction : ndarray of shape (observed, true)
        Change of the entries with sharpness.
    rest : float
        Information on sharpness once the matrix is fitted too.
    """

    columns: Callable[[], Iterator[tuple[FloatArray, FloatArray]]]
    fixed: np.ndarray
    direction: FloatArray
    rest: float

    def of_entries(self) -> FloatArray:
        """Return the variance of each entry, shape (true, observed)."""
        within = [np.diag(part - part @ self.fixed @ part) for part, _ in self.columns()]
        return np.maximum(np.transpose(within) + self.direction.T**2 / self.rest, 0.0)

    def of_diagonal(self, weight: FloatArray) -> float:
        """Return the variance of the weighted sum of the diagonal; `weight` has shape (true,)."""
        within, sums = 0.0, np.zeros(len(weight))
        for j, (part, _) in enumerate(self.columns()):
            within += weight[j] ** 2 * part[j, j]
            sums += weight[j] * part[:, j]
        along = float(weight @ np.diag(self.direction))
        return max(float(within - sums @ self.fixed @ sums) + along**2 / self.rest, 0.0)


def transition_variance(fit: Recalibration) -> FloatArray:
    """Return the variances of the entries of the matrix, from the Fisher information.

    That rows sum to one, and that the sharpness of the probabilities was estimated along with the
    matrix, is taken into account.

    Parameters
    ----------
    fit : Recalibration
        With one matrix for all rows, whose entries are positive.

    Returns
    -------
    ndarray of shape (true, observed)
    """
    return _covariance(fit).of_entries()


def _covariance(fit: Recalibration) -> _Covariance:
    """Return the covariance of the entries of the matrix; the parameter is as above."""
    assert fit.transition is not None
    proba, transition = np.exp(fit.clean_log_proba), fit.transition
    noisy = proba @ transition
    # d q_tj / d log(sharpness)
    centred = fit.clean_log_proba - (proba * fit.clean_log_proba).sum(axis=1, keepdims=True)
    slope = (proba * centred) @ transition

    def columns() -> Iterator[tuple[FloatArray, FloatArray]]:
        for q, dq in zip(noisy.T, slope.T, strict=True):
            weighted = proba / q[:, None]
            yield np.linalg.pinv(proba.T @ weighted, hermitian=True), weighted.T @ dq

    # Of all rows of T, first without and then with their sums fixed to one.
    of_sums, free, cross = np.zeros((len(transition),) * 2), [], []
    for covariance, information in columns():
        of_sums += covariance
        free.append(covariance @ information)
        cross.append(information)
    fixed = np.linalg.pinv(of_sums, hermitian=True)
    shift = fixed @ np.sum(free, axis=0)
    direction: FloatArray = np.array(
        [along - part @ shift for along, (part, _) in zip(free, columns(), strict=True)]
    )
    # What is left of the information on sharpness, once the matrix is fitted too.
    rest = float((slope**2 / noisy).sum() - np.sum(np.multiply(cross, direction)))
    return _Covariance(columns, fixed, direction, max(rest, _LEAST_INFORMATION))


def wilson_interval(
    estimate: FloatArray, variance: FloatArray, n_rows: FloatArray, confidence: float
) -> tuple[FloatArray, FloatArray]:
    r"""Return intervals of probabilities that were counted, but not directly.

    What the variance has over that of a count among `n_rows`, p (1 - p) / n, is due to true labels
    that nobody saw; it is taken for constant, and the rest for what it is at the end of the
    interval, as in Wilson's interval, which it is where nothing is missing.

    Parameters
    ----------
    estimate, variance : ndarray of shape (true, observed)
    n_rows : ndarray of shape (true,)
        Expected number of rows of each true class.
    confidence : float

    Returns
    -------
    lower, upper : ndarray of shape (true, observed)
    """
    z2, n = norm.ppf(0.5 + confidence / 2) ** 2, n_rows[:, None]
    missing = np.maximum(variance - estimate * (1 - estimate) / n, 0.0)
    a, b = 1 + z2 / n, estimate + z2 / (2 * n)
    root = np.sqrt(np.maximum(b**2 - a * (estimate**2 - z2 * missing), 0.0))
    return np.clip((b - root) / a, 0, 1), np.clip((b + root) / a, 0, 1)
