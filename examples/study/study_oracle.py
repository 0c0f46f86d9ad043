"""
What the labels cannot say
==========================

With few rows of each class even an oracle that sees every true label beside the observed one knows
the transition matrix only up to the chance of its counts. No estimate from the same rows can be
expected to err less, and training through its matrix says what that error costs::

    python examples/study/study_oracle.py --data FOLDER --seeds 0 1 2
    python examples/study/study_oracle.py --summary
    python examples/study/study_oracle.py --data FOLDER --likelihood    # prints, and stores nothing

"known" is trained through the true matrix, "oracle" through the counts of the true pairs,
``T_ij = #(y=i, z=j) / #(y=i)``, and "s" is the default, which sees the observed labels only. The
labels are drawn (``exact=False``), so that the counts differ from their expectation. Every finished
run is a row of ``oracle.csv``; a script that was stopped goes on where it stopped.

``--likelihood`` asks whether the labels could have told: how much likelier than beside plain
training are unseen observed labels beside the default, and beside a network whose noise layer
starts from the true matrix.
"""

from __future__ import annotations

import argparse
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import Data, append, digits, finished, letter, subset, transition

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels

RESULTS = Path(__file__).with_name("oracle.csv")
FIELDS = ["setting", "noise", "method", "seed", "rows_per_class", "accuracy", "error"]
#: setting: (loader, number of classes, parameters)
SETTINGS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "digits": (digits, 10, {}),
    "letter": (letter, 26, {"hidden_layer_sizes": (200,)}),
}
METHODS = ["known", "oracle", "s"]


def counted(y: np.ndarray, observed: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the shares of the observed labels of each true class."""
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (y, observed), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def run(
    setting: str, noise: str, method: str, seed: int, n_rows: int, folder: Path | None
) -> dict[str, Any]:
    """Fit one classifier and return its row of the table."""
    load, n_classes, params = SETTINGS[setting]
    data: Data = subset(load, n_rows * n_classes)(folder, seed)
    true = transition(noise, n_classes, seed)
    observed = corrupt_labels(data.y, true, classes=np.arange(n_classes), random_state=seed)
    oracle = counted(data.y, observed, n_classes)
    options: dict[str, Any] = {}
    if method != "s":
        matrix = true if method == "known" else oracle
        options = {"transition_init": matrix, "learn_transition": False}
    classifier = NoisyLabelClassifier(random_state=seed, **params, **options)
    classifier.fit(data.X, observed)
    matrix = oracle if method == "oracle" else classifier.transition_matrix_
    return {
        "setting": setting,
        "noise": noise,
        "method": method,
        "seed": seed,
        "rows_per_class": n_rows,
        "accuracy": round(classifier.score(data.X_test, data.y_test), 5),
        "error": round(transition_matrix_error(matrix, true), 5),
    }


def likelihoods(setting: str, noise: str, seed: int, n_rows: int, folder: Path | None) -> None:
    """Print by how much unseen labels are likelier from each start, and wrong labels found."""
    load, n_classes, params = SETTINGS[setting]
    data: Data = subset(load, n_rows * n_classes)(folder, seed)
    true = transition(noise, n_classes, seed)
    observed = corrupt_labels(data.y, true, classes=np.arange(n_classes), random_state=seed)
    wrong = np.where(np.eye(n_classes, dtype=bool), 0.0, true).argmax(axis=1)
    for name, start in {"default": "auto", "true matrix": 0.95 * true + 0.05 / n_classes}.items():
        classifier = NoisyLabelClassifier(random_state=seed, transition_init=start, **params)
        classifier.fit(data.X, observed)
        best = max(classifier.selection_, key=lambda report: report["gain"])
        found = np.array(classifier.transition_matrix_)
        np.fill_diagonal(found, 0.0)
        print(
            f"{setting} {noise} {n_rows} rows a class, seed {seed}, {name}: gain "
            f"{best['gain']:.3f} ± {best['standard_error']:.3f} ({best['start']}), likeliest wrong "
            f"label right {np.mean(found.argmax(axis=1) == wrong):.2f}",
            flush=True,
        )


def summarise(rows: list[dict[str, str]]) -> None:
    """Print mean and spread over the seeds."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = row["setting"], row["noise"], row["rows_per_class"], row["method"]
        groups.setdefault(key, []).append(row)
    print(
        f"{'setting':8} {'noise':9} {'rows a class':>12} {'method':7} {'accuracy':>15} "
        f"{'error':>15}"
    )
    for key, group in sorted(groups.items(), key=lambda item: (*item[0][:2], int(item[0][2]))):
        values = {k: np.array([float(row[k]) for row in group]) for k in ("accuracy", "error")}
        shown = "  ".join(f"{v.mean():.3f} ± {v.std():.3f}" for v in values.values())
        print(f"{key[0]:8} {key[1]:9} {key[2]:>12} {key[3]:7}   {shown}   {len(group)} seeds")


def main() -> None:
    """Run what is missing from the table, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--noises", nargs="+", default=["pair.4", "random.4", "sym.4"])
    parser.add_argument("--rows", nargs="+", type=int, default=[15, 40], help="of each class")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder with letter.npz")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    parser.add_argument("--likelihood", action="store_true", help="of the default, and the truth")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.likelihood:
        for problem in product(args.settings, args.noises, args.seeds, args.rows):
            likelihoods(*problem, args.data)
        return
    done = {tuple(row[name] for name in FIELDS[:5]) for row in finished(args.output)}
    for seed in [] if args.summary else args.seeds:
        for setting in args.settings:
            for noise in args.noises:
                for n_rows in args.rows:
                    for method in METHODS:
                        if (setting, noise, method, str(seed), str(n_rows)) not in done:
                            row = run(setting, noise, method, seed, n_rows, args.data)
                            print(row, flush=True)
                            append(args.output, FIELDS, row)
    summarise(finished(args.output))


if __name__ == "__main__":
    main()
