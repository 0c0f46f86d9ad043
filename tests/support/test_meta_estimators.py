"""Samplers in pipelines, searches of other packages, and scores that fail with their reason."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import (
    TrainingCurveDisplay,
    TransitionMatrixDisplay,
    find_label_issues,
    label_quality,
    noise_test,
    transition_interval,
)
from sknoisy.metrics import noise_corrected_accuracy_scorer, noisy_log_likelihood_scorer

X, y = make_classification(
    300,
    6,
    n_informative=4,
    n_classes=3,
    n_clusters_per_class=1,
    weights=[0.5, 0.3, 0.2],
    random_state=0,
)


def quick(**params):
    """Return a classifier that is trained on one part of the rows instead of four."""
    return NoisyLabelClassifier(
        **{"max_epochs": 4, "lr": 0.01, "early_stopping": True, "random_state": 0} | params
    )


class Doubler(BaseEstimator):
    """A sampler by the contract of imbalanced-learn: every row twice, in fit only."""

    def fit_resample(self, X, y):
        return np.repeat(X, 2, axis=0), np.repeat(y, 2)

    def fit(self, X, y):
        return self


def imblearn_pipeline(*steps):
    return pytest.importorskip("imblearn.pipeline").make_pipeline(*steps)


def over_sampler():
    return pytest.importorskip("imblearn.over_sampling").RandomOverSampler(random_state=0)


SAMPLED = {
    "before": lambda c: imblearn_pipeline(over_sampler(), c),
    "between": lambda c: imblearn_pipeline(StandardScaler(), over_sampler(), MinMaxScaler(), c),
    "first of two": lambda c: imblearn_pipeline(over_sampler(), StandardScaler(), c),
    "last of two": lambda c: imblearn_pipeline(StandardScaler(), over_sampler(), c),
    "twice": lambda c: imblearn_pipeline(over_sampler(), Doubler(), c),
    "own": lambda c: imblearn_pipeline(Doubler(), c),
    "beside passthrough": lambda c: imblearn_pipeline("passthrough", over_sampler(), None, c),
    "outside": lambda c: imblearn_pipeline(over_sampler(), make_pipeline(StandardScaler(), c)),
    "inside": lambda c: make_pipeline(StandardScaler(), imblearn_pipeline(over_sampler(), c)),
    "union": lambda c: imblearn_pipeline(
        FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())]), over_sampler(), c
    ),
}


def transformed(pipeline, X):
    """Return what the classifier of a pipeline sees in a prediction."""
    seen = []
    inner = pipeline
    while not isinstance(inner, NoisyLabelClassifier):
        inner = inner[-1]
    own = inner.predict_proba
    inner.predict_proba = lambda X: (seen.append(X), own(X))[1]
    pipeline.predict_proba(X)
    del inner.predict_proba
    return inner, seen[0]


@pytest.mark.parametrize("compose", SAMPLED.values(), ids=SAMPLED)
def test_samplers_have_no_part_in_scores_and_inspection(compose):
    pipeline = compose(quick()).fit(X, y)
    classifier, rows = transformed(pipeline, X)
    assert len(rows) == len(X)
    for scorer in (noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer):
        assert scorer(pipeline, X, y) == pytest.approx(scorer(classifier, rows, y))
    np.testing.assert_allclose(label_quality(pipeline, X, y), label_quality(classifier, rows, y))
    issues = find_label_issues(FrozenEstimator(pipeline), X, y)
    np.testing.assert_array_equal(issues.indices, find_label_issues(classifier, rows, y).indices)
    for display in (TransitionMatrixDisplay, TrainingCurveDisplay):
        plt.close(display.from_estimator(pipeline).figure_)


@pytest.mark.parametrize("compose", [SAMPLED["between"], SAMPLED["own"]])
def test_samplers_take_part_in_the_fits_of_cross_fitting(compose):
    pipeline = compose(quick())
    assert np.isfinite(label_quality(pipeline, X, y, cv=2)).all()
    assert 0 <= noise_test(pipeline, X, y, cv=2).pvalue <= 1
    assert np.isfinite(transition_interval(pipeline, X, y, cv=2).lower).all()


@pytest.mark.parametrize("scorer", [noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer])
def test_a_grid_search_over_a_pipeline_with_a_sampler_has_scores(scorer):
    pipeline = SAMPLED["between"](quick())
    grid = {"noisylabelclassifier__max_epochs": [1, 20]}
    search = GridSearchCV(pipeline, grid, scoring=scorer, cv=2, error_score="raise").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.best_index_ == 1
    assert np.isfinite(scorer(search, X, y))
    assert np.isfinite(label_quality(search, X, y)).all()


# --- Searches of other packages -----------------------------------------------------------------


class ForeignSearch(BaseEstimator):
    """What searches of other packages have in common with those of scikit-learn: no class."""

    def __init__(self, estimator, param_distributions, refit=True):
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.refit = refit

    def fit(self, X, y, **fit_params):
        names = list(self.param_distributions)
        best = -np.inf
        for values in itertools.product(*self.param_distributions.values()):
            params = dict(zip(names, values, strict=True))
            candidate = clone(self.estimator).set_params(**params).fit(X, y)
            score = noisy_log_likelihood_scorer(candidate, X, y)
            if score > best:
                best, self.best_params_ = score, params
                if self.refit:
                    self.best_estimator_ = candidate
        return self

    @property
    def classes_(self):
        return self.best_estimator_.classes_

    def predict(self, X):
        return self.best_estimator_.predict(X)


class LazySearch(ForeignSearch):
    """As that of Optuna: what it found are properties that fail before fit."""

    def fit(self, X, y):
        super().fit(X, y)
        self.found_ = self.__dict__.pop("best_estimator_")
        return self

    @property
    def best_estimator_(self):
        if not hasattr(self, "found_"):
            raise NotFittedError("not fitted")
        return self.found_

    @best_estimator_.setter
    def best_estimator_(self, value):
        self.__dict__["best_estimator_"] = value


class PassiveSearch(ForeignSearch):
    """Names the space as scikit-optimize does."""

    def __init__(self, estimator, search_spaces, refit=True):
        self.estimator = estimator
        self.search_spaces = search_spaces
        self.refit = refit

    @property
    def param_distributions(self):
        return self.search_spaces


SPACE = {"max_epochs": [1, 6]}
searches = pytest.mark.parametrize("kind", [ForeignSearch, LazySearch, PassiveSearch])


@searches
def test_a_search_of_another_package_is_scored_and_inspected(kind):
    search = kind(quick(), SPACE).fit(X, y)
    best = search.best_estimator_
    assert best.max_epochs == 6
    for scorer in (noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer):
        assert scorer(search, X, y) == scorer(best, X, y)
    np.testing.assert_array_equal(label_quality(search, X, y), label_quality(best, X, y))
    pipeline = make_pipeline(StandardScaler(), kind(quick(), SPACE)).fit(X, y)
    assert np.isfinite(label_quality(pipeline, X, y)).all()


@searches
def test_the_best_of_a_search_of_another_package_is_cross_fitted(kind):
    search = kind(quick(), SPACE)
    not_fitted = label_quality(search, X, y, cv=2)
    fitted = label_quality(search.fit(X, y), X, y, cv=2)
    expected = label_quality(clone(search.best_estimator_), X, y, cv=2)
    np.testing.assert_allclose(not_fitted, expected)
    np.testing.assert_allclose(fitted, expected)


@searches
def test_a_search_of_another_package_that_is_not_fitted_or_not_refitted_says_so(kind):
    with pytest.raises(NotFittedError, match="not fitted"):
        label_quality(kind(quick(), SPACE), X, y)
    if kind is not LazySearch:
        without = kind(quick(), SPACE, refit=False).fit(X, y)
        with pytest.raises(TypeError, match="refit=True"):
            label_quality(without, X, y)
        with pytest.raises(TypeError, match="refit=True"):
            label_quality(without, X, y, cv=2)


def test_what_has_an_estimator_but_searches_no_parameters_is_any_classifier():
    tuned = TunedThresholdClassifierCV(quick(), cv=2).fit(X[y < 2], y[y < 2])
    for given in (tuned, clone(tuned)):
        quality = label_quality(given, X[y < 2], y[y < 2], cv=2)
        assert quality.shape == (np.sum(y < 2),)
        assert 0 <= quality.min() <= quality.max() <= 1


# --- Scores that fail ---------------------------------------------------------------------------


class Broken(BaseEstimator, TransformerMixin):
    """Fails in predictions, where it sees an odd number of rows or more."""

    def fit(self, X, y=None):
        self.n_rows_ = len(X)
        return self

    def transform(self, X):
        if len(X) != self.n_rows_:
            raise RuntimeError("the sensor is off")
        return X


@pytest.mark.parametrize("scorer", [noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_score_that_fails_in_a_search_gives_its_reason(several, scorer):
    pipeline = make_pipeline(Broken(), quick(max_epochs=1))
    scoring = {"a": scorer, "b": "accuracy"} if several else scorer
    grid = {"noisylabelclassifier__lr": [0.1]}
    search = GridSearchCV(pipeline, grid, scoring=scoring, cv=3, refit=False)
    with pytest.warns(UserWarning, match=r"(?s)Scoring failed.*the sensor is off"):
        search.fit(X, y)
    with pytest.raises(RuntimeError, match="the sensor is off"):
        search.set_params(error_score="raise").fit(X, y)


def test_a_classifier_without_a_transition_matrix_gives_the_reason():
    with pytest.warns(UserWarning, match=r"(?s)Scoring failed.*must have a method"):
        cross_val_score(LogisticRegression(), X, y, scoring=noisy_log_likelihood_scorer, cv=2)


class Undefined(BaseEstimator):
    """A classifier whose predictions are not numbers."""

    noise_model = "s"

    def __init__(self, matrix=np.nan):
        self.matrix = matrix

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.transition_matrix_ = np.full((3, 3), self.matrix)
        return self

    def predict(self, X):
        return self.classes_[np.zeros(len(X), dtype=int)]

    def predict_noisy_proba(self, X):
        return np.full((len(X), 3), np.nan)

    def predict_transition(self, X):
        return np.broadcast_to(self.transition_matrix_, (len(X), 3, 3))


@pytest.mark.parametrize("scorer", [noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer])
def test_a_score_that_is_no_number_is_an_error(scorer):
    with pytest.raises(ValueError, match="finite"):
        scorer(Undefined().fit(X, y), X, y)
    with pytest.warns(UserWarning, match=r"(?s)Scoring failed.*finite"):
        cross_val_score(Undefined(), X, y, scoring=scorer, cv=2)
