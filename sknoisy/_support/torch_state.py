"""The state of torch that fits and predictions run in, whatever the caller has set.

Modes and defaults of torch reach into every computation below them. An evaluation function in
inference mode may hold a cross-validation, whose fits must learn all the same; and the result of
a seed must not depend on a default that a script sets for something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from sknoisy._support.memory import memory_errors

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def plain_torch() -> Iterator[None]:
    """Let torch compute as it does when nothing was set; a decorator as well.

    Inside there are gradients, no mixed precision, float32 as the default type and the CPU as
    the default device, and no memory is a MemoryError. What the caller has set is there again
    afterwards.
    """
    with ExitStack() as stack:
        stack.enter_context(memory_errors())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for device_type in _DEVICE_TYPES:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_single_precision)
        yield


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Let torch compute with so many threads inside the block; None leaves them as they are."""
    before = torch.get_num_threads()
    if n_threads in (None, before):
        yield
        return
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(n_threads)
        yield


class _SinglePrecision:
    """Make float32 the default type while a thread is inside.

    The default belongs to the process: the first thread that enters sets it, and the last one
    that leaves puts it back. There is no lock, which an interrupt could leave locked: each line
    is right wherever another thread comes in between.
    """

    def __init__(self) -> None:
        self._inside: list[None] = []
        self._outside = torch.float32

    def __enter__(self) -> None:
        found = torch.get_default_dtype()
        if found != torch.float32:
            self._outside = found
            torch.set_default_dtype(torch.float32)
        self._inside.append(None)

    def __exit__(self, *exception: object) -> None:
        self._inside.pop()
        if not self._inside:
            outside, self._outside = self._outside, torch.float32
            if outside != torch.float32:
                torch.set_default_dtype(outside)


_single_precision = _SinglePrecision()
