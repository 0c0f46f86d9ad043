"""
Do the intervals cover, and does the test of noise hold its level?
==================================================================

``transition_interval`` and ``noise_test`` on labels whose noise is known: the share of entries of
the transition matrix that their 90 % interval covers (on the diagonal, off it, and where the true
entry is zero), and how often the test finds noise at the 5 % level, where there is none and where
there is some.

"gaussians" are 2, 3 or 5 classes that overlap (600, 1000 and 2500 rows; a classifier that knows
the distribution is right on .92, .87 and .95 of them), drawn anew for every seed. In "digits" and
"breast cancer" (scikit-learn's) the rows stay, and the seeds draw the noise and, without noise,
five rows of six. "none": clean labels; "random .3": a random matrix, the same for all seeds, with
30 % of wrong labels; "pair .3": the next class; "uniform": any other class, at three rates.

Columns: covered shares and standard errors, p-value, gain and noise rate of the test.

Every finished run is a row of the CSV file; a script that was stopped goes on where it stopped::

    python examples/study/study_uncertainty.py
    python examples/study/study_uncertainty.py --summary      # print and draw
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
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import noise_test, transition_interval
from sknoisy.noise import corrupt_labels, pair_transition, random_transition, uniform_transition

RESULTS = Path(__file__).with_name("uncertainty.csv")
ENTRIES = ["diagonal", "off", "zero"]
FIELDS = [
    *["setting", "noise", "seed"],
    *[f"covered_{entries}" for entries in ENTRIES],
    *[f"error_{entries}" for entries in ENTRIES],
    *[f"standard_error_{entries}" for entries in ENTRIES],
    *["pvalue", "log_likelihood_gain", "noise_rate", "true_rate"],
]
#: Classes, rows, distance of the centres.
GAUSSIANS = {
    "gaussians, 2": (2, 600, 2.0),
    "gaussians, 3": (3, 1000, 2.0),
    "gaussians, 5": (5, 2500, 3.0),
}
SETTINGS = [*GAUSSIANS, "digits", "breast cancer"]
#: Seeds of each.
NOISES = {
    "none": 40,
    "random .3": 40,
    "pair .3": 20,
    "uniform .05": 15,
    "uniform .1": 15,
    "uniform .2": 15,
}
LEVEL = 0.05


def features(setting: str, seed: int, clean: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return features and true labels."""
    random = np.random.RandomState(1000 + seed)
    if setting in GAUSSIANS:
        n_classes, n_rows, distance = GAUSSIANS[setting]
        y = random.randint(n_classes, size=n_rows)
        centres = distance * np.eye(n_classes)
        return (centres[y] + random.normal(size=(n_rows, n_classes))).astype(np.float32), y
    load = load_digits if setting == "digits" else load_breast_cancer
    X, y = load(return_X_y=True)
    X = X / 16 if setting == "digits" else StandardScaler().fit_transform(X)
    rows = np.sort(random.permutation(len(y))[: len(y) * 5 // 6]) if clean else slice(None)
    return X[rows], y[rows]


def transition(noise: str, n_classes: int) -> np.ndarray:
    """Return the true matrix."""
    kind, _, rate = noise.partition(" ")
    if kind == "none":
        return np.eye(n_classes)
    if kind == "random":
        return random_transition(n_classes, float(rate), random_state=0)
    return {"pair": pair_transition, "uniform": uniform_transition}[kind](n_classes, float(rate))


def run(setting: str, noise: str, seed: int) -> dict[str, Any]:
    """Return a row of the table."""
    X, y = features(setting, seed, noise == "none")
    T = transition(noise, int(y.max()) + 1)
    observed = corrupt_labels(y, T, random_state=seed)
    model = NoisyLabelClassifier(random_state=seed)
    interval = transition_interval(model, X, observed)
    test = noise_test(model, X, observed)
    diagonal = np.eye(len(T), dtype=bool)
    row: dict[str, Any] = {"setting": setting, "noise": noise, "seed": seed}
    for entries, which in zip(
        ENTRIES, [diagonal, ~diagonal & (T > 0), ~diagonal & (T == 0)], strict=True
    ):
        covered = (interval.lower <= T) & (interval.upper >= T)
        values = {
            "covered": covered,
            "error": interval.transition_matrix - T,
            "standard_error": interval.standard_error,
        }
        for name, value in values.items():
            row[f"{name}_{entries}"] = round(float(value[which].mean()), 5) if which.any() else ""
    row["pvalue"] = float(f"{test.pvalue:.4g}")
    row["log_likelihood_gain"] = round(test.log_likelihood_gain, 5)
    row["noise_rate"] = round(test.noise_rate, 4)
    row["true_rate"] = round(float(np.mean(observed != y)), 4)
    return row


def group(rows: list[dict[str, str]]) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Return the values of each setting and noise; NaN where there are no such entries."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["setting"], row["noise"]), []).append(row)
    return {
        (setting, noise): {
            m: np.array([float(r[m] or "nan") for r in found[setting, noise]]) for m in FIELDS[3:]
        }
        for setting in SETTINGS
        for noise in NOISES
        if (setting, noise) in found
    }


def draw(groups: dict[tuple[str, str], dict[str, np.ndarray]], path: Path) -> None:
    """Draw what was covered, and how often noise was found."""
    colours = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"]
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=colours)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    at = np.arange(len(SETTINGS))
    random = [groups.get((s, "random .3")) for s in SETTINGS]
    for entries, shift, marker in [("diagonal", -0.1, "o"), ("off", 0.1, "s")]:
        shares = [np.nan if g is None else g[f"covered_{entries}"].mean() for g in random]
        errors = [
            np.nan if g is None else g[f"covered_{entries}"].std() / np.sqrt(len(g["pvalue"]))
            for g in random
        ]
        label = {"diagonal": "on the diagonal", "off": "off it"}[entries]
        left.errorbar(at + shift, shares, errors, fmt=marker, label=label, capsize=3)
    left.axhspan(0.85, 0.95, color="k", alpha=0.1)
    left.axhline(0.9, color="k", linewidth=0.8)
    left.set_ylim(0.7, 1.0)
    left.set_xticks(at, [s.replace(", ", "\n").replace(" ", "\n") for s in SETTINGS])
    left.set_title("Entries covered by their 90 % interval, random matrix", fontsize="medium")
    left.legend()
    shown = ["none", "uniform .05", "uniform .1", "uniform .2"]
    for setting, line in zip(SETTINGS, ["-", "-", "-", "--", "--"], strict=True):
        found = [
            np.mean(groups[setting, n]["pvalue"] < LEVEL) if (setting, n) in groups else np.nan
            for n in shown
        ]
        right.plot(found, f"o{line}", label=setting, alpha=0.8)
    right.axhline(LEVEL, color="k", linewidth=0.8)
    right.set_xticks(range(len(shown)), shown)
    right.set_title("Share of data sets where the test finds noise, 5 % level", fontsize="medium")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing from the table; print and draw it."""
    parser = argparse.ArgumentParser(description="Intervals of the matrix, and the test of noise")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--noises", nargs="+", choices=list(NOISES), default=list(NOISES))
    parser.add_argument("--seeds", type=int, help="at most so many")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        (setting, noise, seed)
        for noise in args.noises
        for setting in args.settings
        for seed in range(min(NOISES[noise], args.seeds or NOISES[noise]))
    ]
    done = {tuple(row[k] for k in FIELDS[:3]) for row in finished(args.output)}
    for setting, noise, seed in [] if args.summary else wanted:
        if (setting, noise, str(seed)) not in done:
            row = run(setting, noise, seed)
            print(*[row[k] for k in [*FIELDS[:6], "pvalue"]], flush=True)
            append(args.output, FIELDS, row)
    groups = group(finished(args.output))
    for key, values in groups.items():
        shares = "  ".join(f"{e} {values[f'covered_{e}'].mean():.3f}" for e in ENTRIES)
        pvalue = values["pvalue"]
        print(
            f"{key[0]:13} {key[1]:11}  covered: {shares}  noise found {np.mean(pvalue < LEVEL):.2f}"
            f" (at 1 %: {np.mean(pvalue < 0.01):.2f})  noise rate {values['noise_rate'].mean():.3f}"
            f" +- {values['noise_rate'].std():.3f}, true {values['true_rate'].mean():.3f}"
            f"  seeds {len(pvalue)}"
        )
    draw(groups, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
