"""
Several answers a row
=====================

Accuracy on test rows, and of the consensus of training rows, for the answers of people (music
genres, 44 annotators; LabelMe, 59) and of simulated annotators of Letter: ten of them, two experts
of either half of the classes, five novices, one spammer, two who confuse neighbours, with one to
three answers an item; and of digits, by 200 annotators with three answers an item and by 700 with
two, of qualities between .1 and 1.

The methods share the network: "true" is trained on the true labels, "majority" and "dawid_skene" on
one label a row; "s" and "em" are the noise model of all answers, "known" is trained through the
matrices that the answers were drawn from. "own" networks are that of the published comparison for
music (124-256-128-10, batch norm, dropout .5, RAdam, 1e-2 with a cosine schedule, 50 epochs,
batches of 64) and one hidden layer of 128 units with dropout .5 for LabelMe; "default" is that of
the package.

Columns: accuracy on test rows; of the consensus, accuracy and expected calibration error in ten
bins; mean absolute error of the quality of annotators with at least 50 answers, and largest one.

Every finished run is a row of the CSV file; a script that was stopped goes on there::

    python examples/study/study_annotators.py --data FOLDER
    python examples/study/study_annotators.py --summary

The folder holds ``music_genre.npz`` and ``labelme.npz`` (fprodrigues.com: ``mturk-datasets`` and
``deep-crowds``) and ``letter.npz`` (or none, then ``fetch_openml("letter")`` is asked).
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import append, digits, finished, letter
from skorch.callbacks import LRScheduler
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.crowd import dawid_skene, majority_vote

RESULTS = Path(__file__).with_name("annotators.csv")
FIELDS = [
    "setting", "network", "method", "seed", "accuracy", "consensus", "calibration_error",
    "quality_error", "worst_quality_error", "answer_power", "annotator_prior", "seconds",
]  # fmt: skip
SETTINGS = ["music_genre", "labelme", "letter", "digits_200", "digits_700"]
METHODS = ["true", "majority", "dawid_skene", "s", "em", "known"]


class MusicNet(nn.Sequential):
    """Hidden layers of the published comparison, 124-256-128."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in ((124, 256), (256, 128)):
            layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(0.5)]
        super().__init__(*layers)


class LabelMeNet(nn.Sequential):
    """One hidden layer with dropout before and after it."""

    def __init__(self) -> None:
        super().__init__(nn.Dropout(0.5), nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.5))


def stored(name: str, folder: Path | None) -> tuple[Any, ...]:
    """Return training rows, answers and true labels, and test rows and their labels."""
    if folder is None:
        raise SystemExit(f"{name} needs --data FOLDER.")
    data = np.load(folder / f"{name}.npz")
    X, X_test = (data[part].astype(np.float32) for part in ("x_train", "x_test"))
    mean, scale = X.mean(axis=0), X.std(axis=0) + 1e-6
    if name == "music_genre":
        X, X_test = (X - mean) / scale, (X_test - mean) / scale
    answers = data["answers"].astype(np.int64)
    return X, answers, data["y_train_clean"], X_test, data["y_test"], None


def simulated_letter(folder: Path | None, seed: int) -> tuple[Any, ...]:
    """Return 4,000 rows of Letter with simulated answers, and the matrices they come from."""
    X, y, X_test, y_test, _ = letter(folder, seed)
    rng = np.random.RandomState(seed)
    rows = rng.permutation(len(X))[:4000]
    X, y = X[rows], y[rows]
    classes, y = np.unique(y, return_inverse=True)
    k = len(classes)

    def matrix(right: np.ndarray, neighbour: float = 0.0) -> np.ndarray:
        even = (1 - right - neighbour)[:, None] / (k - 1) * (1 - np.eye(k))
        return np.diag(right) + even + neighbour * np.roll(np.eye(k), 1, axis=1)

    first = np.arange(k) < k // 2
    matrices = np.array(
        [
            matrix(np.where(first, 0.95, 0.5)),
            matrix(np.where(first, 0.5, 0.95)),
            *[matrix(np.full(k, rng.uniform(0.4, 0.7))) for _ in range(5)],
            np.full((k, k), 1 / k),
            *[matrix(np.full(k, 0.5), 0.4) for _ in range(2)],
        ]
    )
    matrices /= matrices.sum(axis=2, keepdims=True)
    answers = np.full((len(y), len(matrices)), -1)
    for row, label in enumerate(y):
        for annotator in rng.choice(len(matrices), rng.randint(1, 4), replace=False):
            answers[row, annotator] = rng.choice(k, p=matrices[annotator][label])
    return X, answers, y, X_test, np.searchsorted(classes, y_test), matrices


