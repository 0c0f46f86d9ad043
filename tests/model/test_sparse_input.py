"""The first layer for sparse data computes what a dense one computes, and so do its gradients."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.testing import assert_close

from sknoisy._data.sparse_rows import SparseRows
from sknoisy._model.sparse_input import SparseLinear

COLUMNS = np.array([1, 3, 4, 8, 11])
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def matrix(n_rows=6, columns=COLUMNS, seed=0):
    """Return rows with entries in some columns; the second is empty, an entry is stored twice."""
    rng = np.random.RandomState(seed)
    dense = np.zeros((n_rows, 12))
    dense[:, columns] = rng.randn(n_rows, len(columns)) * (rng.rand(n_rows, len(columns)) < 0.6)
    dense[1] = 0.0
    X = sparse.csr_array(dense)
    X.indices = np.append(X.indices, columns[0])
    X.data = np.append(X.data, 0.5)
    X.indptr[-1] += 1
    return X


def layer(dtype=torch.float64, columns=COLUMNS):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SparseLinear(12, 3, torch.as_tensor(columns)).to(dtype)


def dense_layer(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(12, 3).to(dtype)


@both_types
def test_weights_and_outputs_are_those_of_a_dense_layer(dtype):
    X, one, other = matrix(), layer(dtype), dense_layer(dtype)
    assert_close(one.weight, other.weight.T[COLUMNS], rtol=0, atol=0)
    assert_close(one.bias, other.bias, rtol=0, atol=0)
    dense = torch.as_tensor(X.toarray()).to(dtype)
    assert_close(one(SparseRows.of(X, dtype)), other(dense))
    assert_close(one(dense), other(dense))


@both_types
@pytest.mark.parametrize("dense", [False, True])
def test_gradients_are_those_of_autograd(dtype, dense):
    X, one = matrix(), layer(dtype)
    rows = torch.as_tensor(X.toarray()).to(dtype) if dense else SparseRows.of(X, dtype)
    gradient = torch.randn(6, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    one(rows).backward(gradient)
    expected = [one.weight.grad, one.bias.grad]
    one.set_gradients(rows, gradient)
    assert_close([one.weight.grad, one.bias.grad], expected)


def test_columns_without_weights_count_for_nothing():
    one = layer()
    known, unknown = matrix(), matrix(columns=np.array([0, 2, 5, 9, 10]), seed=1)
    both = sparse.csr_array(known + unknown)
    assert_close(one(SparseRows.of(both, torch.float64)), one(SparseRows.of(known, torch.float64)))
    nothing = SparseRows.of(unknown, torch.float64)
    assert_close(one(nothing), one.bias.expand(6, 3))
    gradient = torch.ones(6, 3, dtype=torch.float64)
    one.set_gradients(nothing, gradient)
    assert not one.weight.grad.any()


def test_a_layer_without_any_column_returns_its_bias():
    one = layer(columns=np.array([], dtype=int))
    rows = SparseRows.of(matrix(), torch.float64)
    assert_close(one(rows), one.bias.expand(6, 3))


def test_more_columns_start_at_zero_and_leave_the_others():
    one, before = layer(), layer()
    one.extend(np.array([0, 3, 9]))
    assert one.columns.tolist() == [0, 1, 3, 4, 8, 9, 11]
    rows = SparseRows.of(matrix(), torch.float64)
    assert_close(one(rows), before(rows))
    assert not one.weight[[0, 5]].any()
    assert_close(one.weight[[1, 2, 3, 4, 6]], before.weight)


def test_rows_of_another_width_are_refused():
    with pytest.raises(IndexError, match="expected 12 columns"):
        layer()(torch.ones(2, 11, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [[6], [1, 2, 3], [4, 1, 1], [0, 6]])
def test_parts_of_rows_are_those_rows(sizes):
    X = matrix()
    parts = SparseRows.of(X, torch.float64).split(sizes)
    assert [len(part) for part in parts] == sizes
    one, edges = layer(), np.cumsum([0, *sizes])
    for part, first, last in zip(parts, edges[:-1], edges[1:], strict=True):
        assert part.shape == (last - first, 12)
        dense = torch.as_tensor(X.toarray()[first:last])
        assert_close(one(part), one(dense))
        assert_close(part.rows.bincount(minlength=len(part)), part.bounds.diff())
