"""Which labels are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from sknoisy._crowd.answers import has_answers
from sknoisy._review.issues import LabelIssues
from sknoisy._support import validation
from sknoisy._support.validation import FloatArray
from sknoisy.inspection._answers import (
    answer_quality,
    find_answer_issues,
    refuse_probabilities,
)
from sknoisy.inspection._evidence import weigh_labels
from sknoisy.inspection._uncertainty import judge_evidence, rate_interval


def label_quality(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    cv: Any = None,
    *,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
    annotators: ArrayLike | None = None,
) -> Any:
    r"""Probability that an observed label is the true one, given the features and the label.

    Parameters
    ----------
    estimator : estimator
        A `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either; fitted,
        unless `cv` is given. Or any other classifier with ``predict_proba``, which is cross-fitted.
        None with `pred_proba`.
    X : {array-like, CSR matrix, DataFrame} of shape (n_samples, ...)
        None with `pred_proba`.
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None asks the fitted estimator if it has a noise model, which is quick; but a network
        believes labels that it was trained on, the more so the fewer the rows. Otherwise clones
        are fitted, and each row is judged by one that did not see its label. An int is the number
        of folds, stratified by the observed labels; for classifiers without a noise model, None
        is 5. The splits must hold out each row once.
    groups : array-like of shape (n_samples,), default=None
        For splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities of the observed labels by a model that did not see them, as from
        ``cross_val_predict(..., method="predict_proba")``. Nothing is fitted then but the noise
        model.
    classes : array-like of shape (n_classes,), default=None
        Of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        How many folds are fitted at a time, as in `sklearn.model_selection.cross_validate`.
    annotators : array-like of the shape of y, default=None
        Who gave each answer, where `y` holds several a row, as in `NoisyLabelClassifier.fit`.

    Returns
    -------
    ndarray of shape (n_samples,), or Series
        Probabilities: the lower, the likelier a wrong label. A Series with their index if `X`
        or `y` are of pandas. Of several answers a row, an array or DataFrame of the shape of `y`,
        NaN where there is no answer.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If a `NoisyLabelClassifier` is not fitted and there is no `cv`.
    TypeError
        If the estimator has no ``predict_proba``.
    ValueError
        If `X` and `y` differ in length or index, if `y` holds labels that were not seen in fit,
        if a fitted `NoisyLabelClassifier` has no noise model, if `cv` is not a partition in which
        every label is seen in every fold, or if `pred_proba` is no array of probabilities with a
        row for each label and a column for each class, in the order of the classes.

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

    Of a search over such a classifier the best estimator is cross-fitted; a search that is not
    fitted is so first, on all rows.

    Other classifiers, and `pred_proba`, say how probable each **observed** label is. Noise models
    of rising flexibility map that to the true label: one sharpness with one rate of errors or a
    matrix, a mixture of Gaussian classes, and a softmax layer on the log-probabilities, which is
    the noise adaptation layer on top of any classifier. They are fitted to a part of the rows, and
    the one that makes the labels of the others likeliest is taken, its sharpness and matrix fitted
    once more to what it says of unseen rows. If no noise at all makes them as likely, the matrix
    is the identity, and the posteriors remain as a ranking.

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
    if has_answers(y, annotators):
        refuse_probabilities(pred_proba)
        return answer_quality(estimator, X, y, annotators, cv, groups)
    labels, index = validation.check_rows_and_labels(y if X is None else X, y)
    evidence = weigh_labels(
        estimator,
        X,
        labels,
        cv,
        groups=groups,
        pred_proba=pred_proba,
        classes=classes,
        n_jobs=n_jobs,
    )
    quality = evidence.posterior[np.arange(len(labels)), evidence.target]
    return _with_index(quality, index, name="quality")


def find_label_issues(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    cv: Any = None,
    *,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
    annotators: ArrayLike | None = None,
) -> LabelIssues | Bunch:
    r"""Labels that are probably wrong, the worst first, as many as the noise suggests.

    How many are returned is the number of wrong labels that the estimated noise makes one
    expect, not the number of rows where another label is the likeliest: where classes are hard
    to tell apart, many labels are wrong although each of them for itself is more likely right.

    Parameters
    ----------
    estimator : estimator
        A `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either; fitted,
        unless `cv` is given. Or any other classifier with ``predict_proba``, which is cross-fitted.
        None with `pred_proba`.
    X : {array-like, CSR matrix, DataFrame} of shape (n_samples, ...)
        Also what is shown of the rows; with `pred_proba` only that, or None: texts, paths of
        pictures, pictures, features or a DataFrame.
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None asks the fitted estimator; otherwise clones judge rows that they did not see, as in
        `label_quality`. Recommended when `X` is what the estimator was fitted to.
    groups : array-like of shape (n_samples,), default=None
        For splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities of the observed labels by a model that did not see them, as from
        ``cross_val_predict(..., method="predict_proba")``. Nothing is fitted then but the noise
        model.
    classes : array-like of shape (n_classes,), default=None
        Of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        How many folds are fitted at a time, as in `sklearn.model_selection.cross_validate`.
    annotators : array-like of the shape of y, default=None
        Who gave each answer, where `y` holds several a row, as in `NoisyLabelClassifier.fit`.

    Returns
    -------
    LabelIssues
        A `Bunch` with the attributes

        indices : ndarray of shape (count,)
            Positions of the rows, by rising quality: ``X[issues.indices]``, ``df.iloc[...]``.
        quality : ndarray of shape (count,)
            Probability that the observed label of each of these rows is right.
        all_quality : ndarray of shape (n_samples,) or Series
            That of all rows, as from `label_quality`: cross-fitting need not be done twice.
        observed_labels, suggested_labels : ndarray of shape (count,)
            Their labels, and the likeliest of the other ones.
        suggested_proba : ndarray of shape (count,)
            Probability that the suggested label is right.
        count : int
            Number of rows, the expected number of wrong labels.
        noise_rate : float
            Expected share of wrong labels.
        noise_rate_interval : tuple of float, or None
            Its interval of 90 %.
        noise_test : Bunch or None
            As from `noise_test`.
        transition_matrix : ndarray of shape (true, observed) or None
            None where the noise depends on the features.
        classes : ndarray of shape (n_classes,)
            Of its rows and columns.
        frame : DataFrame
            All that a reviewer needs, one row for each issue, with the index of the data.
            `LabelIssues` has methods that write it, or a report, to a file; in a notebook it shows
            a summary.

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
    if has_answers(y, annotators):
        refuse_probabilities(pred_proba)
        return find_answer_issues(estimator, X, y, annotators, cv, groups)
    labels, index = validation.check_rows_and_labels(y if X is None else X, y)
    evidence = weigh_labels(
        estimator,
        X,
        labels,
        cv,
        groups=groups,
        pred_proba=pred_proba,
        classes=classes,
        n_jobs=n_jobs,
    )
    posterior, rows = evidence.posterior, np.arange(len(labels))
    n_wrong = evidence.n_wrong(posterior)
    quality = posterior[rows, evidence.target]
    posterior[rows, evidence.target] = -1.0
    count = min(round(n_wrong), len(labels))
    worst = np.argsort(quality, kind="stable")[:count]
    suggested = posterior[worst].argmax(axis=1)
    return LabelIssues(
        X,
        labels,
        index,
        evidence.clean_log_proba,
        indices=worst,
        quality=quality[worst],
        all_quality=_with_index(quality, index, name="quality"),
        observed_labels=evidence.classes[evidence.target[worst]],
        suggested_labels=evidence.classes[suggested],
        suggested_proba=posterior[worst, suggested],
        count=count,
        noise_rate=float(n_wrong / len(labels)),
        noise_rate_interval=rate_interval(evidence),
        noise_test=judge_evidence(evidence),
        transition_matrix=evidence.transition,
        classes=evidence.classes,
    )


def _with_index(values: FloatArray, index: Any, name: str) -> Any:
    """Return the values as a Series if there is an index."""
    if index is None:
        return values
    import pandas as pd

    return pd.Series(values, index=index, name=name)
