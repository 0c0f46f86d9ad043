"""How many threads pay: what waits for another thread at every step is slower with two.

Measured with ``tests/benchmarks/scaling.py --parts threads``: fits with steps of up to five million
multiply-adds take longer with two threads than with one, by up to a third, and so do mixtures of
up to thirty classes. Whatever is set is set back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from threadpoolctl import ThreadpoolController
from torch import nn

from sknoisy._model.noise_layers import NoiseLayer

_MOST_CLASSES_FOR_ONE_THREAD = 30
_MOST_MULTIPLICATIONS_FOR_ONE_THREAD = 5_000_000

Params = ParamSpec("Params")
Result = TypeVar("Result")


def threads_for_classes(n_classes: int) -> AbstractContextManager[Any]:
    """Keep numpy and scikit-learn to one thread inside the block where classes are few.

    Their threads also go on spinning for a while after the work is done, in the way of torch's.
    """
    return _thread_pools().limit(limits=1 if n_classes <= _MOST_CLASSES_FOR_ONE_THREAD else None)


@cache
def _thread_pools() -> ThreadpoolController:
    """Look for them once; it takes longer than a small mixture."""
    return ThreadpoolController()


def in_threads_that_pay(train: Callable[Params, Result]) -> Callable[Params, Result]:
    """Let a method that trains a net compute with one thread where its steps are small."""

    @wraps(train)
    def train_in_threads_that_pay(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        net: Any = args[0]
        n_threads = torch.get_num_threads()
        if n_threads == 1 or not _steps_are_small(net.network, net.batch_size, net.device):
            return train(*args, **kwargs)
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, n_threads)
            torch.set_num_threads(1)
            return train(*args, **kwargs)

    return train_in_threads_that_pay


def _steps_are_small(network: nn.Module, batch_size: int, device: str | torch.device) -> bool:
    """Whether a step has few multiplications, of a network that has each weight act once a row."""
    if torch.device(device).type != "cpu":
        return False
    parts = [part for part in network.modules() if list(part.parameters(recurse=False))]
    if not all(isinstance(part, nn.Linear | NoiseLayer) for part in parts):
        return False
    n_weights = sum(weight.numel() for weight in network.parameters())
    return batch_size * n_weights <= _MOST_MULTIPLICATIONS_FOR_ONE_THREAD
