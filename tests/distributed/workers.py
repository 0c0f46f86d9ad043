"""Processes of a group of torch.distributed that run functions of tests, started once."""

import contextlib
import multiprocessing
import os
import tempfile
import time
import warnings

import pytest


def _serve(rank, size, path, connection):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
    connection.send("ready")
    while True:
        call = connection.recv()
        if call is None:
            break
        function, args = call
        try:
            answer = True, function(rank, *args)
        except BaseException as error:
            answer = False, error
        try:
            connection.send(answer)
        except Exception as error:  # what cannot be pickled
            connection.send((False, RuntimeError(f"{type(answer[1]).__name__}: {error}")))
    dist.destroy_process_group()


def _context():
    """Return a way to start processes that imports the package once for all of them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The last one is what torch imports in a first step.
    modules = ["sknoisy._classifier.classifier", "torch.distributed", "torch._dynamo"]
    context.set_forkserver_preload(modules)
    return context


class Workers:
    """So many processes with a group of gloo; nothing waits longer than it is told to."""

    def __init__(self, size):
        self.size = size
        context = _context()
        handle, self._path = tempfile.mkstemp()
        os.close(handle)
        os.unlink(self._path)
        pipes = [context.Pipe() for _ in range(size)]
        self.processes = [
            context.Process(target=_serve, args=(rank, size, self._path, there), daemon=True)
            for rank, (_, there) in enumerate(pipes)
        ]
        self.connections = [here for here, _ in pipes]
        for process in self.processes:
            process.start()
        assert self._answers(range(size), 120) == ["ready"] * size

    def _answers(self, ranks, seconds):
        end, answers = time.monotonic() + seconds, []
        for rank in ranks:
            if not self.connections[rank].poll(max(0.0, end - time.monotonic())):
                self.end()
                pytest.fail(f"process {rank} has not answered in {seconds} s")
            answers.append(self.connections[rank].recv())
        return answers

    def outcomes(self, function, *args, ranks=None, seconds=120):
        """Call ``function(rank, *args)`` in the processes; return (whether it returned, what)."""
        ranks = range(self.size) if ranks is None else ranks
        for rank in ranks:
            self.connections[rank].send((function, args))
        return self._answers(ranks, seconds)

    def outcomes_of_living(self, function, argument, living, seconds=90):
        """Call a function in all processes; return the outcomes of those that live on."""
        for connection in self.connections:
            connection.send((function, (argument,)))
        return self._answers(living, seconds)

    def run(self, function, *args, seconds=120):
        """Return what the function returns in each process."""
        outcomes = self.outcomes(function, *args, seconds=seconds)
        for returned, value in outcomes:
            if not returned:
                raise value
        return [value for _, value in outcomes]

    def end(self):
        for connection, process in zip(self.connections, self.processes, strict=True):
            with contextlib.suppress(OSError):
                connection.send(None)
            process.join(0.1)
        for process in self.processes:
            process.join(5)
            process.kill()
            process.join(5)
        if os.path.exists(self._path):
            os.unlink(self._path)
