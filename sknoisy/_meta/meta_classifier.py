"""A meta-estimator: expectation maximisation with any classifier as the M-step."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_y,
    check_is_fitted,
    has_fit_parameter,
)

from sknoisy._support.meta_estimators import DocumentationLinkMixin
from sknoisy._support.validation import FloatArray
from sknoisy._transition.calibration import recalibrate
from sknoisy._transition.noise_models import NoiseFit, fit_noise_model

_SMALLEST_PROBABILITY = 1e-22
_PRIOR_LABELS = 20.0

#: Classes of a row below this posterior are left out, and rows below this weight nearly so.
_SMALLEST_SHARE = 0.02
_SMALLEST_WEIGHT = 1e-3

#: A noise model must explain unseen labels better than none by so many standard errors.
_ERRORS = 1.64


def _has(method: str) -> Any:
    """Return a check whether the inner estimator has a method."""

    def check(self: Any) -> bool:
        inner = getattr(self, "estimator_", self._estimator())
        getattr(inner, method)
        return True

    return check


class NoisyLabelMetaClassifier(
    DocumentationLinkMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    """Fit any classifier to noisy labels, weighted by the posterior of the true labels.

    The classifier is cross-fitted to the observed labels. A noise model, chosen by the likelihood
    of labels that were held out, turns its out-of-fold probabilities into the posterior of each
    true label (E-step), and the classifier is fitted to all rows, weighted by that (M-step). If no
    noise model explains held-out labels clearly better than none, the result is the classifier
    fitted to the labels as they are.

    Parameters
    ----------
    estimator : estimator, default=None
        A classifier with ``predict_proba``, for instance gradient-boosted trees, a forest or a
        pipeline. None: `LogisticRegression`.
    targets : {"observed", "posterior"}, default="observed"
        Targets of the M-step. "observed": the observed labels, each weighted by the probability
        that it is right, which favours rows whose label and features agree. "posterior": soft
        targets, with each row repeated for every class that it may belong to. This is plain EM,
        which uses all rows but reinforces what the classifier believed. If the classifier does not
        support `sample_weight`, rows or labels are drawn with these probabilities.
    max_iter : int, default=1
        Number of iterations of E-step and M-step. Each one costs `cv` fits.
    cv : int, default=5
        Number of stratified folds of the E-step; fewer if a class has fewer labels.
    n_jobs : int, default=None
        Number of folds that are fitted at the same time.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds and of drawn labels; the estimator has its own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : estimator
        The classifier, fitted to all rows.
    transition_matrix_ : ndarray of shape (true, observed)
        Row i: distribution of the observed label when the true class is ``classes_[i]``. The
        identity without a noise model.
    noise_rate_ : float
        Expected share of rows whose observed label is not the true one.
    class_prior_ : ndarray of shape (n_classes,)
        Mean probability of the true classes.
    noise_model_ : str or None
        Name of the noise model; None if the labels were used as they are.
    label_posterior_ : ndarray of shape (n_samples, n_classes)
        Posterior of the true label of each training row, given its features and observed label.
    n_iter_ : int
        Number of M-steps; one, on the labels as they are, if there is no noise model.
    n_features_in_ : int
        Number of features, if `estimator_` has this attribute.

    See Also
    --------
    NoisyLabelClassifier : A network that learns the noise and the classes together.
    sknoisy.inspection.find_label_issues : Which labels are wrong.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.model_selection import train_test_split
    >>> from sknoisy import NoisyLabelMetaClassifier
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.4), random_state=0)
    >>> forest = RandomForestClassifier(30, random_state=0)
    >>> bool(forest.fit(X, y_observed).score(X_test, y_test) < 0.8)
    True
    >>> meta = NoisyLabelMetaClassifier(forest, cv=3, random_state=0).fit(X, y_observed)
    >>> bool(meta.score(X_test, y_test) > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "predict", "predict_proba"]), None],
        "targets": [StrOptions({"observed", "posterior"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        targets: str = "observed",
        max_iter: int = 1,
        cv: int = 5,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.targets = targets
        self.max_iter = max_iter
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: ArrayLike) -> NoisyLabelMetaClassifier:
        """Fit to noisy labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it.
        y : array-like of shape (n_samples,)
            Observed labels.

        Returns
        -------
        NoisyLabelMetaClassifier
            Itself.
        """
        X, y = indexable(X, y)
        y = _check_y(y, estimator=self)
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        random = check_random_state(self.random_state)
        self._take_as_they_are(target)
        found = self._estimate(X, target, random)
        if found is None:
            self.estimator_ = clone(self._estimator()).fit(X, y)
        else:
            self._maximise(X, target, found, random)
        return self

    def _take_as_they_are(self, target: np.ndarray) -> None:
        n_classes = len(self.classes_)
        self.transition_matrix_ = np.eye(n_classes)
        self.class_prior_ = np.bincount(target, minlength=n_classes) / len(target)
        self.label_posterior_ = np.eye(n_classes)[target]
        self.noise_rate_ = 0.0
        self.noise_model_: str | None = None
        self.n_iter_ = 1

    def _estimate(
        self, X: Any, target: np.ndarray, random: np.random.RandomState
    ) -> NoiseFit | None:
        """Return the noise model of out-of-fold probabilities, or None without noise."""
        n_folds = min(self.cv, int(np.bincount(target).min()))
        if n_folds < 2 or len(self.classes_) < 2:
            return None
        seed = random.randint(np.iinfo(np.int32).max)
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        self._folds = list(folds.split(np.zeros(len(target)), target))
        log_proba = self._out_of_fold(X, target, None, random)
        found = fit_noise_model(log_proba, target, random_state=seed)
        clearly = [gain.mean() > _ERRORS * gain.std() / np.sqrt(len(gain)) for gain in found.gains]
        return found if all(clearly) else None

    def _maximise(
        self, X: Any, target: np.ndarray, found: NoiseFit, random: np.random.RandomState
    ) -> None:
        """Take the steps of EM, and fit the estimator to all rows."""
        fit, n_classes = found.recalibration, len(self.classes_)
        for _ in range(self.max_iter - 1):
            log_proba = self._out_of_fold(X, target, fit.posterior, random)
            assert fit.transition is not None
            strength = _PRIOR_LABELS / n_classes
            fit = recalibrate(log_proba, target, fit.transition, pseudo_count=strength)
        posterior, proba = fit.posterior, np.exp(fit.clean_log_proba)
        assert fit.transition is not None
        self.transition_matrix_ = fit.transition
        self.class_prior_ = proba.mean(axis=0)
        self.label_posterior_ = posterior
        self.noise_rate_ = float(self.class_prior_ @ (1.0 - np.diag(fit.transition)))
        self.noise_model_ = found.name
        self.n_iter_ = self.max_iter
        seed = random.randint(np.iinfo(np.int32).max)
        self.estimator_ = self._fit_part(X, target, posterior, np.arange(len(target)), seed)

    def _out_of_fold(
        self,
        X: Any,
        target: np.ndarray,
        posterior: FloatArray | None,
        random: np.random.RandomState,
    ) -> FloatArray:
        """Return log-probabilities by estimators that were not fitted to the row."""
        seeds = random.randint(np.iinfo(np.int32).max, size=len(self._folds))
        fitted = Parallel(n_jobs=self.n_jobs)(
            delayed(self._fit_part)(X, target, posterior, train, seed)
            for (train, _), seed in zip(self._folds, seeds, strict=True)
        )
        log_proba = np.full((len(target), len(self.classes_)), np.log(_SMALLEST_PROBABILITY))
        for model, (_, test) in zip(fitted, self._folds, strict=True):
            columns = np.searchsorted(self.classes_, model.classes_)
            proba = model.predict_proba(_safe_indexing(X, test))
            log_proba[np.ix_(test, columns)] = np.log(np.maximum(proba, _SMALLEST_PROBABILITY))
        return log_proba

    def _fit_part(
        self,
        X: Any,
        target: np.ndarray,
        posterior: FloatArray | None,
        rows: np.ndarray,
        seed: int,
    ) -> Any:
        """Fit a clone to some rows, by the posterior of their true labels if there is one."""
        model = clone(self._estimator())
        if posterior is None:
            return model.fit(_safe_indexing(X, rows), self.classes_[target[rows]])
        label, weight = target[rows], posterior[rows, target[rows]]
        if self.targets == "posterior":
            share = np.where(posterior[rows] < _SMALLEST_SHARE, 0.0, posterior[rows])
            # Of each class at least one row, so that all classes stay.
            likeliest = posterior[rows].argmax(axis=0), np.arange(len(self.classes_))
            share[likeliest] = np.maximum(share[likeliest], _SMALLEST_SHARE)
            row, label = np.nonzero(share)
            weight = share[row, label] / share.sum(axis=1)[row]
            rows = rows[row]
        weight = np.maximum(weight, _SMALLEST_WEIGHT)
        name = _weight_parameter(model)
        if name is None:
            # Of each label at least one row, so that all classes stay.
            kept = np.random.RandomState(seed).uniform(size=len(weight)) < weight
            for missing in np.setdiff1d(label, label[kept]):
                of_class = np.flatnonzero(label == missing)
                kept[of_class[weight[of_class].argmax()]] = True
            rows, label = rows[kept], label[kept]
            return model.fit(_safe_indexing(X, rows), self.classes_[label])
        return model.fit(_safe_indexing(X, rows), self.classes_[label], **{name: weight})

    def _estimator(self) -> Any:
        return LogisticRegression() if self.estimator is None else self.estimator

    @available_if(_has("predict"))
    def predict(self, X: Any) -> np.ndarray:
        """Predict the true label.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict(X))

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the true label.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict_proba(X))

    @property
    def n_features_in_(self) -> int:
        """Number of features of fit."""
        check_is_fitted(self)
        return int(self.estimator_.n_features_in_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self._estimator())
        tags.input_tags = inner.input_tags
        tags.classifier_tags.multi_class = inner.classifier_tags.multi_class
        return tags


def _weight_parameter(model: Any) -> str | None:
    """Return the name by which ``fit`` takes weights, or None if it takes none."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if not has_fit_parameter(last, "sample_weight"):
        return None
    return "sample_weight" if last is model else f"{model.steps[-1][0]}__sample_weight"
