"""Which of several answers a row are wrong, and how good their annotators are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta
from sklearn import get_config
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sknoisy._crowd.annotators import (
    annotator_counts,
    annotator_quality,
    mean_transition,
    shrunk_transitions,
)
from sknoisy._crowd.answers import Answers, check_answers, is_answered
from sknoisy._data.indexable import as_indexable
from sknoisy._support.meta_estimators import unwrap_fitted, unwrap_unfitted
from sknoisy._support.validation import FloatArray, check_confidence
from sknoisy.inspection._cross_fitting import partition


def refuse_probabilities(pred_proba: Any) -> None:
    """Refuse probabilities, which know one observed label a row and nothing else."""
    if pred_proba is not None:
        raise ValueError(
            "`pred_proba` needs one observed label a row; several answers, and checked labels, are "
            "judged by a NoisyLabelClassifier."
        )


class JudgedAnswers(NamedTuple):
    """Answers, and what is known of the true labels.

    Attributes
    ----------
    answers : Answers
    answered : ndarray of bool of the shape of y
        Where there are answers.
    classes : ndarray of shape (n_classes,)
    posterior : ndarray of shape (n_rows, n_classes)
    annotator_prior : float
        As of the classifier.
    """

    answers: Answers
    answered: np.ndarray
    classes: np.ndarray
    posterior: FloatArray
    annotator_prior: float

    @property
    def quality(self) -> FloatArray:
        """Probability that each answer is right, shape (n_answers,)."""
        return np.asarray(self.posterior[self.answers.row, self.answers.label])

    @property
    def counts(self) -> FloatArray:
        """Soft counts of each annotator, shape (n_annotators, true, observed)."""
        return annotator_counts(self.posterior, self.answers)


def answer_quality(estimator: Any, X: Any, y: Any, annotators: Any, cv: Any, groups: Any) -> Any:
    """Return the probability that each answer is right; see `label_quality`.

    Returns
    -------
    ndarray or DataFrame of the shape of y
        NaN where there is no answer.
    """
    judged = judge_answers(estimator, X, y, annotators, cv, groups)
    quality = np.full(judged.answered.shape, np.nan)
    quality[judged.answered] = judged.quality
    if hasattr(y, "columns"):
        return type(y)(quality, index=y.index, columns=y.columns)
    return quality if np.ndim(y) == 2 else quality[:, 0]


def find_answer_issues(
    estimator: Any, X: Any, y: Any, annotators: Any, cv: Any, groups: Any
) -> Bunch:
    """Return the answers that are probably wrong, the worst first; see `find_label_issues`."""
    judged = judge_answers(estimator, X, y, annotators, cv, groups)
    answers, classes, quality = judged.answers, judged.classes, judged.quality
    count = round(float(np.sum(1.0 - quality)))
    worst = np.argsort(quality, kind="stable")[:count]
    row, label = answers.row[worst], answers.label[worst]
    others = judged.posterior[row]
    others[np.arange(count), label] = -1.0
    suggested = others.argmax(axis=1)
    names = answers.annotators.tolist()
    of_annotators, error = annotator_quality(judged.counts)
    matrices = shrunk_transitions(judged.counts, judged.annotator_prior)
    return Bunch(
        indices=row,
        annotators=answers.annotators[answers.annotator[worst]],
        observed_labels=classes[label],
        quality=quality[worst],
        suggested_labels=classes[suggested],
        suggested_proba=others[np.arange(count), suggested],
        count=count,
        noise_rate=float(np.mean(1.0 - quality)),
        consensus=classes[judged.posterior.argmax(axis=1)],
        consensus_proba=judged.posterior.max(axis=1),
        annotator_quality=dict(zip(names, of_annotators.tolist(), strict=True)),
        annotator_quality_error=dict(zip(names, error.tolist(), strict=True)),
        transition_matrix=mean_transition(matrices, answers),
        classes=classes,
    )


def annotator_intervals(
    estimator: Any, X: Any, y: Any, annotators: Any, cv: Any, groups: Any, confidence: float
) -> Bunch:
    """Return the matrices of annotators with errors and intervals; see `transition_interval`.

    Those of the Dirichlet posterior of each row: soft counts of answers, and the prior around the
    matrix of all annotators together.
    """
    judged = judge_answers(estimator, X, y, annotators, cv, groups)
    counts = judged.counts
    mean = shrunk_transitions(counts, judged.annotator_prior)
    mass = counts.sum(axis=2, keepdims=True) + judged.annotator_prior
    tails = 0.5 + np.array([-0.5, 0.5]) * confidence
    lower, upper = (beta.ppf(tail, mass * mean, mass * (1.0 - mean)) for tail in tails)
    return Bunch(
        annotators=judged.answers.annotators,
        transition_matrix=mean_transition(mean, judged.answers),
        annotator_transitions=mean,
        standard_error=np.sqrt(mean * (1.0 - mean) / (mass + 1.0)),
        lower=lower,
        upper=upper,
        classes=judged.classes,
    )


def judge_answers(
    estimator: Any, X: Any, y: Any, annotators: Any, cv: Any, groups: Any
) -> JudgedAnswers:
    """Return answers with posteriors of the true labels.

    With `cv` the posterior of a row is that of a clone which was fitted to the answers of others;
    the answers of the row itself are part of it in any case.
    """
    X = as_indexable(X, y, mapped=True)
    if cv is None:
        classifier, features = unwrap_fitted(estimator, X, "label_posterior")
        posterior = classifier.label_posterior(features, y, annotators=annotators)
        missing_label, classes = classifier.missing_label, classifier.classes_
        answers, _ = check_answers(y, annotators, missing_label=missing_label, classes=classes)
    else:
        missing_label = unwrap_unfitted(estimator, "label_posterior").missing_label
        answers, classes = check_answers(y, annotators, missing_label=missing_label)
        posterior = np.zeros((len(answers), len(classes)))
        # Stratified by the majority, every label of which has to be there in each fold.
        majority = classes[answers.majority(np.random.RandomState(0))]
        for train, test in partition(cv, X, majority, groups).splits:
            seen, unseen = (
                [
                    None if part is None else _safe_indexing(part, rows)
                    for part in (X, y, annotators)
                ]
                for rows in (train, test)
            )
            fitted = _fit(clone(estimator), *seen)
            classifier, features = unwrap_fitted(fitted, unseen[0], "label_posterior")
            at = np.searchsorted(classes, classifier.classes_)
            found = classifier.label_posterior(features, unseen[1], annotators=unseen[2])
            posterior[np.ix_(test, at)] = found
    answered = is_answered(y, missing_label)
    return JudgedAnswers(answers, answered, classes, posterior, classifier.annotator_prior_)


def _fit(estimator: Any, X: Any, y: Any, annotators: Any) -> Any:
    """Fit an estimator; a pipeline passes the annotators on to its last step."""
    if annotators is None:
        return estimator.fit(X, y)
    name = "annotators"
    if isinstance(estimator, Pipeline) and not get_config()["enable_metadata_routing"]:
        name = f"{estimator.steps[-1][0]}__annotators"
    return estimator.fit(X, y, **{name: annotators})


class AnnotatorQualityDisplay:
    """Plot the quality of annotators against their number of answers, with intervals.

    Create it with `from_estimator`.

    Parameters
    ----------
    quality, error : ndarray of shape (n_annotators,)
        Share of correct answers and its standard error.
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
            If the classifier was not fitted to answers of annotators.
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
            Number of annotators that are named, those of lowest quality.
        confidence : float, default=0.9
            Confidence level of the intervals.
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
