import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    ShuffleSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.inspection import find_label_issues, label_quality
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

RATE = 0.3
X, y_true = make_blobs(400, centers=[[0, 0], [4, 0], [2, 3.5]], random_state=0)
y = corrupt_labels(y_true, pair_transition(3, RATE), exact=True, random_state=0)
wrong = y != y_true


def classifier(**params):
    return NoisyLabelClassifier(**{"lr": 0.01, "max_epochs": 20, "random_state": 0} | params)


def short(**params):
    """Return a classifier that is trained on one part of the rows and keeps its noise layer."""
    common = {"max_epochs": 3, "early_stopping": True, "select_noise_model": False}
    return classifier(**common | params)


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, y)


@pytest.fixture(scope="module")
def quality_of(fitted):
    """Return the quality of each label, of all rows at once (None) and in three folds (3)."""
    return {cv: label_quality(fitted, X, y, cv=cv) for cv in (None, 3)}


def test_quality_is_the_posterior_of_the_observed_label(fitted):
    quality = label_quality(fitted, X, y)
    posterior = fitted.label_posterior(X, y)
    np.testing.assert_allclose(quality, posterior[np.arange(len(y)), y], rtol=1e-12)


@pytest.mark.parametrize("cv", [None, 3])
def test_wrong_labels_have_low_quality(quality_of, cv):
    quality = quality_of[cv]
    assert quality.shape == y.shape and quality.min() >= 0 and quality.max() <= 1
    assert roc_auc_score(wrong, -quality) > 0.95


def test_cross_fitted_quality_is_calibrated_on_overlapping_classes():
    errors = []
    held_out_once = classifier(early_stopping=True, validation_fraction=0.3)
    for seed in (1, 2, 3, 4):
        X, y_true = make_blobs(1500, centers=[[0, 0], [2, 0]], random_state=seed)
        y = corrupt_labels(y_true, [[0.7, 0.3], [0.1, 0.9]], random_state=seed)
        quality = label_quality(held_out_once, X, y, cv=2)
        error = 0.0
        for low, high in [(0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.01)]:
            rows = (quality >= low) & (quality < high)
            error += abs(np.sum(quality[rows] - (y == y_true)[rows])) / len(y)
        errors.append(error)
    assert np.mean(errors) < 0.08


@pytest.mark.parametrize("cv", [None, 3])
def test_issues_are_ranked_and_as_many_as_there_are_wrong_labels(fitted, quality_of, cv):
    issues = find_label_issues(fitted, X, y, cv=cv)
    quality = quality_of[cv]
    assert issues.count == len(issues.indices) == round(issues.noise_rate * len(y))
    assert abs(issues.count - wrong.sum()) < 20
    assert np.all(np.diff(issues.quality) >= 0)
    np.testing.assert_array_equal(issues.all_quality, quality)
    np.testing.assert_array_equal(issues.quality, quality[issues.indices])
    np.testing.assert_array_equal(issues.observed_labels, y[issues.indices])
    assert wrong[issues.indices].mean() > 0.85
    assert (issues.suggested_labels == y_true[issues.indices])[wrong[issues.indices]].mean() > 0.95
    assert np.all(issues.suggested_labels != issues.observed_labels)


def test_count_exceeds_that_of_the_arg_max_where_classes_overlap():
    X, y_true = make_blobs(1200, centers=[[0, 0], [1.5, 0]], random_state=0)
    T = uniform_transition(2, 0.2)
    y = corrupt_labels(y_true, T, exact=True, random_state=0)
    known = classifier(transition_init=T, learn_transition=False).fit(X, y)
    naive = np.sum(known.classes_[known.label_posterior(X, y).argmax(axis=1)] != y)
    count = find_label_issues(known, X, y).count
    assert naive < 0.9 * count
    assert abs(count - np.sum(y != y_true)) <= 2


