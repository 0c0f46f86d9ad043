"""Laws of the scores on noisy labels, shown on a classifier whose probabilities are known."""

import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, check_scoring, get_scorer, log_loss, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    LeaveOneGroupOut,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted

from sknoisy.metrics import (
    noise_corrected_accuracy,
    noise_corrected_accuracy_scorer,
    noisy_log_likelihood_scorer,
    transition_matrix_error,
)
from sknoisy.noise import (
    corrupt_labels,
    random_transition,
    region_transition,
    transition_from_trace,
    uniform_transition,
)

SCORERS = [noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer]
seeds = st.integers(0, 2**32 - 1)


class KnownNoise(ClassifierMixin, BaseEstimator):
    """Logistic regression seen through uniform noise of a given rate, in one region for "c"."""

    def __init__(self, rate=0.0, noise_model="s", C=1.0):
        self.rate = rate
        self.noise_model = noise_model
        self.C = C

    def fit(self, X, y, sample_weight=None):
        self.clean_ = LogisticRegression(C=self.C).fit(X, y, sample_weight=sample_weight)
        self.classes_ = self.clean_.classes_
        k = len(self.classes_)
        rate = 0.0 if self.noise_model is None else self.rate
        self.transition_matrix_ = uniform_transition(k, rate)
        return self

    def predict(self, X):
        check_is_fitted(self)
        return self.clean_.predict(X)

    def predict_proba(self, X):
        check_is_fitted(self)
        return self.clean_.predict_proba(X)

    def predict_transition(self, X):
        check_is_fitted(self)
        in_region = np.asarray(X)[:, 0] > 0
        if self.noise_model != "c":
            in_region[:] = True
        return region_transition(in_region, self.transition_matrix_)

    def predict_noisy_proba(self, X):
        check_is_fitted(self)
        return np.einsum("ni,nij->nj", self.predict_proba(X), self.predict_transition(X))


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    true = np.repeat(["ant", "bee", "cat"], 80)
    X = random.normal(size=(240, 3)) + 2 * np.eye(3).repeat(80, axis=0)
    order = random.permutation(240)
    X, true = X[order], true[order]
    return X, corrupt_labels(true, uniform_transition(3, 0.3), random_state=0), true


# --- transition_matrix_error ------------------------------------------------------------------


