"""Any classifier, fitted to noisy labels."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from sknoisy import NoisyLabelMetaClassifier
from sknoisy.noise import corrupt_labels, pair_transition, random_transition

digits, target = load_digits(n_class=6, return_X_y=True)
X, X_test, y, y_test = train_test_split(digits / 16, target, train_size=540, random_state=0)
y_observed = corrupt_labels(y, pair_transition(6, 0.4), random_state=0)
FOREST = RandomForestClassifier(25, random_state=0)
# Newton's method needs few iterations, whatever the scale of the rows.
LINEAR = LogisticRegression(C=0.1, solver="newton-cholesky", max_iter=1000)


@parametrize_with_checks(
    [
        NoisyLabelMetaClassifier(LINEAR, cv=2),
        NoisyLabelMetaClassifier(LINEAR, cv=2, targets="posterior", max_iter=2),
    ]
)
def test_conformance(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return NoisyLabelMetaClassifier(FOREST, cv=3, random_state=0).fit(X, y_observed)


def test_the_noise_is_found_and_the_classifier_is_better(fitted):
    assert fitted.score(X_test, y_test) > FOREST.fit(X, y_observed).score(X_test, y_test) + 0.1
    assert fitted.noise_model_ is not None
    assert abs(fitted.noise_rate_ - 0.4) < 0.1
    assert np.diag(fitted.transition_matrix_, 1).mean() > 0.25
    np.testing.assert_allclose(fitted.transition_matrix_.sum(axis=1), 1)
    np.testing.assert_allclose(fitted.class_prior_.sum(), 1)
    assert (fitted.label_posterior_.argmax(axis=1) == y).mean() > 0.9


@pytest.mark.parametrize("options", [{"targets": "posterior"}, {"max_iter": 2}])
def test_other_m_steps_are_better_than_the_bare_classifier_too(options):
    meta = NoisyLabelMetaClassifier(FOREST, cv=3, random_state=0, **options).fit(X, y_observed)
    assert meta.score(X_test, y_test) > FOREST.fit(X, y_observed).score(X_test, y_test) + 0.1
    assert meta.n_iter_ == options.get("max_iter", 1)


@pytest.mark.parametrize("targets", ["observed", "posterior"])
def test_labels_are_drawn_where_weights_are_not_taken(targets):
    neighbours = KNeighborsClassifier(5)
    observed = corrupt_labels(y, random_transition(6, 0.4, random_state=0), random_state=0)
    meta = NoisyLabelMetaClassifier(neighbours, cv=3, targets=targets, random_state=0)
    meta.fit(X, observed)
    assert meta.noise_model_ is not None
    assert meta.score(X_test, y_test) > neighbours.fit(X, observed).score(X_test, y_test) + 0.03
    again = NoisyLabelMetaClassifier(neighbours, cv=3, targets=targets, random_state=0)
    np.testing.assert_array_equal(
        again.fit(X, observed).predict_proba(X_test), meta.predict_proba(X_test)
    )


def test_clean_labels_leave_the_classifier_as_it_is():
    X, y = make_blobs(400, centers=[[0, 0], [1.5, 0]], random_state=0)
    meta = NoisyLabelMetaClassifier(random_state=0).fit(X, y)
    assert meta.noise_model_ is None and meta.noise_rate_ == 0
    np.testing.assert_array_equal(meta.transition_matrix_, np.eye(2))
    plain = LogisticRegression().fit(X, y)
    np.testing.assert_array_equal(meta.predict_proba(X), plain.predict_proba(X))


def test_pipelines_frames_names_and_searches():
    names = np.array([f"digit {i}" for i in range(6)])
    frame = pd.DataFrame(X, columns=[f"p{i}" for i in range(X.shape[1])])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    meta = NoisyLabelMetaClassifier(pipeline, cv=3, random_state=0)
    meta.fit(frame, pd.Series(names[y_observed]))
    assert set(meta.classes_) == set(names) and meta.n_features_in_ == 64
    test = pd.DataFrame(X_test, columns=frame.columns)
    assert (meta.predict(test) == names[y_test]).mean() > 0.85
    search = GridSearchCV(
        meta, {"estimator__logisticregression__C": [0.1], "targets": ["observed"]}, cv=2
    )
    assert search.fit(frame, names[y_observed]).best_estimator_.noise_rate_ >= 0


def test_a_class_of_one_row_is_left_as_it_is():
    rare = y_observed.copy()
    rare[0] = 10
    meta = NoisyLabelMetaClassifier(FOREST, random_state=0).fit(X, rare)
    assert meta.noise_model_ is None and 10 in meta.classes_


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="'estimator' parameter"):
        NoisyLabelMetaClassifier(LinearSVC()).fit(X, y)
    with pytest.raises(ValueError, match="'targets' parameter"):
        NoisyLabelMetaClassifier(targets="soft").fit(X, y)
    with pytest.raises(NotFittedError):
        NoisyLabelMetaClassifier().predict(X)


def test_a_class_that_no_row_is_likely_to_be_of_stays():
    X, target = np.arange(30.0)[:, None], np.arange(30) % 3
    meta = NoisyLabelMetaClassifier(LogisticRegression(), targets="posterior")
    meta.classes_ = np.array(["a", "b", "c"])
    posterior = np.where(X > 14, [0.7, 0.3, 0.0], [0.2, 0.8, 1e-6])
    model = meta._fit_part(X, target, posterior, np.arange(30), 0)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict_proba(X)[:, 2].max() < 0.1
