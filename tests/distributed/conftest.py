"""Processes that the tests of this folder share."""

import pytest
import torch.distributed as dist
from workers import Workers

if not (dist.is_available() and dist.is_gloo_available()):
    collect_ignore_glob = ["test_*.py"]


def processes(size):
    pool = Workers(size)
    yield pool
    pool.end()


@pytest.fixture(scope="session")
def two():
    yield from processes(2)


@pytest.fixture(scope="session")
def three():
    yield from processes(3)


@pytest.fixture(scope="module")
def four():
    yield from processes(4)


@pytest.fixture
def pair():
    """Two processes that a test may kill."""
    yield from processes(2)
