"""The parts of a fit in several processes, here without any group."""

import itertools

import numpy as np
import pytest
import torch
from fits import Items
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.utils.data import DataLoader

from sknoisy._data.batches import ArrayBatches, ArrayDataset
from sknoisy._data.columns import ColumnStatistics
from sknoisy._data.fetched_rows import FetchedDataset
from sknoisy._data.indexable import IndexableDataset
from sknoisy._distributed.batch_norm import synchronised_batch_norm
from sknoisy._distributed.batches import shared_batches
from sknoisy._distributed.gradients import GradientMean
from sknoisy._distributed.group import ALONE, Group, ProcessGroup
from sknoisy._distributed.shares import Share


class Pretended(Group):
    """One of several processes, which hears as much from the others as it has to say."""

    def __init__(self, rank, size):
        self.rank = rank
        self.size = size

    def add_up(self, values):
        values *= self.size


def test_gradients_keep_their_value_and_what_has_none_stays_without():
    weights = [
        nn.Parameter(torch.ones(2, 3)),
        nn.Parameter(torch.ones(2, dtype=torch.complex64)),
        nn.Parameter(torch.ones(3, dtype=torch.float16)),
        nn.Parameter(torch.ones(4)),
        nn.Parameter(torch.ones(4), requires_grad=False),
    ]
    gradients = [torch.randn_like(weight) for weight in weights]
    for weight, gradient in zip(weights[:3], gradients, strict=False):
        weight.grad = gradient.clone()
    mean = GradientMean(Pretended(0, 3), weights)
    loss = mean(torch.tensor(2.5), 7)
    assert float(loss) == pytest.approx(2.5)
    assert int(mean.n_rows) == 21
    for weight, gradient in zip(weights[:3], gradients, strict=False):
        assert_allclose(weight.grad.numpy(), gradient.numpy(), rtol=2e-3)
        assert weight.grad.shape == weight.shape
        assert weight.grad.dtype == weight.dtype
    assert weights[3].grad is None
    assert weights[4].grad is None


def test_a_process_without_rows_gives_zeros():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), torch.nan)  # of nothing
    mean = GradientMean(Pretended(0, 2), [weight])
    mean._messages[torch.float32, torch.device("cpu")].write(torch.tensor(torch.nan), 0)
    assert_array_equal(mean._messages[torch.float32, torch.device("cpu")].content, torch.zeros(6))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("held", [False, True])
