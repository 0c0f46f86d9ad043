"""The start that a stream takes from a block of rows: what explains the unseen half of it best."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax

from sknoisy import NoisyLabelClassifier
from sknoisy._training import stream
from sknoisy._training.noise_estimates import MANY_CLASSES
from sknoisy._training.stream import start_from_block
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition


def block(transition, n_samples, seed=0):
    """Draw what a network says that has learned p(z|x), and the labels of these rows."""
    n_classes = len(transition)
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_samples)
    labels = corrupt_labels(y, transition, classes=np.arange(n_classes), random_state=seed)
    logits = np.log(transition[y] + 1e-3) + 0.25 * rng.standard_normal((n_samples, n_classes))
    return log_softmax(logits, axis=1).astype(np.float32), labels


def start(log_proba, labels, weight=None, *, compare=True):
    weight = np.ones(len(labels)) if weight is None else weight
    return start_from_block(log_proba, labels, weight, 0, compare=compare)


@pytest.mark.parametrize("n_classes", [5, MANY_CLASSES + 20])
def test_noise_is_found_in_a_block_of_few_or_of_many_classes(n_classes):
    transition = uniform_transition(n_classes, 0.4)
    found = start(*block(transition, max(1000, 40 * n_classes)))
    assert_allclose(found.sum(axis=1), 1.0)
    assert transition_matrix_error(found, transition) < 0.1


@pytest.mark.parametrize("n_classes", [5, MANY_CLASSES + 20])
def test_no_noise_needs_no_start(n_classes):
    predicted, labels = block(np.eye(n_classes), max(1000, 10 * n_classes))
    assert start(predicted, labels) is None
    assert_allclose(start(predicted, labels, compare=False), np.eye(n_classes), atol=0.1)


def test_classes_that_are_confused_with_one_another_are_told_apart():
    """One rate for all classes would not tell; the mixture does, with many classes as well."""
    transition = pair_transition(MANY_CLASSES + 20, 0.3)
    found = start(*block(transition, 60 * len(transition)))
    assert transition_matrix_error(found, transition) < 0.12


@pytest.mark.parametrize("n_classes", [4, MANY_CLASSES + 20])
def test_the_label_of_a_row_without_weight_makes_no_difference(n_classes, monkeypatch):
    monkeypatch.setattr(
        "sknoisy._training.stream.stratified_parts", lambda target, seed: np.arange(len(target)) % 2
    )
    transition = pair_transition(n_classes, 0.3)
    predicted, labels = block(transition, max(1000, 40 * n_classes))
    ignored = np.arange(len(labels)) % 8 < 3
    weight = np.where(ignored, 0.0, 1.0)
    found = start(predicted, labels, weight, compare=False)
    other = np.where(ignored, (labels + 2) % n_classes, labels)
    assert_allclose(start(predicted, other, weight, compare=False), found, atol=1e-6)
    assert np.abs(start(predicted, other, compare=False) - found).max() > 0.05


@pytest.mark.parametrize("n_iter_no_change", [1, 3])
def test_a_noise_layer_has_as_many_blocks_to_prove_itself_as_it_is_given(
    n_iter_no_change, monkeypatch
):
    found = [uniform_transition(5, 0.3)]
    monkeypatch.setattr(
        "sknoisy._training.stream.start_from_block",
        lambda *args, **kwargs: found.pop() if found else None,
    )
    # Nothing is learned, so the observed labels are as likely with the noise as without.
    X, y = np.zeros((1000, 2)), np.arange(1000) % 5
    classifier = NoisyLabelClassifier(lr=1e-12, random_state=0, n_iter_no_change=n_iter_no_change)
    models = []
    while len(models) < 20 and not (found == [] and models[-1] is None):
        models.append(classifier.partial_fit(X, y, classes=range(5)).noise_model_)
    assert models.count("s") == n_iter_no_change


@pytest.mark.parametrize("init", ["confusion", "cluster"])
def test_a_start_that_is_asked_for_is_that_of_the_block(init, monkeypatch):
    seen = []

    def start(log_proba, target, weight, **seed):
        seen.append(len(target))
        return uniform_transition(5, 0.3)

    def compared(*args, **kwargs):
        pytest.fail("starts were compared")

    monkeypatch.setattr(f"sknoisy._training.stream.{init}_start", start)
    monkeypatch.setattr("sknoisy._training.stream.start_from_block", compared)
    params = {"lr": 1e-12, "random_state": 0, "n_iter_no_change": 1}
    classifier = NoisyLabelClassifier(transition_init=init, select_noise_model=False, **params)
    X, y = np.zeros((1000, 2)), np.arange(1000) % 5
    for _ in range(4):
        classifier.partial_fit(X, y, classes=range(5))
    assert seen == [1000]
    assert_allclose(classifier.initial_transition_matrix_, uniform_transition(5, 0.3))


@pytest.mark.parametrize("n_classes", [5, MANY_CLASSES + 20])
def test_the_dense_mixture_is_for_few_classes(n_classes, monkeypatch):
    fitted = []
    for name in ("fit_mixture", "fit_sparse_mixture"):
        fit = getattr(stream, name)

        def spy(*args, name=name, fit=fit, **kwargs):
            fitted.append(name)
            return fit(*args, **kwargs)

        monkeypatch.setattr(stream, name, spy)
    start(*block(uniform_transition(n_classes, 0.3), max(1000, 10 * n_classes)))
    assert fitted == ["fit_mixture" if n_classes == 5 else "fit_sparse_mixture"]
