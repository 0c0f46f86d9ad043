"""
Which labels to have checked
============================

How many wrong labels a check finds, of the rows that `sknoisy.inspection.next_labels` names first
(``next_labels``, by cross-fitting of three folds), of cleanlab's order (``cleanlab``, the better of
self-confidence and normalised margin, from three-fold probabilities of the same network without a
noise model), and of rows at random (``random``, the noise rate). The column is the share of wrong
labels among the rows named first. Every finished run is some rows of the CSV file::

    python examples/study/study_next_labels.py --seeds 0 1 2 --data FOLDER
    python examples/study/study_next_labels.py --summary
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import append, cifar100n, finished, letter, observe, subset
from sklearn.model_selection import cross_val_predict

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import next_labels

RESULTS = Path(__file__).with_name("next_labels.csv")
FIELDS = ["setting", "noise", "seed", "n_checked", "method", "precision"]
SETTINGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "letter": (subset(letter, 6000), ("sym.2", "pair.2", "sym.4")),
    "cifar100n": (subset(cifar100n, 10000), ("human",)),
}
CHECKS = (50, 200, 500)


def run(setting: str, noise: str, seed: int, folder: Path | None) -> list[dict[str, Any]]:
    """Return the rows of the table of one data set, noise and seed."""
    from cleanlab.rank import get_label_quality_scores

    load, _ = SETTINGS[setting]
    data = load(folder, seed)
    y, _ = observe(data, noise, seed)
    wrong = y != data.y
    classifier = NoisyLabelClassifier(random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = next_labels(classifier, data.X, y, max(CHECKS), cv=3).indices
        plain = NoisyLabelClassifier(noise_model=None, random_state=seed)
        proba = cross_val_predict(plain, data.X, y, cv=3, method="predict_proba")
    orders = {"next_labels": [named]}
    orders["cleanlab"] = [
        np.argsort(get_label_quality_scores(y, proba, method=method))
        for method in ("self_confidence", "normalized_margin")
    ]
    found = {"setting": setting, "noise": noise, "seed": seed}
    rows = []
    for n in CHECKS:
        shares = {
            method: max(float(wrong[order[:n]].mean()) for order in some)
            for method, some in orders.items()
        }
        shares["random"] = float(wrong.mean())
        rows += [
            {**found, "n_checked": n, "method": method, "precision": round(share, 4)}
            for method, share in shares.items()
        ]
    return rows


def summary(path: Path) -> None:
    """Print the mean and the standard deviation over the seeds."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in finished(path):
        name = tuple(row[field] for field in ("setting", "noise", "n_checked", "method"))
        groups.setdefault(name, []).append(float(row["precision"]))
    for name, values in groups.items():
        spread = f"{np.mean(values):.3f} +- {np.std(values):.3f}"
        print(f"{' '.join(name):40s} {spread} ({len(values)} seeds)")


def main() -> None:
    """Make the runs that are asked for, and are not in the file yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, default=None, help="folder of .npz files")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.summary:
        summary(arguments.results)
        return
    done = {tuple(row[field] for field in FIELDS[:3]) for row in finished(arguments.results)}
    for seed in arguments.seeds:
        for setting in arguments.settings:
            for noise in SETTINGS[setting][1]:
                if (setting, noise, str(seed)) in done:
                    continue
                for row in run(setting, noise, seed, arguments.data):
                    append(arguments.results, FIELDS, row)
                    print(row, flush=True)


if __name__ == "__main__":
    main()
