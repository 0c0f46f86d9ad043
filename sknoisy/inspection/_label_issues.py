"""Which labels are wrong."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from sknoisy._crowd.answers import has_answers
from sknoisy._review.issues import LabelIssues
from sknoisy._support.validation import FloatArray
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.inspection._answers import (
    answer_quality,
    find_answer_issues,
    refuse_probabilities,
)
from sknoisy.inspection._evidence import checked_rows, weigh_labels
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
    X : {array-like, CSR matrix, DataFrame, data set} of shape (n_samples, ...)
        None with `pred_proba`.
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None uses the fitted estimator, if it has a noise model. This is fast, but networks memorise
        training labels, especially on small data. Otherwise clones are fitted, and each row is
        judged by one that was not trained on its label. An int is the number of folds, stratified
        by the observed labels; None is 5 for classifiers without a noise model. The splits must
        hold out each row exactly once.
    groups : array-like of shape (n_samples,), default=None
        Groups for splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities of the observed labels, from a model that was not trained on them, as
        ``cross_val_predict(..., method="predict_proba")`` returns. Only the noise model is fitted
        then.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        Number of folds that are fitted at the same time, as in
        `sklearn.model_selection.cross_validate`.
    annotators : array-like of the shape of y, default=None
        Who gave each answer if `y` has several for a row, as in `NoisyLabelClassifier.fit`.

    Returns
    -------
    ndarray of shape (n_samples,), or Series
        Probability that each observed label is right. A Series with their index if `X` or `y` are
        pandas objects. With several answers a row, an array or DataFrame of the shape of `y`, NaN
        where there is no answer.

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

    Warns
    -----
    UnreliableFitWarning
        If the matrix of the fitted classifier is the identity, and every quality therefore 1.

    See Also
    --------
    find_label_issues : How many labels are wrong, which ones, and what they should be.

    Notes
    -----
    With true label y and observed label z the quality is

    .. math:: p(y=z \mid x, z) = \frac{p(y=z|x)\, T_{zz}}{\sum_i p(y=i|x)\, T_{iz}}.

    With `cv`, the probabilities for held-out rows are recalibrated first: their sharpness and the
    matrix are fitted again, to all observed labels, so that the quality is a probability and not
    just a score. Each split also trains the network without a noise model, which is used instead if
    it makes the observed labels clearly more likely; a small network that learns human labels may
    gain nothing from the noise layer. With ``noise_model="c"``, the matrix of each row competes
    with one matrix for all rows. A known matrix (``learn_transition=False``) is kept.

    For a search over such a classifier, the best estimator is cross-fitted; a search that is not
    fitted is first fitted to all rows.

    Other classifiers, and `pred_proba`, estimate how probable each **observed** label is. Noise
    models of increasing flexibility map that to the true label: one sharpness with one error rate
    or with a matrix, a mixture of Gaussian classes, and a softmax layer on the log-probabilities,
    which is the noise adaptation layer on top of any classifier. They are fitted to part of the
    rows. The one that makes the labels of the other rows most likely is used, or the mean of those
    that are not worse by more than one standard error, with sharpness and matrix fitted again to
    predictions for unseen rows. If no noise makes them as likely, the matrix is the identity, and
    the posteriors serve as a ranking.

    Up to fifty classes, the probabilities of each row are then averaged with the posteriors of up
    to thirty rows with similar predictions, if that makes the labels clearly more likely. The
    posteriors of these rows have not seen the label.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import label_quality
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:800] / 16, y[:800]
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> classifier = NoisyLabelClassifier(lr=0.01, random_state=0).fit(X, y_observed)
    >>> quality = label_quality(classifier, X, y_observed)
    >>> bool(quality[y_observed != y].mean() < 0.1 < 0.9 < quality[y_observed == y].mean())
    True
    """
    if has_answers(y, annotators):
        refuse_probabilities(pred_proba)
        return answer_quality(estimator, X, y, annotators, cv, groups)
    X, labels, index = checked_rows(X, y)
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
    if evidence.assumes_right_labels:
        warnings.warn(
            "The transition matrix is the identity, as where no noise model was kept "
            "(`noise_model_` is None): every label has quality 1, which ranks nothing. Pass `cv` "
            "to judge labels by predictions for rows that were held out.",
            UnreliableFitWarning,
            stacklevel=2,
        )
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
    r"""Find the labels that are probably wrong, the most suspicious first.

    As many rows are returned as the estimated noise rate implies. This is not the number of rows
    for which another label is the most likely one: where classes are hard to tell apart, many
    labels are wrong although each of them is more likely right than wrong.

    Parameters
    ----------
    estimator : estimator
        A `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either; fitted,
        unless `cv` is given. Or any other classifier with ``predict_proba``, which is cross-fitted.
        None with `pred_proba`.
    X : {array-like, CSR matrix, DataFrame, data set} of shape (n_samples, ...)
        Features. They are also what is shown of the rows; with `pred_proba` they are only shown,
        and may be None, texts, pictures, paths of pictures or a DataFrame.
    y : array-like of shape (n_samples,)
        Observed labels.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None uses the fitted estimator. Otherwise each row is judged by a clone that was not trained
        on it, as in `label_quality`; recommended if the estimator was fitted to `X`.
    groups : array-like of shape (n_samples,), default=None
        Groups for splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities of the observed labels, from a model that was not trained on them, as
        ``cross_val_predict(..., method="predict_proba")`` returns. Only the noise model is fitted
        then.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        Number of folds that are fitted at the same time, as in
        `sklearn.model_selection.cross_validate`.
    annotators : array-like of the shape of y, default=None
        Who gave each answer if `y` has several for a row, as in `NoisyLabelClassifier.fit`.

    Returns
    -------
    LabelIssues
        A dictionary with the attributes

        indices : ndarray of shape (count,)
            Positions of the rows, in order of increasing quality: ``X[issues.indices]``,
            ``df.iloc[...]``.
        quality : ndarray of shape (count,)
            Probability that the observed label of each of these rows is right.
        all_quality : ndarray of shape (n_samples,) or Series
            Quality of all rows, as `label_quality` returns it.
        observed_labels, suggested_labels : ndarray of shape (count,)
            Their labels, and the most likely other label of each.
        suggested_proba : ndarray of shape (count,)
            Probability that the suggested label is right.
        count : int
            Number of rows, the expected number of wrong labels.
        noise_rate : float
            Expected share of wrong labels.
        noise_rate_interval : tuple of float, or None
            Its 90 % interval.
        noise_test : Bunch or None
            Result of `noise_test`.
        transition_matrix : ndarray of shape (true, observed) or None
            None where the noise depends on the features.
        classes : ndarray of shape (n_classes,)
            Classes of its rows and columns.
        frame : DataFrame
            What a reviewer needs, one row for each issue, with the index of the data. `LabelIssues`
            has methods that write it, or a report, to a file. In a notebook it shows a summary.

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
    >>> classifier = NoisyLabelClassifier(lr=0.01, random_state=0).fit(X, y_observed)
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
    X, labels, index = checked_rows(X, y)
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
