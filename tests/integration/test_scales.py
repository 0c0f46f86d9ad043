"""The scale of X makes no difference to the default network, and a module of one's own says so."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import nn

from sknoisy import NoisyLabelClassifier, load_model, save_model
from sknoisy.exceptions import UnreliableFitWarning
from sknoisy.noise import corrupt_labels, uniform_transition

MODELS = {"plain": {"noise_model": None}, "s": {}, "c": {"noise_model": "c"}}
SHORT = {"random_state": 0, "lr": 0.005, "max_epochs": 20}
EXPONENTS = np.linspace(-3, 4, 64)
SCALES = {
    "times 1000": lambda X: 1000 * X,
    "over 1000": lambda X: X / 1000,
    "plus 10,000": lambda X: X + 10_000,
    "0..255 as uint8": lambda X: np.round(X * 255).astype(np.uint8),
    "columns of 1e-3 beside 1e4": lambda X: X * 10.0**EXPONENTS,
    "CSR": lambda X: sparse.csr_array(X * 255),
    "float32": lambda X: (1000 * X).astype(np.float32),
}


@cache
def digits():
    """Return digits within 0..1 with a fifth of the training labels wrong, and a test set."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, train_size=700, stratify=y, random_state=0)
    return X, corrupt_labels(y, uniform_transition(10, 0.2), random_state=0), X_test, y_test


def accuracy(model, change=lambda X: X):
    X, y, X_test, y_test = digits()
    estimator = NoisyLabelClassifier(**SHORT, **MODELS[model])
    return estimator.fit(change(X), y).score(change(X_test), y_test)


@cache
def usual_accuracy(model):
    return accuracy(model)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("model", ["plain", "s"])
def test_accuracy_is_the_same_on_every_scale(model, scale):
    assert accuracy(model, SCALES[scale]) == pytest.approx(usual_accuracy(model), abs=0.01)


@pytest.mark.parametrize("scale", ["times 1000", "columns of 1e-3 beside 1e4"])
def test_accuracy_of_the_c_model_is_the_same_on_every_scale(scale):
    assert accuracy("c", SCALES[scale]) == pytest.approx(usual_accuracy("c"), abs=0.01)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine])
@pytest.mark.parametrize("model", ["plain", "s"])
def test_raw_tables_are_learned_as_well_as_scaled_ones(load, model):
    X, y = load(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scores = [
        NoisyLabelClassifier(**SHORT, **MODELS[model]).fit(a, y).score(b, y_test)
        for a, b in ((X, X_test), ((X - mean) / scale, (X_test - mean) / scale))
    ]
    assert scores[0] > 0.9
    assert scores[0] > scores[1] - 0.03


def test_a_shift_and_a_scale_leave_the_predictions_as_they_are():
    X, y, X_test, _ = digits()
    params = {"noise_model": None, "random_state": 0, "max_epochs": 5}
    expected = NoisyLabelClassifier(**params).fit(X, y).predict_proba(X_test)
    for factor, shift in ((1024.0, 0.0), (1.0, 8.0), (0.125, -4.0)):
        estimator = NoisyLabelClassifier(**params).fit(factor * X + shift, y)
        found = estimator.predict_proba(factor * X_test + shift)
        assert_allclose(found, expected, atol=1e-6)


def test_a_column_that_was_constant_in_training_is_ignored():
    X, y, X_test, _ = digits()
    X = X.copy()
    X[:, 0] = 3.0
    estimator = NoisyLabelClassifier(noise_model=None, random_state=0, max_epochs=2).fit(X, y)
    other = X_test.copy()
    other[:, 0] = 1e6
    assert_array_equal(estimator.predict_proba(other), estimator.predict_proba(X_test))


def test_the_scale_is_that_of_the_training_rows_with_their_weights():
    X, y, _, _ = digits()
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    params = {"noise_model": None, "random_state": 0, "max_epochs": 1}
    layers = [
        estimator.net_.network.hidden.standardization
        for estimator in (
            NoisyLabelClassifier(**params).fit(X, y, weight),
            NoisyLabelClassifier(**params).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight)),
            NoisyLabelClassifier(**params).fit(X, y),
        )
    ]
    assert_allclose(layers[0].mean, layers[1].mean, atol=1e-9)
    assert_allclose(layers[0].scale, layers[1].scale, atol=1e-9)
    assert (layers[0].mean - layers[2].mean).abs().max() > 1e-3


def test_a_warm_start_keeps_the_standardisation():
    X, y, _, _ = digits()
    estimator = NoisyLabelClassifier(noise_model=None, warm_start=True, max_epochs=1)
    before = estimator.fit(X, y).net_.network.hidden.standardization.mean.clone()
    estimator.fit(100 * X, y)
    assert_array_equal(estimator.net_.network.hidden.standardization.mean, before)


# --- A module of one's own ----------------------------------------------------------------------


class Layers(nn.Sequential):
    """A hidden layer without any normalisation."""

    def __init__(self):
        super().__init__(nn.Linear(64, 50), nn.ReLU())


@pytest.mark.parametrize("model", ["plain", "s"])
def test_a_module_on_data_of_a_large_scale_learns_and_the_warning_names_the_scale(model):
    X, y, X_test, y_test = digits()
    X, X_test = 2000 * X, 2000 * X_test
    estimator = NoisyLabelClassifier(Layers, **SHORT, **MODELS[model])
    with pytest.warns(UnreliableFitWarning, match=r"`module` had a root mean square of \d.*Scale"):
        estimator.fit(X, y)
    assert estimator.score(X_test, y_test) > 0.7
    assert estimator.net_.network.hidden_scale > 10


def test_a_module_on_data_of_a_usual_scale_is_left_alone():
    X, y, _, _ = digits()
    params = {"early_stopping": True, "max_epochs": 2, "random_state": 0}
    estimator = NoisyLabelClassifier(Layers, **params).fit(X, y)
    assert estimator.net_.network.hidden_scale == 1.0


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"module": Layers}], ids=["default", "module"])
def test_a_model_from_a_file_keeps_mean_scale_and_the_scale_of_its_features(params, tmp_path):
    X, y, X_test, _ = digits()
    X, X_test = 2000 * X + 300, 2000 * X_test + 300
    short = {"early_stopping": True, "max_epochs": 3, "random_state": 0}
    fitted = NoisyLabelClassifier(**short, **params).fit(X, y)
    save_model(fitted, tmp_path / "model.skops")
    loaded = load_model(tmp_path / "model.skops", trusted=[f"{Layers.__module__}.Layers"])
    assert_array_equal(loaded.predict_proba(X_test), fitted.predict_proba(X_test))
    assert loaded.net_.network.hidden_scale == fitted.net_.network.hidden_scale
    if params:
        assert fitted.net_.network.hidden_scale > 10
        return
    mine, theirs = (e.net_.network.hidden.standardization for e in (fitted, loaded))
    assert_array_equal(theirs.mean, mine.mean)
    assert_array_equal(theirs.scale, mine.scale)
    assert mine.mean.abs().max() > 100
