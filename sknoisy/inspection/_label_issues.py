"""Which labels are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.utils import Bunch

from sknoisy._support import validation
from sknoisy._support.meta_estimators import unwrap_fitted, unwrap_unfitted
from sknoisy._support.validation import FloatArray
from sknoisy.inspection._cross_fitting import NEEDED, cross_fit, partition


def label_quality(
    estimator: Any, X: Any, y: ArrayLike, cv: Any = None, *, groups: ArrayLike | None = None
) -> Any:
    r"""Probability that an observed label is the true one, given the features and the label.

    Parameters
    ----------
    estimator : estimator
        A `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either; fitted,
        unless `cv` is given.
    X : {array-like, CSR matrix, DataFrame} of shape (n_samples, ...)
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None asks the fitted estimator, which is quick; but a network believes labels that it
        was trained on, the more so the fewer the rows. Otherwise clones are fitted, and each
        row is judged by one that did not see its label. An int is the number of folds,
        stratified by the observed labels. The splits must hold out each row once.
    groups : array-like of shape (n_samples,), default=None
        For splitters that need them.

    Returns
    -------
    ndarray of shape (n_samples,), or Series
        Probabilities: the lower, the likelier a wrong label. A Series with their index if `X`
        or `y` are of pandas.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted and there is no `cv`.
    TypeError
        If the estimator is of another kind.
    ValueError
        If `X` and `y` differ in length or index, if `y` holds labels that were not seen in fit,
        if the fitted estimator has no noise model, or if `cv` is not a partition in which every
        label is seen in every fold.

    See Also
    --------
    find_label_issues : How many labels are wrong, which, and what they might be.

    Notes
    -----
    With true label y and observed label z the quality is

    .. math:: p(y=z \mid x, z) = \frac{p(y=z|x)\, T_{zz}}{\sum_i p(y=i|x)\, T_{iz}}.

    With `cv`, the probabilities for held-out rows are recalibrated first: their sharpness and
    the matrix are fitted once more to all observed labels, so that the quality is a probability
    and not a score. Each split also trains the network without a noise model, which takes its
    place if the observed labels are clearly likelier through it; a small network that learns
    human labels may gain nothing from the noise layer. With ``noise_model="c"`` the matrix of
    each row competes with one matrix for all. A matrix that is known
    (``learn_transition=False``) is kept.

    Of a search the best estimator is cross-fitted; a search that is not fitted is so first, on
    all rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import label_quality
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:800] / 16, y[:800]
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> classifier = NoisyLabelClassifier(random_state=0).fit(X, y_observed)
    >>> quality = label_quality(classifier, X, y_observed)
    >>> bool(quality[y_observed != y].mean() < 0.1 < 0.9 < quality[y_observed == y].mean())
    True
    """
    labels, index = validation.check_rows_and_labels(X, y)
    posterior, target, _, _ = _label_posterior(estimator, X, labels, cv, groups)
    return _with_index(posterior[np.arange(len(target)), target], index, name="quality")


def find_label_issues(
    estimator: Any, X: Any, y: ArrayLike, cv: Any = None, *, groups: ArrayLike | None = None
) -> Bunch:
    r"""Labels that are probably wrong, the worst first, as many as the noise suggests.

    How many are returned is the number of wrong labels that the estimated noise makes one
    expect, not the number of rows where another label is the likeliest: where classes are hard
    to tell apart, many labels are wrong although each of them for itself is more likely right.

    Parameters
    ----------
    estimator : estimator
        A `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either; fitted,
        unless `cv` is given.
    X : {array-like, CSR matrix, DataFrame} of shape (n_samples, ...)
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None asks the fitted estimator; otherwise clones judge rows that they did not see, as in
        `label_quality`. Recommended when `X` is what the estimator was fitted to.
    groups : array-like of shape (n_samples,), default=None
        For splitters that need them.

    Returns
    -------
    Bunch
        With the attributes

        indices : ndarray of shape (count,)
            Positions of the rows, by rising quality: ``X[issues.indices]``, ``df.iloc[...]``.
        quality : ndarray of shape (count,)
            Probability that the observed label of each of these rows is right.
        all_quality : ndarray of shape (n_samples,) or Series
            That of all rows, as from `label_quality`: cross-fitting need not be done twice.
        observed_labels, suggested_labels : ndarray of shape (count,)
            Their labels, and the likeliest of the other ones.
        count : int
            Number of rows, the expected number of wrong labels.
        noise_rate : float
            Expected share of wrong labels.
        frame : DataFrame or None
            If `X` or `y` are of pandas: observed and suggested label and quality in columns,
            with the index of the data: ``df.loc[issues.frame.index]``.

    Raises
    ------
    sklearn.exceptions.NotFittedError, TypeError, ValueError
        As `label_quality`.

    Notes
    -----
    The expected number of wrong labels is :math:`\sum_t \sum_i p(y=i|x_t) (1 - T_{ii})`. Where
    the matrix depends on the features it is the sum of one minus the quality.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import find_label_issues
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:800] / 16, y[:800]
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> classifier = NoisyLabelClassifier(random_state=0).fit(X, y_observed)
    >>> issues = find_label_issues(classifier, X, y_observed)
    >>> bool(abs(issues.noise_rate - 0.4) < 0.05)
    True
    >>> worst = issues.indices[:100]
    >>> bool((issues.suggested_labels[:100] == y[worst]).mean() > 0.9)
    True
    """
    labels, index = validation.check_rows_and_labels(X, y)
    posterior, target, classes, n_wrong = _label_posterior(estimator, X, labels, cv, groups)
    rows = np.arange(len(target))
    quality = posterior[rows, target]
    posterior[rows, target] = -1.0
    count = min(round(n_wrong), len(target))
    worst = np.argsort(quality, kind="stable")[:count]
    issues = Bunch(
        indices=worst,
        quality=quality[worst],
        all_quality=_with_index(quality, index, name="quality"),
        observed_labels=classes[target[worst]],
        suggested_labels=classes[posterior[worst].argmax(axis=1)],
        count=count,
        noise_rate=float(n_wrong / len(target)),
        frame=None,
    )
    if index is not None:
        import pandas as pd

        columns = ["observed_labels", "suggested_labels", "quality"]
        issues.frame = pd.DataFrame({c: issues[c] for c in columns}, index=index[worst])
    return issues


def _label_posterior(
    estimator: Any, X: Any, y: np.ndarray, cv: Any, groups: ArrayLike | None
) -> tuple[FloatArray, np.ndarray, np.ndarray, float]:
    """Return the posterior of the true labels.

    Returns
    -------
    posterior : ndarray of shape (n_samples, n_classes)
        Of the true label given features and observed label.
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    classes : ndarray of shape (n_classes,)
    n_wrong : float
        Expected number of wrong labels.
    """
    if cv is not None:
        unwrap_unfitted(estimator, NEEDED)
        rows = partition(cv, X, y, groups)
        classes, target = rows.classes, rows.target
        fit = cross_fit(estimator, X, rows)
        posterior, proba, transition = fit.posterior, np.exp(fit.clean_log_proba), fit.transition
    else:
        classifier, X = unwrap_fitted(estimator, X, NEEDED)
        if classifier.noise_model is None:
            raise ValueError(
                "The fitted estimator has noise_model=None: all labels are assumed correct. Pass "
                "`cv`, or fit one with a noise model."
            )
        classes, transition = classifier.classes_, classifier.transition_matrix_
        log_proba, log_column = classifier._label_factors(X, y)
        target = validation.encode_labels(y, classes)
        posterior, proba = softmax(log_proba + log_column, axis=1), np.exp(log_proba)
    if transition is None:
        n_wrong = float(np.sum(1.0 - posterior[np.arange(len(y)), target]))
    else:
        n_wrong = float(np.sum(proba @ (1.0 - np.diag(transition))))
    return posterior, target, classes, n_wrong


def _with_index(values: FloatArray, index: Any, name: str) -> Any:
    """Return the values as a Series if there is an index."""
    if index is None:
        return values
    import pandas as pd

    return pd.Series(values, index=index, name=name)
