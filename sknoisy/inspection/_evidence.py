"""What out-of-sample probabilities and a noise model say of the observed labels.

The probabilities come from a fitted `NoisyLabelClassifier`, from cross-fitting it or any other
classifier of scikit-learn, or from the caller. Whatever they come from, the quality of labels,
their number, intervals and tests are computed from one `LabelEvidence`.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sknoisy._data.indexable import as_indexable
from sknoisy._support import validation
from sknoisy._support.meta_estimators import is_search, unwrap_fitted
from sknoisy._support.validation import FloatArray
from sknoisy._transition.calibration import Recalibration
from sknoisy._transition.noise_models import NoiseFit, fit_noise_model
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.inspection._cross_fitting import (
    NEEDED,
    HeldOut,
    cross_fit_and_predict,
    out_of_fold_proba,
    partition,
)

#: How many folds an estimator without a noise model of its own gets.
DEFAULT_CV = 5

_SMALLEST_PROBABILITY = 1e-22
_ROW_SUM_TOLERANCE = 1e-3
_FEWEST_ROWS_TO_DOUBT = 50
_DOUBTFUL_AGREEMENT = 0.999


class LabelEvidence(NamedTuple):
    """Probabilities of the true label, and how likely each would make what was observed.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    target : ndarray of shape (n_samples,)
        Encoded observed labels.
    clean_log_proba : ndarray of shape (n_samples, true)
        ``log p(true label | x)``.
    label_log_likelihood : ndarray of shape (n_samples, true)
        Element (t, i) is the log-probability of what was observed of row t if i is true.
    transition : ndarray of shape (true, observed) or None
        None where the noise depends on the features.
    held_out : Recalibration or None
        What the matrix is inferred from: probabilities for rows that nothing was fitted to. None
        where the estimator saw the labels, or the noise is no matrix that is learned.
    held_out_target : ndarray of shape (n_rows,) or None
        Encoded labels of these rows.
    gains : list of ndarray of shape (n_rows,), or None
        Log-likelihood of labels that were held out with the noise, less that without; one for each
        way to be without noise.
    unseen : tuple of HeldOut, or None
        Of a `NoisyLabelClassifier` that was cross-fitted: predictions with and without noise model.
    folds : list of ndarray
        Rows of each fold of cross-fitting.
    """

    classes: np.ndarray
    target: np.ndarray
    clean_log_proba: FloatArray
    label_log_likelihood: FloatArray
    transition: FloatArray | None
    held_out: Recalibration | None = None
    held_out_target: np.ndarray | None = None
    gains: list[FloatArray] | None = None
    unseen: tuple[HeldOut, HeldOut] | None = None
    folds: tuple[np.ndarray, ...] = ()

    @property
    def assumes_right_labels(self) -> bool:
        """Whether the matrix of a fitted classifier is the identity, so that no label is wrong."""
        if self.held_out is not None or self.transition is None:
            return False
        return np.array_equal(self.transition, np.eye(len(self.classes)))

    @property
    def posterior(self) -> FloatArray:
        """Posterior of the true label, shape (n_samples, true)."""
        return softmax(self.clean_log_proba + self.label_log_likelihood, axis=1)

    def n_wrong(self, posterior: FloatArray) -> float:
        """Return the expected number of wrong labels."""
        if self.transition is None:
            return float(np.sum(1.0 - posterior[np.arange(len(posterior)), self.target]))
        n_rows = np.exp(self.clean_log_proba).sum(axis=0)
        return float(n_rows @ (1.0 - np.diag(self.transition)))


def checked_rows(X: Any, y: Any) -> tuple[Any, np.ndarray, Any]:
    """Validate labels against rows, those of files and data sets by their numbers.

    Returns
    -------
    X : array-like or IndexableDataset
    labels : ndarray of shape (n_samples,)
    index : pandas Index or None
    """
    X = as_indexable(X, y, mapped=True)
    labels, index = validation.check_rows_and_labels(y if X is None else X, y)
    return X, labels, index


def weigh_labels(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    cv: Any = None,
    *,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> LabelEvidence:
    """Return the evidence about labels, wherever the probabilities come from.

    Parameters
    ----------
    estimator, X, cv, groups, pred_proba, classes, n_jobs
        As of `sknoisy.inspection.label_quality`.
    y : ndarray of shape (n_samples,)
        Validated labels.
    """
    if pred_proba is None and has_noise_model(estimator):
        if cv is None:
            return _of_fitted(estimator, X, y)
        rows = partition(cv, X, y, groups)
        fit, unseen = cross_fit_and_predict(estimator, X, rows, n_jobs=n_jobs)
        return LabelEvidence(
            rows.classes,
            rows.target,
            fit.clean_log_proba,
            fit.log_column,
            fit.transition,
            held_out=None if fit.transition is None else fit,
            held_out_target=rows.target,
            unseen=unseen,
            folds=tuple(test for _, test in rows.splits),
        )
    names, target, found = fit_to_probabilities(
        estimator, X, y, cv, groups=groups, pred_proba=pred_proba, classes=classes, n_jobs=n_jobs
    )
    fit = found.recalibration
    return LabelEvidence(
        names,
        target,
        fit.clean_log_proba,
        fit.log_column,
        fit.transition if found.is_likelier else np.eye(len(names)),
        held_out=found.held_out,
        held_out_target=target[found.rows],
        gains=found.gains,
    )


def fit_to_probabilities(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    cv: Any = None,
    *,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> tuple[np.ndarray, np.ndarray, NoiseFit]:
    """Fit a noise model to out-of-sample probabilities of the observed labels.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    target : ndarray of shape (n_samples,)
    fit : NoiseFit
    """
    if pred_proba is not None:
        if cv is not None:
            raise ValueError("Pass `pred_proba` or `cv`, not both: given probabilities are kept.")
        names, target = _columns(estimator, y, classes)
        proba = check_proba(pred_proba, len(y), names)
        _doubt(proba, target, names)
    else:
        if classes is not None:
            raise ValueError("`classes` names the columns of `pred_proba`, which was not given.")
        check_gives_probabilities(estimator)
        rows = partition(DEFAULT_CV if cv is None else cv, X, y, groups)
        names, target = rows.classes, rows.target
        proba = out_of_fold_proba(estimator, X, rows, n_jobs=n_jobs)
        proba = check_proba(proba, len(y), names, name="predict_proba")
    log_proba = np.log(np.maximum(proba, _SMALLEST_PROBABILITY))
    return names, target, fit_noise_model(log_proba, target)


def has_noise_model(estimator: Any) -> bool:
    """Whether an estimator is or holds a classifier with a noise model of its own."""
    inner = estimator
    while not hasattr(type(inner), NEEDED):
        if isinstance(inner, Pipeline):
            inner = inner[-1]
        elif isinstance(inner, FrozenEstimator) or is_search(inner):
            inner = inner.estimator
        else:
            return False
    return True


def check_gives_probabilities(estimator: Any) -> None:
    """Refuse what cannot be cross-fitted to probabilities of classes."""
    if isinstance(estimator, FrozenEstimator):
        raise TypeError(
            "A FrozenEstimator cannot be cross-fitted, since it would be the same in every "
            "fold. Pass the estimator that is in it."
        )
    if estimator is None:
        raise TypeError("Pass an estimator, or out-of-sample probabilities as `pred_proba`.")
    if not hasattr(estimator, "fit") or not hasattr(estimator, "predict_proba"):
        hint = ""
        if is_classifier(estimator):
            hint = " Wrap it in CalibratedClassifierCV, or pass out-of-sample `pred_proba`."
        raise TypeError(
            "estimator must be a classifier with predict_proba; got "
            f"{type(estimator).__name__}.{hint}"
        )


def check_proba(
    proba: Any, n_samples: int, classes: np.ndarray, name: str = "pred_proba"
) -> FloatArray:
    """Validate probabilities of classes.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        In float64, with rows that sum to one.
    """
    try:
        found = np.array(proba, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of numbers: {error}") from error
    if found.shape != (n_samples, len(classes)):
        raise ValueError(
            f"`{name}` must have shape ({n_samples}, {len(classes)}), a row for each row of `y` "
            f"and a column for each of the classes {_listed(classes)}; got {found.shape}. Pass "
            "`classes` if it has columns of labels that `y` does not hold."
        )
    if not np.isfinite(found).all() or found.min() < 0:
        raise ValueError(
            f"`{name}` must be finite and non-negative; got values from {found.min():.3g} to "
            f"{found.max():.3g}. Logits or log-probabilities are not probabilities."
        )
    sums = found.sum(axis=1, keepdims=True)
    if np.any(np.abs(sums - 1.0) > _ROW_SUM_TOLERANCE):
        raise ValueError(
            f"`{name}` must have rows that sum to one; got sums from {sums.min():.6g} to "
            f"{sums.max():.6g}."
        )
    return found / sums


def _columns(
    estimator: Any, y: np.ndarray, classes: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of the columns of given probabilities, and encoded labels."""
    if classes is None:
        classes = getattr(estimator, "classes_", None)
    if classes is None:
        return np.unique(y, return_inverse=True)
    names = np.asarray(classes)
    if names.ndim != 1 or len(np.unique(names)) != len(names):
        raise ValueError(
            f"`classes` must name each column of `pred_proba` once; got {_listed(names)}."
        )
    position = validation.class_indices(y, names)
    if np.any(position < 0):
        raise ValueError(
            f"`y` must hold labels among the classes of `pred_proba`, {_listed(names)}; got "
            f"{np.unique(y[position < 0]).tolist()!r}."
        )
    return names, position


