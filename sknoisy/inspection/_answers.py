"""Which of several answers a row are wrong, and how good their annotators are."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sknoisy._crowd.annotators import annotator_counts, mean_transition, shrunk_transitions
from sknoisy._crowd.answers import Answers, check_answers, is_answered
from sknoisy._support.meta_estimators import unwrap_fitted
from sknoisy._support.validation import FloatArray, check_confidence


def check_of_classifier(pred_proba: Any, groups: Any) -> None:
    """Refuse what goes with one label a row only."""
    for name, value in (("pred_proba", pred_proba), ("groups", groups)):
        if value is not None:
            raise ValueError(
                f"`{name}` needs one observed label a row; got several answers, which are judged "
                "by a NoisyLabelClassifier that learned from answers."
            )


def answer_quality(estimator: Any, X: Any, y: Any, annotators: Any, cv: Any) -> Any:
    """Return the probability that each answer is right; see `label_quality`.

    Returns
    -------
    ndarray or DataFrame of the shape of y
        NaN where there is no answer.
    """
    answers, classifier, posterior = _judged(estimator, X, y, annotators, cv)
    answered = is_answered(y, classifier.missing_label)
    quality = np.full(answered.shape, np.nan)
    quality[answered] = posterior[answers.row, answers.label]
    if hasattr(y, "columns"):
        return type(y)(quality, index=y.index, columns=y.columns)
    return quality if np.ndim(y) == 2 else quality[:, 0]


def find_answer_issues(estimator: Any, X: Any, y: Any, annotators: Any, cv: Any) -> Bunch:
    """Return the answers that are probably wrong, the worst first; see `find_label_issues`."""
    answers, classifier, posterior = _judged(estimator, X, y, annotators, cv)
    quality = posterior[answers.row, answers.label]
    count = round(float(np.sum(1.0 - quality)))
    worst = np.argsort(quality, kind="stable")[:count]
    row, label = answers.row[worst], answers.label[worst]
    others = posterior[row]
    others[np.arange(count), label] = -1.0
    suggested = others.argmax(axis=1)
    classes = classifier.classes_
    right = np.bincount(answers.annotator, quality, minlength=answers.n_annotators)
    n_answers = answers.answers_of_annotators()
    with np.errstate(invalid="ignore"):
        of_annotators = right / n_answers
        error = np.sqrt(of_annotators * (1.0 - of_annotators) / n_answers)
    return Bunch(
        indices=row,
        annotators=answers.annotators[answers.annotator[worst]],
        observed_labels=classes[label],
        quality=quality[worst],
        suggested_labels=classes[suggested],
        suggested_proba=others[np.arange(count), suggested],
        count=count,
        noise_rate=float(np.mean(1.0 - quality)),
        consensus=classes[posterior.argmax(axis=1)],
        consensus_proba=posterior.max(axis=1),
        annotator_quality=dict(zip(answers.annotators.tolist(), of_annotators, strict=True)),
        annotator_quality_error=dict(zip(answers.annotators.tolist(), error, strict=True)),
        transition_matrix=classifier.transition_matrix_,
        classes=classes,
    )


def annotator_intervals(
    estimator: Any, X: Any, y: Any, annotators: Any, cv: Any, confidence: float
) -> Bunch:
    """Return the matrices of annotators with errors and intervals; see `transition_interval`.

    Those of the Dirichlet posterior of each row: soft counts of answers, and the prior around the
    matrix of all annotators together.
    """
    answers, classifier, posterior = _judged(estimator, X, y, annotators, cv)
    counts, prior = annotator_counts(posterior, answers), classifier.annotator_prior_
    mean = shrunk_transitions(counts, prior)
    mass = counts.sum(axis=2, keepdims=True) + prior
    tails = 0.5 + np.array([-0.5, 0.5]) * confidence
    lower, upper = (beta.ppf(tail, mass * mean, mass * (1.0 - mean)) for tail in tails)
    return Bunch(
        annotators=answers.annotators,
        transition_matrix=mean_transition(mean, answers),
        annotator_transitions=mean,
        standard_error=np.sqrt(mean * (1.0 - mean) / (mass + 1.0)),
        lower=lower,
        upper=upper,
        classes=classifier.classes_,
    )


def _judged(
    estimator: Any, X: Any, y: Any, annotators: Any, cv: Any
) -> tuple[Answers, Any, FloatArray]:
    """Return answers, a fitted classifier, and posteriors of the true labels.

    With `cv` the posterior of a row is that of a clone which was fitted to the answers of others;
    the answers of the row itself are part of it in any case.
    """
    if cv is None:
        classifier, features = unwrap_fitted(estimator, X, "label_posterior")
        posterior = classifier.label_posterior(features, y, annotators=annotators)
    else:
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        posterior, classifier = np.full((0, 0), np.nan), None
        for train, test in check_cv(cv).split(np.zeros(n_rows)):
            parts = [
                None if data is None else _safe_indexing(data, rows)
                for rows in (train, test)
                for data in (X, y, annotators)
            ]
            fitted = clone(estimator)
            given = {} if annotators is None else {"annotators": parts[2]}
            fitted.fit(parts[0], parts[1], **given)
            classifier, features = unwrap_fitted(fitted, parts[3], "label_posterior")
            if not posterior.size:
                posterior = np.full((n_rows, len(classifier.classes_)), np.nan)
                classes = classifier.classes_
            if not np.array_equal(classes, classifier.classes_):
                raise ValueError(
                    "`cv` must leave every label in the answers of every fold; got the labels "
                    f"{classifier.classes_.tolist()!r} in one and {classes.tolist()!r} in another."
                )
            posterior[test] = classifier.label_posterior(features, parts[4], annotators=parts[5])
        if np.isnan(posterior).any():
            raise ValueError("`cv` must hold out each row once; some rows were never held out.")
    assert classifier is not None
    answers, _ = check_answers(
        y,
        annotators,
        missing_label=classifier.missing_label,
        classes=classifier.classes_,
    )
    return answers, classifier, posterior


class AnnotatorQualityDisplay:
    """Picture of annotators: share of right answers against their number, with intervals.

    Create it with `from_estimator`.

    Parameters
    ----------
    quality, error : ndarray of shape (n_annotators,)
        Share of right answers and its standard error.
    n_answers : ndarray of shape (n_annotators,)
    names : ndarray of shape (n_annotators,)

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    errorbar_ : matplotlib ErrorbarContainer
    """

    def __init__(
        self, quality: FloatArray, error: FloatArray, n_answers: np.ndarray, names: np.ndarray
    ) -> None:
        self.quality = quality
        self.error = error
        self.n_answers = n_answers
        self.names = names

    @classmethod
    def from_estimator(cls, estimator: Any, **kwargs: Any) -> AnnotatorQualityDisplay:
        """Plot the annotators that a classifier was fitted to.

        Parameters
        ----------
        estimator : estimator
            A fitted `NoisyLabelClassifier`, a pipeline that ends in one, or a search over either.
        **kwargs
            Parameters of `plot`.

        Returns
        -------
        AnnotatorQualityDisplay

        Raises
        ------
        ValueError
            If it was not fitted to answers of annotators.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        classifier, _ = unwrap_fitted(estimator, None, "label_posterior")
        if not hasattr(classifier, "annotators_"):
            raise ValueError(
                "`estimator` must have been fitted to answers of annotators, y of shape "
                "(n_samples, n_columns) or with `annotators`; it was fitted to one label a row."
            )
        return cls(
            classifier.annotator_quality_,
            classifier.annotator_quality_error_,
            classifier.annotator_answer_counts_,
            classifier.annotators_,
        ).plot(**kwargs)

    def plot(
        self,
        *,
        ax: Any = None,
        n_named: int = 10,
        confidence: float = 0.9,
        errorbar_kw: dict[str, Any] | None = None,
    ) -> AnnotatorQualityDisplay:
        """Draw the annotators.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.
        n_named : int, default=10
            How many names to write: of the annotators of lowest quality, and of all if they are no
            more.
        confidence : float, default=0.9
            Of the intervals.
        errorbar_kw : dict, default=None
            Parameters of ``errorbar``.

        Returns
        -------
        AnnotatorQualityDisplay
            Itself.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt
        from scipy.stats import norm

        if ax is None:
            _, ax = plt.subplots()
        half = norm.ppf(0.5 + check_confidence(confidence) / 2) * self.error
        low, high = np.clip(self.quality - half, 0, 1), np.clip(self.quality + half, 0, 1)
        style = {"fmt": "o", "ms": 4, "lw": 1, "alpha": 0.8} | (errorbar_kw or {})
        self.errorbar_ = ax.errorbar(
            np.maximum(self.n_answers, 0.5),
            self.quality,
            yerr=[self.quality - low, high - self.quality],
            **style,
        )
        for number, at in enumerate(np.argsort(self.quality, kind="stable")[:n_named]):
            ax.annotate(
                str(self.names[at]),
                (max(self.n_answers[at], 0.5), self.quality[at]),
                xytext=(5, -11 if number % 2 else 3),
                textcoords="offset points",
                size="small",
            )
        if self.n_answers.max() > 20 * max(self.n_answers.min(), 1):
            ax.set_xscale("log")
        ax.margins(x=0.2)
        ax.set(xlabel="answers", ylabel="share of right answers", ylim=(-0.05, 1.02))
        self.ax_, self.figure_ = ax, ax.figure
        return self
