"""When a stage stops: the calibrated loss, and the weights that are kept."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from torch import nn

from sknoisy._net.stopping import BestWeights, CalibratedLoss
from sknoisy.noise import corrupt_labels, uniform_transition

T = uniform_transition(3, 0.3)


def problem(noisy, seed=0, n=400):
    """Return calibrated predictions, the log-column of each row, and weights."""
    rng = np.random.default_rng(seed)
    log_proba = log_softmax(1.5 * rng.standard_normal((n, 3)), axis=1)
    y = (np.exp(log_proba).cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)
    if not noisy:
        column = np.where(np.eye(3, dtype=bool), 0.0, -np.inf)[y]
    else:
        column = np.log(T).T[corrupt_labels(y, T, classes=range(3), random_state=seed)]
    return log_proba, column, rng.uniform(0.2, 3.0, n)


def loss_at(log_sharpness, log_proba, column, weight):
    clean = log_softmax(np.exp(log_sharpness) * log_proba, axis=1)
    return -np.average(logsumexp(clean + column, axis=1), weights=weight)


def calibrated(log_proba, column, weight, n_calls=5):
    """Return the loss once the sharpness has settled, as it does from epoch to epoch."""
    tensors = [None if a is None else torch.as_tensor(a) for a in (log_proba, column, weight)]
    loss = CalibratedLoss()
    return [loss(*tensors) for _ in range(n_calls)][-1]


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("distortion", [0.2, 1.0, 4.0])
def test_the_loss_is_the_lowest_over_all_temperatures(noisy, weighted, distortion):
    log_proba, column, weight = problem(noisy)
    log_proba, weight = distortion * log_proba, weight if weighted else None
    lowest = minimize_scalar(
        loss_at, bounds=(-3, 3), args=(log_proba, column, weight), method="bounded"
    ).fun
    assert calibrated(log_proba, column, weight) == pytest.approx(lowest, abs=1e-4)
    assert calibrated(log_proba, column, weight, 1) >= lowest - 1e-9
    if distortion != 1.0:
        assert loss_at(0.0, log_proba, column, weight) > lowest + 0.02


@pytest.mark.parametrize("noisy", [False, True])
def test_the_loss_does_not_depend_on_the_temperature_of_the_predictions(noisy):
    log_proba, column, weight = problem(noisy)
    losses = [calibrated(c * log_proba, column, weight) for c in (0.1, 0.5, 1.0, 2.0, 8.0)]
    assert_allclose(losses, losses[2], atol=1e-4)


def test_the_sharpness_is_the_inverse_of_the_distortion():
    log_proba, column, _ = problem(noisy=True, n=4000)
    loss = CalibratedLoss()
    for _ in range(5):
        loss(torch.as_tensor(3.0 * log_proba), torch.as_tensor(column), None)
    assert np.exp(loss.log_sharpness) == pytest.approx(1 / 3, rel=0.15)


def test_weight_two_is_the_row_twice():
    log_proba, column, _ = problem(noisy=True)
    weight = np.random.default_rng(1).integers(1, 4, len(column))
    repeated = np.repeat(log_proba, weight, axis=0), np.repeat(column, weight, axis=0)
    expected = calibrated(*repeated, None)
    assert calibrated(log_proba, column, weight.astype(float)) == pytest.approx(expected, abs=1e-6)
    assert abs(calibrated(log_proba, column, None) - expected) > 1e-4


@pytest.mark.parametrize("n_rows", [1, 50])
def test_perfect_and_hopeless_predictions_have_a_finite_loss(n_rows):
    column = torch.full((n_rows, 3), -torch.inf)
    column[:, 0] = 0.0
    certain = torch.tensor([[0.0, -200.0, -500.0]]).repeat(n_rows, 1)
    for log_proba, limit in ((certain, 0.1), (torch.zeros(n_rows, 3) - np.log(3), 1.1)):
        loss = CalibratedLoss()
        values = [loss(log_proba, column, None) for _ in range(30)]
        assert np.isfinite(values).all()
        assert values[-1] <= limit
    wrong = CalibratedLoss()
    values = [wrong(certain.roll(1, 1), column, None) for _ in range(30)]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]


# --- The weights of the best epoch --------------------------------------------------------------


def watch(losses, patience, tolerance=0.0):
    """Feed losses to the watcher; return it and the epoch that it stops after, or None."""
    network = nn.Linear(1, 1)
    best = BestWeights(network, patience, tolerance)
    for epoch, loss in enumerate(losses, start=1):
        with torch.no_grad():
            network.bias.fill_(float(epoch))
        if best.update(loss):
            return best, epoch
    return best, None


def kept(best):
    best.restore()
    return float(best.network.bias.detach())


@pytest.mark.parametrize(
    ("losses", "patience", "stops", "best_epoch"),
    [
        ([3.0, 2.0, 1.0], 2, None, 3),
        ([3.0, 2.0, 2.5, 2.6], 2, 4, 2),
        ([3.0, 4.0, 5.0], 1, 2, 1),
        ([3.0, 4.0, 2.0, 4.0, 1.0], 2, None, 5),
        ([1.0, 1.0, 1.0], 2, 3, 1),
    ],
)
def test_training_stops_when_patience_is_out(losses, patience, stops, best_epoch):
    best, stopped = watch(losses, patience)
    assert stopped == stops
    assert best.best_epoch == best_epoch
    assert kept(best) == best_epoch


def test_small_steps_do_not_renew_the_patience_but_their_weights_are_kept():
    losses = [1.0, 0.99, 0.98, 0.97, 0.96]
    best, stopped = watch(losses, patience=3, tolerance=0.1)
    assert stopped == 4
    assert best.best_epoch == 4
    assert kept(best) == 4


def test_small_steps_that_add_up_renew_the_patience():
    losses = [1.0, 0.96, 0.92, 0.88, 0.84, 0.80, 0.76]
    _, stopped = watch(losses, patience=3, tolerance=0.1)
    assert stopped is None


def test_without_any_epoch_the_weights_stay():
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.bias.fill_(5.0)
    assert kept(BestWeights(network, 2)) == 5.0
