"""How much memory the training of a network needs, and whether the machine has it.

Known before the first step is what grows with the classes: the weights of the c-model, of which
training keeps several copies. To run out of memory after hours is worse than to be refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch

# How torch says it on the CPU of different systems, and elsewhere.
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "Storage size calculation overflowed",
)

_NO_QUESTION = 2**26  # bytes that any machine has
_INFERENCE_ROWS = 4096
_INFERENCE_ELEMENTS = 2**22
_INFERENCE_BYTES = 2**22  # about what a processor has in its own cache
_FETCHED_ROWS = 512
_FETCHED_BYTES = 2**24
_COPIES = 5  # the weights, their gradients, two averages of Adam, those of the best epoch


def check_layers_fit(sizes: list[int], dtype: torch.dtype) -> None:
    """Refuse the default network if there is no memory for its weights and their gradients."""
    n_weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    needed = 2 * n_weights * dtype.itemsize
    if needed > _NO_QUESTION:
        check_memory(
            needed,
            "cpu",
            f"Training hidden layers of {sizes[1:]} units on {sizes[0]} features, {n_weights:,} "
            "weights,",
            "Lower `hidden_layer_sizes`, or the number of features.",
        )


def check_feature_noise_fits(
    n_classes: int,
    n_targets: int | None,
    n_hidden: int,
    dtype: torch.dtype,
    device: str | torch.device,
) -> None:
    """Refuse the noise layer of a c-model that cannot be trained in the memory there is.

    Parameters
    ----------
    n_classes : int
    n_targets : int or None
        Observed classes that the layer keeps for each true class; None is all.
    n_hidden : int
        Width of the last hidden layer.
    dtype : torch.dtype
    device : str or torch.device

    Raises
    ------
    MemoryError
        With the sum that is needed and the sum that is there.
    """
    kept = n_classes if n_targets is None else n_targets
    n_weights = n_classes * kept * (n_hidden + 1)
    needed = n_weights * dtype.itemsize * _COPIES
    remedy = "Set" if n_targets is None else "Lower"
    check_memory(
        needed,
        device,
        f"Training the noise layer of noise_model='c' with {n_classes} true classes, {kept} "
        f"observed classes for each and {n_hidden} hidden units, {n_weights:,} weights in all,",
        f"{remedy} `n_noise_targets`, the observed classes for each true class, or use "
        "noise_model='s'.",
    )


def check_memory(needed: int, device: str | torch.device, what: str, remedy: str) -> None:
    """Refuse what cannot fit.

    Parameters
    ----------
    needed : int
        Bytes.
    device : str or torch.device
    what, remedy : str
        What needs them, as the subject of a sentence, and what to do instead, as a sentence.

    Raises
    ------
    MemoryError
        With the sum that is needed and the sum that is there.
    """
    free = available_bytes(device)
    if free is not None and needed > free:
        gib = 2**30
        raise MemoryError(
            f"{what} takes {needed / gib:.1f} GiB; {free / gib:.1f} GiB are free. {remedy}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that there is no memory left."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(part in said for part in _NO_MEMORY)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError with advice where torch raises RuntimeError for want of memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"allocate (\d+) bytes", str(error))
        what = f"{int(asked[1]) / 2**30:.1f} GiB" if asked else "what it needs"
        free = available_bytes()
        there = "" if free is None else f"; {free / 2**30:.1f} GiB of main memory are free"
        raise MemoryError(
            f"torch could not allocate {what}{there}. Lower `batch_size`, for predictions "
            "`iterator_valid__batch_size`, or make the network smaller: `hidden_layer_sizes`, "
            "what `module` holds and returns, or the number of features."
        ) from error


def available_bytes(device: str | torch.device = "cpu") -> int | None:
    """Return the memory that a process can still take, or None where the system does not say.

    Parameters
    ----------
    device : str or torch.device, default="cpu"
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    limits = [_available_in_system(), _left_in_control_group()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _available_in_system() -> int | None:
    """Return what Linux calls available; elsewhere all physical memory."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _left_in_control_group() -> int | None:
    """Return what a container may still take, where it is limited (version 2 of cgroups)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used, stat = (
            (folder / f"memory.{name}").read_text() for name in ("max", "current", "stat")
        )
        cache = dict(line.split() for line in stat.splitlines())["inactive_file"]
        return max(0, int(limit) - int(used) + int(cache))
    except (OSError, KeyError, ValueError):  # no control group, or the limit is "max"
        return None


def inference_batch_size(
    bytes_per_row: int, n_least: int, width: int, device: str | torch.device, *, fetched: bool
) -> int:
    """Return how many rows to predict at once: many, but no more than fit a cache or memory.

    Parameters
    ----------
    bytes_per_row : int
        Size of a row of the data.
    n_least : int
        As many in any case, if memory allows: those of a training step.
    width : int
        Numbers that the outputs of one row hold.
    device : str or torch.device
    fetched : bool
        Whether rows are fetched one by one.
    """
    most = _INFERENCE_ROWS
    if fetched:
        most = min(_FETCHED_ROWS, _FETCHED_BYTES // bytes_per_row)
    elif torch.device(device).type == "cpu":
        most = min(most, max(256, _INFERENCE_BYTES // bytes_per_row))
    return min(max(n_least, most), max(1, _INFERENCE_ELEMENTS // width))
