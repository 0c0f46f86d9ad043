"""A layer tied to the matrix, averages of noise models, and what rows learn from neighbours."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from sknoisy._transition import noise_models
from sknoisy._transition.calibration import uniform_noise
from sknoisy._transition.noise_models import fit_noise_model
from sknoisy._transition.softmax_layer import fit_tied_layer
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

K = 5


def observe(true, transition, random):
    return (transition[true].cumsum(axis=1) < random.uniform(size=(len(true), 1))).sum(axis=1)


def believers(n_rows=1500, n_classes=K, spread=0.7, sureness=0.0, seed=0):
    """Return predictions that believe pair noise, more or less, with true and observed classes."""
    random = np.random.RandomState(seed)
    transition = pair_transition(n_classes, 0.4)
    true = random.randint(n_classes, size=n_rows)
    believed = np.log(0.9 * transition[true] + 0.1 / n_classes)
    believed += spread * random.normal(size=believed.shape)
    if sureness:
        believed *= np.exp(sureness * random.normal(size=(n_rows, 1)))
    log_proba = log_softmax(believed, axis=1)
    return log_proba, true, observe(true, transition, random), transition


def linear_digits(rate, seed=0):
    """Return what a logistic regression says of digits that are not separable for it."""
    X, true = load_digits(return_X_y=True)
    X = PCA(5, random_state=0).fit_transform(X)[:1200] / 16
    observed = corrupt_labels(true[:1200], uniform_transition(10, rate), random_state=seed)
    model = LogisticRegression(max_iter=200)
    proba = cross_val_predict(model, X, observed, cv=3, method="predict_proba")
    return np.log(proba), true[:1200], observed


def rate(fit):
    wrong = 1 - np.diag(fit.recalibration.transition)
    return float((np.exp(fit.recalibration.clean_log_proba) @ wrong).mean())


def tied_loss(transition, bias, sharpness, scores, target, prior):
    divergence = (transition * np.log(transition)).sum(axis=1) - scores @ transition.T
    clean = np.exp(log_softmax(bias - sharpness * divergence, axis=1))
    likelihood = (clean * transition.T[target]).sum(axis=1)
    return bias @ bias / 2 - np.log(likelihood).sum() - (prior * np.log(transition)).sum()


def test_no_direction_makes_the_labels_likelier_by_a_tied_layer():
    scores, _, target, _ = believers(n_rows=600)
    prior = np.full((K, K), 2.0)
    start = uniform_noise(0.2, K)
    layer = fit_tied_layer(scores, target, start, prior=prior, max_iter=3000)
    transition = layer.transition
    sharpness = layer.weight.sum() / K
    np.testing.assert_allclose(layer.weight, sharpness * transition.T)
    bias = layer.bias + sharpness * (transition * np.log(transition)).sum(axis=1)
    best = tied_loss(transition, bias, sharpness, scores, target, prior)
    random = np.random.RandomState(1)
    for size in (0.02, 0.2):
        for _ in range(10):
            moved = np.exp(log_softmax(np.log(transition) + size * random.normal(size=(K, K)), 1))
            found = tied_loss(
                moved, bias + size * random.normal(size=K),
                sharpness * np.exp(size * random.normal()), scores, target, prior,
            )  # fmt: skip
            assert found > best


def test_a_tied_layer_finds_classes_in_predictions_that_believe_the_noise():
    scores, true, target, transition = believers(n_rows=4000)
    layer = fit_tied_layer(scores, target, uniform_noise(0.2, K), prior=2.0 * np.ones((K, K)))
    assert np.abs(layer.transition - transition).sum(axis=1).mean() / 2 < 0.06
    found = layer.clean_log_proba(scores).argmax(axis=1)
    assert (found == true).mean() > (scores.argmax(axis=1) == true).mean() + 0.1


@pytest.mark.parametrize("sureness", [0.0, 1.0])
def test_noise_that_is_believed_is_counted_and_undone(sureness):
    log_proba, true, observed, _ = believers(
        n_rows=1000, n_classes=10, spread=0.7 + 0.8 * sureness, sureness=sureness
    )
    fit = fit_noise_model(log_proba, observed)
    assert fit.is_likelier
    wrong = np.mean(observed != true)
    assert abs(rate(fit) - wrong) < 0.1 * wrong
    assert (log_proba.argmax(axis=1) == true).mean() < 0.7
    assert (fit.recalibration.posterior.argmax(axis=1) == true).mean() > 0.9


def test_neighbours_see_what_a_linear_classifier_cannot(monkeypatch):
    log_proba, true, observed = linear_digits(0.3)
    fits = [fit_noise_model(log_proba, observed)]
    monkeypatch.setattr(noise_models, "_ERRORS_OF_NEIGHBOURS", np.inf)
    fits.append(fit_noise_model(log_proba, observed))
    right = [(fit.recalibration.clean_log_proba.argmax(axis=1) == true).mean() for fit in fits]
    assert right[0] > right[1] + 0.02
    likelier = [fit.held_out.log_likelihood.mean() for fit in fits]
    assert likelier[0] > likelier[1] + 0.03
    wrong = np.mean(observed != true)
    assert abs(rate(fits[0]) - wrong) < 0.1 * wrong


def test_held_out_rows_learn_nothing_from_their_own_labels(monkeypatch):
    # Labels that nothing tells: whoever saw them would find them likelier than chance.
    random = np.random.RandomState(0)
    log_proba = log_softmax(random.normal(size=(800, 3)), axis=1)
    monkeypatch.setattr(noise_models, "_ERRORS_OF_NEIGHBOURS", -np.inf)
    fit = fit_noise_model(log_proba, random.randint(3, size=800))
    assert fit.held_out.log_likelihood.mean() < -np.log(3) + 0.01


def test_no_row_is_its_own_neighbour():
    scores = np.random.RandomState(0).normal(size=(60, 2))
    scores[10:50] = scores[10]  # more equal rows than neighbours
    rows = np.arange(0, 60)[np.arange(60) != 3]
    found = noise_models._neighbours(scores, rows)
    assert found.shape == (60, 30)
    assert not np.any(rows[found] == np.arange(60)[:, None])
    distance = np.linalg.norm(scores[:, None] - scores[rows], axis=2)
    distance[rows, np.arange(59)] = np.inf
    np.testing.assert_allclose(
        np.sort(np.take_along_axis(distance, found, axis=1)), np.sort(distance)[:, :30]
    )


def test_models_that_unseen_labels_cannot_tell_apart_are_averaged():
    one, other = (np.log(np.array([[p, 1 - p]])) for p in (0.9, 0.5))
    np.testing.assert_allclose(np.exp(noise_models._mean([one, other])), [[0.7, 0.3]])
    noise = np.random.RandomState(0).normal(size=100)
    assert noise_models._is_as_good(noise, noise)
    assert noise_models._is_as_good(np.zeros(100), noise - noise.mean() + 0.05)
    assert not noise_models._is_as_good(np.zeros(100), noise - noise.mean() + 0.2)


@pytest.mark.parametrize("seed", [*range(20), 73, 259])  # the last two overflowed
def test_a_layer_on_few_predictions_stays_finite(seed):
    random = np.random.RandomState(seed)
    n_rows, n_classes = random.choice([6, 12, 20, 40]), random.choice([2, 3, 4])
    concentration = random.choice([0.1, 1, 30, 3000])
    proba = random.dirichlet(np.ones(n_classes) * concentration, n_rows)
    scores = np.log(proba + 1e-12)
    scores -= scores.mean(axis=1, keepdims=True)
    target = random.randint(n_classes, size=n_rows)
    start, prior = uniform_transition(n_classes, 0.3), np.full((n_classes, n_classes), 0.01)
    layer = fit_tied_layer(scores, target, start, prior=prior)
    clean = np.exp(layer.clean_log_proba(scores))
    np.testing.assert_allclose(clean.sum(axis=1), 1)
