"""Wrong ones of several answers a row, and the picture of the annotators."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import (
    AnnotatorQualityDisplay,
    find_label_issues,
    label_quality,
    noise_test,
    transition_interval,
)
from sknoisy.noise import uniform_transition

matplotlib.use("agg")


@pytest.fixture(scope="module")
def crowd():
    """Return rows, true labels and answers of five annotators, two of each row."""
    X, y = make_blobs(500, 4, centers=4, cluster_std=2.0, random_state=0)
    rng = np.random.RandomState(0)
    matrices = [uniform_transition(4, rate) for rate in (0.05, 0.3, 0.3, 0.4, 0.75)]
    answers = np.full((500, 5), -1)
    for row, label in enumerate(y):
        for annotator in rng.choice(5, 2, replace=False):
            answers[row, annotator] = rng.choice(4, p=matrices[annotator][label])
    return X, y, answers


def make(**params):
    common = {"hidden_layer_sizes": (16,), "lr": 0.01, "max_epochs": 20, "random_state": 0}
    return make_pipeline(StandardScaler(), NoisyLabelClassifier(**common | params))


#: One part of the rows instead of four, and a noise layer in any case.
SHORT = {"max_epochs": 5, "early_stopping": True, "select_noise_model": False}


@pytest.fixture(scope="module")
def fitted(crowd):
    X, _, answers = crowd
    return make().fit(X, answers)


@pytest.mark.parametrize("cv", [None, 3])
def test_wrong_answers_have_a_low_quality(crowd, fitted, cv):
    X, y, answers = crowd
    quality = label_quality(fitted, X, answers, cv)
    assert quality.shape == answers.shape
    assert_array_equal(np.isnan(quality), answers < 0)
    given = answers >= 0
    right = (answers == y[:, None])[given]
    assert roc_auc_score(right, quality[given]) > 0.95
    assert quality[given].mean() == pytest.approx(right.mean(), abs=0.05)


@pytest.mark.parametrize("cv", [None, 3])
def test_issues_are_as_many_as_answers_are_wrong(crowd, fitted, cv):
    X, y, answers = crowd
    issues = find_label_issues(fitted, X, answers, cv)
    wrong = (answers != y[:, None]) & (answers >= 0)
    assert issues.count == pytest.approx(wrong.sum(), rel=0.15)
    found = wrong[issues.indices, issues.annotators]
    assert found[: issues.count // 2].mean() > 0.9
    assert np.all(np.diff(issues.quality) >= 0)
    assert np.all(issues.suggested_labels != issues.observed_labels)
    assert_array_equal(answers[issues.indices, issues.annotators], issues.observed_labels)
    assert np.mean(issues.consensus == y) > 0.9
    assert min(issues.annotator_quality, key=issues.annotator_quality.get) == 4
    truth = [np.mean((answers[:, a] == y)[answers[:, a] >= 0]) for a in range(5)]
    assert_allclose(list(issues.annotator_quality.values()), truth, atol=0.06)


def test_frames_and_the_compact_form_are_taken(crowd, fitted):
    X, _, answers = crowd
    frame = pd.DataFrame(answers, index=np.arange(500) + 1000, columns=list("abcde"))
    quality = label_quality(fitted, X, frame.set_axis(range(5), axis=1))
    assert quality.index[0] == 1000
    order = np.argsort(answers < 0, axis=1, kind="stable")[:, :2]
    compact = label_quality(fitted, X, np.take_along_axis(answers, order, 1), annotators=order)
    assert_allclose(compact, np.take_along_axis(quality.to_numpy(), order, 1))


def test_intervals_of_annotators_hold_the_matrices(crowd, fitted):
    X, _, answers = crowd
    found = transition_interval(fitted, X, answers, confidence=0.99)
    truth = np.array([uniform_transition(4, rate) for rate in (0.05, 0.3, 0.3, 0.4, 0.75)])
    inside = (found.lower <= truth) & (truth <= found.upper)
    assert inside.mean() > 0.85
    assert found.annotators.tolist() == [0, 1, 2, 3, 4]
    assert_allclose(found.annotator_transitions, fitted[-1].annotator_transitions_, atol=0.05)
    few = transition_interval(fitted, X[:100], answers[:100], confidence=0.99)
    assert few.standard_error.mean() > 1.5 * found.standard_error.mean()


def test_the_standard_error_of_a_matrix_is_half_of_an_interval_of_two_thirds(crowd, fitted):
    X, _, answers = crowd
    found = transition_interval(fitted, X, answers, confidence=0.6827)
    half = (found.upper - found.lower) / 2
    common = (found.annotator_transitions > 0.1) & (found.annotator_transitions < 0.9)
    assert common.sum() > 10
    assert_allclose(half[common], found.standard_error[common], rtol=0.1)


def test_what_needs_one_label_a_row_is_refused(crowd, fitted):
    X, _, answers = crowd
    with pytest.raises(ValueError, match="`pred_proba` needs one observed label a row"):
        label_quality(None, X, answers, pred_proba=np.full((500, 4), 0.25))
    with pytest.raises(ValueError, match="one label for each row"):
        noise_test(fitted, X, answers)
    halves = [(np.arange(250), np.arange(250, 500)), (np.arange(250, 500), np.arange(300))]
    with pytest.raises(ValueError, match="`cv` must be a partition"):
        label_quality(make(), X, answers, halves)


def test_rows_in_the_order_of_their_labels_are_stratified(crowd):
    X, y, answers = crowd
    order = np.argsort(y)
    issues = find_label_issues(make(), X[order], answers[order], cv=2)
    assert np.mean(issues.consensus == y[order]) > 0.8
    groups = np.arange(500) % 3
    by_group = label_quality(make(**SHORT), X, answers, GroupKFold(3), groups=groups)
    assert_array_equal(np.isnan(by_group), answers < 0)


def test_pipelines_are_cross_fitted_in_the_compact_form(crowd):
    X, _, answers = crowd
    order = np.argsort(answers < 0, axis=1, kind="stable")[:, :2]
    labels = np.take_along_axis(answers, order, axis=1)
    compact = label_quality(make(**SHORT), X, labels, 2, annotators=order)
    wide = label_quality(make(**SHORT), X, answers, 2)
    assert_allclose(compact, np.take_along_axis(wide, order, axis=1), atol=1e-6)


def test_the_picture_shows_quality_against_answers(fitted):
    display = AnnotatorQualityDisplay.from_estimator(fitted, n_named=2)
    classifier = fitted[-1]
    points = display.errorbar_.lines[0]
    assert_array_equal(points.get_xdata(), classifier.annotator_answer_counts_)
    assert_array_equal(points.get_ydata(), classifier.annotator_quality_)
    assert [text.get_text() for text in display.ax_.texts] == ["4", "3"]
    assert display.ax_.get_xlabel() == "answers"


def test_the_picture_needs_annotators(crowd):
    X, y, _ = crowd
    with pytest.raises(ValueError, match="fitted to one label a row"):
        AnnotatorQualityDisplay.from_estimator(make().fit(X, y))
