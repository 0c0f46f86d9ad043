"""The mixture of many classes: what it finds, what it shrinks, and what it never holds at once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from sknoisy._transition import many_classes
from sknoisy._transition.many_classes import sparse_mixture_start
from sknoisy._transition.starts import mixture_start
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import (
    corrupt_labels,
    pair_transition,
    permutation_transition,
    uniform_transition,
)

N_CLASSES = 120


def sample(transition, n_samples=6000, sharpness=4.0, seed=0):
    """Draw predictions of a network that has learned p(z|x) of classes it can tell apart."""
    n_classes = len(transition)
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_samples)
    observed = corrupt_labels(y, transition, classes=np.arange(n_classes), random_state=seed)
    logits = np.log(transition[y] + 1e-3) + rng.standard_normal((n_samples, n_classes)) / sharpness
    return log_softmax(logits, axis=1).astype(np.float32), observed, y


def start(log_proba, observed, weight=None):
    return sparse_mixture_start(log_proba.__getitem__, observed, weight, random_state=0)


MATRICES = {
    "none": np.eye(N_CLASSES),
    "uniform": uniform_transition(N_CLASSES, 0.4),
    "pair": pair_transition(N_CLASSES, 0.4),
    "permutation": permutation_transition(np.random.RandomState(0).permutation(N_CLASSES), 0.3),
    "two targets": pair_transition(N_CLASSES, 0.2) @ pair_transition(N_CLASSES, 0.2),
}


@pytest.mark.parametrize("transition", MATRICES.values(), ids=MATRICES)
def test_the_noise_is_found(transition):
    log_proba, observed, y = sample(transition)
    counts = np.zeros_like(transition)
    np.add.at(counts, (y, observed), 1.0)
    drawn = counts / counts.sum(axis=1, keepdims=True)
    found = start(log_proba, observed)
    assert_allclose(found.transition.sum(axis=1), 1.0)
    assert (found.transition > 0).all()
    # Nobody who knows the true labels and counts them is much nearer to the matrix.
    error = transition_matrix_error(found.transition, transition)
    assert error < transition_matrix_error(drawn, transition) + 0.02


def test_it_is_as_good_as_the_mixture_that_is_not_sparse():
    transition = pair_transition(60, 0.4)
    log_proba, observed, _ = sample(transition, 2400)
    dense = mixture_start(log_proba.astype(np.float64), observed, random_state=0)
    sparse = start(log_proba, observed)
    errors = [transition_matrix_error(e.transition, transition) for e in (dense, sparse)]
    assert errors[1] < errors[0] + 0.01
    assert sparse.log_likelihood == pytest.approx(dense.log_likelihood, abs=0.05)


def test_rows_with_few_labels_keep_the_rate_of_all_where_errors_go_everywhere():
    # Ten labels a class: counts of them are .4 off, one rate for all is not.
    transition = uniform_transition(N_CLASSES, 0.4)
    log_proba, observed, y = sample(transition, 10 * N_CLASSES)
    counts = np.zeros_like(transition)
    np.add.at(counts, (y, observed), 1.0)
    drawn = counts / counts.sum(axis=1, keepdims=True)
    error = transition_matrix_error(start(log_proba, observed).transition, transition)
    assert error < transition_matrix_error(drawn, transition) / 3


def test_classes_are_named_so_that_most_labels_are_right():
    transition = pair_transition(N_CLASSES, 0.2)
    log_proba, observed, _ = sample(transition)
    order = np.random.RandomState(0).permutation(N_CLASSES)
    found = start(log_proba[:, order], observed)  # a network that calls its classes otherwise
    assert transition_matrix_error(found.transition, transition) < 0.1


def test_a_weight_is_the_row_as_often():
    log_proba, observed, _ = sample(pair_transition(30, 0.3), 900)
    weight = np.random.RandomState(0).randint(0, 3, 900)
    rows = np.repeat(np.arange(900), weight)
    components = many_classes.PCA(29).fit(many_classes._centred(log_proba))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many_classes.PCA, "fit", lambda self, X: components)
        weighted = start(log_proba, observed, weight)
        repeated = start(log_proba[rows], observed[rows])
    assert_allclose(weighted.transition, repeated.transition, atol=1e-4)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-4)


def test_predictions_are_asked_for_in_parts(monkeypatch):
    log_proba, observed, _ = sample(pair_transition(N_CLASSES, 0.3), 3000)
    expected = start(log_proba, observed)
    monkeypatch.setattr(many_classes, "_ELEMENTS_AT_ONCE", 100 * N_CLASSES)
    monkeypatch.setattr(many_classes, "_ROWS_OF_COMPONENTS", 3000)
    sizes = []

    def predict(rows):
        sizes.append(len(rows))
        return log_proba[rows]

    found = sparse_mixture_start(predict, observed, random_state=0)
    assert sizes == [3000] + [100] * 30
    assert_allclose(found.transition, expected.transition, atol=1e-3)


def test_labels_that_no_row_has_and_classes_that_no_row_is_predicted_to_be():
    log_proba, observed, _ = sample(pair_transition(N_CLASSES, 0.3))
    log_proba[:, 7] = -40.0
    observed[observed == 9] = 10
    found = start(log_proba, observed)
    assert np.isfinite(found.transition).all()
    assert_allclose(found.transition.sum(axis=1), 1.0)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
def test_classes_are_named_by_few_labels_as_by_many(order, scale):
    """Pairs that do not occur must not outweigh labels of small weight."""
    likeliest = np.eye(3)[order] > 0
    codes = np.flatnonzero(likeliest | (np.arange(9).reshape(3, 3) != 6))  # without (2, 0)
    counts = np.where(likeliest, 5.0, 1.0).ravel()[codes]
    pairs = many_classes._Pairs(codes, 3)
    named = pairs.renamed(scale * counts)
    assert_array_equal(named.true, np.array(order)[pairs.true])
    assert_array_equal(named.observed, pairs.observed)
    assert_array_equal(named.right, named.true == named.observed)


def test_scores_of_classes_are_computed_for_a_part_of_the_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 4)).astype(np.float32)
    candidates = np.argsort(rng.uniform(size=(300, 6)), axis=1)[:, :3]
    responsibility = rng.dirichlet(np.ones(3), 300)
    given = scores, candidates, responsibility, 6
    whole = many_classes._discriminant(*given)
    sizes, gen_batches = [], many_classes.gen_batches

    def noted(n, batch_size):
        sizes.append(batch_size)
        return gen_batches(n, batch_size)

    monkeypatch.setattr(many_classes, "_ELEMENTS_AT_ONCE", 3 * 4 * 25)
    monkeypatch.setattr(many_classes, "gen_batches", noted)
    assert_allclose(many_classes._discriminant(*given), whole, rtol=1e-5)
    assert sizes == [25]


def test_the_scores_tell_classes_as_a_discriminant_analysis_does():
    """Where every row is of one class for certain, up to a constant of each row."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    scores = (2.0 * np.eye(4)[y, :3] + rng.standard_normal((400, 3))).astype(np.float32)
    candidates = np.tile(np.arange(4), (400, 1))
    found = many_classes._discriminant(scores, candidates, np.eye(4)[y], 4)
    mean = np.array([scores[y == i].mean(axis=0) for i in range(4)])
    covariance = (scores - mean[y]).T @ (scores - mean[y]) / len(y)
    covariance += 0.02 * np.trace(covariance) / 3 * np.eye(3)
    distance = scores[:, None] - mean
    expected = np.log(np.bincount(y) / len(y)) - 0.5 * np.einsum(
        "tki,ij,tkj->tk", distance, np.linalg.inv(covariance), distance
    )
    found, expected = (log_softmax(values, axis=1) for values in (found, expected))
    assert_allclose(found, expected, atol=1e-3)