def test_the_count_is_what_the_matrix_expects_and_not_the_sum_of_the_doubts(fitted):
    # Of these rows no label is wrong, which a model of other rows cannot know.
    expected = np.sum(fitted.predict_proba(X) @ (1 - np.diag(fitted.transition_matrix_)))
    assert np.sum(1 - label_quality(fitted, X, y_true)) < expected - 50
    issues = find_label_issues(fitted, X, y_true)
    assert issues.count == len(issues.indices) == round(expected)
    assert issues.noise_rate == pytest.approx(expected / len(y), rel=1e-6)


def test_clean_labels_have_few_issues():
    assert find_label_issues(classifier(), X, y_true, cv=3).noise_rate < 0.04


def test_data_frame_keeps_its_index(fitted):
    index = np.array([f"row {i}" for i in range(len(y))])
    frame, labels = pd.DataFrame(X, index=index), pd.Series(y, index=index)
    model = short(max_epochs=20).fit(frame, labels)
    quality = label_quality(model, frame, labels)
    assert quality.index.equals(frame.index) and quality.name == "quality"
    np.testing.assert_array_equal(quality, label_quality(model, X, y))
    issues = find_label_issues(model, frame, labels)
    assert list(issues.frame.index) == list(index[issues.indices])
    columns = ["row", "observed_labels", "suggested_labels", "quality", "suggested_proba"]
    assert list(issues.frame) == [*columns, "nearest_1", "nearest_2"]
    assert (labels[issues.frame.index] == issues.frame["observed_labels"]).all()
    pd.testing.assert_series_equal(quality[issues.frame.index], issues.frame["quality"])
    numbered = find_label_issues(fitted, X, y)
    assert list(numbered.frame.index) == list(numbered.indices)
    np.testing.assert_array_equal(
        label_quality(short(), frame, labels, cv=2), label_quality(short(), X, y, cv=2)
    )


def test_strings_sparse_rows_and_lists_give_the_same(fitted):
    names = np.array(["b", "d", "z"])[y]
    model = classifier().fit(csr_array(X), names)
    expected = find_label_issues(fitted, X, y)
    issues = find_label_issues(model, csr_array(X), names.tolist())
    assert set(issues.suggested_labels) <= {"b", "d", "z"}
    np.testing.assert_array_equal(issues.indices, expected.indices)
    from_lists = label_quality(fitted, X.tolist(), y.tolist())
    np.testing.assert_allclose(from_lists, label_quality(fitted, X, y), rtol=1e-3)


def test_pipeline_passes_its_features_on():
    model = make_pipeline(StandardScaler(), classifier()).fit(100 * X, y)
    inner = label_quality(model[-1], model[0].transform(100 * X), y)
    np.testing.assert_array_equal(label_quality(model, 100 * X, y), inner)
    assert roc_auc_score(wrong, -label_quality(model, 100 * X, y, cv=2)) > 0.95


def test_search_is_judged_by_its_best_estimator():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), classifier(early_stopping=True, select_noise_model=False)),
        {"noisylabelclassifier__noise_model": [None, "s"]},
        scoring=noisy_log_likelihood_scorer,
        cv=2,
    )
    with pytest.raises(NotFittedError):
        label_quality(search, X, y)
    search.fit(X, y)
    np.testing.assert_array_equal(
        label_quality(search, X, y), label_quality(search.best_estimator_, X, y)
    )
    np.testing.assert_array_equal(
        label_quality(FrozenEstimator(search), X, y), label_quality(search, X, y)
    )
    assert roc_auc_score(wrong, -label_quality(search, X, y, cv=2)) > 0.95


def test_cross_fitting_leaves_the_estimator_alone():
    unfitted = short()
    label_quality(unfitted, X, y, cv=2)
    assert not hasattr(unfitted, "classes_")
    model = short().fit(X, y)
    before = model.predict_proba(X)
    label_quality(model, X, y, cv=2)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_splitters_of_all_kinds():
    folds = np.arange(len(y)) % 2
    expected = label_quality(short(), X, y, cv=PredefinedSplit(folds))
    pairs = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in (0, 1)]
    found = label_quality(short(), X, y, cv=pairs)
    np.testing.assert_array_equal(found, expected)
    masks = [(folds != f, folds == f) for f in (0, 1)]
    found = label_quality(short(), X, y, cv=masks)
    np.testing.assert_array_equal(found, expected)
    by_group = label_quality(classifier(), X, y, cv=GroupKFold(2), groups=folds)
    assert roc_auc_score(wrong, -by_group) > 0.95