@given(n_classes=st.integers(2, 6), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_matrix_error_is_a_bounded_distance(n_classes, seed):
    first, second, third = (
        transition_from_trace(n_classes, 1.0, random_state=seed // 3 + i) for i in range(3)
    )
    error = transition_matrix_error(first, second)
    assert transition_matrix_error(first, first) == 0
    assert 0 < error <= 1
    assert_allclose(error, transition_matrix_error(second, first))
    through = transition_matrix_error(first, third) + transition_matrix_error(third, second)
    assert error <= through + 1e-12
    order = np.random.default_rng(seed).permutation(n_classes)
    relabelled = (matrix[np.ix_(order, order)] for matrix in (first, second))
    assert_allclose(transition_matrix_error(*relabelled), error)


@given(rate=st.floats(0, 1), other=st.floats(0, 1))
def test_matrix_error_of_uniform_noise_is_the_difference_of_the_rates(rate, other):
    error = transition_matrix_error(uniform_transition(4, rate), uniform_transition(4, other))
    assert_allclose(error, abs(rate - other), atol=1e-12)


def test_matrix_error_of_disjoint_rows_is_one():
    assert transition_matrix_error(np.eye(3), np.eye(3)[[1, 2, 0]]) == 1


def test_matrix_error_averages_over_samples():
    true = region_transition([True, False], uniform_transition(3, 0.4))
    assert_allclose(transition_matrix_error(np.broadcast_to(np.eye(3), (2, 3, 3)), true), 0.2)


def test_matrix_error_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match=r"estimated must have the shape of true, \(2, 2\), got"):
        transition_matrix_error(np.eye(3), np.eye(2))
    with pytest.raises(ValueError, match=r"`estimated` must have rows .* that sum to one"):
        transition_matrix_error(np.ones((2, 2)), np.eye(2))
    with pytest.raises(ValueError, match="`true` must be finite and non-negative"):
        transition_matrix_error(np.eye(2), -np.eye(2))


# --- noise_corrected_accuracy -----------------------------------------------------------------


@given(n_classes=st.integers(2, 4), n_samples=st.integers(1, 3), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_corrected_accuracy_is_unbiased_by_enumeration(n_classes, n_samples, seed):
    random = np.random.default_rng(seed)
    transition = 0.5 * np.eye(n_classes) + 0.5 * random.dirichlet(np.ones(n_classes), n_classes)
    true, predicted = random.integers(n_classes, size=(2, n_samples))
    expected = sum(
        transition[true, observed].prod()
        * noise_corrected_accuracy(observed, predicted, transition, labels=range(n_classes))
        for observed in map(list, product(range(n_classes), repeat=n_samples))
    )
    assert_allclose(expected, accuracy_score(true, predicted), atol=1e-9)


@given(n_samples=st.integers(1, 3), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_corrected_accuracy_is_unbiased_with_one_matrix_per_sample(n_samples, seed):
    random = np.random.default_rng(seed)
    noise = random.dirichlet(np.ones(3), size=(n_samples, 3))
    transition = 0.5 * np.eye(3) + 0.5 * noise
    true, predicted = random.integers(3, size=(2, n_samples))
    expected = sum(
        transition[range(n_samples), true, observed].prod()
        * noise_corrected_accuracy(observed, predicted, transition, labels=range(3))
        for observed in map(list, product(range(3), repeat=n_samples))
    )
    assert_allclose(expected, accuracy_score(true, predicted), atol=1e-9)


def test_corrected_accuracy_and_its_variance_agree_with_simulation():
    random = np.random.default_rng(0)
    transition = random_transition(3, 0.4, random_state=0)
    accuracies, variances = [], []
    for seed in range(400):
        true = random.integers(3, size=300)
        predicted = np.where(random.uniform(size=300) < 0.8, true, (true + 1) % 3)
        observed = corrupt_labels(true, transition, random_state=seed)
        accuracy, variance = noise_corrected_accuracy(
            observed, predicted, transition, return_variance=True
        )
        accuracies.append(accuracy)
        variances.append(variance)
    assert_allclose(np.mean(accuracies), 0.8, atol=4 * np.std(accuracies) / 20)
    assert_allclose(np.mean(variances), np.var(accuracies), rtol=0.2)
    covered = np.abs(np.array(accuracies) - 0.8) < 1.645 * np.sqrt(variances)
    assert 0.85 < covered.mean() < 0.95


@given(seed=seeds, weighted=st.booleans())
@settings(max_examples=20, deadline=None)
def test_without_noise_it_is_the_accuracy(seed, weighted):
    random = np.random.default_rng(seed)
    observed, predicted = random.choice(["a", "b", "c"], size=(2, 30))
    weight = random.uniform(size=30) if weighted else None
    assert_allclose(
        noise_corrected_accuracy(
            observed, predicted, np.eye(3), labels=["a", "b", "c"], sample_weight=weight
        ),
        accuracy_score(observed, predicted, sample_weight=weight),
    )


def test_variance_without_noise_is_that_of_a_proportion():
    accuracy, variance = noise_corrected_accuracy(
        [0, 1, 1, 0], [0, 1, 1, 1], np.eye(2), return_variance=True
    )
    assert_allclose(variance, accuracy * (1 - accuracy) / 3)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_weights_count_rows_and_their_scale_is_free(seed):
    random = np.random.default_rng(seed)
    observed, predicted = random.integers(2, size=(2, 20))
    transition, weight = random_transition(2, 0.2, random_state=seed), random.integers(3, size=20)
    weight[0] = 2

    def corrected(rows, sample_weight):
        return noise_corrected_accuracy(
            observed[rows],
            predicted[rows],
            transition,
            labels=[0, 1],
            sample_weight=sample_weight,
            return_variance=True,
        )

    rows = np.arange(20)
    accuracy, variance = corrected(rows, weight)
    assert_allclose(corrected(rows.repeat(weight), None)[0], accuracy, atol=1e-12)
    assert_allclose(corrected(rows, weight / 7), (accuracy, variance), atol=1e-12)
    kept = weight > 0
    assert_allclose(corrected(rows[kept], weight[kept]), (accuracy, variance), atol=1e-12)


def test_order_of_the_labels_is_that_of_the_matrix():
    transition = np.array([[0.6, 0.4], [0.1, 0.9]])
    observed, predicted = list("abba"), list("abab")
    assert_allclose(
        noise_corrected_accuracy(observed, predicted, transition[::-1, ::-1], labels=["b", "a"]),
        noise_corrected_accuracy(observed, predicted, transition),
    )


def test_classes_a_singular_matrix_cannot_tell_apart_share_a_hit():
    transition = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    for true, predicted in product(range(3), repeat=2):
        expected = sum(
            transition[true, observed]
            * noise_corrected_accuracy([observed], [predicted], transition, labels=range(3))
            for observed in range(3)
        )
        together = max(true, predicted) < 2
        assert_allclose(expected, 0.5 if together else float(true == predicted), atol=1e-9)


def test_variance_of_one_sample_is_unknown():
    assert np.isnan(noise_corrected_accuracy([0], [0], np.eye(1), return_variance=True)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0], np.eye(2)), "inconsistent numbers of samples"),
        (([0, 1], [0, 2], np.eye(2)), r"for each of the 3 labels \[0, 1, 2\], got shape"),
        (([0, 0], [0, 0], np.eye(2)), r"for each of the 1 labels \[0\].* Pass labels"),
        (([0, 1], ["a", "b"], np.eye(2)), "Mix of label input types"),
        (([0, 1], [0, 1], [[0.5, 0.6], [0, 1]]), r"rows \(true classes\) that sum to one"),
        (
            ([0, 1], [0, 1], np.zeros((3, 2, 2))),
            r"or \(2, true, observed\), a row .*; got shape \(3, 2, 2\)",
        ),
    ],
)
def test_bad_arguments_of_the_corrected_accuracy_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise_corrected_accuracy(*arguments)


