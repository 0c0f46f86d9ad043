"""
When does the noise depend on the features?
===========================================

The c-model next to the s-model and the plain network. "region": half of the rows have pair noise
of 40 %, the other half none. "opposite": in one half classes are called by the name of the next
one, in the other half of the one before, 35 % each. "boundary": the less a classifier fitted to
clean labels can tell two classes apart, the more labels are wrong, 25 % on average. "class": pair
noise of 20 % everywhere; "none": here and there the c-model has nothing to gain, and should not
hurt.

"gaussians" are four classes that overlap, with a fifth feature that decides the half and says
nothing of the class; 4000 rows to train on, 2000 held out. In "digits" (scikit-learn's, two thirds
to train on) two columns tell which of two annotators the label is from, and that decides the half.

Columns: held-out log-likelihood of observed labels, clean accuracy on held-out rows, AUROC of
finding wrong labels among the rows trained on and among the rows held out.

Every finished run is a row of the CSV file; a script that was stopped goes on where it stopped::

    python examples/study/study_feature_noise.py
    python examples/study/study_feature_noise.py --summary      # print and draw
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from data_sets import append, finished
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import label_quality
from sknoisy.metrics import noisy_log_likelihood_scorer
from sknoisy.noise import boundary_transition, corrupt_labels, pair_transition, region_transition

RESULTS = Path(__file__).with_name("feature_noise.csv")
MEASURES = ["log_likelihood", "accuracy", "auroc_train", "auroc_test"]
FIELDS = ["setting", "noise", "method", "seed", *MEASURES, "noise_rate", "true_rate"]
SETTINGS = ["gaussians", "digits"]
NOISES = ["region", "opposite", "boundary", "class", "none"]
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
}
Groups = dict[tuple[str, str, str], dict[str, np.ndarray]]


def features(setting: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, true labels, and the half that each row is in."""
    random = np.random.RandomState(1000 + seed)
    if setting == "gaussians":
        y = random.randint(4, size=6000)
        X = 2.2 * np.eye(4)[y] + random.normal(size=(6000, 4))
        side = random.normal(size=(6000, 1))
        return np.hstack([X, side]).astype(np.float32), y, side[:, 0] > 0
    X, y = load_digits(return_X_y=True)
    half = random.uniform(size=len(y)) < 0.5
    return np.column_stack([X / 16, half, ~half]).astype(np.float32), y, half


def corrupt(X: np.ndarray, y: np.ndarray, half: np.ndarray, noise: str, seed: int) -> np.ndarray:
    """Return observed labels."""
    n_classes = int(y.max()) + 1
    T = np.eye(n_classes)
    if noise == "region":
        T = region_transition(half, pair_transition(n_classes, 0.4))
    elif noise == "opposite":
        pair = pair_transition(n_classes, 0.35)
        T = region_transition(half, pair, outside=pair.T)
    elif noise == "boundary":
        clean = LogisticRegression(max_iter=1000).fit(X, y).predict_proba(X)
        T = boundary_transition(clean, 0.25, sharpness=2.0)
    elif noise == "class":
        T = pair_transition(n_classes, 0.2)
    return corrupt_labels(y, T, random_state=seed)


def run(setting: str, noise: str, method: str, seed: int) -> dict[str, Any]:
    """Fit one classifier and return its row of the table."""
    X, y, half = features(setting, seed)
    observed = corrupt(X, y, half, noise, seed)
    train, test = train_test_split(np.arange(len(y)), test_size=1 / 3, random_state=seed)
    model = NoisyLabelClassifier(random_state=seed, **METHODS[method])
    model.fit(X[train], observed[train])

    def auroc(rows: np.ndarray) -> float:
        wrong = observed[rows] != y[rows]
        if not wrong.any():
            return float("nan")
        if method == "plain":  # takes labels for right: the probability of the label instead
            quality = model.predict_proba(X[rows])[np.arange(len(rows)), observed[rows]]
        else:
            quality = label_quality(model, X[rows], observed[rows])
        return round(roc_auc_score(wrong, -quality), 5)

    return {
        "setting": setting,
        "noise": noise,
        "method": method,
        "seed": seed,
        "log_likelihood": round(noisy_log_likelihood_scorer(model, X[test], observed[test]), 5),
        "accuracy": round(model.score(X[test], y[test]), 5),
        "auroc_train": auroc(train),
        "auroc_test": auroc(test),
        "noise_rate": round(model.noise_rate_, 4),
        "true_rate": round(float(np.mean(observed != y)), 4),
    }


def group(rows: list[dict[str, str]]) -> Groups:
    """Return the values of each setting, noise and method, ordered by seed."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        found.setdefault((row["setting"], row["noise"], row["method"]), []).append(row)
    return {
        key: {m: np.array([float(r[m]) for r in group]) for m in FIELDS[4:]}
        for key, group in found.items()
    }


def draw(groups: Groups, path: Path) -> None:
    """Draw what the c-model gains on the s-model, a point for each seed."""
    lines = [(s, n) for s in SETTINGS for n in NOISES if (s, n, "c") in groups]
    shown = {
        "log_likelihood": "held-out log-likelihood",
        "accuracy": "clean accuracy, held out",
        "auroc_test": "AUROC of wrong labels, held out",
    }
    figure, axes = plt.subplots(
        1, len(shown), figsize=(10, 1.2 + 0.3 * len(lines)), sharey=True, layout="constrained"
    )
    for axis, (measure, title) in zip(axes, shown.items(), strict=True):
        for at, line in enumerate(lines):
            gain = groups[(*line, "c")][measure] - groups[(*line, "s")][measure]
            axis.plot(gain, [at] * len(gain), "o", color="tab:blue", alpha=0.5)
            axis.plot(gain.mean(), at, "|", color="k", markersize=14)
        axis.axvline(0, color="k", linewidth=0.8)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("c-model minus s-model")
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_yticks(range(len(lines)), [", ".join(line) for line in lines])
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing from the table; print and draw it."""
    parser = argparse.ArgumentParser(description="Noise that depends on the features")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=NOISES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        (setting, noise, method, seed)
        for setting in args.settings
        for noise in args.noises
        for seed in args.seeds
        for method in METHODS
    ]
    for key in [] if args.summary else wanted:
        done = {tuple(row[k] for k in FIELDS[:4]) for row in finished(args.output)}
        if (*key[:3], str(key[3])) not in done:
            row = run(*key)
            print(row, flush=True)
            append(args.output, FIELDS, row)
    groups = group(finished(args.output))
    for key, values in groups.items():
        numbers = "  ".join(
            f"{m} {values[m].mean():.4f} +- {values[m].std():.4f}" for m in MEASURES
        )
        print(f"{key[0]:9} {key[1]:8} {key[2]:5}  {numbers}  seeds {len(values['accuracy'])}")
    draw(groups, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
