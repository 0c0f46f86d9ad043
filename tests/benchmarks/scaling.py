"""
Many classes, many rows, and what surrounds a fit
=================================================

Each part runs in a process of its own, whose peak memory is read at the end (Linux, macOS)::

    OMP_NUM_THREADS=1 python tests/benchmarks/scaling.py --parts classes-s classes-c
    OMP_NUM_THREADS=1 python tests/benchmarks/scaling.py --parts rows
    OMP_NUM_THREADS=1 python tests/benchmarks/scaling.py --parts grid predict import
    python tests/benchmarks/scaling.py --parts threads

classes-s, classes-c
    1,000 separable classes, 40,000 rows of 64 features, 256 hidden units, 30 % of the labels
    wrong, spread over all classes; the c-model with ``n_noise_targets=10``.
many
    The share of a fit that its start takes, with 300, 1,000 and 2,000 separable classes, 12,000
    rows (40,000 of 2,000 classes; and of 1,000, with 256 hidden units) and pairs of classes mixed
    up in 30 % of the rows.
rows
    250,000, 500,000 and a million rows of 100 float32 features: time and memory by rows.
answers
    An epoch on 20,000 rows with three answers each, of 100 annotators, against one of the s-model
    on as many rows with one label.
grid
    A grid search with n_jobs=2 against n_jobs=1.
predict
    ``predict_proba`` against a bare forward pass with softmax, in batches as large, in seconds of
    the processor.
import
    ``import sknoisy`` once torch, skorch and scikit-learn are imported.
threads
    Fits, and mixtures of the start, with two threads against one, without the rule that gives
    small ones a single thread.
start
    A fit with the default start against the same fit with ``transition_init="confusion"``, in
    seconds of the processor, on the digits; and on MNIST with the net of the paper where
    ``--data`` names a folder with ``mnist.npz`` (see examples/study/study_starts.py).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def peak() -> float:
    """Return the peak memory of this process in GB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size * (1 if sys.platform == "darwin" else 1024) / 1e9


