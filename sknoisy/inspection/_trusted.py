"""Which labels to have checked next, and what checked labels say of a learned matrix."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.utils import Bunch, _safe_indexing, check_random_state, gen_batches

from sknoisy._crowd.annotators import shrunk_transitions
from sknoisy._crowd.answers import has_answers
from sknoisy._data.trusted import UNKNOWN, check_noisy_labels, check_trusted
from sknoisy._support import validation
from sknoisy._support.meta_estimators import unwrap_fitted, unwrap_unfitted
from sknoisy._support.validation import FloatArray
from sknoisy._transition.calibration import raise_to, without_noise
from sknoisy._transition.counts import expected_transition, floored
from sknoisy._transition.trusted import trusted_counts
from sknoisy.inspection._answers import judge_answers, refuse_probabilities
from sknoisy.inspection._cross_fitting import NEEDED, always_with_noise_model, best_of_search
from sknoisy.inspection._evidence import checked_rows, has_noise_model, weigh_labels

_N_DRAWS = 999
_ELEMENTS_AT_ONCE = 2**22


def next_labels(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    n: int = 50,
    *,
    cv: Any = None,
    groups: ArrayLike | None = None,
    pred_proba: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    n_jobs: int | None = None,
    annotators: ArrayLike | None = None,
    trusted: ArrayLike | None = None,
) -> Bunch:
    r"""Find the rows whose labels are most worth checking next.

    Parameters
    ----------
    estimator : estimator
        As for `find_label_issues`: a fitted `NoisyLabelClassifier`, or with `cv` one that is
        cloned; or any other classifier with ``predict_proba``, which is cross-fitted. None with
        `pred_proba`.
    X : {array-like, CSR matrix, DataFrame} of shape (n_samples, ...)
        None with `pred_proba`.
    y : array-like of shape (n_samples,) or (n_samples, n_columns)
        Observed labels, or several answers a row.
    n : int, default=50
        Number of rows to return; fewer if fewer are left.
    cv : int, splitter or iterable of (train, test) rows, default=None
        None uses the fitted estimator. Otherwise each row is judged by a clone that was not trained
        on it.
    groups : array-like of shape (n_samples,), default=None
        Groups for splitters that need them.
    pred_proba : array-like of shape (n_samples, n_classes), default=None
        Out-of-sample probabilities of the observed labels, instead of `estimator` and `cv`.
    classes : array-like of shape (n_classes,), default=None
        Classes of the columns of `pred_proba`. None: ``estimator.classes_``, or the sorted labels.
    n_jobs : int, default=None
        Number of folds that are fitted at the same time.
    annotators : array-like of the shape of y, default=None
        Who gave each answer if `y` has several for a row, as in `NoisyLabelClassifier.fit`.
    trusted : array-like of bool of shape (n_samples,), default=None
        Rows that were checked already; they are not returned again.

    Returns
    -------
    Bunch
        With the attributes

        indices : ndarray of int of shape (n,)
            Positions of the rows, in order of decreasing gain.
        expected_gain : ndarray of shape (n,)
            Expected increase, by a check, of the probability that the label of the row, or the
            consensus of its answers, is right.
        suggested_labels : ndarray of shape (n,)
            The most likely true labels.
        annotators : ndarray of shape (n,)
            Only with several answers a row: the annotator to ask.

    Raises
    ------
    sklearn.exceptions.NotFittedError, TypeError, ValueError
        As `find_label_issues`; also if `n` is not a positive integer or `trusted` is not a mask.

    See Also
    --------
    find_label_issues : All labels that are probably wrong.

    Notes
    -----
    A check of a label corrects it with probability :math:`1 - p(y=z_t \mid x_t, z_t)`, which is
    the expected gain. With several answers a row, annotator a is expected to raise the probability
    of the consensus from :math:`\max_i c_{ti}` to :math:`\sum_z \max_i c_{ti} T^a_{iz}`; the best
    annotator who has not answered yet is named.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknoisy import NoisyLabelClassifier
    >>> from sknoisy.inspection import next_labels
    >>> from sknoisy.noise import corrupt_labels, pair_transition
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:800] / 16, y[:800]
    >>> y_observed = corrupt_labels(y, pair_transition(10, 0.2), random_state=0)
    >>> classifier = NoisyLabelClassifier(lr=0.01, random_state=0).fit(X, y_observed)
    >>> chosen = next_labels(classifier, X, y_observed, n=50)
    >>> bool((y_observed[chosen.indices] != y[chosen.indices]).mean() > 0.9)
    True
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"`n` must be a positive integer; got {n!r}.")
    n_rows = len(np.asarray(y, dtype=object)) if not hasattr(y, "shape") else y.shape[0]
    checked = check_trusted(trusted, y, n_rows)
    if has_answers(y, annotators):
        refuse_probabilities(pred_proba)
        judged = judge_answers(estimator, X, y, annotators, cv, groups)
        matrices = shrunk_transitions(judged.counts, judged.annotator_prior)
        gain, who = gain_of_answers(judged.posterior, matrices, judged.answers.indicator())
        posterior, names = judged.posterior, judged.classes
    else:
        X, labels, _ = checked_rows(X, y)
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
        posterior, names, who = evidence.posterior, evidence.classes, None
        gain = 1.0 - posterior[np.arange(n_rows), evidence.target]
    open_rows = np.arange(n_rows) if checked is None else np.flatnonzero(~checked)
    best = open_rows[np.argsort(-gain[open_rows], kind="stable")[:n]]
    found = Bunch(
        indices=best,
        expected_gain=gain[best],
        suggested_labels=names[posterior[best].argmax(axis=1)],
    )
    if who is not None:
        found["annotators"] = judged.answers.annotators[who[best]]
    return found


