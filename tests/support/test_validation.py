"""Each refusal names the parameter, what was expected and what came."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator

from sknoisy._support.validation import (
    check_features,
    check_labels,
    check_routed,
    check_transition_matrix,
    check_two_classes,
    check_weights,
    class_indices,
    encode_labels,
)


class Estimator(BaseEstimator):
    """Something that features are checked for."""


def fitted_on(X):
    estimator = Estimator()
    check_features(estimator, X, reset=True)
    return estimator


# --- Features -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"), [("f4", "f4"), ("f8", "f8"), ("i8", "f4"), ("u1", "f4"), ("f2", "f4")]
)
def test_floating_point_data_keeps_its_dtype_and_the_rest_becomes_single(given, kept):
    assert check_features(Estimator(), np.ones((3, 2), dtype=given), reset=True).dtype == kept


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 4, 4), (3, 5, 2)])
def test_data_of_any_rank_is_taken(shape):
    assert check_features(Estimator(), np.ones(shape), reset=True).shape == shape


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csr_matrix, sparse.coo_array])
def test_sparse_data_becomes_csr(container):
    X = check_features(Estimator(), container(np.eye(3)), reset=True)
    assert X.format == "csr"


def test_names_and_number_of_features_are_stored():
    estimator = fitted_on(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    assert estimator.n_features_in_ == 2
    assert_array_equal(estimator.feature_names_in_, ["a", "b"])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[np.nan, 1.0]], "Input X contains NaN"),
        ([[np.inf, 1.0]], "Input X contains infinity"),
        ([1.0, 2.0], "Expected 2D array, got 1D array instead"),
        (np.empty((0, 2)), r"Found array with 0 sample\(s\)"),
        ([["a", "b"]], "could not convert string to float"),
        (np.array([[1j, 2.0]]), "Complex data not supported"),
    ],
)
def test_data_that_no_network_can_take_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        check_features(Estimator(), X, reset=True)


def test_values_too_large_for_single_precision_are_refused():
    with pytest.raises(ValueError, match="infinity or a value too large for dtype"):
        check_features(Estimator(), [[1e300, 1.0]], reset=True)


def test_other_columns_in_prediction_are_refused():
    estimator = fitted_on(np.ones((4, 2)))
    with pytest.raises(ValueError, match="X has 3 features, but Estimator is expecting 2"):
        check_features(estimator, np.ones((4, 3)), reset=False)


def test_other_names_in_prediction_are_refused():
    estimator = fitted_on(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    with pytest.raises(ValueError, match="feature names should match those that were passed"):
        check_features(estimator, pd.DataFrame({"a": [1.0], "c": [2.0]}), reset=False)


def test_rows_of_another_shape_in_prediction_are_refused():
    estimator = fitted_on(np.ones((4, 1, 8, 8)))
    message = r"X has rows of shape \(1, 4, 4\), but Estimator was fitted on rows of shape \(1, 8"
    with pytest.raises(ValueError, match=message):
        check_features(estimator, np.ones((4, 1, 4, 4)), reset=False)


# --- Labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y", [[0, 1, 5], ["a", "b", "a"], [True, False, True], pd.Series(["x", "y", "x"])]
)
def test_labels_of_any_kind_are_taken(y):
    assert_array_equal(check_labels(y, np.ones((3, 1))), np.asarray(y))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.5, 1.2, 3.1], "Unknown label type: continuous"),
        ([0.0, np.nan, 1.0], "Input y contains NaN"),
        ([0, 1], "inconsistent numbers of samples"),
        ([[0, 1], [1, 0], [1, 1]], "should be a 1d array"),
    ],
)
def test_labels_without_meaning_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        check_labels(y, np.ones((3, 1)))


def test_labels_that_cannot_be_sorted_are_refused_with_their_types():
    with pytest.raises(TypeError, match=r"`y` must .* uniformly strings or numbers: got int, str"):
        check_labels(np.array(["a", 1, "b"], dtype=object), np.ones((3, 1)))


def test_one_class_is_refused():
    check_two_classes(np.array([0, 1]))
    with pytest.raises(ValueError, match=r"`y` must have at least 2 classes .* got 1 class: \['a'"):
        check_two_classes(np.array(["a"]))


@given(
    classes=st.lists(st.one_of(st.integers(-5, 5)), min_size=1, unique=True),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_encoding_is_undone_by_the_classes(classes, seed):
    classes = np.array(classes)
    y = np.random.default_rng(seed).choice(classes, size=20)
    assert_array_equal(classes[encode_labels(y, classes)], y)
    position = class_indices(y, classes[1:])
    assert_array_equal(position, np.where(y == classes[0], -1, encode_labels(y, classes) - 1))


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (["a", "c"], ["a", "b"], r"`y` must hold labels seen in fit, \['a', 'b'\]; got \['c'\]"),
        ([0, 7, 9, 7], [0, 1], r"`y` must hold labels seen in fit, \[0, 1\]; got \[7, 9\]"),
        ([0, 1], ["a", "b"], r"`y` must hold labels seen in fit, \['a', 'b'\]; got \[0, 1\]"),
    ],
)
def test_unseen_labels_are_named(y, classes, message):
    with pytest.raises(ValueError, match=message):
        encode_labels(y, np.array(classes))


# --- Weights ------------------------------------------------------------------------------------


def test_weights_are_kept_unless_all_are_the_same():
    X = np.ones((3, 1))
    assert check_weights(None, X) is None
    assert check_weights([2, 2, 2], X) is None
    assert_array_equal(check_weights([0, 1, 2], X), [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([-1, 1, 1], "Negative values in data passed to `sample_weight`"),
        ([np.nan, 1, 1], "Input sample_weight contains NaN"),
        ([np.inf, 1, 1], "Input sample_weight contains infinity"),
        ([0, 0, 0], "zero"),
        ([1, 1], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        ([[1], [1], [1]], "Sample weights must be 1D"),
        (["a", "b", "c"], "`sample_weight` must hold a number for each row.*: could not convert"),
    ],
)
def test_weights_without_meaning_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weight, np.ones((3, 1)))


# --- Transition matrices ------------------------------------------------------------------------


def test_a_transition_matrix_comes_back_as_a_normalised_copy():
    given = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    transition = check_transition_matrix(given, 2, "transition_init")
    assert transition.dtype == np.float64
    assert_allclose(transition.sum(axis=1), 1.0, rtol=1e-15)
    transition[:] = 0.0
    assert_array_equal(given, np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32))


@pytest.mark.parametrize("rounded", [[[0.3333, 0.3333, 0.3333]] * 3, [[0.333, 0.333, 0.334]] * 3])
def test_rows_that_were_rounded_are_normalised(rounded):
    transition = check_transition_matrix(rounded, 3)
    assert_allclose(transition.sum(axis=1), 1.0, rtol=1e-15)


def test_a_data_frame_is_a_transition_matrix():
    frame = pd.DataFrame(np.eye(2), index=["a", "b"], columns=["a", "b"])
    assert_array_equal(check_transition_matrix(frame, 2), np.eye(2))


def test_one_matrix_per_sample_is_taken_where_it_is_asked_for():
    per_sample = np.broadcast_to(np.eye(2), (5, 2, 2))
    assert check_transition_matrix(per_sample, n_samples=5).shape == (5, 2, 2)
    assert check_transition_matrix(np.eye(2), n_samples=5).shape == (2, 2)


@pytest.mark.parametrize(
    ("matrix", "arguments", "message"),
    [
        (np.eye(3), {"n_classes": 2}, r"have shape \(2, 2\), a row for .* got shape \(3, 3\)\."),
        (np.ones((2, 3)), {}, r"have shape \(true, observed\), a row .* got shape \(2, 3\)\."),
        ([1.0, 2.0], {}, r"have shape .* got shape \(2,\)\."),
        (1.0, {}, r"have shape .* got shape \(\)\."),
        (np.eye(0), {}, r"have shape .* got shape \(0, 0\)\."),
        (np.ones((4, 2, 2)), {}, r"have shape \(true, observed\), a row .* \(4, 2, 2\)\."),
        (
            np.ones((4, 2, 2)),
            {"n_samples": 3},
            r"have shape \(true, observed\) or \(3, true, observed\), .* \(4, 2, 2\)\.",
        ),
        ([[np.nan, 1.0], [0.0, 1.0]], {}, "be finite and non-negative; got values from nan"),
        ([[np.inf, 1.0], [0.0, 1.0]], {}, "be finite and non-negative; got values from 0 to inf"),
        ([[1.5, -0.5], [0, 1]], {}, "be finite and non-negative; got values from -0.5 to 1.5"),
        (
            [[0.9, 0.2], [0.1, 0.8]],
            {},
            r"rows \(true classes\) that sum to one; got sums from 0.9 to 1.1.* transpose",
        ),
        ([["a", "b"], ["c", "d"]], {}, "be a matrix of numbers: could not convert string"),
        ([[1.0], [0.5, 0.5]], {}, "be a matrix of numbers: "),
        (sparse.csr_array(np.eye(2)), {}, "be a matrix of numbers: "),
        (None, {}, r"have shape|be a matrix of numbers"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(matrix, arguments, message):
    with pytest.raises(ValueError, match=f"^`transition_init` must (have )?({message})"):
        check_transition_matrix(matrix, name="transition_init", **arguments)


# --- Parameters of parts ------------------------------------------------------------------------


def test_parameters_of_no_part_are_named():
    check_routed(["module__width", "optimizer__weight_decay", "iterator_train__num_workers"])
    message = r"Unknown parameter\(s\) batch, modul__width: .* one of module__, optimizer__"
    with pytest.raises(ValueError, match=message):
        check_routed(["modul__width", "batch", "module__width"])