def median_time(
    call: Callable[[], Any], n_times: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median seconds of a call, after one that does not count."""
    seconds = []
    for _ in range(n_times + 1):
        begin = clock()
        call()
        seconds.append(clock() - begin)
    return statistics.median(seconds[1:])


def classes(noise_model: str, **params: Any) -> None:
    """Fit many classes and print time, memory and accuracy on new rows."""
    from sknoisy import NoisyLabelClassifier
    from sknoisy.noise import corrupt_labels, uniform_transition

    random = np.random.default_rng(0)
    centre = random.normal(size=(1000, 64))
    y = random.integers(1000, size=50_000)
    X = (centre[y] + 0.5 * random.normal(size=(50_000, 64))).astype(np.float32)
    X, X_new, y, y_new = X[:40_000], X[40_000:], y[:40_000], y[40_000:]
    observed = corrupt_labels(y, uniform_transition(1000, 0.3), random_state=0)
    before, start = peak(), time.perf_counter()
    classifier = NoisyLabelClassifier(
        noise_model=noise_model, hidden_layer_sizes=(256,), random_state=0, **params
    ).fit(X, observed)
    seconds = time.perf_counter() - start
    print(
        f"{noise_model}, 1000 classes: {seconds:.0f} s, {classifier.n_iter_} epochs, peak "
        f"{peak():.2f} GB ({before:.2f} before), accuracy {classifier.score(X_new, y_new):.4f}"
    )


def many(n_classes: int, n_rows: int, n_hidden: int = 100) -> None:
    """Fit many classes, and print the share of the time that the start takes."""
    from sknoisy import NoisyLabelClassifier
    from sknoisy._training.noise_estimates import NoiseEstimator
    from sknoisy.metrics import transition_matrix_error
    from sknoisy.noise import corrupt_labels, pair_transition

    random = np.random.default_rng(0)
    centre = random.normal(size=(n_classes, 64))
    y = random.integers(n_classes, size=n_rows + 4000)
    X = (centre[y] + 0.5 * random.normal(size=(n_rows + 4000, 64))).astype(np.float32)
    transition = pair_transition(n_classes, 0.3)
    observed = corrupt_labels(y[:n_rows], transition, classes=np.arange(n_classes), random_state=0)
    estimates, seconds = NoiseEstimator.estimates, []

    def timed(self: NoiseEstimator, predict: Any) -> Any:
        begin = time.perf_counter()
        found = estimates(self, predict)
        seconds.append(time.perf_counter() - begin)
        return found

    NoiseEstimator.estimates = timed  # type: ignore[method-assign]
    begin = time.perf_counter()
    classifier = NoisyLabelClassifier(hidden_layer_sizes=(n_hidden,), random_state=0)
    classifier.fit(X[:n_rows], observed)
    total = time.perf_counter() - begin
    errors = [
        transition_matrix_error(matrix, transition)
        for matrix in (classifier.initial_transition_matrix_, classifier.transition_matrix_)
    ]
    print(
        f"{n_classes} classes, {n_rows} rows: start {seconds[0]:.1f} s of {total:.1f} s, error of "
        f"the start {errors[0]:.3f} and of the matrix {errors[1]:.3f}, accuracy "
        f"{classifier.score(X[n_rows:], y[n_rows:]):.4f}, peak {peak():.2f} GB"
    )


def rows(n_rows: int) -> None:
    """Fit many rows and print time and memory over the data."""
    from sknoisy import NoisyLabelClassifier

    random = np.random.default_rng(0)
    X = random.standard_normal((n_rows, 100), dtype=np.float32)
    y = (X[:, :10].argmax(axis=1) + (random.random(n_rows) < 0.2)) % 10
    data = (X.nbytes + y.nbytes) / 1e9
    NoisyLabelClassifier(max_epochs=1, random_state=0).fit(X[:1000], y[:1000])
    before, start = peak(), time.perf_counter()
    classifier = NoisyLabelClassifier(max_epochs=3, random_state=0).fit(X, y)
    seconds = time.perf_counter() - start
    print(
        f"{n_rows:9,} rows: {seconds:6.1f} s, {seconds / n_rows * 1e6:.1f} s a million rows, "
        f"{classifier.n_iter_} epochs; data {data:.2f} GB, peak {peak():.2f} GB "
        f"({before:.2f} before the fit)"
    )


def answers() -> None:
    """Compare epochs on several answers a row with those on one label."""
    from sknoisy import NoisyLabelClassifier

    rng = np.random.RandomState(0)
    X = rng.normal(size=(20_000, 50)).astype(np.float32)
    y = (X @ rng.normal(size=(50, 10)) + rng.normal(size=(20_000, 10))).argmax(axis=1)

    def observed() -> np.ndarray:
        return np.where(rng.uniform(size=len(y)) < 0.7, y, rng.randint(10, size=len(y)))

    table = np.full((len(y), 100), -1)
    for _ in range(3):
        table[np.arange(len(y)), rng.randint(100, size=len(y))] = observed()
    shortest: dict[str, float] = {}
    for _ in range(3):
        for name, labels in (("one label", observed()), ("three answers", table)):
            start = np.full((10, 10), 0.03) + 0.7 * np.eye(10)
            classifier = NoisyLabelClassifier(max_epochs=8, transition_init=start, random_state=0)
            history = classifier.fit(X, labels).history_
            epoch = float(np.median([row["dur"] for row in history if row["stage"] == "s"]))
            shortest[name] = min(epoch, shortest.get(name, np.inf))
    ratio = shortest["three answers"] / shortest["one label"]
    print(f"an epoch with three answers a row takes {ratio:.2f} of one of the s-model")


def grid() -> None:
    """Time a grid search with one process and with two, with workers that are up already."""
    from joblib import Parallel, delayed
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV

    from sknoisy import NoisyLabelClassifier

    X, y = load_digits(return_X_y=True)
    X = X / 16
    grid = {"hidden_layer_sizes": [(50,), (100,), (200,), (300,)], "lr": [1e-3, 3e-3]}
    classifier = NoisyLabelClassifier(random_state=0)
    Parallel(n_jobs=2)(delayed(classifier.fit)(X[:100], y[:100]) for _ in range(4))
    seconds = {
        n_jobs: median_time(
            lambda n_jobs=n_jobs: GridSearchCV(
                classifier, grid, cv=3, n_jobs=n_jobs, refit=False
            ).fit(X, y),
            3,
        )
        for n_jobs in (1, 2)
    }
    print(f"grid search: {seconds[1]:.1f} s, n_jobs=2 {seconds[1] / seconds[2]:.2f} times faster")


def predict() -> None:
    """Time `predict_proba` against the bare network."""
    import torch
    from contenders import PROBLEMS, make_classifier, make_problem

    for name, settings in PROBLEMS.items():
        problem = make_problem(**settings)
        classifier = make_classifier(problem, max_epochs=1).fit(problem.X, problem.y)
        X, network = torch.from_numpy(problem.X), classifier.net_.network.eval()

        @torch.inference_mode()
        def bare(X: Any = X, network: Any = network) -> Any:
            outputs = [network(batch)[0] for batch in X.split(4096)]
            return torch.cat(outputs).double().exp().numpy()

        times = [
            median_time(call, 31, time.process_time)
            for call in (lambda c=classifier, p=problem: c.predict_proba(p.X), bare)
        ]
        print(
            f"predict_proba, {name}: {times[0] / times[1]:.2f} of the bare network, "
            f"{1e3 * (times[0] - times[1]):.1f} ms over its {1e3 * times[1]:.1f}"
        )


def threads() -> None:
    """Time fits and mixtures with one thread and with two, whatever their size."""
    import torch
    from contenders import PROBLEMS, make_classifier, make_problem
    from threadpoolctl import threadpool_limits

    from sknoisy._net import net
    from sknoisy._support import threads
    from sknoisy._transition import starts

    net._MOST_MULTIPLICATIONS_FOR_ONE_THREAD = 0
    threads._MOST_CLASSES_FOR_ONE_THREAD = 0
    middle = {"n_samples": 10_000, "n_features": 100, "hidden_layer_sizes": (200,)}
    for name, settings in {**PROBLEMS, "10k x 100, 200": {**middle, "batch_size": 256}}.items():
        problem = make_problem(**settings)
        seconds = {}
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            classifier = make_classifier(problem)
            seconds[n_threads] = median_time(lambda c=classifier, p=problem: c.fit(p.X, p.y), 3)
        print(f"two threads, {name}: {seconds[2] / seconds[1]:.2f} of one")
    random = np.random.default_rng(0)
    for n_classes, n_rows in ((10, 100_000), (30, 16_000), (100, 10_000), (300, 40_000)):
        y = random.integers(n_classes, size=n_rows)
        scores = random.normal(size=(n_rows, n_classes)) + 3.0 * np.eye(n_classes)[y]
        log_proba = torch.log_softmax(torch.from_numpy(2 * scores).float(), 1).numpy()
        observed = np.where(random.random(n_rows) < 0.3, random.permutation(y), y)
        for n_threads in (1, 2):
            with threadpool_limits(n_threads):
                seconds[n_threads] = median_time(
                    lambda p=log_proba, z=observed: starts.mixture_start(p, z, random_state=0),
                    1,
                )
        print(f"two threads, mixture of {n_classes}: {seconds[2] / seconds[1]:.2f} of one")


def import_time() -> None:
    """Time the import of the package after those that it needs."""
    program = (
        "import time, torch, skorch, sklearn.base, sklearn.cluster, sklearn.model_selection;"
        "start = time.perf_counter(); import sknoisy; print(time.perf_counter() - start)"
    )
    seconds = [
        float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        )
        for _ in range(5)
    ]
    print(f"import sknoisy: {statistics.median(seconds):.3f} s over torch, skorch and scikit-learn")


def start(data: str | None) -> None:
    """Time the default start against the published one."""
    import warnings

    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "study"))
    from data_sets import digits, mnist, observe
    from study_starts import PAPER_NET

    from sknoisy import NoisyLabelClassifier

    problems: list[tuple[str, Any, list[str], dict[str, Any]]] = [
        ("digits", digits, ["none", "sym.5", "pair.45"], {}),
        *([("mnist", mnist, ["perm.46"], PAPER_NET)] if data else []),
    ]
    warnings.simplefilter("ignore")
    first = digits(None, 0)
    NoisyLabelClassifier(random_state=0).fit(first.X, first.y)
    for name, loader, noises, params in problems:
        for noise in noises:
            ratios = []
            for seed in range(3 if name == "digits" else 1):
                rows = loader(None if data is None else Path(data), seed)
                observed, _ = observe(rows, noise, seed)
                seconds = {}
                for init in ("auto", "confusion"):
                    begin = time.process_time()
                    classifier = NoisyLabelClassifier(
                        transition_init=init, random_state=seed, **params
                    )
                    classifier.fit(rows.X, observed)
                    seconds[init] = time.process_time() - begin
                ratios.append(seconds["auto"] / seconds["confusion"])
            found = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"default start, {name}, {noise}: {found} of the published one")


PARTS: dict[str, list[Callable[..., None]]] = {
    "classes-s": [lambda: classes("s")],
    "classes-c": [lambda: classes("c", n_noise_targets=10)],
    "many": [
        lambda: many(300, 12_000),
        lambda: many(1000, 12_000),
        lambda: many(2000, 40_000),
        lambda: many(1000, 40_000, 256),
    ],
    "rows": [lambda: rows(250_000), lambda: rows(500_000), lambda: rows(1_000_000)],
    "answers": [answers],
    "grid": [grid],
    "predict": [predict],
    "threads": [threads],
    "import": [import_time],
    "start": [start],
}


def main() -> None:
    """Run each step of the parts that were asked for in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", help="folder with mnist.npz, for the part start")
    parser.add_argument("--step", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for part in arguments.parts:
        if arguments.step is not None:
            PARTS[part][arguments.step](*([arguments.data] if part == "start" else []))
            continue
        for step in range(len(PARTS[part])):
            program = [sys.executable, str(Path(__file__)), "--parts", part, "--step", str(step)]
            data = [] if arguments.data is None else ["--data", arguments.data]
            subprocess.run([*program, *data], check=True)


if __name__ == "__main__":
    main()
