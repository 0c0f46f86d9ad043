"""A noise model is kept only where it explains unseen labels better, so that it does no harm."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_blobs,
    make_classification,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy._training import trainer
from sknoisy.inspection import find_label_issues
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

MODELS = {
    "plain": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
    "em": {"method": "em"},
}


# --- Kinds of data that are hard, and not noisy ---------------------------------------------------


def hard(n_train=700, transition=None):
    """Return classes that overlap."""
    X, y = make_classification(
        n_train + 2000, 20, n_informative=6, n_classes=10, class_sep=0.5, random_state=0
    )
    return split(X, y, n_train, transition)


def few_rows():
    X, y = make_classification(1200, 20, n_informative=6, n_classes=5, flip_y=0, random_state=1)
    return split(X, y, 200)


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return split(X, np.digitize(y, np.quantile(y, [0.25, 0.5, 0.75])), 300)


def table(load):
    X, y = load(return_X_y=True)
    return split(X, y, 0.7)


def digits(transition=None, n_train=700):
    X, y = load_digits(return_X_y=True)
    return split((X / 16 * 255).astype(np.uint8), y, n_train, transition)


def minority():
    """Return one row of a hundred of another class, and a fifth of the labels wrong."""
    X, y = make_classification(
        3000, 10, n_informative=5, weights=[0.99], flip_y=0.0, class_sep=1.5, random_state=0
    )
    return split(X, y, 1000, uniform_transition(2, 0.2))


def texts():
    """Return rows of TF-IDF of words, of which each topic has some more often."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(400, 0.1), size=5)
    y = rng.integers(0, 5, 1500)
    common = rng.dirichlet(np.full(400, 1.0))
    words = [rng.choice(400, 25, p=0.5 * topics[label] + 0.5 * common) for label in y]
    documents = [" ".join(f"word{word}" for word in row) for row in words]
    return split(TfidfVectorizer().fit_transform(documents), y, 600)


def split(X, y, n_train, transition=None):
    X, X_test, y, y_test = train_test_split(X, y, train_size=n_train, stratify=y, random_state=0)
    if transition is not None:
        y = corrupt_labels(y, transition, random_state=0)
    return X, y, X_test, y_test


KINDS = {
    "hard, clean": hard,
    "hard, uniform noise": lambda: hard(transition=uniform_transition(10, 0.2)),
    "hard, pair noise": lambda: hard(transition=pair_transition(10, 0.3)),
    "few rows": few_rows,
    "diabetes in quartiles": diabetes,
    "raw breast cancer": lambda: table(load_breast_cancer),
    "raw wine": lambda: table(load_wine),
    "digits of 0..255": digits,
    "minority of one in a hundred": minority,
    "texts": texts,
}
# What would be learned in hundreds of passes, and is learned as well with longer steps.
LEARNING_RATES = {
    "hard, clean": 0.01,
    "hard, uniform noise": 0.01,
    "hard, pair noise": 0.004,
    "few rows": 0.0025,
    "diabetes in quartiles": 0.008,
    "raw breast cancer": 0.005,
    "raw wine": 0.02,
    "texts": 0.005,
}
CLEAN = ["hard, clean", "few rows", "diabetes in quartiles", "digits of 0..255", "texts"]


@cache
def data(kind):
    return KINDS[kind]()


@cache
def fitted(kind, model):
    X, y, _, _ = data(kind)
    params = {"lr": LEARNING_RATES.get(kind, 0.001), "random_state": 0}
    return NoisyLabelClassifier(**params, **MODELS[model]).fit(X, y)


