"""A fit that is worth little says so, and a fit that is not worth little says nothing."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.noise import corrupt_labels, pair_transition, random_transition, uniform_transition

NO_BETTER = "The observed labels are predicted no better than by their frequencies"


def blobs(n_samples=300, rate=0.0, n_classes=3):
    X, y = make_blobs(n_samples, centers=n_classes, random_state=2)
    return X, corrupt_labels(y, uniform_transition(n_classes, rate), random_state=0)


def fit(X, y, sample_weight=None, **params):
    """Fit, and return the messages of doubt."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UnreliableFitWarning)
        NoisyLabelClassifier(**({"random_state": 0} | params)).fit(X, y, sample_weight)
    doubts = [warning for warning in seen if warning.category is UnreliableFitWarning]
    assert all(warning.filename == __file__ for warning in doubts)  # the call of fit
    return [str(warning.message) for warning in doubts]


def test_it_is_a_user_warning_that_can_be_imported():
    assert issubclass(UnreliableFitWarning, UserWarning)


# --- Where it is seen ---------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [True, False, "auto"])
@pytest.mark.parametrize("noise_model", ["s", None])
def test_labels_without_signal_are_doubted(noise_model, early_stopping):
    X, _ = blobs(1000)
    y = np.random.default_rng(0).integers(0, 3, len(X))
    params = {"noise_model": noise_model, "early_stopping": early_stopping, "max_epochs": 10}
    if early_stopping is False:
        params["max_epochs"] = 1  # otherwise a network memorises them
        if noise_model is None:
            X = np.ones_like(X)  # nothing is held out, so that any feature helps
    messages = fit(X, y, **params)
    assert any(message.startswith(NO_BETTER) for message in messages)


@pytest.mark.parametrize("noise_model", ["s", "c", None])
def test_constant_features_are_doubted(noise_model):
    _, y = blobs()
    messages = fit(np.ones((len(y), 4)), y, noise_model=noise_model, max_epochs=10)
    assert any(message.startswith(NO_BETTER) for message in messages)
    assert "Check that the rows of X and y belong together" in messages[0]


@pytest.mark.parametrize("noise_model", ["s", None])
def test_a_learning_rate_that_ruins_the_network_is_doubted_and_named(noise_model):
    X, y = digits()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UnreliableFitWarning)
        try:
            params = {"noise_model": noise_model, "lr": 1e10, "random_state": 0}
            estimator = NoisyLabelClassifier(**params).fit(X, y)
        except ValueError as error:
            assert "`lr`" in str(error)  # a loss that is not finite is refused
            return
    messages = [str(w.message) for w in seen if w.category is UnreliableFitWarning]
    # What is right in the end, as ranks of logits of any size may be, needs no warning.
    learned = estimator.score(X, y) > 0.8 and estimator.noise_rate_ < 0.1
    assert learned or any("lr=10000000000.0" in message for message in messages)


@pytest.mark.parametrize("init", ["auto", "cluster"])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_classes_with_few_labels_are_named(init, early_stopping):
    X, y = blobs(300)
    X = np.r_[X, np.full((9, 2), 20.0), np.full((10, 2), -20.0)]
    names = np.array(["ant", "bee", "cow", "dog", "elk"])[np.r_[y, np.full(9, 3), np.full(10, 4)]]
    params = {"transition_init": init, "early_stopping": early_stopping, "max_epochs": 10}
    (message,) = [m for m in fit(X, names, **params) if "fewer than 10" in m]
    assert "'dog'" in message
    assert "'elk'" not in message


def test_many_classes_with_few_labels_are_counted():
    X, y = make_blobs(160, centers=20, random_state=0)
    (message,) = [m for m in fit(X, y, max_epochs=5) if "fewer than 10" in m]
    assert "the labels of 0, 1, 2, 3, 4 and 15 more are assumed correct" in message


@pytest.mark.parametrize(("n_samples", "doubted"), [(63, True), (64, False)])
def test_too_few_rows_are_doubted(n_samples, doubted):
    X, y = make_blobs(n_samples, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    messages = fit(X, y, lr=0.01)
    assert any("rows are too few to estimate label noise" in m for m in messages) == doubted


def test_a_class_whose_own_label_is_not_its_likeliest_is_named():
    X, y = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    names = np.array(["ant", "bee", "cow"])[y]
    swapped = np.array([[0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    params = {"transition_init": swapped, "select_noise_model": False, "max_epochs": 20}
    (message,) = [m for m in fit(X, names, lr=0.01, **params) if "another label is likelier" in m]
    assert "'ant', 'bee'" in message
    assert "'cow'" not in message


def test_a_known_matrix_is_not_doubted_where_it_is_kept_fixed():
    X, y = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    known = np.roll(np.eye(3), 1, axis=1)
    assert fit(X, (y + 1) % 3, transition_init=known, learn_transition=False, lr=0.01) == []


def test_weights_count_in_the_doubt():
    X, y = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    chance = np.random.default_rng(0).permutation(y)
    rows, labels = np.r_[X, X], np.r_[y, chance]
    weight = np.repeat([1.0, 1e-4], 300)
    params = {"noise_model": None, "max_epochs": 40, "lr": 0.01}
    assert fit(rows, labels, weight, **params) == []
    messages = fit(rows, labels, weight[::-1], **params)
    assert any(message.startswith(NO_BETTER) for message in messages)


# --- Where it is not seen -------------------------------------------------------------------------


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, stratify=y, random_state=0)[::2]


@pytest.mark.parametrize(
    "transition",
    [
        np.eye(10),
        uniform_transition(10, 0.2),
        uniform_transition(10, 0.5),
        pair_transition(10, 0.4),
        random_transition(10, 0.3, random_state=0),
    ],
    ids=["clean", "uniform .2", "uniform .5", "pair .4", "random .3"],
)
def test_digits_with_noise_are_not_doubted(transition):
    X, y = digits()
    assert fit(X, corrupt_labels(y, transition, random_state=0)) == []


@pytest.mark.parametrize("model", [{}, {"noise_model": None}, {"method": "em"}], ids=str)
@pytest.mark.parametrize("early_stopping", [True, "auto"])
def test_easy_data_are_not_doubted(model, early_stopping):
    X, y = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    assert fit(X, y, lr=0.01, early_stopping=early_stopping, **model) == []


def test_few_rows_are_not_doubted_without_a_noise_model():
    X, y = make_blobs(40, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    assert fit(X, y, noise_model=None, lr=0.01) == []


def test_a_large_scale_is_not_doubted_with_the_default_network():
    X, y = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    assert fit(1e6 * X, y, lr=0.01) == []


def test_there_is_one_warning_for_each_reason():
    torch.manual_seed(0)
    _, y = blobs(200)
    names = np.r_[y, np.full(5, 3)]
    messages = fit(np.ones((205, 2)), names, max_epochs=5)
    assert len(messages) == 2
    assert len(set(messages)) == 2
