"""Noise models for given probabilities, and the choice between them."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from sknoisy._transition.noise_models import fit_noise_model
from sknoisy.noise import pair_transition, random_transition, uniform_transition

K = 5


def draw(transition, n_rows=1500, distance=4.0, seed=0):
    """Return what a logistic regression says of unseen rows, true and observed classes."""
    random = np.random.RandomState(seed)
    true = random.randint(K, size=n_rows)
    observed = (transition[true].cumsum(axis=1) < random.uniform(size=(n_rows, 1))).sum(axis=1)
    X = distance * np.eye(K)[true] + random.normal(size=(n_rows, K))
    model = LogisticRegression(max_iter=500)
    proba = cross_val_predict(model, X, observed, cv=3, method="predict_proba")
    return np.log(proba), true, observed


def expected_rate(fit):
    wrong = 1 - np.diag(fit.recalibration.transition)
    return float((np.exp(fit.recalibration.clean_log_proba) @ wrong).mean())


@pytest.mark.parametrize(
    "transition",
    [
        uniform_transition(K, 0.3),
        pair_transition(K, 0.3),
        random_transition(K, 0.3, random_state=1),
    ],
    ids=["uniform", "pair", "random"],
)
def test_noise_is_counted_and_undone(transition):
    log_proba, true, observed = draw(transition)
    fit = fit_noise_model(log_proba, observed)
    rate = np.mean(observed != true)
    assert abs(expected_rate(fit) - rate) < 0.15 * rate
    assert fit.is_likelier
    found = np.abs(fit.recalibration.transition - transition).sum(axis=1).mean() / 2
    assert found < 0.1
    right = (fit.recalibration.posterior.argmax(axis=1) == true).mean()
    assert right > (log_proba.argmax(axis=1) == true).mean() - 0.01
    assert right > 0.85


@pytest.mark.parametrize("distance", [1.0, 2.0, 5.0])
def test_difficulty_is_not_taken_for_noise(distance):
    rates = [
        expected_rate(fit) if fit.is_likelier else 0.0
        for seed in range(2)
        for log_proba, true, _ in [draw(np.eye(K), n_rows=1000, distance=distance, seed=seed)]
        for fit in [fit_noise_model(log_proba, true)]
    ]
    assert np.mean(rates) < 0.05


def test_gains_are_not_significant_without_noise():
    significant = []
    for seed in range(8):
        log_proba, true, _ = draw(np.eye(K), n_rows=400, distance=1.5, seed=seed)
        fit = fit_noise_model(log_proba, true)
        gains = [gain.mean() / gain.std() * np.sqrt(len(gain)) for gain in fit.gains]
        significant.append(min(gains) > 2.33)
    assert np.mean(significant) < 0.2


def test_a_seed_gives_one_result_and_the_global_state_is_left():
    log_proba, _, observed = draw(pair_transition(K, 0.3), n_rows=300)
    np.random.seed(5)  # noqa: NPY002
    one, two = (fit_noise_model(log_proba, observed) for _ in range(2))
    np.testing.assert_array_equal(one.recalibration.posterior, two.recalibration.posterior)
    drawn = np.random.uniform()  # noqa: NPY002
    assert drawn == np.random.RandomState(5).uniform()


def test_models_are_fitted_to_some_of_many_rows_and_say_something_of_all():
    log_proba, true, observed = draw(pair_transition(K, 0.3), n_rows=22_000)
    fit = fit_noise_model(log_proba, observed)
    assert len(fit.rows) == 20_000 == len(fit.held_out.clean_log_proba) == len(fit.gains[0])
    assert fit.recalibration.posterior.shape == (22_000, K)
    rate = np.mean(observed != true)
    assert abs(expected_rate(fit) - rate) < 0.1 * rate


def test_rows_and_classes_without_any_label_do_no_harm():
    log_proba, _, observed = draw(uniform_transition(K, 0.2), n_rows=60)
    observed = np.where(observed == K - 1, 0, observed)  # what has a column still
    fit = fit_noise_model(log_proba, observed)
    assert np.isfinite(fit.recalibration.posterior).all()
    np.testing.assert_allclose(fit.recalibration.transition.sum(axis=1), 1.0)