def _listed(classes: np.ndarray) -> str:
    shown = repr(classes[:10].tolist())
    return shown if len(classes) <= 10 else f"{shown[:-1]}, ...] ({len(classes)} of them)"


def _doubt(proba: FloatArray, target: np.ndarray, classes: np.ndarray) -> None:
    """Refuse columns in another order, and warn of probabilities that have seen the labels."""
    if len(target) < _FEWEST_ROWS_TO_DOUBT:
        return
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (proba.argmax(axis=1), target), 1.0)
    column, label = linear_sum_assignment(-counts)
    agree, best = np.trace(counts), counts[column, label].sum()
    if agree < best / 2:
        raise ValueError(
            "`pred_proba` must have its columns in the order of the classes "
            f"{_listed(classes)}: as they are, the likeliest class is the observed label for "
            f"{agree / len(target):.0%} of the rows, in another order for "
            f"{best / len(target):.0%}. Pass the order of the columns as `classes`."
        )
    if agree / len(target) >= _DOUBTFUL_AGREEMENT:
        warnings.warn(
            f"The likeliest class of `pred_proba` is the observed label for {agree:.0f} of "
            f"{len(target)} rows. Probabilities from a model that was trained on these very labels "
            "look like that, and say nothing about them: pass out-of-sample ones, as from "
            "cross_val_predict(method='predict_proba').",
            UnreliableFitWarning,
            stacklevel=5,
        )


def _of_fitted(estimator: Any, X: Any, y: np.ndarray) -> LabelEvidence:
    classifier, X = unwrap_fitted(estimator, X, NEEDED)
    if classifier.noise_model is None:
        raise ValueError(
            "The fitted estimator has noise_model=None: all labels are assumed correct. Pass "
            "`cv`, or fit one with a noise model."
        )
    log_proba, log_column = classifier._label_factors(X, y)
    target = validation.encode_labels(y, classifier.classes_)
    transition = classifier.transition_matrix_
    return LabelEvidence(classifier.classes_, target, log_proba, log_column, transition)
