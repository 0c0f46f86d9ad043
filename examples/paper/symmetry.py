"""
What soft and hard counts say of a permutation
==============================================

The paper starts the noise layer from the observed labels averaged with the probabilities of the
baseline, its public code from counts of the arg max. On a fifth of MNIST, with the baseline of the
public code, this prints the mean entries of either start: of a class for itself, for the class that
its labels turn into, and for the class whose labels turn into it, which the true matrix does not
have::

    python examples/paper/symmetry.py --data FOLDER --output examples/paper/symmetry.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import mnist
import numpy as np
import torch
from protocol import CHAINS, MAX_EPOCHS, subset

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels

FIELDS = [
    "size", "level", "seed", "counts", "own", "turned_into", "turned_from", "start_error",
    "train_accuracy",
]  # fmt: skip


def counts_of(responsibility: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the matrix (true, observed) from probabilities of shape (n, true)."""
    counts = responsibility.T @ np.eye(responsibility.shape[1])[observed]
    return counts / counts.sum(axis=1, keepdims=True)


def main() -> None:
    """Run every level and seed that is asked for."""
    parser = argparse.ArgumentParser(description="Soft and hard counts of a permutation")
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--size", type=float, default=20, help="in percent")
    parser.add_argument("--levels", nargs="+", type=float, default=[0.3, 0.4, 0.46, 0.48])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help="a table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    all_images, chain = mnist.load(args.data), CHAINS["code"]
    own = np.arange(10)
    other = np.array(mnist.PERMUTATION)
    rows = []
    for seed in args.seeds:
        images = subset(all_images, args.size, seed)
        for level in args.levels:
            true = mnist.FIGURE.transition(level, seed)
            observed = corrupt_labels(images.y, true, exact=True, random_state=seed)
            baseline = NoisyLabelClassifier(
                noise_model=None,
                max_epochs=MAX_EPOCHS,
                random_state=seed,
                callbacks=chain.callbacks(),
                **{**mnist.FIGURE.options, **chain.options},
            ).fit(images.X, observed)
            proba = baseline.predict_proba(images.X)
            predicted = proba.argmax(axis=1)
            for name, share in (("soft", proba), ("hard", np.eye(10)[predicted])):
                start = counts_of(share, observed)
                row = {
                    "own": start[own, own].mean(),
                    "turned_into": start[own, other].mean(),
                    "turned_from": start[other, own].mean(),
                    "start_error": transition_matrix_error(start, true),
                    "train_accuracy": np.mean(predicted == images.y),
                }
                row = {k: round(float(v), 4) for k, v in row.items()}
                rows.append(
                    {"size": f"{args.size:g}", "level": level, "seed": seed, "counts": name, **row}
                )
                print(*rows[-1].values(), flush=True)
    if args.output:
        with args.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
