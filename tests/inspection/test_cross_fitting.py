"""The choice of the cross-fit among noise models."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy._transition.calibration import recalibrate, sharpen
from sknoisy.inspection import _cross_fitting
from sknoisy.inspection._cross_fitting import HeldOut, Partition, cross_fit
from sknoisy.noise import random_transition

K = 6


def held_out(n_rows, seed=0):
    """Return calibrated predictions with the noise that the labels were drawn through."""
    random = np.random.RandomState(seed)
    transition = random_transition(K, 0.5, random_state=seed)
    log_proba = log_softmax(3.0 * random.normal(size=(n_rows, K)), axis=1)
    noisy = np.exp(log_proba) @ transition
    y = (noisy.cumsum(axis=1) < random.uniform(size=(n_rows, 1))).sum(axis=1)
    return HeldOut(log_proba, np.log(transition).T[y], transition), y


def chosen(found, plain, y, monkeypatch):
    """Return what is chosen for a c-model, when this is what the models of the folds say."""

    def of_folds(estimator, *rest, **options):
        return plain if estimator.noise_model is None else found

    monkeypatch.setattr(_cross_fitting, "out_of_fold_log_probabilities", of_folds)
    classifier = NoisyLabelClassifier(noise_model="c")
    return cross_fit(classifier, np.zeros((len(y), 1)), Partition(y, np.arange(K), y, []))


def test_a_matrix_pays_for_its_entries(monkeypatch):
    found, y = held_out(300)
    given = sharpen(found.clean_log_proba, found.log_column)
    fitted = recalibrate(found.clean_log_proba, y, found.transition)
    gain = fitted.log_likelihood - given.log_likelihood
    # Fitted to the very labels it is judged by, the matrix looks better by far.
    assert gain.std() * np.sqrt(len(y)) < gain.sum() < fitted.n_parameters - given.n_parameters
    assert chosen(found, found, y, monkeypatch).transition is None


def test_a_matrix_that_explains_more_than_its_entries_is_taken(monkeypatch):
    found, y = held_out(3000)
    uninformed = found._replace(log_column=np.full_like(found.log_column, -np.log(K)))
    assert chosen(uninformed, uninformed, y, monkeypatch).transition is not None


@pytest.mark.parametrize("better", [True, False])
def test_the_network_without_noise_model_is_taken_where_it_says_more(better, monkeypatch):
    found, y = held_out(3000)
    blurred = found._replace(clean_log_proba=np.full_like(found.clean_log_proba, -np.log(K)))
    pair = (blurred, found) if better else (found, blurred)
    fit = chosen(*pair, y, monkeypatch)
    assert (np.ptp(fit.clean_log_proba) > 1) == (np.ptp(found.clean_log_proba) > 1)
    assert fit.log_likelihood.mean() > sharpen(*blurred[:2]).log_likelihood.mean() + 0.01


def test_the_models_of_the_folds_keep_their_noise_model(monkeypatch):
    """It is judged by all rows that were held out, not in each fold by some of them."""
    found, y = held_out(300)
    fitted = []

    def of_folds(estimator, *rest, **options):
        fitted.append((estimator.noise_model, estimator.select_noise_model))
        return found

    monkeypatch.setattr(_cross_fitting, "out_of_fold_log_probabilities", of_folds)
    rows = Partition(y, np.arange(K), y, [])
    cross_fit(NoisyLabelClassifier(), np.zeros((len(y), 1)), rows)
    assert ("s", False) in fitted
    assert [noise_model for noise_model, _ in fitted] == ["s", None]


def folds(k=3, n_splits=3, n_rows=120):
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % k
    X = rng.standard_normal((n_rows, 4)) + 4.0 * np.eye(k, 4)[y]
    part = np.arange(n_rows) // k % n_splits
    splits = [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in range(n_splits)]
    return X, Partition(y, np.arange(k), y, splits)


def fitted(estimator, X, rows, n_jobs=None):
    found = _cross_fitting.fit_folds_sharing_noise(estimator, X, rows, n_jobs)
    return [(model[-1] if isinstance(model, Pipeline) else model, test) for model, test in found]


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_matrix_of_the_first_fold_is_known_in_the_others(wrapped):
    X, rows = folds()
    estimator = NoisyLabelClassifier(max_epochs=5, random_state=0, select_noise_model=False)
    given = make_pipeline(StandardScaler(), estimator) if wrapped else estimator
    (first, test), *others = fitted(given, X, rows)
    assert first.learn_transition
    np.testing.assert_array_equal(test, rows.splits[0][1])
    assert len(others) == 2
    for (model, test), (_, expected) in zip(others, rows.splits[1:], strict=True):
        assert not model.learn_transition
        np.testing.assert_array_equal(model.transition_init, first.transition_matrix_)
        np.testing.assert_array_equal(test, expected)
        assert {row["stage"] for row in model.history_} == {"s"}  # no plain network
    assert estimator.transition_init == "auto"


@pytest.mark.parametrize(
    "params",
    [{"noise_model": "c"}, {"noise_model": None}, {"transition_init": np.eye(3) * 0.7 + 0.1}],
    ids=str,
)
def test_other_noise_is_estimated_in_each_fold(params):
    X, rows = folds(n_splits=2)
    estimator = NoisyLabelClassifier(max_epochs=2, random_state=0, **params)
    for model, _ in fitted(estimator, X, rows):
        assert model.learn_transition
        assert isinstance(model.transition_init, type(estimator.transition_init))


def test_folds_that_share_a_matrix_may_be_fitted_at_the_same_time():
    X, rows = folds()
    estimator = NoisyLabelClassifier(max_epochs=3, random_state=0, select_noise_model=False)
    for (one, _), (two, _) in zip(
        fitted(estimator, X, rows), fitted(estimator, X, rows, n_jobs=2), strict=True
    ):
        np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
