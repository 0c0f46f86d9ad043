"""Label issues from classifiers without a noise model, and from given probabilities."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.inspection import (
    TransitionMatrixDisplay,
    find_label_issues,
    label_quality,
    noise_test,
    transition_interval,
)
from sknoisy.noise import corrupt_labels, pair_transition

T = pair_transition(3, 0.3)
NAMES = np.array(["b", "d", "z"])
X, y_true = make_blobs(600, centers=[[0, 0], [4, 0], [2, 3.5]], random_state=0)
y = corrupt_labels(y_true, T, exact=True, random_state=0)
wrong = y != y_true
CV = StratifiedKFold(4, shuffle=True, random_state=0)
PROBA = cross_val_predict(LogisticRegression(), X, y, cv=CV, method="predict_proba")


@pytest.fixture(scope="module")
def issues():
    return find_label_issues(None, X, y, pred_proba=PROBA)


def test_given_probabilities_say_which_labels_are_wrong_and_how_many(issues):
    assert abs(issues.count - wrong.sum()) < 0.1 * wrong.sum()
    assert wrong[issues.indices].mean() > 0.9
    assert (issues.suggested_labels == y_true[issues.indices])[wrong[issues.indices]].mean() > 0.95
    low, high = issues.noise_rate_interval
    assert low < 0.3 < high and high - low < 0.15
    assert issues.noise_test.pvalue < 1e-3
    np.testing.assert_allclose(issues.transition_matrix, T, atol=0.12)
    np.testing.assert_array_equal(label_quality(None, X, y, pred_proba=PROBA), issues.all_quality)


def test_the_test_of_noise_says_how_many_given_probabilities_speak_against():
    test = noise_test(None, None, y, pred_proba=PROBA)
    assert test.pvalue < 1e-3
    assert abs(test.noise_rate - wrong.mean()) < 0.05


def test_a_better_ranking_than_by_the_probability_of_the_label(issues):
    auroc = roc_auc_score(wrong, -issues.all_quality)
    assert auroc > 0.97
    assert auroc > roc_auc_score(wrong, -PROBA[np.arange(len(y)), y]) + 0.02


def test_cross_fitting_gives_the_same_as_its_probabilities(issues):
    for model in (LogisticRegression(), make_pipeline(LogisticRegression())):
        crossed = find_label_issues(model, X, y, cv=CV)
        np.testing.assert_allclose(crossed.all_quality, issues.all_quality, atol=1e-6)
    assert not hasattr(model[-1], "classes_")


def test_the_number_of_jobs_makes_no_difference():
    one, two = (
        label_quality(RandomForestClassifier(20, random_state=0), X, y, n_jobs=n) for n in (1, 2)
    )
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(
        label_quality(NoisyLabelClassifier(max_epochs=3, random_state=0), X, y, cv=2, n_jobs=2),
        label_quality(NoisyLabelClassifier(max_epochs=3, random_state=0), X, y, cv=2),
    )


def test_searches_frames_and_names(issues):
    names = pd.Series(NAMES[y], index=[f"r{i}" for i in range(len(y))])
    frame = pd.DataFrame(X, columns=["u", "v"], index=names.index)
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2)
    found = find_label_issues(make_pipeline(StandardScaler(), search), frame, names, cv=CV)
    assert roc_auc_score(wrong, -found.all_quality) > 0.97
    assert found.all_quality.index.equals(names.index)
    assert set(found.suggested_labels) <= set(NAMES)


def test_columns_may_come_in_any_order_that_is_named(issues):
    order = [2, 0, 1]
    found = find_label_issues(None, X, NAMES[y], pred_proba=PROBA[:, order], classes=NAMES[order])
    np.testing.assert_allclose(found.all_quality, issues.all_quality, atol=0.02)
    assert list(found.classes) == list(NAMES[order])
    fitted = LogisticRegression().fit(X, NAMES[y])
    by_estimator = label_quality(fitted, X, NAMES[y], pred_proba=PROBA)
    np.testing.assert_allclose(by_estimator, issues.all_quality)


def test_classes_that_no_label_has_may_have_columns():
    wide = np.hstack([0.98 * PROBA, np.full((len(y), 1), 0.02)])
    found = find_label_issues(None, X, NAMES[y], pred_proba=wide, classes=[*NAMES, "never"])
    assert roc_auc_score(wrong, -found.all_quality) > 0.95
    assert "never" not in found.suggested_labels


def test_clean_labels_have_few_issues_however_hard_the_problem():
    for distance in (1.5, 4.0):
        X, y = make_blobs(800, centers=[[0, 0], [distance, 0], [0, distance]], random_state=1)
        found = find_label_issues(LogisticRegression(), X, y)
        assert found.noise_rate < 0.06
        low, high = found.noise_rate_interval
        assert low <= found.noise_rate <= high + 0.01
        assert noise_test(LogisticRegression(), X, y).pvalue > 0.01


def test_intervals_of_a_given_classifier_hold_the_matrix():
    interval = transition_interval(LogisticRegression(), X, y, confidence=0.99)
    assert np.all((interval.lower <= T) & (interval.upper >= T))
    given = transition_interval(None, None, y, pred_proba=PROBA, confidence=0.99)
    assert np.all((given.lower <= T) & (given.upper >= T))
    assert list(given.classes) == [0, 1, 2]


def test_the_matrix_of_any_classifier_is_drawn():
    import matplotlib.pyplot as plt

    display = TransitionMatrixDisplay.from_predictions(NAMES[y], PROBA)
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == list(NAMES)
    np.testing.assert_allclose(display.transition_matrix, T, atol=0.12)
    crossed = TransitionMatrixDisplay.from_estimator(LogisticRegression(), X, y, cv=CV)
    np.testing.assert_allclose(crossed.transition_matrix, display.transition_matrix, atol=1e-6)
    with pytest.raises(ValueError, match="`X` and `y` go together"):
        TransitionMatrixDisplay.from_estimator(LogisticRegression(), X)
    plt.close("all")


def test_probabilities_that_saw_the_labels_are_doubted():
    forest = RandomForestClassifier(20, random_state=0, bootstrap=False).fit(X, y)
    with pytest.warns(UnreliableFitWarning, match="600 of 600 rows.*out-of-sample"):
        label_quality(None, X, y, pred_proba=forest.predict_proba(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label_quality(None, X, y, pred_proba=PROBA)


@pytest.mark.parametrize(
    ("proba", "options", "match"),
    [
        (PROBA[:-1], {}, r"shape \(600, 3\).*got \(599, 3\)"),
        (PROBA[:, :2], {}, r"a column for each of the classes \[0, 1, 2\]; got \(600, 2\)"),
        (PROBA[:, 0], {}, r"got \(600,\)"),
        (1.5 * PROBA, {}, "rows that sum to one; got sums from 1.5 to 1.5"),
        (np.log(PROBA), {}, "non-negative.*Logits or log-probabilities"),
        (np.where(PROBA.max() == PROBA, np.nan, PROBA), {}, "finite"),
        ([["a"] * 3] * 600, {}, "array of numbers"),
        (PROBA[:, [1, 2, 0]], {}, "in the order of the classes.*`classes`"),
        (
            PROBA,
            {"classes": [0, 1, 4]},
            r"among the classes of `pred_proba`, \[0, 1, 4\]; got \[2\]",
        ),
        (PROBA, {"classes": [0, 1, 1]}, "name each column of `pred_proba` once"),
        (PROBA, {"cv": 3}, "`pred_proba` or `cv`, not both"),
        (None, {"classes": [0, 1, 2]}, "names the columns of `pred_proba`"),
    ],
)
@pytest.mark.parametrize("function", [label_quality, find_label_issues, noise_test])
def test_probabilities_that_are_none_are_refused(function, proba, options, match):
    estimator = LogisticRegression() if proba is None else None
    with pytest.raises(ValueError, match=match):
        function(estimator, X, y, pred_proba=proba, **options)


def test_what_gives_no_probabilities_is_refused():
    with pytest.raises(TypeError, match="Pass an estimator, or out-of-sample probabilities"):
        label_quality(None, X, y)
    with pytest.raises(TypeError, match="FrozenEstimator cannot be cross-fitted"):
        label_quality(FrozenEstimator(LogisticRegression().fit(X, y)), X, y)
