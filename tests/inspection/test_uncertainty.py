"""Intervals of the transition matrix, and the test whether there is noise."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sknoisy import NoisyLabelClassifier
from sknoisy._transition.calibration import Recalibration, recalibrate
from sknoisy.inspection import noise_test, transition_interval
from sknoisy.inspection._uncertainty import _predict_labels, transition_variance, wilson_interval
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import (
    corrupt_labels,
    pair_transition,
    random_transition,
    uniform_transition,
)

T = np.array([[0.7, 0.2, 0.1], [0.0, 0.8, 0.2], [0.3, 0.1, 0.6]])
X, y_true = make_blobs(500, centers=[[0, 0], [4, 0], [2, 3.5]], random_state=0)
y = corrupt_labels(y_true, T, random_state=0)


def classifier(**params):
    return NoisyLabelClassifier(**{"lr": 0.01, "max_epochs": 20, "random_state": 0} | params)


def draw(random, n_rows, transition, scale=2.0):
    """Return calibrated log-probabilities, and observed labels."""
    log_proba = log_softmax(scale * random.normal(size=(n_rows, len(transition))), axis=1)
    noisy = np.exp(log_proba) @ transition
    return log_proba, (noisy.cumsum(axis=1) < random.uniform(size=(n_rows, 1))).sum(axis=1)


def as_fit(log_proba, transition):
    return Recalibration(1.0, log_proba, transition, log_proba)


def test_variance_is_that_of_counts_where_true_labels_are_certain():
    labels = np.repeat([0, 1, 2], [50, 100, 400])
    log_proba = log_softmax(500.0 * np.eye(3)[labels], axis=1)
    matrix = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    expected = matrix * (1 - matrix) / np.array([[50], [100], [400]])
    # The sharpness is undetermined here, and makes no difference.
    variance = transition_variance(as_fit(log_proba, matrix))
    np.testing.assert_allclose(variance, expected, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_variance_is_the_inverse_of_the_expected_hessian(n_classes):
    """By finite differences, with the last entry of each row as what the others leave."""
    random = np.random.RandomState(n_classes)
    matrix = random_transition(n_classes, 0.4, random_state=0)
    log_proba, _ = draw(random, 300, matrix)
    free = np.concatenate([matrix[:, :-1].ravel(), [0.0]])

    def noisy(parameters):
        rows = parameters[:-1].reshape(n_classes, n_classes - 1)
        rows = np.hstack([rows, 1 - rows.sum(axis=1, keepdims=True)])
        return np.exp(log_softmax(np.exp(parameters[-1]) * log_proba, axis=1)) @ rows

    step = 1e-5 * np.eye(len(free))
    slopes = [(noisy(free + d) - noisy(free - d)) / 2e-5 for d in step]
    information = np.array([[(a * b / noisy(free)).sum() for a in slopes] for b in slopes])
    expected = np.diag(np.linalg.inv(information))[:-1].reshape(n_classes, n_classes - 1)
    variance = transition_variance(as_fit(log_proba, matrix))
    np.testing.assert_allclose(variance[:, :-1], expected, rtol=1e-5)


@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 20), (10, 20), (40, 40)])
def test_interval_is_wilsons_where_nothing_is_missing(count, n):
    p = np.array([[count / n]])
    lower, upper = wilson_interval(p, p * (1 - p) / n, np.array([float(n)]), 0.9)
    expected = binomtest(count, n).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose([lower.item(), upper.item()], expected, atol=1e-12)


def test_intervals_cover_what_they_promise():
    covered = []
    for seed in range(150):
        log_proba, target = draw(np.random.RandomState(seed), 500, T)
        fit = recalibrate(0.5 * log_proba, target, np.full((3, 3), 1 / 3), pseudo_count=0.1)
        n_rows = np.exp(fit.clean_log_proba).sum(axis=0)
        lower, upper = wilson_interval(fit.transition, transition_variance(fit), n_rows, 0.9)
        covered.append((lower <= T) & (upper >= T))
    covered = np.mean(covered, axis=0)
    assert 0.86 < covered[T > 0].mean() < 0.94
    assert covered[T > 0].min() > 0.82  # standard error of one .024
    assert covered[1, 0] > 0.85  # at the edge


def test_interval_of_a_classifier_holds_the_matrix():
    interval = transition_interval(classifier(), X, y, cv=2)
    assert list(interval.classes) == [0, 1, 2]
    np.testing.assert_allclose(interval.transition_matrix.sum(axis=1), 1)
    assert np.all(interval.lower <= interval.transition_matrix)
    assert np.all(interval.transition_matrix <= interval.upper)
    assert interval.lower.min() >= 0 and interval.upper.max() <= 1
    wide = transition_interval(classifier(), X, y, cv=2, confidence=0.99)
    assert np.all((wide.lower <= T) & (wide.upper >= T))
    assert np.all(wide.upper - wide.lower > interval.upper - interval.lower)
    np.testing.assert_array_equal(wide.standard_error, interval.standard_error)
    assert interval.standard_error.max() < 0.08


def test_names_frames_pipelines_and_searches():
    names, frame = np.array(["b", "d", "z"])[y], pd.DataFrame(X, columns=["u", "v"])
    short = classifier(max_epochs=5, early_stopping=True)
    model = make_pipeline(StandardScaler(), short)
    expected = transition_interval(model, frame, pd.Series(names), cv=2)
    assert list(expected.classes) == ["b", "d", "z"]
    assert not hasattr(model[-1], "classes_")
    search = GridSearchCV(
        make_pipeline(StandardScaler(), clone(short).set_params(noise_model=None)),
        {"noisylabelclassifier__noise_model": ["s"]},
        scoring=noisy_log_likelihood_scorer,
        cv=2,
    )
    interval = transition_interval(search, frame, names, cv=2)
    np.testing.assert_array_equal(interval.lower, expected.lower)
    test, of_search = (noise_test(m, frame, names, cv=2) for m in (model, search))
    assert test == of_search


def test_splitters_with_groups():
    groups = np.arange(len(y)) % 6
    short = classifier(max_epochs=5, early_stopping=True)
    interval = transition_interval(short, X, y, GroupKFold(3), groups=groups)
    assert interval.upper.shape == (3, 3)
    assert 0 <= noise_test(short, X, y, GroupKFold(2), groups=groups).pvalue <= 1


@pytest.mark.parametrize(
    "matrix", [uniform_transition(10, 0.2), pair_transition(10, 0.2)], ids=["uniform", "pair"]
)
def test_noise_is_found_where_there_is_some(matrix):
    X, y_true = load_digits(return_X_y=True)
    X, y_true = X[:1200] / 16, y_true[:1200]
    y = corrupt_labels(y_true, matrix, random_state=0)
    test = noise_test(classifier(), X, y, cv=2)
    assert test.pvalue < 1e-3
    assert abs(test.noise_rate - np.mean(y != y_true)) < 0.06
    np.testing.assert_allclose(test.statistic, test.log_likelihood_gain / test.standard_error)


@pytest.mark.parametrize("distance", [1.5, 4.0])
def test_noise_is_not_found_where_there_is_none(distance):
    X, y = make_blobs(500, centers=[[0, 0], [distance, 0]], random_state=1)
    assert noise_test(classifier(), X, y, cv=3).pvalue > 0.05


@pytest.mark.slow
def test_known_noise_and_the_c_model_are_tested():
    X, y_true = load_digits(return_X_y=True)
    X, y_true = X[:600] / 16, y_true[:600]
    pair = pair_transition(10, 0.4)
    known = classifier(transition_init=pair, learn_transition=False)
    y = corrupt_labels(y_true, pair, random_state=0)
    assert noise_test(known, X, y, cv=3).pvalue < 1e-3
    assert noise_test(known, X, y_true, cv=3).pvalue > 0.05
    test = noise_test(classifier(noise_model="c"), X, y, cv=3)
    assert test.pvalue < 1e-3
    assert abs(test.noise_rate - np.mean(y != y_true)) < 0.08


def test_level_is_held_where_only_the_sharpness_is_wrong():
    """Labels drawn from the probabilities themselves: the null hypothesis."""
    folds = np.array_split(np.arange(300), 5)
    found = []
    for seed in range(150):
        random, scale = np.random.RandomState(seed), 0.3 if seed % 2 else 3.0
        other = recalibrate(*draw(random, 300, np.eye(3)), np.eye(3)).transition
        log_proba, target = draw(random, 300, np.eye(3))
        right, column = (np.log(np.maximum(t, 1e-300)).T[target] for t in (np.eye(3), other))
        noisy, n_wrong = _predict_labels(scale * log_proba, column, target, folds)
        gain = noisy - _predict_labels(scale * log_proba, right, target, folds)[0]
        found.append(gain.mean() > 1.645 * gain.std() / np.sqrt(300))
        assert 0 <= n_wrong < 60
    assert np.mean(found) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)


@pytest.mark.parametrize(
    ("function", "estimator", "arguments", "error", "match"),
    [
        (noise_test, classifier(noise_model=None), {}, ValueError, "noise_model=None"),
        (transition_interval, classifier(noise_model=None), {}, ValueError, "noise_model=None"),
        (transition_interval, classifier(noise_model="c"), {}, ValueError, "noise_model='c'"),
        (
            transition_interval,
            classifier(transition_init=T, learn_transition=False),
            {},
            ValueError,
            "learn_transition=False",
        ),
        *[
            (
                transition_interval,
                classifier(),
                {"confidence": confidence},
                ValueError,
                "`confidence` must be a number between 0 and 1; got ",
            )
            for confidence in (0, 1.0, 90, "high", None, float("nan"))
        ],
        *[
            (function, *case)
            for function in (transition_interval, noise_test)
            for case in [
                (LinearSVC(), {}, TypeError, "with predict_proba; got LinearSVC"),
                (classifier(), {"y": y[:-1]}, ValueError, "same length; got 500 and 499"),
                (classifier(), {"cv": ShuffleSplit(2)}, ValueError, "must be a partition"),
                (classifier(), {"cv": 1}, ValueError, "n_splits=1"),
                (
                    classifier(),
                    {"cv": KFold(3), "X": X[np.argsort(y)], "y": np.sort(y)},
                    ValueError,
                    "too few rows",
                ),
                (classifier(), {"y": np.zeros(500)}, ValueError, "class"),
            ]
        ],
    ],
)
def test_refusals(function, estimator, arguments, error, match):
    with pytest.raises(error, match=match):
        function(estimator, **({"X": X, "y": y} | arguments))