def test_known_matrix_is_kept_when_cross_fitting():
    swapped = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    known = classifier(transition_init=swapped, learn_transition=False)
    quality = label_quality(known, X, y, cv=2)
    assert quality[y != 2].max() < 0.1
    assert quality[y == 2].min() > 0.9


def test_plain_estimator_finds_wrong_labels_when_cross_fitted():
    quality = label_quality(classifier(noise_model=None), X, y, cv=3)
    assert roc_auc_score(wrong, -quality) > 0.85


@pytest.mark.parametrize(
    ("estimator", "arguments", "error", "match"),
    [
        (None, (X, np.where(y == 0, 9, y)), ValueError, r"`y` must hold labels seen in fit.*\[9\]"),
        (None, (X, y[:-1]), ValueError, "`X` and `y` must have the same length; got 400 and 399"),
        (None, (X, y + 0.5), ValueError, "Unknown label type: continuous"),
        (classifier(), (X, y), NotFittedError, "not fitted"),
        (make_pipeline(StandardScaler(), classifier()), (X, y), NotFittedError, "not fitted"),
        (LinearSVC(), (X, y), TypeError, "with predict_proba; got LinearSVC.*Calibrated"),
        (LinearRegression(), (X, y, 2), TypeError, "got LinearRegression"),
        (
            make_pipeline(StandardScaler(), GridSearchCV(classifier(), {})),
            (X, y, 2),
            TypeError,
            "got GridSearchCV in Pipeline",
        ),
        (make_pipeline(StandardScaler()), (X, y, 2), TypeError, "predict_proba; got Pipeline"),
        (FrozenEstimator(classifier()), (X, y, 2), TypeError, "cannot be cross-fitted"),
        (classifier(), (X, y, ShuffleSplit(2)), ValueError, "must be a partition.*never"),
        (
            classifier(),
            (X, y, RepeatedStratifiedKFold(n_splits=2, n_repeats=2)),
            ValueError,
            "400 more than once",
        ),
        (classifier(), (X, y, [(np.arange(400), np.arange(400))]), ValueError, "must not train on"),
        (
            classifier(),
            (X[np.argsort(y)], np.sort(y), KFold(3)),
            ValueError,
            r"too few rows of \[0\] for `cv`",
        ),
        (classifier(), (X, y, 1), ValueError, "n_splits=1"),
        (classifier(), (X, y, "five"), ValueError, "cv"),
    ],
)
@pytest.mark.parametrize("function", [label_quality, find_label_issues])
def test_refusals(fitted, function, estimator, arguments, error, match):
    with pytest.raises(error, match=match):
        function(fitted if estimator is None else estimator, *arguments)


def test_fitted_estimator_without_a_noise_model_is_refused():
    plain = classifier(noise_model=None, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="noise_model=None"):
        label_quality(plain, X, y)


def test_a_fit_that_kept_no_noise_model_ranks_nothing_and_says_so():
    plain = classifier(max_epochs=5, select_noise_model=True).fit(X, y_true)
    assert plain.noise_model_ is None
    with pytest.warns(UnreliableFitWarning, match="every label has quality 1"):
        assert np.all(label_quality(plain, X, y) == 1)
    assert len(find_label_issues(plain, X, y).indices) == 0


def test_rows_that_do_not_belong_together_are_refused(fitted):
    frame, labels = pd.DataFrame(X), pd.Series(y, index=np.arange(len(y))[::-1])
    with pytest.raises(ValueError, match="same index"):
        label_quality(fitted, frame, labels)


def test_a_label_of_one_row_cannot_be_held_out():
    rare = y.copy()
    rare[0] = 3
    with (
        pytest.warns(UserWarning, match="least populated class"),
        pytest.raises(ValueError, match=r"too few rows of \[3\]"),
    ):
        label_quality(classifier(), X, rare, cv=3)
