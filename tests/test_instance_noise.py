"""Noise that depends on the features of each sample."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sknoisy.noise import corrupt_labels, instance_transition


@pytest.fixture(scope="module", name="X")
def rows():
    return np.random.default_rng(0).normal(size=(2000, 5))


def test_rows_sum_to_one_and_true_classes_share_the_rate_of_a_sample(X):
    transition = instance_transition(X, 4, 0.3, random_state=0)
    assert transition.shape == (2000, 4, 4)
    assert (transition >= 0).all()
    assert_allclose(transition.sum(axis=2), 1)
    kept = transition[:, range(4), range(4)]
    assert_allclose(kept, np.repeat(kept[:, :1], 4, axis=1))


def test_rates_spread_around_the_mean(X):
    flips = 1 - instance_transition(X, 3, 0.4, spread=0.1, random_state=1)[:, 0, 0]
    assert_allclose([flips.mean(), flips.std()], [0.4, 0.1], atol=0.01)
    assert (flips >= 0).all() and (flips <= 1).all()
    same = instance_transition(X, 3, 0.4, spread=0, random_state=1)
    assert_allclose(same[:, 0, 0], 0.6)


def test_samples_that_are_alike_are_mislabelled_alike():
    X = np.repeat(np.random.default_rng(0).normal(size=(2, 3)), 2, axis=0)
    transition = instance_transition(X, 3, 0.5, spread=0, random_state=0)
    assert_array_equal(transition[[0, 2]], transition[[1, 3]])
    assert np.abs(transition[0] - transition[2]).max() > 0.01


def test_labels_are_wrong_as_often_as_the_rate_says(X):
    y = np.random.default_rng(1).integers(4, size=2000)
    transition = instance_transition(X, 4, 0.2, random_state=0)
    observed = corrupt_labels(y, transition, random_state=0)
    assert abs(np.mean(observed != y) - 0.2) < 0.03


def test_a_seed_repeats_the_noise(X):
    first, second = (instance_transition(X[:5], 3, 0.2, random_state=3) for _ in range(2))
    assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.2}, r"rate must be in \[0, 1\], got 1.2"),
        ({"n_classes": 1}, "n_classes == 1, must be >= 2"),
        ({"spread": -0.1}, "spread == -0.1, must be >= 0"),
        ({"X": [1.0, 2.0]}, "Expected 2D array"),
        ({"X": [[np.nan]]}, "X contains NaN"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        instance_transition(**{"X": [[1.0]], "n_classes": 3, "rate": 0.2} | change)