def score(kind, model):
    return fitted(kind, model).score(*data(kind)[2:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_is_never_worse_than_plain_training(kind):
    assert score(kind, "s") > score(kind, "plain") - 0.02


@pytest.mark.slow  # ``examples/study/study_harm.py`` has them all
@pytest.mark.parametrize("model", ["c", "em"])
@pytest.mark.parametrize("kind", ["hard, clean", "hard, pair noise", "raw wine", "few rows"])
def test_no_noise_model_is_worse_than_plain_training(kind, model):
    assert score(kind, model) > score(kind, "plain") - 0.02


@pytest.mark.parametrize("kind", CLEAN)
def test_what_is_merely_hard_is_not_taken_for_noise(kind):
    assert fitted(kind, "s").noise_rate_ < 0.1


@pytest.fixture(scope="module")
def of_pairs():
    """Return digits of which many are called by the name of the next one, and their fit."""
    rows = digits(pair_transition(10, 0.4), n_train=1200)
    return rows, NoisyLabelClassifier(lr=0.003, random_state=0).fit(*rows[:2])


def test_noise_that_a_model_was_built_for_is_still_found(of_pairs):
    (X, y, X_test, y_test), estimator = of_pairs
    assert estimator.noise_model_ == "s"
    assert estimator.score(X_test, y_test) > 0.9
    assert estimator.noise_rate_ == pytest.approx(0.4, abs=0.06)
    plain = NoisyLabelClassifier(noise_model=None, lr=0.003, random_state=0).fit(X, y)
    assert estimator.score(X_test, y_test) > plain.score(X_test, y_test) + 0.1


def test_a_class_of_nine_right_labels_is_left_alone():
    X, y = load_digits(return_X_y=True)
    rows = np.r_[np.flatnonzero(y != 9)[:900], np.flatnonzero(y == 9)[:9]]
    X, y = X[rows], y[rows]
    observed = y.copy()
    observed[:900] = corrupt_labels(
        y[:900], pair_transition(9, 0.2), classes=np.arange(9), random_state=0
    )
    estimator = NoisyLabelClassifier(lr=0.005, random_state=0).fit(X, observed)
    T = estimator.transition_matrix_
    assert estimator.noise_model_ == "s"
    assert 0.08 < estimator.noise_rate_ < 0.3
    assert T[9, 9] > 0.99
    assert T[:9, 9].max() < 0.01
    issues = find_label_issues(estimator, X, observed)
    assert issues.count > 50
    assert not np.isin(np.arange(900, 909), issues.indices).any()


@pytest.mark.parametrize("n_samples", [1999, 2000])
def test_many_classes_of_few_rows_have_no_noise(n_samples):
    rng = np.random.default_rng(0)
    centres = 2.0 * rng.standard_normal((250, 20))
    y = np.arange(n_samples) % 250
    X = centres[y] + rng.standard_normal((n_samples, 20))
    estimator = NoisyLabelClassifier(random_state=0, max_epochs=20).fit(X, y)
    assert estimator.noise_rate_ < 0.02


# --- What is kept when there is no noise ----------------------------------------------------------


OF_OVERLAPPING = {
    "random_state": 0,
    "max_em_iter": 10,
    "dropout": 0.1,
    "lr": 0.01,
    "max_epochs": 15,
}


@cache
def plain_of_overlapping(n_train):
    X, y, _ = overlapping(n_train)
    return NoisyLabelClassifier(noise_model=None, **OF_OVERLAPPING).fit(X, y)


@cache
def overlapping(n_train):
    """Return two Gaussian classes without noise, which the softmax of a network fits exactly."""
    X, y = make_blobs(n_train + 500, centers=[[0, 0], [2, 0], [0, 2]], random_state=0)
    return X[:n_train], y[:n_train], X[n_train:]


@pytest.mark.parametrize("n_train", [300, 2100])
@pytest.mark.parametrize("model", ["s", "c", "em"])
def test_without_noise_the_result_is_that_of_no_noise_model_to_the_last_bit(model, n_train):
    X, y, X_test = overlapping(n_train)
    estimator = NoisyLabelClassifier(**MODELS[model], **OF_OVERLAPPING).fit(X, y)
    plain = plain_of_overlapping(n_train)
    assert estimator.noise_model_ is None
    assert_array_equal(estimator.predict_proba(X_test), plain.predict_proba(X_test))
    assert_array_equal(estimator.class_prior_, plain.class_prior_)
    assert_array_equal(estimator.transition_matrix_, np.eye(3))
    assert estimator.noise_rate_ == 0.0
    noisy_proba = estimator.predict_noisy_proba(X_test)
    assert_allclose(noisy_proba, plain.predict_proba(X_test), atol=1e-12)


def test_the_noise_model_is_kept_when_it_is_asked_for():
    X, y, _, _ = data("few rows")
    params = {"random_state": 0, "max_epochs": 2}
    for model in ("s", "c"):
        estimator = NoisyLabelClassifier(select_noise_model=False, **MODELS[model], **params)
        assert estimator.fit(X, y).noise_model_ == model
        assert estimator.noise_rate_ > 0


@pytest.mark.parametrize("n_train", [600, 2100])
def test_selection_says_what_was_compared_and_by_how_much_it_was_better(n_train, monkeypatch):
    monkeypatch.setattr(trainer, "_MOST_PARTS", 1)  # all are judged by the same rows
    X, y, _ = overlapping(n_train)
    estimator = NoisyLabelClassifier(noise_model="c", random_state=0, lr=0.01).fit(X, y)
    first, *others = estimator.selection_
    assert first["noise_model"] is None
    assert first["start"] is None
    assert first["gain"] == first["standard_error"] == 0.0
    # The c-model ends in the first half of few rows where it is no better than the s-model.
    assert {report["noise_model"] for report in others} in ({"s"}, {"s", "c"})
    assert others[0]["noise_model"] == "s"
    for report in others:
        assert report["start"] in ("calibrated", "mixture", "confident", "hard")
        assert report["standard_error"] > 0
        assert report["gain"] <= report["log_likelihood"] - first["log_likelihood"] + 1e-9
        assert report["gain"] < 1.64 * report["standard_error"]
    assert estimator.noise_model_ is None


def test_what_is_kept_is_clearly_better_than_plain_training(of_pairs):
    _, estimator = of_pairs
    best = max(estimator.selection_, key=lambda report: report["gain"])
    assert estimator.noise_model_ == best["noise_model"] == "s"
    assert best["gain"] > 1.64 * best["standard_error"] > 0
    for report in estimator.selection_:
        assert report["log_likelihood"] < 0


def test_nothing_is_compared_where_nothing_can_be():
    X, y, _, _ = hard(63)
    for params in ({}, {"noise_model": None}, {"transition_init": uniform_transition(10, 0.1)}):
        estimator = NoisyLabelClassifier(random_state=0, max_epochs=2, **params).fit(X, y)
        assert estimator.selection_ == []


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_matrix_that_is_wrong_is_not_kept_and_a_fixed_one_is(early_stopping):
    X, y, _, _ = digits(n_train=400)
    wrong = uniform_transition(10, 0.6)
    params = {"transition_init": wrong, "early_stopping": early_stopping, "random_state": 0}
    estimator = NoisyLabelClassifier(**params, max_epochs=30).fit(X, y)
    assert estimator.noise_model_ is None
    fixed = NoisyLabelClassifier(**params, max_epochs=30, learn_transition=False).fit(X, y)
    assert fixed.noise_model_ == "s"
    assert_allclose(fixed.transition_matrix_, wrong, atol=1e-6)
