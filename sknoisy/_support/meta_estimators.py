"""Estimators inside pipelines, searches and frozen estimators, and their diagrams."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


class DocumentationLinkMixin:
    """Link the diagram of an estimator, as notebooks show it, to its page in the documentation.

    The address of the documentation is ``Documentation`` in ``[project.urls]`` of the installed
    package. Without one, the diagram has no link.
    """

    _doc_link_module = "sknoisy"

    @property
    def _doc_link_template(self) -> str:
        try:
            urls = metadata.metadata("sknoisy").get_all("Project-URL") or []
        except metadata.PackageNotFoundError:
            return ""
        addresses = dict(url.split(", ", 1) for url in urls)
        if "Documentation" not in addresses:
            return ""
        page = "generated/{estimator_module}.{estimator_name}.html"
        return f"{addresses['Documentation'].rstrip('/')}/{page}"


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
            X, inner = _before_last_step(inner, X), inner[-1]
        elif isinstance(inner, FrozenEstimator):
            inner = inner.estimator
        elif hasattr(inner, "best_estimator_"):
            inner = inner.best_estimator_
        else:
            if is_search(inner) and inner.refit:
                raise NotFittedError(
                    f"This {type(inner).__name__} instance is not fitted yet. Call 'fit' before."
                )
            raise _of_another_kind(estimator, inner, needed)
    check_is_fitted(inner)
    return inner, X


def _before_last_step(pipeline: Pipeline, X: Any) -> Any:
    """Return what reaches the last step of a fitted pipeline in a prediction.

    Steps that resample, as those of imbalanced-learn, have no part in predictions.
    """
    if X is None or len(pipeline) == 1:
        return X
    if not any(hasattr(step, "fit_resample") for _, step in pipeline.steps):
        return pipeline[:-1].transform(X)
    steps = [item for item in pipeline.steps[:-1] if not hasattr(item[1], "fit_resample")]
    return Pipeline(steps).transform(X) if steps else X


def is_search(estimator: Any) -> bool:
    """Whether an estimator searches parameters of another one, whichever package it is from.

    It then has an `estimator`, what to try, and `refit`; fitted, it has a `best_estimator_`.
    """
    if not hasattr(estimator, "estimator") or not hasattr(estimator, "refit"):
        return False
    tried = ("param_grid", "param_distributions", "search_spaces")
    return any(hasattr(estimator, name) for name in tried) or hasattr(estimator, "best_estimator_")


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
        elif is_search(inner) and inner.refit and inner is estimator:
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
