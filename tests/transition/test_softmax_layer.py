"""The softmax layer on log-probabilities, with noisy labels."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from sknoisy._transition.calibration import uniform_noise
from sknoisy._transition.softmax_layer import SoftmaxLayer, fit_softmax_layer
from sknoisy.noise import pair_transition

K = 4


def draw(transition, n_rows=3000, seed=0):
    """Return scores, true classes drawn from a softmax layer of them, and observed ones."""
    random = np.random.RandomState(seed)
    scores = 2.0 * random.normal(size=(n_rows, K))
    weight, bias = 1.5 * np.eye(K) + 0.5 * random.normal(size=(K, K)), random.normal(size=K)
    clean = np.exp(log_softmax(scores @ weight + bias, axis=1))
    true = (clean.cumsum(axis=1) < random.uniform(size=(n_rows, 1))).sum(axis=1)
    observed = (transition[true].cumsum(axis=1) < random.uniform(size=(n_rows, 1))).sum(axis=1)
    return scores, true, observed, clean


def start(transition):
    return SoftmaxLayer(np.eye(K), np.zeros(K), transition)


def loss(layer, scores, target, penalty, prior):
    joint = np.exp(layer.clean_log_proba(scores)) * layer.transition.T[target]
    value = penalty / 2 * ((layer.weight - np.eye(K)) ** 2).sum() - np.log(joint.sum(axis=1)).sum()
    return value - (prior * np.log(layer.transition)).sum()


@pytest.mark.parametrize("matrix", ["uniform", "prior"])
def test_no_direction_makes_the_labels_likelier(matrix):
    true_noise = pair_transition(K, 0.3) if matrix == "prior" else uniform_noise(0.4, K)
    scores, _, target, _ = draw(true_noise, n_rows=1500)
    prior = np.full((K, K), 2.0) if matrix == "prior" else np.zeros((K, K))
    layer = fit_softmax_layer(
        scores, target, start(uniform_noise(0.2, K)), penalty=3.0, max_iter=2000,
        matrix=prior if matrix == "prior" else "uniform",
    )  # fmt: skip
    best = loss(layer, scores, target, 3.0, prior)
    random = np.random.RandomState(1)
    for _ in range(20):
        step = 0.1 * random.normal(size=(K, K))
        moved = layer._replace(weight=layer.weight + step)
        assert loss(moved, scores, target, 3.0, prior) > best
        if matrix == "prior":
            other = np.exp(log_softmax(np.log(layer.transition) + 3 * step, axis=1))
        else:
            rate = 1 - layer.transition[0, 0]
            other = uniform_noise(rate * np.exp(4 * step[0, 0]), K)
        assert loss(layer._replace(transition=other), scores, target, 3.0, prior) > best


def test_without_noise_it_is_logistic_regression():
    scores, true, _, _ = draw(np.eye(K))
    layer = fit_softmax_layer(
        scores, true, start(np.eye(K)), penalty=1e-6, matrix="fixed", max_iter=1000
    )
    plain = LogisticRegression(C=1e6, max_iter=1000).fit(scores, true)
    np.testing.assert_allclose(
        np.exp(layer.clean_log_proba(scores)), plain.predict_proba(scores), atol=2e-3
    )
    np.testing.assert_array_equal(layer.transition, np.eye(K))


@pytest.mark.parametrize("noise", ["pair", "uniform"])
def test_layer_and_noise_are_recovered(noise):
    transition = pair_transition(K, 0.3) if noise == "pair" else uniform_noise(0.3, K)
    scores, _, observed, clean = draw(transition, n_rows=8000)
    matrix = "uniform" if noise == "uniform" else 5.0 * uniform_noise(0.3, K)
    layer = fit_softmax_layer(
        scores, observed, start(uniform_noise(0.2, K)), penalty=0.1, matrix=matrix, max_iter=500
    )
    np.testing.assert_allclose(layer.transition, transition, atol=0.06)
    assert np.abs(np.exp(layer.clean_log_proba(scores)) - clean).mean() < 0.03
    if noise == "uniform":
        off = layer.transition[~np.eye(K, dtype=bool)]
        np.testing.assert_allclose(off, off[0])


def test_relabelling_the_classes_commutes_with_the_fit():
    scores, _, observed, _ = draw(pair_transition(K, 0.3), n_rows=500)
    order = np.array([2, 0, 3, 1])
    position = np.argsort(order)
    options = {"penalty": 1.0, "matrix": 5.0 * uniform_noise(0.3, K), "max_iter": 500}
    layer = fit_softmax_layer(scores, observed, start(uniform_noise(0.2, K)), **options)
    moved = fit_softmax_layer(
        scores[:, order], position[observed], start(uniform_noise(0.2, K)), **options
    )
    np.testing.assert_allclose(moved.transition, layer.transition[np.ix_(order, order)], atol=5e-3)


def test_an_infinite_penalty_leaves_the_sharpness():
    scores, _, observed, _ = draw(pair_transition(K, 0.3), n_rows=300)
    layer = fit_softmax_layer(
        scores, observed, start(uniform_noise(0.3, K)), penalty=1e9, matrix="uniform"
    )
    np.testing.assert_allclose(layer.weight, np.eye(K), atol=1e-4)
