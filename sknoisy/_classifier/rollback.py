"""A fit that fails or is interrupted leaves everything as it was, in each of its processes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from sknoisy._distributed.joining import joined_processes
from sknoisy._support.torch_state import plain_torch

Fit = TypeVar("Fit", bound=Callable[..., Any])
PutBack = Callable[[], None]


def restore_on_error(fit: Fit) -> Fit:
    """Let a method that fits an estimator put everything back when it raises.

    That is the attributes of the estimator, a generator given as `random_state`, and what
    `partial_fit` goes on with: weights, optimiser, history and stream. KeyboardInterrupt counts
    as well, and what happens in another process that takes part.
    """

    @functools.wraps(fit)
    def fit_or_put_back(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        with plain_torch():  # what is kept must be good outside of the caller's modes as well
            put_back = [_attributes(estimator), *_generators(estimator)]
            if fit.__name__ == "partial_fit":
                put_back += _in_place(estimator)
        try:
            with joined_processes(estimator.distributed):
                return fit(estimator, *args, **kwargs)
        except BaseException:
            with plain_torch():
                for part in put_back:
                    part()
            raise

    return fit_or_put_back  # type: ignore[return-value]


def _attributes(instance: Any) -> PutBack:
    kept = dict(vars(instance))

    def put_back() -> None:
        vars(instance).clear()
        vars(instance).update(kept)

    return put_back


def _generators(estimator: Any) -> list[PutBack]:
    """Keep the state of the generators that seeds are drawn from."""
    stream = getattr(estimator, "_stream", None)
    given = estimator.random_state, getattr(stream, "random_state", None)
    return [
        functools.partial(generator.set_state, generator.get_state())
        for generator in given
        if isinstance(generator, np.random.RandomState)
    ]


def _in_place(estimator: Any) -> list[PutBack]:
    """Keep what the next rows of a stream change: the net, its optimiser and the stream."""
    stream, net = getattr(estimator, "_stream", None), getattr(estimator, "net_", None)
    if stream is None or net is None or not net.has_optimizer:
        return []
    block = list(stream.block)
    network, noise = net.network, net.network.noise
    weights = copy.deepcopy(network.state_dict())
    steps = copy.deepcopy(net.optimizer_.state_dict())
    modes = [(m, m.training) for m in (*network.modules(), *net.criterion_.modules())]

    def put_back() -> None:
        stream.block = block
        network.noise = noise
        network.load_state_dict(weights)
        net.optimizer_.load_state_dict(steps)
        for module, training in modes:
            module.training = training

    return [_attributes(stream), _attributes(stream.annotators), _attributes(net), put_back]
