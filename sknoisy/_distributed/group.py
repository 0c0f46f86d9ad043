"""The processes of a fit, and what they tell each other.

All of them run the same lines. What follows from the seed and from numbers that all of them have is
computed by each; what is costly, or decides something, is computed by the first one, or each
computes a share of it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from sknoisy._support.random import new_rng

Result = TypeVar("Result")
Predict = Callable[[np.ndarray], np.ndarray]

_SECONDS_OF_A_WAIT = 1.0  # in between Ctrl-C is noticed


class Group:
    """A fit in this process alone: nothing is told to anybody.

    Attributes
    ----------
    rank : int
        Number of this process.
    size : int
        Number of processes.
    sharded : bool
        Whether each process holds rows of its own, and not all of them the same.
    """

    rank = 0
    size = 1
    sharded = False

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that decides, logs and warns."""
        return self.rank == 0

    def enter(self, phase: str) -> None:
        """Take note of what the fit does next, for messages."""

    def once(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns in the first process; it is called there only.

        What it changes is changed in the first process only.
        """
        return function()

    def lead(self, function: Callable[[Predict], Result], predict: Predict) -> Result:
        """Return what a function returns in the first process, which needs predictions of all.

        Parameters
        ----------
        function : callable
            Called in the first process only, with what takes the place of `predict`.
        predict : callable
            From an array of row numbers to predictions; called in all processes.
        """
        return function(predict)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order."""
        return [value]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over all processes of an array of the same shape in each."""
        return values

    def add_up(self, values: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""

    def share(self, values: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""

    def close(self) -> None:
        """Let go of what connects the processes."""


#: A fit in this process alone.
ALONE = Group()


def same_generator(random_state: Any, group: Group) -> Any:
    """Return a generator in the state that it has in the first process; alone, what was given."""
    if group.size == 1:
        return random_state
    rng = new_rng(random_state)
    rng.set_state(group.once(rng.get_state))
    return rng


class LostProcessError(RuntimeError):
    """Another process of the group has failed, or no longer answers."""


class ProcessGroup(Group):
    """A fit in several processes.

    Parameters
    ----------
    channel : torch.distributed.ProcessGroup
        For tensors on the CPU, with the backend gloo; nobody else uses it.
    on_loss : callable
        Given an error of the channel and the phase, raises `LostProcessError`.
    sharded : bool, default=False
        Whether each process holds rows of its own.
    """

    def __init__(
        self,
        channel: Any,
        on_loss: Callable[[Exception, str], None],
        *,
        sharded: bool = False,
    ) -> None:
        self.channel = channel
        self.on_loss = on_loss
        self.phase = "at the beginning"
        self._work: Any = None
        self.sharded = sharded
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def enter(self, phase: str) -> None:
        """Take note of what the fit does next; see `Group`."""
        self.phase = phase

    def once(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns in the first process; see `Group`."""
        result: Result = self._from_first(function() if self.is_first else None)
        return result

    def lead(self, function: Callable[[Predict], Result], predict: Predict) -> Result:
        """Return what a function returns in the first process; see `Group`."""
        if self.is_first:

            def predict_with_all(rows: np.ndarray) -> np.ndarray:
                self._from_first((False, rows))
                return predict(rows)

            result = function(predict_with_all)
            self._from_first((True, result))
            return result
        while True:
            is_over, value = self._from_first(None)
            if is_over:
                over: Result = value
                return over
            predict(value)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes; see `Group`."""
        content = _as_bytes(value)
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(content)
        self.add_up(sizes)
        together = torch.zeros(int(sizes.sum()), dtype=torch.uint8)
        before = int(sizes[: self.rank].sum())
        together[before : before + len(content)] = content
        self.add_up(together)
        return [pickle.loads(part.numpy().tobytes()) for part in together.split(sizes.tolist())]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over all processes; see `Group`."""
        total = torch.from_numpy(np.array(values))
        self.add_up(total)
        return total.numpy()

    def add_up(self, values: Tensor) -> None:
        """Replace a tensor by its sum over all processes; see `Group`."""
        if values.is_cuda and "nccl" in dist.get_backend_config():
            # Who is gone is noticed here, and not by a kernel that waits for it.
            self._run(dist.all_reduce, torch.zeros(1))
            dist.all_reduce(values)
            return
        self._run(dist.all_reduce, values)

    def share(self, values: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process; see `Group`."""
        for tensor in values:
            on_cpu = tensor.detach().cpu().contiguous()
            real = torch.view_as_real(on_cpu) if on_cpu.is_complex() else on_cpu
            if real.numel():
                flat = real.view(-1).view(torch.uint8)
                self._run(dist.broadcast, flat, src=0)
            if not self.is_first:
                with torch.no_grad():
                    tensor.copy_(on_cpu)

    def _from_first(self, value: Any) -> Any:
        """Return the value that the first process gives."""
        content = _as_bytes(value) if self.is_first else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(content)])
        self._run(dist.broadcast, size, src=0)
        if not self.is_first:
            content = torch.empty(int(size), dtype=torch.uint8)
        self._run(dist.broadcast, content, src=0)
        return value if self.is_first else pickle.loads(content.numpy().tobytes())

    def _run(self, collective: Callable[..., Any], tensor: Tensor, **params: Any) -> None:
        """Wait as long as the others need; who has failed closes the channel."""
        try:
            self._work = collective(tensor, group=self.channel, async_op=True, **params)
            while self._is_waiting():
                pass
        except RuntimeError as error:
            self.close()
            self.on_loss(error, self.phase)

    def _is_waiting(self) -> bool:
        """Wait a little, so that Ctrl-C is noticed; return whether it takes longer."""
        try:
            self._work.wait(timedelta(seconds=_SECONDS_OF_A_WAIT))
        except RuntimeError:
            if not self._work.is_completed():
                return True
            self._work.wait()  # it may have ended just then; else this says what went wrong
        return False

    def close(self) -> None:
        """Let go of the channel, as long as which is held its connections stay open."""
        self._work = self.channel = None


def _as_bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