def test_label_outside_the_given_ones_is_refused():
    with pytest.raises(
        ValueError, match=r"must hold only labels in labels, \[0, 1\], got \[0, 2\]"
    ):
        noise_corrected_accuracy([0, 2], [0, 0], np.eye(2), labels=[0, 1])


@pytest.mark.parametrize("weight", [[0, 0], [-1, 2], [np.nan, 1]])
def test_weights_without_meaning_are_refused(weight):
    with pytest.raises(ValueError, match="sample_weight must be finite and non-negative with at"):
        noise_corrected_accuracy([0, 1], [0, 1], np.eye(2), sample_weight=weight)


# --- scorers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_model", [None, "s", "c"])
def test_likelihood_is_minus_the_log_loss_of_the_noisy_probabilities(data, noise_model):
    X, y, _ = data
    classifier = KnownNoise(0.3, noise_model).fit(X, y)
    weight = np.arange(len(y))
    for sample_weight in (None, weight):
        assert_allclose(
            noisy_log_likelihood_scorer(classifier, X, y, sample_weight=sample_weight),
            -log_loss(y, classifier.predict_noisy_proba(X), sample_weight=sample_weight),
        )


@pytest.mark.parametrize("batch_elements", [1, 100, 10**6])
@pytest.mark.parametrize("noise_model", [None, "s", "c"])
@pytest.mark.parametrize("as_frame", [True, False])
def test_corrected_scorer_uses_the_matrix_of_the_estimator(
    data, noise_model, batch_elements, as_frame, monkeypatch
):
    monkeypatch.setattr("sknoisy.metrics._BATCH_ELEMENTS", batch_elements)
    X, y, _ = data
    classifier = KnownNoise(0.3, noise_model).fit(X, y)
    score = noise_corrected_accuracy_scorer(classifier, pd.DataFrame(X) if as_frame else X, y)
    predicted = classifier.predict(X)
    assert_allclose(score, noise_corrected_accuracy(y, predicted, classifier.predict_transition(X)))
    if noise_model is None:
        assert_allclose(score, accuracy_score(y, predicted))


def test_corrected_scorer_comes_close_to_the_clean_accuracy(data):
    X, y, true = data
    classifier = KnownNoise(0.3).fit(X, true)
    assert_allclose(
        noise_corrected_accuracy_scorer(classifier, X, y), classifier.score(X, true), atol=0.1
    )


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_pipelines_searches_and_frozen_estimators_score_as_the_classifier_inside(data, scorer):
    X, y, _ = data
    classifier = KnownNoise(0.3, "c")
    scaled = StandardScaler().fit_transform(X)
    expected = scorer(clone(classifier).fit(scaled, y), scaled, y)

    pipeline = make_pipeline(StandardScaler(), clone(classifier)).fit(X, y)
    search = GridSearchCV(pipeline, {"knownnoise__rate": [0.3]}, cv=2, scoring=scorer).fit(X, y)
    in_pipeline = make_pipeline(FunctionTransformer(), search).fit(X, y)
    for estimator in (pipeline, search, in_pipeline, FrozenEstimator(pipeline)):
        assert_allclose(scorer(estimator, X, y), expected)
    for estimator in (make_pipeline(clone(classifier)), make_pipeline("passthrough", classifier)):
        assert_allclose(
            scorer(estimator.fit(X, y), X, y), scorer(clone(classifier).fit(X, y), X, y)
        )
    assert_allclose(search.score(X, y), expected)


