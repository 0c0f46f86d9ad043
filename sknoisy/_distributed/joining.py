"""How processes begin a fit together, and how they all end when one of them fails."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from sknoisy._distributed.group import ALONE, Group, LostProcessError, ProcessGroup

_MOST_SECONDS_TO_ARRIVE = 600.0
_SECONDS_TO_WARN = 60.0
_SECONDS_TO_EXPLAIN = 3.0
_SECONDS_OF_A_LOOK = 0.01
_LONGEST_REASON = 2000

_group: ContextVar[Group] = ContextVar("group", default=ALONE)


def current_group() -> Group:
    """Return the processes that take part in the fit around this call."""
    return _group.get()


@contextmanager
def joined_processes(distributed: Any) -> Iterator[None]:
    """Run the fit inside the block in all processes of the default group, if there is one.

    A process that fails tells the others, in which the fit ends with `LostProcessError`. None goes
    on before all of them are through.

    Parameters
    ----------
    distributed : {"auto", "sharded"} or False
        The parameter of the classifier. A fit inside of another one is one in this process alone.
    """
    takes_part = distributed in ("auto", "sharded") and _group.get() is ALONE
    if not takes_part or not _has_several_processes():
        yield
        return
    meeting = _Meeting()
    try:
        channel = meeting.open_channel()
        group = ProcessGroup(channel, meeting.explain, sharded=distributed == "sharded")
        token = _group.set(group)
        try:
            yield
            group.enter("at the end")
            group.gather(None)
        finally:
            _group.reset(token)
            group.close()
    except BaseException as error:
        meeting.close(error)
        raise
    meeting.close()


def _has_several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Meeting:
    """The place where the processes find each other, and leave word when they fail.

    That is the store of the default group, which lives as long as the group.
    """

    def __init__(self) -> None:
        store = distributed_c10d._get_default_store()
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        number = store.add(f"sknoisy/fits/{self.rank}", 1)
        self.store = dist.PrefixStore(f"sknoisy/fit {number}", store)
        self.channel: Any = None

    def open_channel(self) -> Any:
        """Return a group for this fit, when all processes are here.

        Raises
        ------
        RuntimeError
            If one of them does not come.
        """
        began, warned = time.monotonic(), False
        self.store.add("arrived", 1)
        while self.store.add("arrived", 0) < self.size:
            self._raise_reason()
            waited = time.monotonic() - began
            if waited > _SECONDS_TO_WARN and not warned:
                warned = True
                warnings.warn(f"{self._not_here(waited)}.", RuntimeWarning, stacklevel=6)
            if waited > _MOST_SECONDS_TO_ARRIVE:
                raise RuntimeError(f"{self._not_here(waited)}. Set distributed=False to fit alone.")
            time.sleep(_SECONDS_OF_A_LOOK)
        self.channel = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        return self.channel

    def _not_here(self, waited: float) -> str:
        n_here = self.store.add("arrived", 0)
        return (
            f"Process {self.rank} has waited {waited:.0f} s for the other processes: {n_here} of "
            f"{self.size} have called fit or partial_fit, which all must do (`distributed`)"
        )

    def explain(self, error: Exception, phase: str) -> None:
        """Raise an error that says who has failed, and why, as far as that is known.

        Raises
        ------
        LostProcessError
        """
        self._close_channel()  # the others learn of it
        missing = set(range(self.size))
        try:
            self.store.set(f"alive/{self.rank}", "1")
            began = time.monotonic()
            while time.monotonic() - began < _SECONDS_TO_EXPLAIN:
                self._raise_reason(error)
                missing -= {rank for rank in missing if self.store.check([f"alive/{rank}"])}
                time.sleep(_SECONDS_OF_A_LOOK)
        except (RuntimeError, ConnectionError) as lost:
            if isinstance(lost, LostProcessError):
                raise
            missing = {0}  # which holds the store
        who = f"process {', '.join(map(str, sorted(missing)))}" if missing else "another process"
        raise LostProcessError(
            f"The fit ended {phase} in process {self.rank} of {self.size} because {who} "
            "no longer answers: it was killed, has crashed, or the connection is lost. The "
            f"estimator is as it was before the fit. ({error})"
        ) from error

    def _raise_reason(self, error: Exception | None = None) -> None:
        if self.store.check(["failed"]):
            reason = self.store.get("failed").decode()
            raise LostProcessError(
                f"The fit ended in process {self.rank} of {self.size} because {reason}"
            ) from error

    def close(self, error: BaseException | None = None) -> None:
        """End the fit; tell the others of an error that is the first one."""
        if error is not None and not isinstance(error, LostProcessError):
            kind = type(error).__name__
            reason = f"process {self.rank} failed: {kind}: {error}"
            if isinstance(error, KeyboardInterrupt):
                reason = f"process {self.rank} was interrupted (KeyboardInterrupt)."
            with suppress(RuntimeError, ConnectionError):
                self.store.set("failed", reason[:_LONGEST_REASON])
        self._close_channel()

    def _close_channel(self) -> None:
        channel, self.channel = self.channel, None
        if channel is not None:
            with suppress(RuntimeError, ValueError, AssertionError):
                dist.destroy_process_group(channel)
