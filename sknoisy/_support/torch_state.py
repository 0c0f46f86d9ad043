"""The state of torch that fits and predictions run in, and the types of weights.

Modes and defaults of torch reach into every computation below them. An evaluation function in
inference mode may hold a cross-validation, whose fits must learn all the same; and the result of
a seed must not depend on a default that a script sets for something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

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


def floats_of_other_type(module: nn.Module) -> list[str]:
    """Return the names of floating point tensors of another type than that of the module.

    That is the type of its trained weights; of several types float32, torch's default, or else
    the widest. A table in half precision and constants in float64 are meant to be what they are.
    """
    weights = [weight for weight in module.parameters() if weight.is_floating_point()]
    trained = [weight for weight in weights if weight.requires_grad]
    types = {weight.dtype for weight in trained or weights}
    ranked = sorted(types, key=lambda dtype: (dtype == torch.float32, dtype.itemsize))
    own = ranked[-1] if ranked else torch.float32
    return [
        name
        for name, tensor in named_tensors(module)
        if tensor.is_floating_point() and tensor.dtype != own
    ]


def cast_floats(module: nn.Module, dtype: torch.dtype, but: Collection[str]) -> None:
    """Change the type of floating point weights and buffers in place.

    ``module.to(dtype)`` would take complex numbers along, without their imaginary part.

    Parameters
    ----------
    module : nn.Module
    dtype : torch.dtype
    but : collection of str
        Names of those that keep their type.
    """
    kept = {id(tensor) for name, tensor in named_tensors(module) if name in but}
    module._apply(
        lambda tensor: (
            tensor.to(dtype) if tensor.is_floating_point() and id(tensor) not in kept else tensor
        )
    )


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the weights and buffers of a module by name."""
    parameters = module.named_parameters(remove_duplicate=False)
    return [*parameters, *module.named_buffers(remove_duplicate=False)]
