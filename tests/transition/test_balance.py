"""One wrong label a class from predictions that give the rows of one class to another one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax

from sknoisy._transition.calibration import fit_sparse_noise, parts, raise_to
from sknoisy._transition.starts import sparse_start
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels, pair_transition

K, N = 12, 30
TRANSITION = pair_transition(K, 0.4)


def collapsed(seed=0):
    """Return log-probabilities of a network that takes most rows of classes 4 and 8 for 3 and 7."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(K), N)
    scores = 5.0 * np.eye(K)[y] + rng.standard_normal((len(y), K))
    for gone, taken in ((4, 3), (8, 7)):
        scores[y == gone, taken] += 10.0
    observed = corrupt_labels(y, TRANSITION, classes=np.arange(K), random_state=seed)
    return log_softmax(scores, axis=1), observed


def targets(found):
    wrong = found.transition - np.diag(np.diag(found.transition))
    return wrong.argmax(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_a_class_gets_its_rows_back_before_its_wrong_label_is_sought(seed):
    log_proba, observed = collapsed(seed)
    confirmed = fit_sparse_noise(log_proba, observed)
    balanced = fit_sparse_noise(log_proba, observed, balanced=True)
    right = (np.arange(K) + 1) % K
    assert (targets(confirmed) != right).sum() >= 2
    assert (targets(balanced) != right).sum() <= 1
    errors = [transition_matrix_error(f.transition, TRANSITION) for f in (confirmed, balanced)]
    assert errors[1] < 0.7 * errors[0]
    assert balanced.offset[4] > balanced.offset[3]
    assert balanced.offset[8] > balanced.offset[7]


def test_classes_are_as_frequent_as_their_labels_also_with_weights():
    log_proba, observed = collapsed()
    weight = np.where(observed < 6, 3.0, 1.0)
    for of_rows in (None, weight):
        found = fit_sparse_noise(log_proba, observed, of_rows, balanced=True)
        mean = np.average(np.exp(found.clean_log_proba), axis=0, weights=of_rows)
        share = np.bincount(observed, of_rows) / (
            len(observed) if of_rows is None else weight.sum()
        )
        assert_allclose(mean, share, atol=0.01)


def test_without_balance_nothing_is_added():
    found = fit_sparse_noise(*collapsed())
    assert_allclose(found.offset, 0.0)


def test_left_out_labels_are_judged_with_the_factors_of_the_others():
    log_proba, observed = collapsed()
    found = sparse_start(log_proba, observed, balanced=True, random_state=3)
    out = parts(len(observed), 3) == 2
    other = fit_sparse_noise(log_proba[~out], observed[~out], balanced=True)
    clean = raise_to(log_proba[out] + other.offset, other.sharpness)
    expected = np.log((np.exp(clean) * other.transition.T[observed[out]]).sum(axis=1))
    assert_allclose(found.left_out[out], expected, rtol=1e-6)


def test_rows_that_judge_may_be_named():
    log_proba, observed = collapsed()
    judged = np.arange(len(observed)) % 5 == 0
    found = sparse_start(log_proba, observed, balanced=True, judged=judged)
    without = sparse_start(log_proba, observed, judged=judged)
    assert found.left_out.shape == (judged.sum(),)
    assert np.abs(found.left_out - without.left_out).max() > 0.1
