"""
Labels that were checked
========================

What a few checked labels are worth (``fit(..., trusted=mask)``). Two parts:

- ``glc``: the protocol of gold loss correction on MNIST (D. Hendrycks, M. Mazeika, D. Wilson and
  K. Gimpel, "Using trusted data to train deep networks on labels corrupted by severe noise",
  NeurIPS 2018): a 784-128-128-10 network, Adam with a learning rate of 0.001, 10 epochs of batches
  of 32 rows; uniform noise and flips to one other class, at eleven levels; 60, 600 or 3,000 checked
  rows. Published mean errors over the levels in per cent: uniform 10.3, 6.3 and 4.7, flip 3.4, 2.9
  and 2.6.
- ``sets``: digits, Letter and Hausa news, with so many checked rows a class or such a share of all
  rows. ``noisy`` is the same fit without the checked rows, ``trusted`` plain training on them
  alone, ``both`` a fit to all labels in one pile, ``known`` one through the fixed true matrix (of
  synthetic noise), with the checked rows as such.

Every finished run is a row of the CSV file::

    python examples/study/study_trusted.py --part sets --seeds 0 1 2 --data FOLDER
    python examples/study/study_trusted.py --part glc --seeds 0 1 2 --data FOLDER
    python examples/study/study_trusted.py --summary
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import Data, append, digits, finished, hausa_news, letter, mnist, transition

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error
from sknoisy.noise import corrupt_labels

RESULTS = Path(__file__).with_name("trusted.csv")
FIELDS = [
    "part",
    "setting",
    "noise",
    "checked",
    "method",
    "seed",
    "accuracy",
    "transition_error",
    "kept",
    "seconds",
]
LEVELS = [round(0.1 * step, 1) for step in range(11)]
CHECKED = (60, 600, 3000)
SETS: dict[str, tuple[Any, tuple[str, ...], tuple[float, ...], tuple[str, ...]]] = {
    "digits": (digits, ("sym.4", "pair.4"), (0.01, 0.05, 0.2), ("noisy", "trusted", "s")),
    "letter": (letter, ("sym.4", "pair.4"), (0.01, 0.05, 0.2), ("noisy", "trusted", "s")),
    "swapped": (digits, ("pair.6", "pair.8"), (5,), ("trusted", "both", "s", "em", "c", "known")),
    "hausa": (hausa_news, ("human",), (5, 50), ("noisy", "trusted", "both", "s", "em")),
}


def glc_transition(kind: str, level: float, seed: int) -> np.ndarray:
    """Return the matrix of the protocol: mixed with uniform noise, or flipped to another class."""
    identity = np.eye(10)
    if kind == "uniform":
        return (1 - level) * identity + level / 10
    rng = np.random.RandomState(seed)
    flipped = (1 - level) * identity
    for i in range(10):
        flipped[i, rng.choice([j for j in range(10) if j != i])] += level
    return flipped


def checked_rows(y: np.ndarray, checked: float, rng: np.random.RandomState) -> np.ndarray:
    """Return a mask of so many rows a class, or of a share of all rows."""
    mask = np.zeros(len(y), dtype=bool)
    if checked < 1:
        mask[rng.permutation(len(y))[: round(checked * len(y))]] = True
        return mask
    for label in np.unique(y):
        mask[rng.permutation(np.flatnonzero(y == label))[: int(checked)]] = True
    return mask


def fit(method: str, X: Any, y: Any, z: Any, mask: Any, true: Any, **parameters: Any) -> Any:
    """Return the classifier of a method, fitted."""
    if method == "noisy":
        return NoisyLabelClassifier(**parameters).fit(X[~mask], z[~mask])
    if method == "trusted":
        return NoisyLabelClassifier(noise_model=None, **parameters).fit(X[mask], y[mask])
    labels = np.where(mask, y, z)
    if method == "both":
        return NoisyLabelClassifier(**parameters).fit(X, labels)
    if method == "known":
        parameters |= {"transition_init": true, "learn_transition": False}
    elif method == "em":
        parameters["method"] = "em"
    else:
        parameters["noise_model"] = method
    return NoisyLabelClassifier(**parameters).fit(X, labels, trusted=mask)


def judged(
    data: Data, true: np.ndarray, method: str, began: float, classifier: Any
) -> dict[str, Any]:
    """Return what is measured of a fitted classifier."""
    found = np.eye(len(true))
    if len(classifier.classes_) == len(true):
        found = classifier.transition_matrix_
    chosen = [one for one in classifier.selection_ if one["noise_model"] is not None]
    return {
        "method": method,
        "accuracy": round(classifier.score(data.X_test, data.y_test), 4),
        "transition_error": round(transition_matrix_error(true, found), 4),
        "kept": f"{classifier.noise_model_} of {len(chosen)}",
        "seconds": round(time.perf_counter() - began, 1),
    }


def glc(
    noise: str, level: float, checked: int, seed: int, data: str | None = None
) -> dict[str, Any]:
    """Return the row of a run of the protocol of gold loss correction."""
    loaded = mnist(None if data is None else Path(data), seed)
    true = glc_transition(noise, level, seed)
    z = corrupt_labels(loaded.y, true, random_state=seed)
    mask = np.zeros(len(z), dtype=bool)
    mask[np.random.RandomState(seed).permutation(len(z))[:checked]] = True
    began = time.perf_counter()
    parameters = {
        "hidden_layer_sizes": (128, 128),
        "max_epochs": 10,
        "batch_size": 32,
        "random_state": seed,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = fit("s", loaded.X, loaded.y, z, mask, true, **parameters)
    return {
        "part": "glc",
        "setting": "mnist",
        "noise": f"{noise} {level}",
        "checked": checked,
        "seed": seed,
        **judged(loaded, true, "s", began, classifier),
    }


def sets(
    setting: str, noise: str, checked: float, method: str, seed: int, data: str | None = None
) -> dict[str, Any]:
    """Return the row of a run on one of the other data sets."""
    loaded = SETS[setting][0](None if data is None else Path(data), seed)
    n_classes = int(loaded.y.max()) + 1
    if loaded.y_observed is None:
        true = transition(noise, n_classes, seed)
        z = corrupt_labels(loaded.y, true, random_state=seed)
    else:
        z, true = loaded.y_observed, np.zeros((n_classes, n_classes))
        np.add.at(true, (loaded.y, z), 1.0)
        true /= true.sum(axis=1, keepdims=True)
    mask = checked_rows(loaded.y, checked, np.random.RandomState(seed))
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = fit(method, loaded.X, loaded.y, z, mask, true, random_state=seed)
    return {
        "part": "sets",
        "setting": setting,
        "noise": noise,
        "checked": checked,
        "seed": seed,
        **judged(loaded, true, method, began, classifier),
    }


def jobs(parts: list[str], settings: list[str], seeds: list[int]) -> list[tuple[Any, dict]]:
    """Return the functions and arguments of all runs."""
    found: list[tuple[Any, dict]] = []
    for seed in seeds:
        if "sets" in parts:
            found += [
                (sets, {"setting": s, "noise": n, "checked": c, "method": m, "seed": seed})
                for s in settings
                for n in SETS[s][1]
                for c in SETS[s][2]
                for m in SETS[s][3]
            ]
        if "glc" in parts:
            found += [
                (glc, {"noise": n, "level": level, "checked": c, "seed": seed})
                for n in ("uniform", "flip")
                for c in CHECKED
                for level in LEVELS
            ]
    return found


def key(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells a run from all others."""
    return tuple(
        str(row[name]) for name in ("part", "setting", "noise", "checked", "method", "seed")
    )


