"""Starts where the rows of a class are too few for all entries of its row of the matrix."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from sknoisy._transition.calibration import (
    are_few_rows,
    fit_sparse_noise,
    parts,
    sharpen,
    shrunk_to_pooled_noise,
)
from sknoisy._transition.starts import sparse_start
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import block_transition, corrupt_labels, pair_transition, uniform_transition

K = 20


def few_rows(transition, per_class=20, seed=0, spread=1.5):
    """Return clean log-probabilities that are right how often they say, and noisy labels."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(transition)), per_class)
    scores = 4.0 * np.eye(len(transition))[y] + spread * rng.standard_normal((len(y), K))
    observed = corrupt_labels(y, transition, classes=np.arange(K), random_state=seed)
    return log_softmax(4.0 / spread**2 * scores, axis=1), observed


def error(found, transition):
    return transition_matrix_error(found.transition, transition)


@pytest.mark.parametrize(
    ("n_samples", "n_classes", "expected"),
    [(1040, 26, True), (2599, 26, True), (2600, 26, False), (359, 10, True), (360, 10, False)],
)
def test_few_are_less_than_four_rows_an_entry_and_a_hundred_a_class(n_samples, n_classes, expected):
    assert are_few_rows(n_samples, n_classes) is expected


@pytest.mark.parametrize("seed", range(3))
def test_one_wrong_label_a_class_is_found_from_twenty_rows(seed):
    transition = pair_transition(K, 0.4)
    log_proba, observed = few_rows(transition, seed=seed)
    sparse = fit_sparse_noise(log_proba, observed)
    assert error(sparse, transition) < 0.1
    assert error(sparse, transition) < 0.6 * error(
        shrunk_to_pooled_noise(log_proba, observed, random_state=0), transition
    )
    wrong = sparse.transition - np.diag(np.diag(sparse.transition))
    assert np.mean(wrong.argmax(axis=1) == (np.arange(K) + 1) % K) >= 0.9
    assert_allclose(sparse.transition.sum(axis=1), 1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("judged", [None, np.arange(K * 40) % 7 == 0], ids=["in turn", "named"])
def test_groups_of_classes_are_found_that_are_confused_with_one_another(seed, judged):
    transition = block_transition(np.arange(K) // 3, 0.4)
    log_proba, observed = few_rows(transition, 40, seed=seed)
    found = sparse_start(log_proba, observed, judged=judged, random_state=seed)
    rows = slice(None) if judged is None else ~judged
    directed = fit_sparse_noise(log_proba[rows], observed[rows])
    symmetric = fit_sparse_noise(log_proba[rows], observed[rows], symmetric=True)
    assert_array_equal(found.transition, symmetric.transition)
    assert error(found, transition) < 0.75 * error(directed, transition)
    found_directed = sparse_start(
        log_proba, observed, may_be_symmetric=False, judged=judged, random_state=seed
    )
    assert_array_equal(found_directed.transition, directed.transition)
    assert_allclose(found.transition.sum(axis=1), 1.0)


def test_weights_count_where_groups_of_classes_are_judged():
    confused, rotated = block_transition(np.arange(K) // 3, 0.4), pair_transition(K, 0.4)
    of_groups, of_pairs = few_rows(confused, 40, seed=0), few_rows(rotated, 40, seed=1)
    rows = [np.concatenate(both) for both in zip(of_groups, of_pairs, strict=True)]
    for first, transition in ((20.0, confused), (0.05, rotated)):
        weight = np.repeat([first, 1.0], K * 40)
        judged = np.arange(len(weight)) % 5 == 0
        found = sparse_start(*rows, weight, judged=judged, random_state=0)
        assert error(found, transition) < 0.25


def test_sharpness_and_rate_are_fitted_with_it():
    transition = pair_transition(K, 0.3)
    log_proba, observed = few_rows(transition, 60)
    found = fit_sparse_noise(log_softmax(0.3 * log_proba, axis=1), observed)
    assert 1 / 0.3 * 0.6 < found.sharpness < 1 / 0.3 * 1.6
    assert 0.22 < (1 - np.diag(found.transition)).mean() < 0.36


@pytest.mark.parametrize("transition", [uniform_transition(K, 0.4), np.eye(K)])
def test_labels_that_were_left_out_tell_when_wrong_labels_are_not_one_a_class(transition):
    log_proba, observed = few_rows(transition)
    sparse = sparse_start(log_proba, observed, random_state=0)
    pooled = shrunk_to_pooled_noise(log_proba, observed, random_state=0)
    assert pooled.left_out.mean() > sparse.left_out.mean() - 1e-3
    assert sparse.optimism > -1e-3
    paired = few_rows(pair_transition(K, 0.4))
    sparse = sparse_start(*paired, random_state=0)
    assert sparse.left_out.mean() > shrunk_to_pooled_noise(*paired, random_state=0).left_out.mean()


def test_each_label_is_judged_by_a_fit_that_did_not_see_it():
    log_proba, observed = few_rows(pair_transition(K, 0.4))
    found = sparse_start(log_proba, observed, random_state=3)
    out = parts(len(observed), 3) == 2
    other = fit_sparse_noise(log_proba[~out], observed[~out])
    clean = log_softmax(other.sharpness * log_proba[out], axis=1)
    expected = np.log((np.exp(clean) * other.transition.T[observed[out]]).sum(axis=1))
    assert_allclose(found.left_out[out], expected, rtol=1e-6)
    within = sharpen(log_proba, np.log(found.transition).T[observed]).log_likelihood.mean()
    assert found.optimism == pytest.approx(found.log_likelihood - found.left_out.mean())
    assert found.log_likelihood == pytest.approx(within, abs=2e-3)


def test_rows_that_judge_may_be_named():
    log_proba, observed = few_rows(pair_transition(K, 0.4))
    judged = np.arange(len(observed)) % 7 == 0
    found = sparse_start(log_proba, observed, judged=judged)
    assert found.left_out.shape == (judged.sum(),)
    others = fit_sparse_noise(log_proba[~judged], observed[~judged])
    assert_allclose(found.transition, others.transition)  # which is not estimated from them
    column = np.log(found.transition).T[observed[judged]]
    assert_allclose(found.left_out, sharpen(log_proba[judged], column).log_likelihood)
    assert found.optimism == 0.0


def test_rows_are_shrunk_as_strongly_as_few_labels_ask_for():
    uniform, sparse = uniform_transition(K, 0.4), pair_transition(K, 0.4)
    found = shrunk_to_pooled_noise(*few_rows(uniform), random_state=0)
    assert error(found, uniform) < 0.1
    assert found.left_out.shape == (K * 20,)
    found = shrunk_to_pooled_noise(*few_rows(sparse), random_state=0)
    assert error(found, sparse) < 0.3  # the pooled rate has .38
    many = shrunk_to_pooled_noise(*few_rows(uniform, 100), random_state=0)
    assert many.left_out is None


@pytest.mark.parametrize("fit", [fit_sparse_noise, shrunk_to_pooled_noise])
def test_a_row_of_weight_zero_is_no_row(fit):
    transition = pair_transition(K, 0.4)
    log_proba, observed = few_rows(transition, 30)
    weight = np.random.default_rng(0).integers(0, 2, len(observed)).astype(float)
    seen = weight > 0
    weighted, without = fit(log_proba, observed, weight), fit(log_proba[seen], observed[seen])
    assert_allclose(weighted.transition, without.transition, atol=0.05)
    ignored = fit(log_proba, observed)
    assert np.abs(ignored.transition - without.transition).max() > 0.05
