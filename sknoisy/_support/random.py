"""Seeding that leaves the global generators of numpy and torch as they were."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits

_MAX_SEED = np.iinfo(np.int32).max
_BETWEEN_SEEDS = 1_000_003

# torch's default generators belong to the process: dropout in one thread would draw from the
# seed of another. Fits in threads therefore take turns.
_generators = threading.RLock()
_computed = False


def note_computation() -> None:
    """Remember that this process has computed, perhaps with threads."""
    global _computed
    _computed = True


def _in_forked_process() -> None:
    """Put right what a fork breaks.

    A lock that another thread holds stays locked, and GNU OpenMP waits forever for threads that
    are not there: torch's own worker processes compute with one thread as well.
    """
    global _generators
    _generators = threading.RLock()
    if _computed:
        torch.set_num_threads(1)
        threadpool_limits(1)  # scikit-learn has a copy of OpenMP of its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)


def new_rng(random_state: Any) -> np.random.RandomState:
    """Return the generator that all seeds of a fit are drawn from.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        As in scikit-learn, but None draws fresh entropy and not numpy's global generator.

    Returns
    -------
    numpy.random.RandomState
    """
    return np.random.RandomState() if random_state is None else check_random_state(random_state)


def draw_seed(rng: np.random.RandomState) -> int:
    """Draw one integer seed."""
    return int(rng.randint(_MAX_SEED))


def seed_of_process(seed: int, rank: int) -> int:
    """Return the seed of one of several processes, each of which drops other units of its rows."""
    return (seed + _BETWEEN_SEEDS * rank) % 2**31 if rank else seed


@contextmanager
def torch_seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed torch's default generators inside the block and put them back after it.

    One thread at a time is inside.

    Parameters
    ----------
    seed : int
    device : str or torch.device, default="cpu"
        The accelerator whose generator is seeded as well.
    """
    note_computation()
    device = torch.device(device)
    accelerators = [device] if device.type == "cuda" else []
    with _generators, torch.random.fork_rng(devices=accelerators):
        torch.default_generator.manual_seed(seed)
        if accelerators:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def seeded(
    random_state: Any, device: str | torch.device = "cpu"
) -> Iterator[np.random.RandomState]:
    """Give the generator of the seeds of a fit, with torch seeded from it inside the block.

    Parameters
    ----------
    random_state, device
        As for `new_rng` and `torch_seeded`.
    """
    rng = new_rng(random_state)
    with torch_seeded(draw_seed(rng), device):
        yield rng
