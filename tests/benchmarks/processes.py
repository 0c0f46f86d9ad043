"""
One fit in several processes
============================

Plain training and the s-model in processes of a gloo group on this machine, each with one thread,
against one process with one thread::

    OMP_NUM_THREADS=1 python tests/benchmarks/processes.py
    OMP_NUM_THREADS=1 python tests/benchmarks/processes.py --digits

They take turns, and medians are printed, after a turn that does not count: seconds of an epoch in
one process while the others do nothing, of one fit in all processes, and of a fit in each process
by itself at the same time, which says what the machine can do at most. "ratio" is how many times
as many rows a second are trained on as in one process, "most" what it could be, and "fit" the ratio
of whole fits, with what each process does for itself before and after. With
``--size auto`` a step has as many rows in several processes as in one, otherwise as many in each of
them. ``--kill`` says how long it takes the other process to end when one of two is killed in an
epoch. ``--digits`` prints the accuracy on clean labels of scikit-learn's digits, mean and standard
deviation over five seeds, that of one process beside that of several. The load of the machine is
printed before and after.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from contenders import PROBLEMS, make_problem
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from torch import multiprocessing

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, pair_transition, uniform_transition

NOISE = {
    "none": np.eye(10),
    "uniform, 20 %": uniform_transition(10, 0.2),
    "uniform, 50 %": uniform_transition(10, 0.5),
    "pair, 20 %": pair_transition(10, 0.2),
    "pair, 45 %": pair_transition(10, 0.45),
}


class Kill(Callback):
    """Kill the second process in the third epoch."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Look whether it is time."""
        if dist.get_rank() == 1 and len(net.history) == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def throughput(rank: int, arguments: argparse.Namespace, results: Any) -> None:
    """Fit in the first process, in all of them together, and in each by itself, in turn."""
    problem = make_problem(**PROBLEMS[arguments.problem])
    size = "auto" if arguments.size == "auto" else int(arguments.size)
    networks = {"None": {"noise_model": None}, "s": {"transition_init": "confusion"}}
    for name, params in networks.items():
        seconds: dict[str, list[float]] = {"one": [], "several": [], "each": []}
        fits: dict[str, list[float]] = {"one": [], "several": [], "each": []}
        for turn in range(arguments.turns + 1):
            for way, found in seconds.items():
                classifier = NoisyLabelClassifier(
                    hidden_layer_sizes=problem.hidden_layer_sizes,
                    max_epochs=problem.n_epochs,
                    batch_size=size,
                    early_stopping=True,
                    distributed="auto" if way == "several" else False,
                    random_state=0,
                    **params,
                )
                dist.barrier()
                began = time.perf_counter()
                if way != "one" or rank == 0:
                    classifier.fit(problem.X, problem.y)
                dist.barrier()
                if turn and rank == 0:
                    fits[way].append(time.perf_counter() - began)
                    found += [row["dur"] for row in classifier.history_]
        if rank == 0:
            one, several, each = (statistics.median(found) for found in seconds.values())
            results.put(
                f"{name:6}{classifier.n_iter_:8}{one:9.3f}{several:9.3f}{each:9.3f}"
                f"{one / several:8.2f}{arguments.processes * one / each:8.2f}"
                f"{statistics.median(fits['one']) / statistics.median(fits['several']):8.2f}"
            )


def killed(rank: int, arguments: argparse.Namespace, results: Any) -> None:
    """Measure how long the other process takes to end."""
    problem = make_problem(**PROBLEMS[arguments.problem])
    classifier = NoisyLabelClassifier(
        hidden_layer_sizes=problem.hidden_layer_sizes, callbacks=[Kill()], noise_model=None
    )
    began = time.perf_counter()
    try:
        classifier.fit(problem.X, problem.y)
    except RuntimeError as error:
        results.put(f"after {time.perf_counter() - began:.1f} s of fit: {error}")


def digits(rank: int, arguments: argparse.Namespace, results: Any) -> None:
    """Print the accuracy with one process and with all of them."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    for name in arguments.noise:
        transition = NOISE[name]
        scores: dict[Any, list[float]] = {False: [], "auto": []}
        for seed in range(5):
            X_train, X_test, y_train, y_test = train_test_split(
                X, y, test_size=0.3, stratify=y, random_state=seed
            )
            observed = corrupt_labels(y_train, transition, random_state=seed)
            for distributed, found in scores.items():
                classifier = NoisyLabelClassifier(distributed=distributed, random_state=seed)
                if distributed or rank == 0:
                    classifier.fit(X_train, observed)
                    found.append(classifier.score(X_test, y_test))
        if rank == 0:
            said = [f"{np.mean(found):.3f} ± {np.std(found):.3f}" for found in scores.values()]
            results.put(f"{name:16}{said[0]:>16}{said[1]:>16}")


def work(rank: int, path: str, arguments: argparse.Namespace, results: Any) -> None:
    """Join the group and run one of the parts."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    size = arguments.processes
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
    part = digits if arguments.digits else killed if arguments.kill else throughput
    part(rank, arguments, results)
    results.put(None)


def main() -> None:
    """Start the processes and print what they say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--problem", default="20k x 784, 500-300", choices=PROBLEMS)
    parser.add_argument("--size", default="256", help="rows of a step in each process, or auto")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--noise", nargs="+", default=list(NOISE), choices=NOISE)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    print(f"{arguments.processes} processes; load of the machine {os.getloadavg()[0]:.1f}")
    if arguments.digits:
        print(f"{'':16}{'one process':>16}{'several':>16}")
    elif not arguments.kill:
        names = ("s, one", 9), ("several", 9), ("each", 9), ("ratio", 8), ("most", 8), ("fit", 8)
        print(f"{'':6}{'epochs':>8}", *(f"{name:>{width}}" for name, width in names), sep="")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "group")
        processes = [
            context.Process(target=work, args=(rank, path, arguments, results))
            for rank in range(arguments.processes)
        ]
        for process in processes:
            process.start()
        n_over = 0
        while n_over < arguments.processes - arguments.kill:
            line = results.get()
            n_over += line is None
            if line is not None:
                print(line, flush=True)
        for process in processes:
            process.join()
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
