"""Predictions of every way of training on digits, to compare two versions of the code.

A change that is to leave the results alone is checked on one machine, before and after::

    OMP_NUM_THREADS=1 python tests/benchmarks/predictions.py before.npz
    OMP_NUM_THREADS=1 python tests/benchmarks/predictions.py after.npz --compare before.npz

The second command prints the largest difference of each result and fails if one is larger than
``--tolerance``, zero by default: equal to the bit. Other processors give other last digits, so
that the numbers themselves are not kept.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import find_label_issues, transition_interval
from sknoisy.noise import corrupt_labels, pair_transition

X, TRUE = load_digits(return_X_y=True)
X, X_NEW, TRUE, TRUE_NEW = train_test_split(X / 16, TRUE, stratify=TRUE, random_state=0)
KNOWN = pair_transition(10, 0.3)
Y, Y_NEW = (corrupt_labels(y, KNOWN, random_state=0) for y in (TRUE, TRUE_NEW))
WEIGHT = np.random.default_rng(0).integers(0, 4, size=len(Y)).astype(float)


class Layers(nn.Sequential):
    """Hidden layers of the user's, which go through autograd."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 50), nn.Tanh(), nn.Linear(50, 20), nn.ReLU())


#: Parameters of the classifiers, by the name of what they try.
FITS: dict[str, dict[str, Any]] = {
    "none": {"noise_model": None},
    "s": {},
    "s, held out": {"early_stopping": True},
    "s, float32": {"dtype": np.float32},
    "s, weights": {"weight": WEIGHT},
    "s, sparse": {"n_noise_targets": 3},
    "s, module": {"module": Layers},
    "s, dropout": {"dropout": 0.3},
    "s, volume": {"volume_penalty": 0.1},
    "s, published": {"transition_init": "confusion", "transition_prior": 0.0},
    "s, cluster": {"transition_init": "cluster"},
    "s, known": {"transition_init": KNOWN, "learn_transition": False},
    "s, balanced": {"class_weight": "balanced", "weight": WEIGHT},
    "c": {"noise_model": "c"},
    "c, held out": {"noise_model": "c", "early_stopping": True},
    "c, weights": {"noise_model": "c", "weight": WEIGHT},
    "c, sparse": {"noise_model": "c", "n_noise_targets": 3},
    "em": {"method": "em"},
    "em, weights": {"method": "em", "weight": WEIGHT, "early_stopping": True},
    "em, sparse": {"method": "em", "n_noise_targets": 3},
    "em, known": {"method": "em", "transition_init": KNOWN, "learn_transition": False},
}


def outputs(classifier: Any) -> dict[str, np.ndarray]:
    """Return what a fitted classifier says."""
    return {
        "proba": classifier.predict_proba(X_NEW),
        "noisy proba": classifier.predict_noisy_proba(X_NEW),
        "posterior": classifier.label_posterior(X_NEW, Y_NEW),
        "transition": np.array(classifier.predict_transition(X_NEW[:5])),
        "matrix": classifier.transition_matrix_,
        "start": classifier.initial_transition_matrix_,
        "rate": np.array(classifier.noise_rate_),
        "losses": np.array(classifier.history_[:, "train_loss"]),
    }


def fitted(dtype: Any = np.float64, weight: np.ndarray | None = None, **params: Any) -> Any:
    """Fit a classifier."""
    classifier = NoisyLabelClassifier(max_epochs=15, max_em_iter=20, random_state=0, **params)
    return classifier.fit(X.astype(dtype), Y, sample_weight=weight)


def stream(first: bool, passes: int = 8, **params: Any) -> Any:
    """Learn from chunks, after a fit to the first one or from the first call on."""
    classifier = NoisyLabelClassifier(
        max_epochs=15, n_iter_no_change=1, lr=3e-3, random_state=0, **params
    )
    chunks = np.arange(len(Y)).reshape(-1, len(Y) // 3)
    if first:
        classifier.fit(X[chunks[0]], Y[chunks[0]])
    for _ in range(passes):
        for rows in chunks:
            classifier.partial_fit(X[rows], Y[rows], classes=np.arange(10))
    return classifier


def inspected() -> dict[str, np.ndarray]:
    """Return what cross-fitting says of the labels and of the matrix."""
    classifier = NoisyLabelClassifier(max_epochs=15, random_state=0)
    issues = find_label_issues(classifier, X, Y, cv=2)
    found = transition_interval(classifier, X, Y, cv=2)
    return {
        "quality": issues.all_quality,
        "issues": issues.indices,
        **{f"interval {key}": np.asarray(value) for key, value in found.items()},
    }


def results() -> Iterator[tuple[str, np.ndarray]]:
    """Yield the results by their names."""
    cases: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        name: lambda params=params: outputs(fitted(**params)) for name, params in FITS.items()
    }
    cases["stream after fit"] = lambda: outputs(stream(True))
    cases["stream, none"] = lambda: outputs(stream(False, passes=30))
    kept = {"passes": 30, "select_noise_model": False}
    cases["stream, s"] = lambda: outputs(stream(False, **kept))
    cases["stream, c"] = lambda: outputs(stream(False, noise_model="c", **kept))
    cases["stream, given"] = lambda: outputs(stream(False, transition_init=KNOWN))
    cases["inspection"] = inspected
    for case, compute in cases.items():
        for name, values in compute().items():
            yield f"{case}: {name}", values


def main() -> int:
    """Write the results, and compare them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("path", help="where to write the results")
    parser.add_argument("--compare", metavar="BEFORE", help="results of another version")
    parser.add_argument("--tolerance", type=float, default=0.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    found = dict(results())
    np.savez(arguments.path, **found)
    if arguments.compare is None:
        return 0
    before, n_unequal = dict(np.load(arguments.compare)), 0
    for name in sorted(before.keys() | found.keys()):
        if name not in before or name not in found or before[name].shape != found[name].shape:
            print(f"{name}: not in both, or of another shape")
            n_unequal += 1
            continue
        if np.array_equal(before[name], found[name], equal_nan=True):
            continue
        difference = np.max(np.abs(before[name].astype(float) - found[name]), initial=0.0)
        n_unequal += not difference <= arguments.tolerance
        print(f"{name}: {difference:.3g}")
    print(f"{len(found) - n_unequal} of {len(found)} results within {arguments.tolerance:g}")
    return int(n_unequal > 0)


if __name__ == "__main__":
    sys.exit(main())