def name_of(function: Any, arguments: dict[str, Any]) -> tuple[str, ...]:
    """Return the key of a run that is still to be made."""
    if function is glc:
        noise = f"{arguments['noise']} {arguments['level']}"
        known = {"part": "glc", "setting": "mnist", "noise": noise, "method": "s"}
        return key({**arguments, **known})
    return key({"part": "sets", **arguments})


def summary(path: Path) -> None:
    """Print means and standard deviations over the seeds, and the errors over the levels."""
    rows = finished(path)
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row["part"] == "sets":
            groups.setdefault(key(row)[1:5], []).append(float(row["accuracy"]))
        else:
            level = (row["noise"].split()[0], row["checked"], row["seed"])
            groups.setdefault(("glc", *level), []).append(100 - 100 * float(row["accuracy"]))
    for name, values in groups.items():
        spread = f" +- {np.std(values):.3f}" if name[0] != "glc" else " % mean error of"
        print(f"{' '.join(name):32s} {np.mean(values):.4f}{spread} ({len(values)} runs)")


def main() -> None:
    """Make the runs that are asked for, and are not in the file yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", nargs="+", default=["sets", "glc"], choices=["sets", "glc"])
    parser.add_argument("--settings", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", default=None, help="folder of .npz files; OpenML without")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.summary:
        summary(arguments.results)
        return
    done = {key(row) for row in finished(arguments.results)}
    for function, values in jobs(arguments.part, arguments.settings, arguments.seeds):
        if name_of(function, values) in done:
            continue
        row = function(**values, data=arguments.data)
        append(arguments.results, FIELDS, row)
        print({name: row[name] for name in FIELDS[1:]}, flush=True)


if __name__ == "__main__":
    main()
