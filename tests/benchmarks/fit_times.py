"""
What a fit costs next to others
===============================

Whole fits of `NoisyLabelClassifier` against a hand-written loop with fused Adam that goes over the
rows as often as all stages together, against plain skorch, scikit-learn's ``MLPClassifier``, and
cleanlab's five-fold ``CleanLearning`` around the same network (needs ``pip install cleanlab``)::

    OMP_NUM_THREADS=1 python tests/benchmarks/fit_times.py
    python tests/benchmarks/fit_times.py --device cuda --compile

Contenders take turns, and the median of the turns is printed, after one that does not count.
"ratio" is the time of a fit over that of the loop with as many passes; for the others it is the
same. ``--clock process`` counts the seconds of the processor instead of those on the wall, for a
machine that others use too. ``--module`` gives ours the same layers as a module of the user's,
which goes through autograd. Accuracy is that of the true labels of new rows. ``--profile`` prints
where the time of one fit goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from contenders import (
    PROBLEMS,
    HiddenLayers,
    Problem,
    epochs_of,
    fit_cleanlab,
    fit_loop,
    fit_sklearn,
    fit_skorch,
    make_classifier,
    make_problem,
)
from sklearn.exceptions import ConvergenceWarning

OURS: dict[str, dict[str, Any]] = {
    "None": {"noise_model": None},
    "s": {"noise_model": "s"},
    "c": {"noise_model": "c"},
    "EM": {"method": "em"},
}
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def accuracy(fitted: Any, problem: Problem) -> float:
    """Return the share of new rows whose true label is predicted."""
    return float(np.mean(fitted.predict(problem.X_new) == problem.y_new))


def take_turns(
    contenders: dict[str, Callable[[], Any]], n_turns: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the median time of each contender; the first turn only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(n_turns + 1):
        for name, contender in contenders.items():
            start = clock()
            contender()
            if turn:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(problem: Problem, arguments: argparse.Namespace) -> None:
    """Print a table of one problem."""
    common: dict[str, Any] = {"device": arguments.device, "compile": arguments.compile}
    if arguments.module:
        sizes = (problem.X.shape[1], *problem.hidden_layer_sizes)
        common |= {"module": HiddenLayers, "module__sizes": sizes}
    ours = {name: make_classifier(problem, **params, **common) for name, params in OURS.items()}
    for classifier in ours.values():
        classifier.fit(problem.X, problem.y)
    passes = {name: epochs_of(classifier, problem) for name, classifier in ours.items()}
    scores = {name: accuracy(classifier, problem) for name, classifier in ours.items()}
    contenders: dict[str, Callable[[], Any]] = {
        name: partial(classifier.fit, problem.X, problem.y) for name, classifier in ours.items()
    }
    for name, n_epochs in passes.items():
        contenders[f"loop, {name}"] = partial(fit_loop, problem, n_epochs, arguments.device)
    if arguments.others and arguments.device == "cpu":
        others = {
            "skorch": partial(fit_skorch, problem, problem.n_epochs),
            "MLPClassifier": partial(fit_sklearn, problem, problem.n_epochs),
            "CleanLearning": partial(fit_cleanlab, problem, around="sknoisy"),
            "CleanLearning, skorch": partial(fit_cleanlab, problem, around="skorch"),
        }
        scores |= {name: accuracy(fit(), problem) for name, fit in others.items()}
        contenders |= others
        passes |= {"skorch": problem.n_epochs, "MLPClassifier": problem.n_epochs}

    seconds = take_turns(contenders, arguments.turns, CLOCKS[arguments.clock])
    loop = seconds["loop, None"] / passes["None"]
    print(f"{'':24}{'passes':>8}{'seconds':>9}{'ratio':>7}{'of s':>7}{'accuracy':>10}")
    for name in [*OURS, *[name for name in contenders if name in scores and name not in OURS]]:
        in_loop = seconds.get(f"loop, {name}", loop * passes.get(name, np.nan))
        print(
            f"{name:24}{passes.get(name, np.nan):8.1f}{seconds[name]:9.3f}"
            f"{seconds[name] / in_loop:7.2f}{seconds[name] / seconds['s']:7.2f}"
            f"{scores[name]:10.4f}",
            flush=True,
        )


def profile(problem: Problem, arguments: argparse.Namespace) -> None:
    """Print the functions that take most of the time of one fit with each noise model."""
    for name, params in OURS.items():
        classifier = make_classifier(problem, **params, device=arguments.device)
        profiler = cProfile.Profile()
        profiler.runcall(classifier.fit, problem.X, problem.y)
        print(f"--- {name}")
        pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(12)


def main() -> None:
    """Time the problems that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of a stage; each problem has its own")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--module", action="store_true", help="hidden layers as your own module")
    parser.add_argument("--no-others", dest="others", action="store_false")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name in arguments.problems:
        problem = make_problem(**PROBLEMS[name])
        if arguments.epochs:
            problem = problem._replace(n_epochs=arguments.epochs)
        print(f"\n{name}: {torch.get_num_threads()} thread(s), {arguments.device}")
        (profile if arguments.profile else compare)(problem, arguments)


if __name__ == "__main__":
    main()