def many_annotators(setting: str, seed: int) -> tuple[Any, ...]:
    """Return digits with answers of many annotators, half of whose errors name the next digit."""
    X, y, X_test, y_test, _ = digits(None, seed)
    n_annotators, n_answers = (200, 3) if setting == "digits_200" else (700, 2)
    rng = np.random.RandomState(seed)
    quality = rng.beta(3, 2, size=n_annotators)
    answers = np.full((len(y), n_annotators), -1)
    for row, label in enumerate(y):
        for annotator in rng.choice(n_annotators, n_answers, replace=False):
            wrong = rng.randint(10) if rng.uniform() < 0.5 else (label + 1) % 10
            answers[row, annotator] = label if rng.uniform() < quality[annotator] else wrong
    return X, answers, y, X_test, y_test, None


def estimator(setting: str, network: str, **parameters: Any) -> NoisyLabelClassifier:
    """Return the classifier with one network or the other."""
    if network == "own" and setting == "music_genre":
        schedule = LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=50)
        parameters |= {"optimizer": torch.optim.RAdam, "lr": 1e-2, "callbacks": [schedule]}
        parameters |= {"module": MusicNet}
    elif network == "own":
        parameters |= {"module": LabelMeNet}
    if network == "own":
        parameters |= {"batch_size": 64, "max_epochs": 50, "early_stopping": False}
    return NoisyLabelClassifier(**parameters)


def run(setting: str, network: str, method: str, seed: int, folder: Path | None) -> dict[str, Any]:
    """Train once; return the row of the CSV file."""
    if setting == "letter":
        loaded = simulated_letter(folder, seed)
    elif setting.startswith("digits"):
        loaded = many_annotators(setting, seed)
    else:
        loaded = stored(setting, folder)
    X, answers, y, X_test, y_test, matrices = loaded
    given: Any = answers
    parameters: dict[str, Any] = {"random_state": seed}
    if method == "em":
        parameters["method"] = "em"
    elif method == "known":
        parameters |= {"transition_init": matrices, "learn_transition": False}
    elif method != "s":
        parameters["noise_model"] = None
    if method == "true":
        given = y
    elif method == "majority":
        given = majority_vote(answers, random_state=seed)
    elif method == "dawid_skene":
        given = dawid_skene(answers).labels
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = estimator(setting, network, **parameters).fit(X, given)
    row: dict[str, Any] = {"setting": setting, "network": network, "method": method, "seed": seed}
    row["accuracy"] = round(float(np.mean(classifier.predict(X_test) == y_test)), 4)
    row["seconds"] = round(time.perf_counter() - start, 1)
    if method in ("majority", "dawid_skene"):
        row["consensus"] = round(float(np.mean(given == y)), 4)
    elif method != "true":
        posterior = classifier.label_posterior(X, answers)
        right, confidence = posterior.argmax(axis=1) == y, posterior.max(axis=1)
        bins = np.minimum((10 * confidence).astype(int), 9)
        gaps = np.bincount(bins, confidence, 10) - np.bincount(bins, right, 10)
        row["consensus"] = round(float(right.mean()), 4)
        row["calibration_error"] = round(float(np.abs(gaps).sum() / len(right)), 4)
        answered = answers >= 0
        n_right = ((answers == y[:, None]) & answered).sum(axis=0)
        truth = n_right / np.maximum(answered.sum(axis=0), 1)
        often = answered.sum(axis=0) >= 50
        errors = np.abs(classifier.annotator_quality_ - truth)[often]
        if often.any():
            row["quality_error"] = round(float(errors.mean()), 4)
            row["worst_quality_error"] = round(float(errors.max()), 4)
        row["answer_power"] = classifier.answer_power_
        row["annotator_prior"] = classifier.annotator_prior_
    return row


def summarise(rows: list[dict[str, str]]) -> None:
    """Print mean and standard deviation over the seeds."""
    print(" " * 44, *METHODS, sep=" | ")
    for setting in SETTINGS:
        for network in ("own", "default"):
            for column in ("accuracy", "consensus", "calibration_error", "worst_quality_error"):
                cells = []
                for method in METHODS:
                    values = [
                        float(row[column])
                        for row in rows
                        if (row["setting"], row["network"], row["method"])
                        == (setting, network, method)
                        and row[column]
                    ]
                    cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "")
                if any(cells):
                    print(f"{setting} {network} {column}:".ljust(44), *cells, sep=" | ")


def main() -> None:
    """Run what is not finished."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--networks", nargs="+", choices=["own", "default"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    if arguments.summary:
        summarise(finished(arguments.output))
        return
    keys = ("setting", "network", "method", "seed")
    done = {tuple(row[key] for key in keys) for row in finished(arguments.output)}
    for seed in arguments.seeds:
        for setting in arguments.settings:
            for network in arguments.networks or ["own", "default"]:
                for method in arguments.methods:
                    if (network == "own" and setting not in SETTINGS[:2]) or (
                        method == "known" and setting != "letter"
                    ):
                        continue
                    if (setting, network, method, str(seed)) not in done:
                        row = run(setting, network, method, seed, arguments.data)
                        append(arguments.output, FIELDS, row)
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
