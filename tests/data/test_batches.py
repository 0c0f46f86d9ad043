"""Batches hold every row once, in order, together with what belongs to it."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse
from torch.utils.data import DataLoader

from sknoisy._data.batches import ArrayBatches, ArrayDataset


def numbered(n, **kwargs):
    """Rows that carry their number in the data, the label and an extra."""
    X = np.arange(n, dtype=np.float32)[:, None] * [1.0, 10.0]
    return ArrayDataset(X, np.arange(n), **kwargs)


def labels(batches):
    return [y.tolist() for _, y in batches]


@given(
    n=st.integers(1, 70),
    batch_size=st.integers(1, 20),
    shuffle=st.booleans(),
    subset=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_row_comes_exactly_once_with_its_label_and_extras(
    n, batch_size, shuffle, subset, seed
):
    random = np.random.default_rng(seed)
    rows = random.permutation(n)[: max(1, n // 2)] if subset else None
    dataset = numbered(n, rows=rows, weight=np.arange(n) * 0.5, soft=np.arange(2 * n).reshape(n, 2))
    generator = torch.Generator().manual_seed(seed)
    batches = ArrayBatches(dataset, batch_size, shuffle=shuffle, generator=generator)
    seen = []
    for X, target in batches:
        y = target.numpy()
        assert_array_equal(X["X"], y[:, None] * np.array([1.0, 10.0]))
        assert_array_equal(X["weight"], 0.5 * y)
        assert_array_equal(X["soft"][:, 0], 2 * y)
        seen.append(y)
    expected = np.arange(n) if rows is None else rows
    if not shuffle:
        assert_array_equal(np.concatenate(seen), expected)
    assert_array_equal(np.sort(np.concatenate(seen)), np.sort(expected))
    assert len(seen) == len(batches)
    assert max(len(y) for y in seen) <= batch_size + 1


def test_batches_without_shuffling_are_slices_of_the_given_size():
    assert labels(ArrayBatches(numbered(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_last_row_alone_joins_the_batch_before_it_in_training():
    generator = torch.Generator().manual_seed(0)
    batches = ArrayBatches(numbered(7), 3, shuffle=True, generator=generator)
    assert [len(y) for _, y in batches] == [3, 4]
    assert len(batches) == 2
    assert [len(y) for _, y in ArrayBatches(numbered(8), 3, shuffle=True)] == [3, 3, 2]
    assert [len(y) for _, y in ArrayBatches(numbered(3), 1, shuffle=True)] == [1, 1, 1]


def test_no_rows_no_batches():
    batches = ArrayBatches(numbered(4, rows=np.array([], dtype=int)), 3, shuffle=True)
    assert len(batches) == 0
    assert list(batches) == []


def test_the_order_comes_from_the_given_generator_only():
    def passes(seed):
        generator = torch.Generator().manual_seed(seed)
        batches = ArrayBatches(numbered(40), 8, shuffle=True, generator=generator)
        return labels(batches), labels(batches)

    state = torch.get_rng_state()
    first, second = passes(0)
    assert passes(0) == (first, second)
    assert passes(1)[0] != first != second
    assert torch.equal(torch.get_rng_state(), state)


def test_without_shuffling_the_generator_is_not_used():
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    list(ArrayBatches(numbered(40), 8, generator=generator))
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("rows", [None, np.array([4, 0, 2, 2, 9])])
@pytest.mark.parametrize("shuffle", [True, False])
def test_sparse_batches_equal_dense_ones(container, rows, shuffle):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((10, 6)) * (rng.uniform(size=(10, 6)) < 0.3)
    results = []
    for X in (dense, container(dense)):
        generator = torch.Generator().manual_seed(0)
        dataset = ArrayDataset(X, np.arange(10), rows=rows)
        results.append(list(ArrayBatches(dataset, 3, shuffle=shuffle, generator=generator)))
    for (X, y), (sparse_X, sparse_y) in zip(*results, strict=True):
        assert isinstance(sparse_X, torch.Tensor)
        assert torch.equal(X, sparse_X)
        assert torch.equal(y, sparse_y)


def test_sparse_data_is_made_dense_a_batch_at_a_time(monkeypatch):
    sizes = []
    toarray = sparse.csr_array.toarray
    monkeypatch.setattr(
        sparse.csr_array, "toarray", lambda self: sizes.append(self.shape[0]) or toarray(self)
    )
    wide = sparse.csr_array((10, 2**18), dtype=np.float64)
    list(ArrayBatches(ArrayDataset(wide), 4))
    assert sizes == [4, 4, 2]
    sizes.clear()
    list(ArrayBatches(ArrayDataset(sparse.csr_array(np.eye(10))), 4))
    assert sizes == [10]  # a megabyte at most, cut into batches after that


def test_a_memory_map_is_not_copied_and_read_a_batch_at_a_time(tmp_path):
    X = np.memmap(tmp_path / "X.dat", dtype=np.float32, mode="w+", shape=(20, 3))
    X[:] = np.arange(60).reshape(20, 3)
    X.flush()
    mapped = np.memmap(tmp_path / "X.dat", dtype=np.float32, mode="r", shape=(20, 3))
    dataset = ArrayDataset(mapped, np.arange(20))
    assert dataset.data is mapped
    batches = [X for X, _ in ArrayBatches(dataset, 6)]
    assert_array_equal(torch.cat(batches), mapped)
    assert not np.shares_memory(batches[0].numpy(), mapped)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [None, np.arange(5)])
def test_read_only_arrays_raise_no_warning_and_stay_as_they_were(rows):
    X, y, weight = np.ones((10, 2)), np.arange(10), np.ones(10)
    for array in (X, y, weight, *([] if rows is None else [rows])):
        array.flags.writeable = False
    dataset = ArrayDataset(X, y, rows=rows, weight=weight)
    for batch, target in ArrayBatches(dataset, 4):
        batch["X"].zero_()
        batch["weight"].zero_()
        target.zero_()
    assert_array_equal(X, 1)
    assert_array_equal(weight, 1)
    assert_array_equal(y, np.arange(10))


def test_changing_a_batch_does_not_change_the_data():
    X, soft = np.ones((5, 2)), torch.ones(5, 2)
    for batch, _ in ArrayBatches(ArrayDataset(X, np.zeros(5, int), soft=soft), 5):
        batch["X"].zero_()
        batch["soft"].zero_()
    assert_array_equal(X, 1)
    assert_array_equal(soft, 1)


@pytest.mark.parametrize("rows", [None, np.array([5, 1, 3, 8])])
@pytest.mark.parametrize("extras", [{}, {"weight": np.arange(10) / 2}])
@pytest.mark.parametrize("kind", ["dense", "sparse", "tensor", "images"])
def test_a_data_loader_gives_the_same_batches(kind, extras, rows):
    X = np.random.default_rng(0).normal(size=(10, 4))
    X = {
        "dense": lambda: X,
        "sparse": lambda: sparse.csr_array(X),
        "tensor": lambda: torch.from_numpy(X),
        "images": lambda: X.reshape(10, 1, 2, 2),
    }[kind]()
    dataset = ArrayDataset(X, np.arange(10), rows=rows, **extras)
    pairs = list(zip(ArrayBatches(dataset, 3), DataLoader(dataset, batch_size=3), strict=True))
    assert len(pairs) == (4 if rows is None else 2)
    for (own, own_y), (loaded, loaded_y) in pairs:
        assert torch.equal(own_y, loaded_y)
        if extras:
            assert torch.equal(own["weight"], loaded["weight"])
            own, loaded = own["X"], loaded["X"]
        assert torch.equal(own, loaded)


@pytest.mark.parametrize("extras", [{}, {"weight": np.arange(10) / 2}])
def test_several_rows_at_once_are_the_rows_one_by_one(extras):
    dataset = numbered(10, rows=np.array([7, 1, 4]), **extras)
    one_by_one = [dataset[i] for i in (2, 0)]
    for (X, y), (expected, expected_y) in zip(
        dataset.__getitems__([2, 0]), one_by_one, strict=True
    ):
        assert torch.equal(y, expected_y)
        if extras:
            assert torch.equal(X["weight"], expected["weight"])
            X, expected = X["X"], expected["X"]
        assert torch.equal(X, expected)


@pytest.mark.parametrize("given", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("asked", [None, torch.float32, torch.float64])
def test_batches_have_the_dtype_asked_for_or_that_of_the_data(given, asked):
    X, _ = ArrayDataset(np.ones((3, 2), dtype=given), dtype=asked).take(slice(0, 2))
    assert X.dtype == (asked or torch.from_numpy(np.ones(1, dtype=given)).dtype)


def test_without_labels_the_targets_are_zero():
    _, y = ArrayDataset(np.ones((3, 2))).take(slice(0, 3))
    assert_array_equal(y, [0, 0, 0])
    assert ArrayDataset(np.ones((3, 2))).y is None


def test_a_dict_of_data_and_extras_is_taken_apart():
    X = np.arange(6.0).reshape(3, 2)
    batch, _ = ArrayDataset({"X": X, "weight": np.arange(3)}).take(np.array([2, 0]))
    assert_array_equal(batch["X"], X[[2, 0]])
    assert_array_equal(batch["weight"], [2, 0])


def test_the_arrays_of_a_subset_are_seen_under_the_names_that_callbacks_use():
    dataset = numbered(6, rows=np.array([4, 1]))
    assert len(dataset) == 2
    assert_array_equal(dataset.X[:, 0], [4, 1])
    assert_array_equal(dataset.y, [4, 1])
    assert_array_equal(numbered(6).y, np.arange(6))
    assert numbered(6).X.shape == (6, 2)


def test_a_copied_data_set_gives_the_same_rows():
    dataset = numbered(6, rows=np.array([4, 1]))
    for (X, y), (copied_X, copied_y) in zip(
        ArrayBatches(dataset, 2), ArrayBatches(copy.deepcopy(dataset), 2), strict=True
    ):
        assert torch.equal(X, copied_X)
        assert torch.equal(y, copied_y)
