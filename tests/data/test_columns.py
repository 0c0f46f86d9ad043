"""Mean and scale of columns, however the rows come."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sknoisy._data import columns
from sknoisy._data.columns import ColumnStatistics


def table(n_rows=120, seed=0):
    """Return columns of different means and scales, one of them constant, one nearly."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, 5)) * [1.0, 1e-3, 1e4, 0.0, 0.0] + [0.0, 5.0, -1e4, 3.0, 0.0]
    X[7, 4] = 200.0
    return X


def assert_same(one, other, rtol=1e-9):
    for mine, theirs in zip(one, other, strict=True):
        assert_allclose(mine, theirs, rtol=rtol, atol=1e-12)


def column_statistics(X, weight):
    return chunks(X, [X.shape[0]], weight)


def chunks(X, sizes, weight=None):
    statistics = ColumnStatistics()
    edges = np.cumsum([0, *sizes])
    for start, end in itertools.pairwise(edges):
        statistics.update(X[start:end], None if weight is None else weight[start:end])
    return statistics.mean, statistics.scale


def test_mean_and_scale_are_those_of_their_definition():
    X = table()
    mean, scale = column_statistics(X, None)
    assert_allclose(mean, X.mean(axis=0), atol=1e-12)
    expected = np.maximum(X.std(axis=0), np.ptp(X, axis=0) / 5)
    expected[3] = np.inf
    assert_allclose(scale, expected, rtol=1e-9)
    assert scale[4] == 40.0  # one row of 120 differs: the range decides


def test_no_standardised_column_spans_more_than_five_units():
    X = table()
    mean, scale = column_statistics(X, None)
    assert np.ptp((X - mean) / scale, axis=0).max() <= 5 + 1e-9
    assert ((X - mean) / scale).std(axis=0).max() <= 1 + 1e-9


@pytest.mark.parametrize("sizes", [[60, 60], [1, 119], [1, 1, 50, 68], [40] * 3])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_chunks_give_what_the_whole_gives(sizes, kind):
    X = table()
    assert_same(chunks(kind(X), sizes), column_statistics(X, None))


def test_parts_that_fit_in_memory_give_what_the_whole_gives(monkeypatch):
    X = table()
    expected = column_statistics(X, None)
    monkeypatch.setattr(columns, "_NUMBERS_AT_ONCE", {"dense": 200, "sparse": 50})
    assert_same(column_statistics(X, None), expected)
    weight = np.linspace(0.5, 1.5, len(X))
    by_parts = column_statistics(X, weight)
    monkeypatch.undo()
    assert_same(by_parts, column_statistics(X, weight))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("sizes", [[120], [30, 90]])
def test_weight_two_is_the_row_twice(kind, sizes):
    X = table()
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    expected = column_statistics(np.repeat(X, weight, axis=0), None)
    assert_same(chunks(kind(X), sizes, weight.astype(float)), expected)
    assert np.abs(expected[0] - X.mean(axis=0)).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csr_gives_what_dense_gives(dtype):
    X = table().astype(dtype)
    X[np.abs(X) < 0.5] = 0.0
    assert_same(column_statistics(sparse.csr_array(X), None), column_statistics(X, None), 1e-5)


def test_single_precision_gives_what_double_gives():
    X = table()
    assert_same(column_statistics(X.astype(np.float32), None), column_statistics(X, None), 1e-3)


def test_a_constant_column_has_an_infinite_scale():
    for value in (0.0, 7.0, -1e6):
        mean, scale = column_statistics(np.full((20, 2), value), None)
        assert_array_equal(scale, np.inf)
        assert_allclose(mean, value)
    for kind in (np.asarray, sparse.csr_array):
        assert_array_equal(column_statistics(kind(np.ones((1, 3))), None)[1], np.inf)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_weighted_constant_columns_have_an_infinite_scale_and_give_no_warning(kind):
    for seed in range(5):
        weight = np.random.default_rng(seed).uniform(0.5, 2.0, 120)
        X = np.tile([3.3, -1e4 + 0.1, 1e-3], (120, 1))
        mean, scale = column_statistics(kind(X), weight)
        assert_array_equal(scale, np.inf)
        assert_allclose(mean, X[0])


def test_a_column_that_becomes_constant_no_more_gets_its_scale():
    X = np.r_[np.ones((10, 1)), np.zeros((10, 1))]
    assert_same(chunks(X, [10, 10]), column_statistics(X, None))


def test_images_are_flattened():
    X = np.random.default_rng(0).standard_normal((30, 2, 3, 4))
    mean, scale = column_statistics(X, None)
    assert mean.shape == scale.shape == (24,)
    assert_same((mean, scale), column_statistics(X.reshape(30, 24), None))


def test_integers_do_not_overflow():
    X = np.array([[0], [255]], dtype=np.uint8)
    mean, scale = column_statistics(X, None)
    assert_allclose([mean, scale], [[127.5], [127.5]])