def test_parts_of_batches_make_the_batches(size, held):
    """Each row is in the part of one process, and the order is that of one process."""
    X, n_rows, batch_size = np.arange(100.0)[:, None], 100, 12
    bounds = np.linspace(0, n_rows, size + 1).astype(int) ** 2 // n_rows
    parts = []
    for rank in range(size):
        first, stop = (bounds[rank], bounds[rank + 1]) if held else (None, n_rows)
        data = X[first:stop]
        dataset = ArrayDataset(
            data, np.arange(n_rows), rows=np.arange(n_rows) if held else None, first=first
        )
        generator = torch.Generator().manual_seed(0)
        batches = shared_batches(
            ArrayBatches, dataset, {"batch_size": batch_size}, generator, "cpu",
            Pretended(rank, size),
        )  # fmt: skip
        parts.append([(X.flatten().tolist(), y.tolist()) for X, y in batches])
        assert len(parts[-1]) == len(batches) == -(-n_rows // (size * batch_size))
    whole = ArrayBatches(
        ArrayDataset(X, np.arange(n_rows)),
        size * batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )
    for (rows, _), *shares in zip(whole, *parts, strict=True):
        together = [row for share, _ in shares for row in share]
        assert sorted(together) == sorted(rows.flatten().tolist())
        assert all(share == labels for share, labels in shares)
        if not held:
            assert together == rows.flatten().tolist()


def test_a_loader_is_not_asked_for_batches_without_rows():
    dataset = FetchedDataset(
        IndexableDataset(Items(slice(0, 5))), np.arange(9), rows=np.arange(9), first=4
    )
    batches = shared_batches(
        DataLoader, dataset, {"batch_size": 1}, torch.Generator().manual_seed(1), "cpu",
        Pretended(0, 2),
    )  # fmt: skip
    for _ in range(2):
        found = [(len(X["X"]), y.tolist()) for X, y in batches]
        assert sorted(row for _, rows in found for row in rows) == [4, 5, 6, 7, 8]
        assert all(n_rows == len(rows) for n_rows, rows in found)
        assert len(found) == len(batches) == 4


def test_statistics_of_parts_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    X = rng.normal([1e4, 0.0, 1.0, 3.0], [1.0, 2.0, 0.0, 1e-9], (60, 4))
    weight = rng.uniform(0.1, 3.0, 60)
    whole, merged = ColumnStatistics(), ColumnStatistics()
    whole.update(X, weight)
    parts = [ColumnStatistics() for _ in range(3)]
    for part, rows in zip(parts, (slice(0, 7), slice(7, 7), slice(7, 60)), strict=True):
        if rows.start < rows.stop:
            part.update(X[rows], weight[rows])
    merged.merge(parts)
    assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    assert_allclose(merged.scale, whole.scale, rtol=1e-6)
    for statistics in (whole, merged):
        statistics.update(X + 1.0, weight)
    assert_allclose(merged.scale, whole.scale, rtol=1e-6)


def test_batch_normalisation_of_one_process_is_left_alone():
    module = nn.Sequential(nn.BatchNorm1d(3))
    with synchronised_batch_norm(module, ALONE) as found:
        assert not found
        assert "forward" not in vars(module[0])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_normalisation_is_torchs(momentum):
    """Of processes with the same rows it is that of one of them, but for the running variance."""
    torch.manual_seed(0)
    X = torch.randn(6, 3, 2, dtype=torch.float64, requires_grad=True)
    expected = nn.BatchNorm1d(3, momentum=momentum).double()
    synchronised = nn.BatchNorm1d(3, momentum=momentum).double()
    for _ in range(2):
        Y = expected(X)
    (by_torch,) = torch.autograd.grad(Y.square().sum() + Y[0].sum(), X)
    with synchronised_batch_norm(nn.Sequential(synchronised), Pretended(0, 2)) as found:
        assert found
        for _ in range(2):
            Z = synchronised(X)
        (gradient,) = torch.autograd.grad(Z.square().sum() + Z[0].sum(), X)
    assert "forward" not in vars(synchronised)
    assert_allclose(Z.detach(), Y.detach(), atol=1e-12)
    assert_allclose(gradient, by_torch, atol=1e-12)
    assert_allclose(synchronised.running_mean, expected.running_mean, atol=1e-12)
    assert int(synchronised.num_batches_tracked) == 2
    synchronised.eval()
    with synchronised_batch_norm(nn.Sequential(synchronised), Pretended(0, 2)):
        evaluated = synchronised(X)
    assert_allclose(evaluated.detach(), synchronised(X).detach(), atol=1e-12)


class Work:
    """A collective that ends in the moment after a wait for it has run out."""

    def __init__(self, error=None):
        self.error = error
        self.n_waits = 0

    def wait(self, *timeout):
        self.n_waits += 1
        if timeout:
            raise RuntimeError("Operation timed out!")
        if self.error is not None:
            raise self.error

    def is_completed(self):
        return self.n_waits > 1


def one_of_two(work, on_loss):
    group = object.__new__(ProcessGroup)
    vars(group).update(channel=None, on_loss=on_loss, phase="in a test", _work=None)
    group._run(lambda tensor, **params: work, torch.zeros(1))


def test_what_ends_just_when_a_wait_runs_out_is_no_loss():
    work = Work()
    one_of_two(work, lambda error, phase: pytest.fail(str(error)))
    assert work.n_waits == 3


def test_an_error_of_what_ends_just_when_a_wait_runs_out_is_told():
    told = []
    one_of_two(Work(RuntimeError("closed")), lambda error, phase: told.append((str(error), phase)))
    assert told == [("closed", "in a test")]


def test_a_pass_is_split_into_rows_that_follow_each_other():
    shares = [Share(Pretended(rank, 4), None, 10).of_pass().tolist() for rank in range(4)]
    assert list(itertools.chain(*shares)) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
