"""Counts of checked rows, and what they say of matrices."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from sknoisy._transition.trusted import (
    and_supposed,
    contradict,
    named_by_counts,
    trusted_counts,
)
from sknoisy.noise import pair_transition


def test_predictions_are_counted_by_true_class_and_weight():
    proba = np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    counts = trusted_counts(proba, np.array([1, 0, 1]), np.array([1.0, 2.0, 3.0]))
    assert_allclose(counts, [[0.6, 1.4], [2.0, 2.0]])


def test_many_checked_rows_name_the_classes_and_a_single_one_does_not():
    true = 0.5 * pair_transition(4, 0.7) + 0.5 / 4
    shifted = np.roll(true, 1, axis=0)
    assert_array_equal(named_by_counts(shifted, 40 * true), true)
    one = np.zeros((4, 4))
    one[0] = true[0]
    assert_array_equal(named_by_counts(shifted, one), shifted)
    assert_array_equal(named_by_counts(shifted, np.zeros((4, 4))), shifted)


def test_a_matrix_with_two_wrong_rows_contradicts_counts():
    true = pair_transition(5, 0.4)
    wrong = true.copy()
    wrong[[0, 2]] = true[[2, 0]]
    counts = 12 * true
    assert contradict(counts, wrong)
    assert not contradict(counts, true)
    assert not contradict(counts, pair_transition(5, 0.3))  # twelve rows do not tell these two


def test_two_rows_of_each_class_are_supposed():
    supposed = and_supposed(np.zeros((3, 3)), np.eye(3))
    assert_array_equal(supposed, 2 * np.eye(3))
