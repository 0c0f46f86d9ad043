"""Cross-fitting: predictions for rows by models that were not trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import check_cv, cross_validate
from sklearn.utils import _safe_indexing

from sknoisy._support.meta_estimators import is_search, unwrap_fitted, unwrap_unfitted
from sknoisy._support.validation import FloatArray
from sknoisy._transition.calibration import (
    Recalibration,
    recalibrate,
    sharpen,
    with_pooled_noise,
    without_noise,
)

#: What inspection asks of a classifier.
NEEDED = "label_posterior"


class HeldOut(NamedTuple):
    """Out-of-fold predictions, each by a model that was not fitted to the row.

    Attributes
    ----------
    clean_log_proba : ndarray of shape (n_samples, true)
    log_column : ndarray of shape (n_samples, true)
        Element (t, i) is the log-probability of the observed label of row t if i is true.
    transition : ndarray of shape (true, observed)
        Mean of the matrices of the models.
    """

    clean_log_proba: FloatArray
    log_column: FloatArray
    transition: FloatArray


class Partition(NamedTuple):
    """Observed labels, and splits of their rows that hold out every row once.

    Attributes
    ----------
    y : ndarray of shape (n_samples,)
    classes : ndarray of shape (n_classes,)
        The sorted labels.
    target : ndarray of shape (n_samples,)
        Encoded labels.
    splits : list of (train, test)
    """

    y: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    splits: list[tuple[np.ndarray, np.ndarray]]


def partition(cv: Any, X: Any, y: np.ndarray, groups: Any = None) -> Partition:
    """Return labels and the splits of `cv`, which must hold out every row once.

    Parameters
    ----------
    cv : int, splitter or iterable of (train, test) rows
        An int is the number of folds, stratified by the observed labels.
    X : array-like of shape (n_samples, ...)
    y : ndarray of shape (n_samples,)
        Observed labels.
    groups : array-like of shape (n_samples,), default=None
        For splitters that need them.

    Returns
    -------
    Partition

    Raises
    ------
    ValueError
        If a row is held out more than once or never, or if a class is missing among the rows
        to train on.
    """
    splits = list(check_cv(cv, y, classifier=True).split(X, y, groups))
    splits = [(np.arange(len(y))[train], np.arange(len(y))[test]) for train, test in splits]
    held_out = np.bincount(np.concatenate([test for _, test in splits]), minlength=len(y))
    if np.any(held_out != 1):
        raise ValueError(
            f"`cv` must be a partition, which holds out every row once; {cv!r} holds out "
            f"{np.count_nonzero(held_out == 0)} rows never and "
            f"{np.count_nonzero(held_out > 1)} more than once."
        )
    classes, target = np.unique(y, return_inverse=True)
    for train, test in splits:
        if len(np.intersect1d(train, test)):
            raise ValueError(f"`cv` must not train on the rows that it holds out; {cv!r} does.")
        missing = np.delete(classes, target[train])
        if len(missing):
            raise ValueError(
                f"`y` has too few rows of {missing.tolist()!r} for `cv`={cv!r}: the models must "
                "see every label in each fold. Take fewer folds, or leave these rows out."
            )
    return Partition(y, classes, target, splits)


def fit_folds(
    estimator: Any, X: Any, rows: Partition, n_jobs: int | None = None
) -> Iterator[tuple[Any, np.ndarray]]:
    """Fit a clone of the estimator for every split; yield it with the rows that it did not see."""
    found = cross_validate(
        estimator,
        X,
        rows.y,
        cv=rows.splits,
        scoring=_no_score,
        n_jobs=n_jobs,
        return_estimator=True,
        return_indices=True,
        error_score="raise",
    )
    yield from zip(found["estimator"], found["indices"]["test"], strict=True)


def fit_folds_sharing_noise(
    estimator: Any, X: Any, rows: Partition, n_jobs: int | None = None
) -> Iterator[tuple[Any, np.ndarray]]:
    """Fit a clone for every split; the transition matrix of the first one is known to the others.

    All that these know of the labels that they hold out are then the entries of a matrix, each of
    which many labels share. They need neither a plain network nor a start.
    Noise that depends on the features is estimated in each fold.
    """
    first, others = rows.splits[:1], rows.splits[1:]
    ((model, test),) = fit_folds(estimator, X, rows._replace(splits=first), n_jobs)
    yield model, test
    known = clone(estimator)
    classifier = unwrap_unfitted(known, NEEDED)
    if classifier.noise_model == "s" and isinstance(classifier.transition_init, str):
        found, _ = unwrap_fitted(model, None, NEEDED)
        classifier.set_params(transition_init=found.transition_matrix_, learn_transition=False)
    yield from fit_folds(known, X, rows._replace(splits=others), n_jobs)


def _no_score(estimator: Any, X: Any, y: Any) -> float:
    return 0.0


def out_of_fold_proba(
    estimator: Any, X: Any, rows: Partition, *, n_jobs: int | None = None
) -> FloatArray:
    """Probabilities of the observed labels by clones that did not see the row.

    Parameters
    ----------
    estimator : object
        A classifier with ``predict_proba``.
    X : array-like of shape (n_samples, ...)
    rows : Partition
    n_jobs : int, default=None
        As of `sklearn.model_selection.cross_validate`.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Columns in the order of ``rows.classes``.
    """
    proba = np.empty((len(rows.y), len(rows.classes)))
    for model, test in fit_folds(estimator, X, rows, n_jobs):
        columns = np.argsort(getattr(model, "classes_", rows.classes))
        proba[test] = model.predict_proba(_safe_indexing(X, test))[:, columns]
    return proba


def out_of_fold_log_probabilities(
    estimator: Any, X: Any, rows: Partition, n_jobs: int | None = None, *, shares: bool = False
) -> HeldOut:
    """Fit a clone of the estimator for every split and let it predict the rows held out.

    Parameters
    ----------
    estimator : object
    X : array-like of shape (n_samples, ...)
    rows : Partition
    n_jobs : int, default=None
        How many folds are fitted at a time.
    shares : bool, default=False
        Whether the matrix is estimated in the first fold only, and known in the others.
    """
    y, n_classes = rows.y, len(rows.classes)
    clean, column = np.empty((2, len(y), n_classes))
    transition = np.zeros((n_classes, n_classes))
    folds = fit_folds_sharing_noise if shares else fit_folds
    for model, test in folds(estimator, X, rows, n_jobs):
        classifier, X_test = unwrap_fitted(model, _safe_indexing(X, test), NEEDED)
        clean[test], column[test] = classifier._label_factors(X_test, y[test])
        transition += classifier.transition_matrix_ / len(rows.splits)
    return HeldOut(clean, column, transition)


def cross_fit(
    estimator: Any, X: Any, rows: Partition, *, n_jobs: int | None = None
) -> Recalibration:
    """Return the fit of `cross_fit_and_predict`; the parameters are the same."""
    return cross_fit_and_predict(estimator, X, rows, n_jobs=n_jobs)[0]


def cross_fit_and_predict(
    estimator: Any, X: Any, rows: Partition, *, n_jobs: int | None = None
) -> tuple[Recalibration, tuple[HeldOut, HeldOut] | None]:
    """Fit the estimator to every split and recalibrate its predictions for the rows held out.

    For estimators with noise that depends on the features, one matrix for all rows is tried as
    well; and so is the same network without a noise model, whose features may serve better
    where there are few rows. They are taken only if the observed labels are clearly likelier.
    If no noise makes them clearly likelier than none, the matrix is the identity, and the
    posteriors remain as a ranking.

    The matrix is estimated in the first fold, and known in the others. Of a search the best
    estimator is taken, the same in all folds.

    Parameters
    ----------
    estimator : object
        Unfitted, or fitted: it is cloned.
    X : array-like of shape (n_samples, ...)
    rows : Partition
    n_jobs : int, default=None
        How many folds are fitted at a time.

    Returns
    -------
    fit : Recalibration
    unseen : tuple of HeldOut, or None
        Predictions with and without noise model; None if only one of them was made.
    """
    estimator = best_of_search(estimator, X, rows.y)
    classifier = unwrap_unfitted(estimator, NEEDED)
    kept = always_with_noise_model(estimator)
    held_out = out_of_fold_log_probabilities(kept, X, rows, n_jobs, shares=True)
    if not classifier.learn_transition:
        return sharpen(held_out.clean_log_proba, held_out.log_column), None
    start = held_out.transition
    candidates = [recalibrate(held_out.clean_log_proba, rows.target, start)]
    if classifier.noise_model in ("c", "auto"):
        candidates.insert(0, sharpen(held_out.clean_log_proba, held_out.log_column))
    predictions, unseen = [held_out.clean_log_proba], None
    if classifier.noise_model is not None:
        plain = out_of_fold_log_probabilities(without_noise_model(estimator), X, rows, n_jobs)
        unseen = held_out, plain
        candidates.append(recalibrate(plain.clean_log_proba, rows.target, start))
        predictions.append(plain.clean_log_proba)
    best = candidates[0]
    for candidate in candidates[1:]:
        if is_clearly_better(candidate, best):
            best = candidate
    without = max(
        (without_noise(log_proba, rows.target) for log_proba in predictions),
        key=lambda fit: fit.log_likelihood.sum(),
    )
    pooled = [with_pooled_noise(log_proba, rows.target) for log_proba in predictions]
    if not any(is_clearly_better(fit, without) for fit in [*candidates, *pooled]):
        best = best._replace(transition=without.transition)
    return best, unseen


def is_clearly_better(fit: Recalibration, other: Recalibration) -> bool:
    """Whether labels are likelier by more than chance and further parameters explain."""
    gain = fit.log_likelihood - other.log_likelihood
    cost = fit.n_parameters - other.n_parameters
    return bool(gain.sum() - cost > gain.std() * np.sqrt(len(gain)))


def best_of_search(estimator: Any, X: Any, y: np.ndarray) -> Any:
    """Return the best estimator of a search, fitted first if need be; others as they are."""
    unwrap_unfitted(estimator, NEEDED)
    if not is_search(estimator):
        return estimator
    if not hasattr(estimator, "best_estimator_"):
        estimator = clone(estimator).fit(X, y)
    return best_of_search(estimator.best_estimator_, X, y)


def always_with_noise_model(estimator: Any) -> Any:
    """Return a clone of the estimator that keeps its noise model in any case."""
    kept = clone(estimator)
    unwrap_unfitted(kept, NEEDED).set_params(select_noise_model=False)
    return kept


def without_noise_model(estimator: Any) -> Any:
    """Return a clone of the estimator that assumes the labels to be correct."""
    plain = clone(estimator)
    unwrap_unfitted(plain, NEEDED).set_params(
        noise_model=None, method="direct", transition_init="auto", learn_transition=True
    )
    return plain
