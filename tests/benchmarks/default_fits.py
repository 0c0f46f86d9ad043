"""
What a default fit costs next to plain training
===============================================

The classifier as it comes with each noise model against ``noise_model=None``, both with the same
rule of early stopping, on data with 30 % of the labels moved to the next class::

    OMP_NUM_THREADS=1 python tests/benchmarks/default_fits.py --data FOLDER --seeds 0 1 2

Printed are the time of the processor and the passes over the rows (an epoch on half of them is half
a pass), each as a multiple of that of plain training, the epochs of every stage, the accuracy on
the true labels of new rows, and that of training through the known matrix. ``FOLDER`` holds
``usps.npz`` and ``letter.npz`` (OpenML has them); without it their problems are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "study"))
from data_sets import Data, digits, letter, observe, subset, usps
from study_harm import generated

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error

#: name: (loader, whether it is read from the folder, parameters)
PROBLEMS: dict[str, tuple[Callable[[Path | None, int], Data], bool, dict[str, Any]]] = {
    "digits": (digits, False, {}),
    "table-1200": (generated(1200, 5, 1.0), False, {}),
    "table-6000": (generated(6000, 5, 1.0), False, {}),
    "hard-5000": (generated(5000, 10, 0.5), False, {}),
    "usps": (usps, True, {}),
    "letter-12000": (subset(letter, 12_000), True, {"hidden_layer_sizes": (200,)}),
}
METHODS: dict[str, dict[str, Any]] = {
    "None": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
    "EM": {"method": "em"},
    "known": {"learn_transition": False},
    "auto": {"noise_model": "auto"},
    "accurate": {"noise_model": "auto", "dropout": "auto", "n_networks": 5},
}


def passes(history: list[dict[str, Any]], n_rows: int) -> float:
    """Return how often the rows were gone over, counted by the batches of each epoch."""
    seen = sum(
        batch["train_batch_size"]
        for row in history
        for batch in row["batches"]
        if "train_batch_size" in batch
    )
    return float(seen) / n_rows


def epochs(history: list[dict[str, Any]]) -> str:
    """Return the epochs of each stage, those without held-out rows apart."""
    names = [row["stage"] + ("" if "valid_loss" in row else "*") for row in history]
    return ", ".join(f"{name} {number}" for name, number in Counter(names).items())


def measure(name: str, method: str, seed: int, folder: Path | None, noise: str) -> dict[str, Any]:
    """Fit once."""
    load, _, params = PROBLEMS[name]
    data = load(folder, seed)
    observed, true = observe(data, noise, seed)
    options = METHODS[method] | ({"transition_init": true} if method == "known" else {})
    classifier = NoisyLabelClassifier(random_state=seed, **params, **options)
    begin = time.process_time()
    classifier.fit(data.X, observed)
    seconds = time.process_time() - begin
    return {
        "seconds": seconds,
        "passes": passes(classifier.history_, len(observed)),
        "epochs": epochs(classifier.history_),
        "accuracy": classifier.score(data.X_test, data.y_test),
        "error": transition_matrix_error(classifier.transition_matrix_, true),
    }


def main() -> None:
    """Print a table for each problem."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--noise", default="pair.3")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--epochs", action="store_true", help="print those of each fit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    methods = list(dict.fromkeys(["None", *arguments.methods]))
    for name in arguments.problems:
        if PROBLEMS[name][1] and arguments.data is None:
            continue
        measure(name, "None", 0, arguments.data, arguments.noise)  # warms up
        print(f"\n{name}, {arguments.noise}")
        print(
            f"{'':9}{'seconds':>9}{'of None':>9}{'passes':>9}{'of None':>9}{'accuracy':>17}  error"
        )
        fits = {
            method: [
                measure(name, method, s, arguments.data, arguments.noise) for s in arguments.seeds
            ]
            for method in methods
        }
        for method, found in fits.items():
            of = {k: np.array([fit[k] for fit in found]) for k in found[0] if k != "epochs"}
            plain = {k: np.array([fit[k] for fit in fits["None"]]) for k in ("seconds", "passes")}
            print(
                f"{method:9}{of['seconds'].mean():9.2f}"
                f"{of['seconds'].sum() / plain['seconds'].sum():9.2f}{of['passes'].mean():9.1f}"
                f"{of['passes'].sum() / plain['passes'].sum():9.2f}"
                f"{of['accuracy'].mean():10.4f} ± {of['accuracy'].std():.4f}"
                f"{of['error'].mean():7.3f}",
                flush=True,
            )
            for fit in found if arguments.epochs else []:
                print(f"{'':9}{fit['epochs']}: {fit['accuracy']:.4f}")


if __name__ == "__main__":
    main()