@pytest.mark.parametrize("search", [GridSearchCV, HalvingGridSearchCV])
def test_search_by_the_likelihood_finds_the_rate_of_the_noise(search):
    random = np.random.default_rng(0)
    X = random.normal(size=(2000, 2))
    true = (X[:, 0] > 0).astype(int)
    y = corrupt_labels(true, uniform_transition(2, 0.3), random_state=0)

    class FittedToTruth(KnownNoise):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, (np.asarray(X)[:, 0] > 0).astype(int))

    found = search(
        FittedToTruth(), {"rate": [0.05, 0.3, 0.6]}, scoring=noisy_log_likelihood_scorer, cv=3
    ).fit(X, y)
    assert found.best_params_ == {"rate": 0.3}


def test_both_scorers_in_one_cross_validation_equal_each_alone(data):
    X, y, _ = data
    pipeline = make_pipeline(StandardScaler(), KnownNoise(0.3))
    scoring = {repr(scorer): scorer for scorer in SCORERS} | {"accuracy": "accuracy"}
    together = cross_validate(pipeline, X, y, scoring=scoring, cv=3)
    for scorer in SCORERS:
        alone = cross_val_score(pipeline, X, y, scoring=scorer, cv=3)
        assert_allclose(together[f"test_{scorer!r}"], alone)


def test_known_matrix_can_be_fixed_with_make_scorer(data):
    X, y, _ = data
    transition = uniform_transition(3, 0.3)
    scorer = make_scorer(
        noise_corrected_accuracy, transition_matrix=transition, labels=["ant", "bee", "cat"]
    )
    scores = cross_val_score(LogisticRegression(), X, y, scoring=scorer, cv=3)
    own = cross_val_score(KnownNoise(0.3), X, y, scoring=noise_corrected_accuracy_scorer, cv=3)
    assert_allclose(scores, own)


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_zero_weight_is_no_row_and_weight_two_is_the_row_twice(data, scorer):
    X, y, _ = data
    classifier = KnownNoise(0.3).fit(X, y)
    weight = np.arange(len(y)) % 3
    rows = np.arange(len(y)).repeat(weight)
    assert_allclose(
        scorer(classifier, X, y, sample_weight=weight), scorer(classifier, X[rows], y[rows])
    )


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
@pytest.mark.parametrize("several", [True, False])
def test_weights_are_routed_to_the_scorer(data, scorer, several):
    X, y, _ = data
    weight = np.random.default_rng(0).uniform(size=len(y))
    with sklearn.config_context(enable_metadata_routing=True):
        weighted = clone(scorer, safe=False).set_score_request(sample_weight=True)
        unweighted = get_scorer("accuracy").set_score_request(sample_weight=False)
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            KnownNoise(0.3).set_fit_request(sample_weight=False),
        )
        search = GridSearchCV(
            pipeline,
            {"knownnoise__rate": [0.1, 0.3]},
            scoring={"weighted": weighted, "accuracy": unweighted} if several else weighted,
            refit="weighted" if several else True,
            cv=[(np.arange(120), np.arange(120, 240))],
        ).fit(X, y, sample_weight=weight)
    test = slice(120, 240)
    pipeline.set_params(knownnoise__rate=0.3).fit(X[:120], y[:120])
    name = "mean_test_weighted" if several else "mean_test_score"
    assert_allclose(
        search.cv_results_[name][1], scorer(pipeline, X[test], y[test], sample_weight=weight[test])
    )


def test_weights_reach_the_scorer_of_a_search_without_routing(data):
    X, y, _ = data
    weight = np.random.default_rng(0).uniform(size=len(y))
    assert check_scoring(KnownNoise(), noisy_log_likelihood_scorer) is noisy_log_likelihood_scorer
    cv = [(np.arange(120), np.arange(120, 240))]
    search = GridSearchCV(
        KnownNoise(0.3), {"C": [1.0]}, scoring=noisy_log_likelihood_scorer, cv=cv
    ).fit(X, y, sample_weight=weight)
    fitted = KnownNoise(0.3).fit(X[:120], y[:120], sample_weight=weight[:120])
    assert_allclose(
        search.best_score_,
        noisy_log_likelihood_scorer(fitted, X[120:], y[120:], sample_weight=weight[120:]),
    )


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_scorers_survive_pickle_and_clone(data, scorer):
    X, y, _ = data
    classifier = KnownNoise(0.3).fit(X, y)
    for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
        assert copy(classifier, X, y) == scorer(classifier, X, y)
        assert repr(copy) == repr(scorer)
    clone(GridSearchCV(classifier, {"C": [1]}, scoring=scorer))


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_scoring_monitor_takes_the_scorer_as_one_of_its_own(data, scorer):
    X, y, _ = data
    classifier = KnownNoise(0.3).fit(X, y)
    multimetric = check_scoring(classifier, ScoringMonitor(scoring=scorer)._scoring)
    assert multimetric(classifier, X, y) == {"score": scorer(classifier, X, y)}


