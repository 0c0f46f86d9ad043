"""Choosing a model on noisy labels, by each means of search that scikit-learn has."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    StratifiedKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import (
    noise_corrected_accuracy,
    noise_corrected_accuracy_scorer,
    noisy_log_likelihood_scorer,
    transition_matrix_error,
)
from sknoisy.noise import corrupt_labels, pair_transition

SCORING = {
    "likelihood": noisy_log_likelihood_scorer,
    "corrected": noise_corrected_accuracy_scorer,
    "accuracy": "accuracy",
}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype("float32"), y


def one_way_noise():
    """Five digits are mostly called by the name of another one, never the other way round."""
    T = np.eye(10)
    for true, observed in ((3, 5), (4, 9), (7, 1), (8, 2), (6, 0)):
        T[true, [true, observed]] = 0.4, 0.6
    return T


@pytest.mark.slow
def test_the_likelihood_chooses_as_clean_labels_would_and_the_noisy_accuracy_does_not(digits):
    X, y = digits
    T = one_way_noise()
    y_observed = corrupt_labels(y, T, random_state=0)
    rows = {row.tobytes(): i for i, row in enumerate(X)}

    def clean_accuracy(estimator, X, _):
        return np.mean(estimator.predict(X) == y[[rows[row.tobytes()] for row in X]])

    search = GridSearchCV(
        NoisyLabelClassifier(max_epochs=20, random_state=0),
        {"noise_model": [None, "s"], "hidden_layer_sizes": [(8,), (60,)]},
        scoring=SCORING | {"clean": clean_accuracy},
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
        refit="likelihood",
    ).fit(X, y_observed)
    results = search.cv_results_
    clean = results["mean_test_clean"]
    assert clean[results["mean_test_likelihood"].argmax()] > clean.max() - 0.01
    assert clean[results["mean_test_accuracy"].argmax()] < clean.max() - 0.2
    best = search.best_estimator_
    assert transition_matrix_error(best.transition_matrix_, T) < 0.1


@pytest.mark.parametrize("piped, noise_model", [(True, "s"), (False, "c"), (False, None)])
def test_cross_validate_takes_all_scores_at_once(piped, noise_model, digits):
    X, y = digits
    y_observed = corrupt_labels(y, pair_transition(10, 0.2), random_state=0)
    params = {"lr": 0.005, "max_epochs": 10, "early_stopping": True, "random_state": 0}
    estimator = NoisyLabelClassifier(noise_model=noise_model, **params)
    if piped:
        estimator = make_pipeline(StandardScaler(), estimator)
    scores = cross_validate(
        estimator, X[:400], y_observed[:400], cv=2, scoring=SCORING, return_train_score=True
    )
    assert all(np.isfinite(values).all() for values in scores.values())
    if noise_model is None:
        np.testing.assert_allclose(scores["test_corrected"], scores["test_accuracy"])
    else:
        assert scores["test_corrected"].mean() > scores["test_accuracy"].mean()


@pytest.mark.parametrize(
    ("options", "params"),
    [
        # One start, as what is chosen is a network.
        ({"transition_init": "confusion", "select_noise_model": False}, {}),
        pytest.param(
            {},
            {"resource": "noisylabelclassifier__max_epochs", "max_resources": 20},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_successive_halving_finds_the_better_network(options, params, digits):
    X, y = digits
    y_observed = corrupt_labels(y, pair_transition(10, 0.2), random_state=0)
    common = {"lr": 0.005, "max_epochs": 10, "early_stopping": True, "random_state": 0}
    classifier = NoisyLabelClassifier(**common, **options)
    search = HalvingGridSearchCV(
        make_pipeline(StandardScaler(), classifier),
        {"noisylabelclassifier__hidden_layer_sizes": [(1,), (60,)]},
        scoring=noisy_log_likelihood_scorer,
        cv=2,
        factor=2,
        random_state=0,
        **params,
    ).fit(X[:600], y_observed[:600])
    assert search.best_params_["noisylabelclassifier__hidden_layer_sizes"] == (60,)
    assert search.best_score_ == pytest.approx(search.cv_results_["mean_test_score"].max())


def test_the_corrected_accuracy_and_its_variance_cover_the_clean_accuracy(digits):
    X, y = digits
    T = pair_transition(10, 0.3)
    y_observed = corrupt_labels(y, T, random_state=0)
    classifier = NoisyLabelClassifier(transition_init=T, max_epochs=30, random_state=0)
    classifier.fit(X[:900], y_observed[:900])
    estimate, variance = noise_corrected_accuracy(
        y_observed[900:], classifier.predict(X[900:]), T, return_variance=True
    )
    assert abs(estimate - classifier.score(X[900:], y[900:])) < 3 * variance**0.5
    score = noise_corrected_accuracy_scorer(classifier, X[900:], y_observed[900:])
    assert score == pytest.approx(estimate, abs=0.05)


@pytest.mark.parametrize("scorer", [noisy_log_likelihood_scorer, noise_corrected_accuracy_scorer])
def test_a_scorer_refuses_an_estimator_without_a_noise_model(scorer, digits):
    X, y = digits
    with pytest.raises(TypeError, match=r"estimator must have a method predict_\w+, as Noisy"):
        scorer(LogisticRegression().fit(X[:200], y[:200]), X, y)