def gain_of_answers(
    posterior: FloatArray, transitions: FloatArray, indicator: Any
) -> tuple[FloatArray, np.ndarray]:
    """Return by how much one more answer is expected to raise the probability of the consensus.

    Parameters
    ----------
    posterior : ndarray of shape (n_rows, true)
    transitions : ndarray of shape (n_annotators, true, observed)
    indicator : sparse matrix of shape (n_rows, n_annotators * observed)
        Which answers there are.

    Returns
    -------
    gain : ndarray of shape (n_rows,)
        Zero where all annotators have answered.
    annotator : ndarray of int of shape (n_rows,)
        Position of the best annotator who has not answered.
    """
    n_classes = transitions.shape[1]
    before = posterior.max(axis=1)
    best, who = np.full(len(posterior), -1.0), np.zeros(len(posterior), dtype=np.intp)
    for number, matrix in enumerate(transitions):
        codes = slice(number * n_classes, (number + 1) * n_classes)
        answered = np.asarray(indicator[:, codes].sum(axis=1)).ravel() > 0
        after = np.empty(len(posterior))
        for part in gen_batches(len(posterior), max(1, _ELEMENTS_AT_ONCE // n_classes**2)):
            after[part] = (posterior[part][:, :, None] * matrix).max(axis=1).sum(axis=1)
        gain = np.where(answered, -1.0, after - before)
        who = np.where(gain > best, number, who)
        best = np.maximum(best, gain)
    return np.maximum(best, 0.0), who


def compare_with_trusted(
    estimator: Any, X: Any, y: Any, trusted: Any, noisy_label: Any, random_state: Any
) -> Bunch:
    """Test whether a matrix learned without checked labels agrees with them; see `noise_test`."""
    X, labels, _ = checked_rows(X, y)
    if not has_noise_model(estimator):
        raise TypeError(
            "A test against checked labels needs the noise model of a NoisyLabelClassifier; got "
            f"{type(estimator).__name__}."
        )
    estimator = best_of_search(estimator, X, labels)
    classifier = unwrap_unfitted(estimator, NEEDED)
    mask = check_trusted(trusted, labels, len(labels))
    if mask is None or mask.all():
        raise ValueError(
            "`trusted` must mark rows whose label was checked, and leave others from which the "
            f"noise is learned; it marks {'none' if mask is None else 'all'} of {len(labels)} rows."
        )
    observed = check_noisy_labels(noisy_label, labels, mask, classifier.missing_label)
    checked, others = np.flatnonzero(mask), np.flatnonzero(~mask)
    fitted = clone(always_with_noise_model(estimator)).fit(
        _safe_indexing(X, others), labels[others]
    )
    classifier, features = unwrap_fitted(fitted, _safe_indexing(X, checked), NEEDED)
    names = classifier.classes_
    true_label = validation.encode_labels(labels[checked], names)
    seen = np.array([label is not None for label in observed[checked]])
    known = np.full(len(checked), UNKNOWN)
    if seen.any():
        known[seen] = validation.encode_labels(observed[checked][seen].tolist(), names)
    transition = floored(classifier.transition_matrix_)
    log_proba = sharpened_with_any_names(classifier.predict_log_proba(features), true_label)
    proba = classifier.predict_noisy_proba(features)
    counts = _counts(proba, true_label, known)
    statistic = _deviance(counts, transition)
    n_rows = classifier.class_prior_ * len(others)
    drawn = _drawn_deviances(
        np.exp(log_proba), proba, true_label, known, transition, n_rows, random_state
    )
    return Bunch(
        pvalue=float((1 + np.sum(drawn >= statistic)) / (1 + len(drawn))),
        statistic=statistic,
        transition_matrix=classifier.transition_matrix_,
        counted_transition=expected_transition(counts, smallest=0.0),
        n_trusted=np.bincount(true_label, minlength=len(names)),
        classes=names,
    )


def sharpened_with_any_names(log_proba: FloatArray, true_label: np.ndarray) -> FloatArray:
    """Return predictions as sure as they are right, if the classes had the best of all names."""
    n_classes = log_proba.shape[1]
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (log_proba.argmax(axis=1), true_label), 1.0)
    predicted, name = linear_sum_assignment(-counts)
    column = np.empty(n_classes, dtype=np.intp)
    column[name] = predicted
    sharpness = without_noise(log_proba[:, column], true_label).sharpness
    return raise_to(log_proba, sharpness)


def _counts(proba: FloatArray, true_label: np.ndarray, known: np.ndarray) -> FloatArray:
    """Count true classes against observed labels where they are known, else against predictions."""
    labels = np.where((known >= 0)[:, None], np.eye(proba.shape[1])[known], proba)
    return trusted_counts(labels, true_label)


def _deviance(counts: FloatArray, transition: FloatArray) -> float:
    """Return twice the log-likelihood ratio of counted rows against those of a matrix."""
    found = expected_transition(counts)
    return float(2.0 * np.sum(counts * np.log(found / transition)))


def _drawn_deviances(
    proba: FloatArray,
    noisy_proba: FloatArray,
    true_label: np.ndarray,
    known: np.ndarray,
    transition: FloatArray,
    n_rows: FloatArray,
    random_state: Any,
) -> FloatArray:
    """Draw the statistic as it is if the learned matrix is right.

    True labels of rows without an observed label are drawn as predicted, observed labels of the
    others as the matrix says. The matrix itself is uncertain: it is drawn from a Dirichlet
    distribution, worth as many labels as the class has rows.
    """
    rng = check_random_state(random_state)
    n_classes = len(transition)
    cumulative = proba.cumsum(axis=1)
    deviances = np.empty(_N_DRAWS)
    seen = known >= 0
    for number in range(_N_DRAWS):
        matrix = np.array(
            [
                rng.dirichlet(np.maximum(row * max(mass, 1.0), 1e-3))
                for row, mass in zip(transition, n_rows, strict=True)
            ]
        )
        labels = (cumulative < rng.uniform(size=(len(proba), 1))).sum(axis=1)
        labels = np.where(seen, true_label, np.minimum(labels, n_classes - 1))
        noisy = (matrix.cumsum(axis=1)[labels] < rng.uniform(size=(len(proba), 1))).sum(axis=1)
        observed = np.where(seen, np.minimum(noisy, n_classes - 1), UNKNOWN)
        counts = _counts(noisy_proba, labels, observed)
        deviances[number] = _deviance(counts, transition)
    return deviances