def test_label_unseen_in_fit_costs_every_candidate_the_same(data):
    X, y, _ = data
    seen = y != "cat"
    first = KnownNoise(0.3).fit(X[seen], y[seen])
    second = KnownNoise(0.1).fit(X[seen], y[seen])
    for_all = [noisy_log_likelihood_scorer(each, X, y) for each in (first, second)]
    for_seen = [noisy_log_likelihood_scorer(each, X[seen], y[seen]) for each in (first, second)]
    assert np.all(np.isfinite(for_all))
    assert_allclose(np.diff(for_all), np.diff(for_seen) * seen.mean())
    unseen = noisy_log_likelihood_scorer(first, X[~seen], y[~seen])
    assert_allclose(unseen, np.log(np.finfo(float).eps))


def test_label_unseen_in_fit_counts_as_a_wrong_prediction(data):
    X, y, _ = data
    seen = y != "cat"
    classifier = KnownNoise(0.3).fit(X[seen], y[seen])
    assert_allclose(
        noise_corrected_accuracy_scorer(classifier, X, y),
        noise_corrected_accuracy_scorer(classifier, X[seen], y[seen]) * seen.mean(),
    )


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_every_fold_may_lack_a_class(data, scorer):
    X, y, _ = data
    scores = cross_val_score(
        KnownNoise(0.3), X, y, groups=y, cv=LeaveOneGroupOut(), scoring=scorer, error_score="raise"
    )
    assert np.all(np.isfinite(scores))


def test_likelihood_does_not_depend_on_the_precision_of_certainty():
    class Certain(KnownNoise):
        dtype = np.float64

        def predict_noisy_proba(self, X):
            return np.tile(np.array([1, 0], dtype=self.dtype), (len(X), 1))

    X, y = np.arange(4.0)[:, None], np.array([0, 1, 0, 1])
    double, single = Certain().fit(X, y), Certain().fit(X, y)
    single.dtype = np.float32
    assert noisy_log_likelihood_scorer(double, X, y) == noisy_log_likelihood_scorer(single, X, y)


@pytest.mark.parametrize(
    ("scorer", "method"),
    list(zip(SCORERS, ["predict_noisy_proba", "predict_transition"], strict=True)),
)
def test_estimator_without_a_noise_model_is_refused(data, scorer, method):
    X, y, _ = data
    plain = LogisticRegression().fit(X, y)
    with pytest.raises(TypeError, match=f"must have a method {method}.* got LogisticRegression"):
        scorer(plain, X, y)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match=f"{method}.* got LogisticRegression in Pipeline"):
        scorer(pipeline, X, y)
    search = GridSearchCV(KnownNoise(), {"C": [1]}, scoring=scorer, refit=False, cv=2).fit(X, y)
    with pytest.raises(TypeError, match=r"fitted with refit=True; got GridSearchCV"):
        scorer(search, X, y)


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_unfitted_estimator_is_refused(data, scorer):
    X, y, _ = data
    for estimator in (KnownNoise(), make_pipeline(StandardScaler(), KnownNoise())):
        with pytest.raises(NotFittedError):
            scorer(estimator, X, y)


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_labels_of_another_kind_or_length_are_refused(data, scorer):
    X, y, _ = data
    classifier = KnownNoise(0.3).fit(X, y)
    with pytest.raises(ValueError, match="Mix of label input types"):
        scorer(classifier, X, np.arange(len(y)) % 3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        scorer(classifier, X, y[:-1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        scorer(classifier, X, y, sample_weight=np.ones(3))


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_inputs_are_not_modified(data, scorer):
    X, y, _ = data
    classifier = KnownNoise(0.3, "c").fit(X, y)
    before = X.copy(), y.copy(), classifier.transition_matrix_.copy()
    scorer(classifier, X, y)
    for after, copy in zip((X, y, classifier.transition_matrix_), before, strict=True):
        assert_array_equal(after, copy)
