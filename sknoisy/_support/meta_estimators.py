"""The classifier inside pipelines, searches and frozen estimators."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def unwrap_fitted(estimator: Any, X: Any, needed: str) -> tuple[Any, Any]:
    """Find the classifier inside fitted pipelines and searches, and the features that reach it.

    Parameters
    ----------
    estimator : object
        The classifier, a pipeline whose last step it is, a search that refitted it, or any nesting
        of these.
    X : array-like of shape (n_samples, ...) or None
        Features as `estimator` takes them; None where they are not of interest.
    needed : str
        Method the classifier must have.

    Returns
    -------
    classifier : object
        Fitted estimator with the method.
    X : array-like of shape (n_samples, ...) or None
        Features as the classifier takes them.

    Raises
    ------
    TypeError
        If the estimator is of another kind.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """
    inner = estimator
    while not hasattr(type(inner), needed):
        if isinstance(inner, Pipeline):
            check_is_fitted(inner)
            X = inner[:-1].transform(X) if len(inner) > 1 and X is not None else X
            inner = inner[-1]
        elif isinstance(inner, FrozenEstimator):
            inner = inner.estimator
        elif hasattr(inner, "best_estimator_"):
            inner = inner.best_estimator_
        else:
            if isinstance(inner, BaseSearchCV) and inner.refit:
                check_is_fitted(inner)
            raise _of_another_kind(estimator, inner, needed)
    check_is_fitted(inner)
    return inner, X


def unwrap_unfitted(estimator: Any, needed: str) -> Any:
    """Find the classifier that a fit of the estimator would fit.

    Parameters
    ----------
    estimator : object
        The classifier, a pipeline that ends in it, or a search over either, fitted or not.
    needed : str
        Method the classifier must have.

    Returns
    -------
    object
        The classifier itself, no copy of it.

    Raises
    ------
    TypeError
        If the estimator is of another kind, or frozen, so that no fit would change it.
    """
    inner = estimator
    while not hasattr(type(inner), needed):
        if isinstance(inner, Pipeline):
            inner = inner[-1]
        elif isinstance(inner, BaseSearchCV) and inner.refit and inner is estimator:
            inner = inner.estimator
        elif isinstance(inner, FrozenEstimator):
            raise TypeError(
                "A FrozenEstimator cannot be cross-fitted, since it would be the same in every "
                "fold. Pass the estimator that is in it."
            )
        else:
            raise _of_another_kind(estimator, inner, needed)
    return inner


def _of_another_kind(estimator: Any, inner: Any, needed: str) -> TypeError:
    return TypeError(
        f"estimator must have a method {needed}, as NoisyLabelClassifier has, or be a "
        "pipeline that ends in such a classifier, or a search over one that was fitted "
        f"with refit=True; got {type(inner).__name__}"
        f"{'' if inner is estimator else f' in {type(estimator).__name__}'}."
    )
