"""
Who finds the wrong labels?
===========================

The quality of labels by the fitted s-model, and by the cross-fitted one (``cv=5``), next to
cleanlab 2.9 (``pip install cleanlab``), which gets out-of-sample probabilities of the same network
without a noise model, five folds as well. Noise is drawn on digits, USPS, Letter and MNIST;
CIFAR-100N, music genres and Hausa news have labels by people or by a rule. Rows are subsets
(USPS 4000, Letter 4000, MNIST 5000, CIFAR-100N 10000, stratified), so that five folds take
minutes on one core.

Columns: AUROC of low quality for wrong labels, precision among the k rows of lowest quality where
k is the number of wrong labels, and the number of labels that are called wrong.

Every finished run is some rows of the CSV file; a script that was stopped goes on there::

    python examples/study/study_issues.py --settings digits usps letter mnist --data FOLDER
    python examples/study/study_issues.py --settings music_genre hausa_news cifar100n --data FOLDER
    python examples/study/study_issues.py --summary      # print and draw
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from data_sets import (
    append,
    cifar100n,
    digits,
    finished,
    hausa_news,
    letter,
    mnist,
    music_genre,
    observe,
    standardised,
    subset,
    usps,
)
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import find_label_issues

RESULTS = Path(__file__).with_name("issues.csv")
FIELDS = ["setting", "noise", "seed", "method", "auroc", "precision", "count", "wrong", "rows"]
SYNTHETIC = ["sym.3", "pair.4", "random.4"]
SETTINGS: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
    "digits": (digits, SYNTHETIC, {}),
    "usps": (subset(usps, 4000), SYNTHETIC, {}),
    "letter": (subset(letter, 4000), SYNTHETIC, {"hidden_layer_sizes": (200,)}),
    "mnist": (subset(mnist, 5000), SYNTHETIC, {}),
    "music_genre": (standardised(music_genre), ["human"], {}),
    "hausa_news": (standardised(hausa_news), ["human"], {}),
    "cifar100n": (subset(cifar100n, 10000), ["human"], {"hidden_layer_sizes": (512,)}),
}
#: Method: (label, colour, marker)
SHOWN = {
    "cleanlab": ("cleanlab, self-confidence", "#CC79A7", "v"),
    "cleanlab-margin": ("cleanlab, normalised margin", "#882255", "^"),
    "fitted": ("sknoisy, fitted", "#56B4E9", "D"),
    "cross-fitted": ("sknoisy, cross-fitted", "#0072B2", "o"),
}


def cleanlab_qualities(model: Any, X: Any, y: Any, cv: Any) -> tuple[dict[str, np.ndarray], int]:
    """Return cleanlab's scores by method and the number of issues that it finds."""
    from cleanlab.filter import find_label_issues as find
    from cleanlab.rank import get_label_quality_scores as score

    proba = cross_val_predict(model, X, y, cv=cv, method="predict_proba")
    qualities = {
        "cleanlab": score(y, proba, method="self_confidence"),
        "cleanlab-margin": score(y, proba, method="normalized_margin"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return qualities, int(find(y, proba, n_jobs=1).sum())


def run(setting: str, noise: str, seed: int, folder: Path | None) -> list[dict[str, Any]]:
    """Rank the labels of one data set and return the rows of the table."""
    load, _, params = SETTINGS[setting]
    data = load(folder, seed)
    y, _ = observe(data, noise, seed)
    wrong = y != data.y
    cv = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = NoisyLabelClassifier(random_state=seed, **params)
    plain = NoisyLabelClassifier(noise_model=None, random_state=seed, **params)
    qualities, n_cleanlab = cleanlab_qualities(plain, data.X, y, cv)
    counts = dict.fromkeys(qualities, n_cleanlab)
    for method, splits in (("fitted", None), ("cross-fitted", cv)):
        if splits is None:
            model.fit(data.X, y)
        issues = find_label_issues(model, data.X, y, cv=splits)
        counts[method] = issues.count
        qualities[method] = issues.all_quality
    n_wrong = int(wrong.sum())
    return [
        {
            "setting": setting,
            "noise": noise,
            "seed": seed,
            "method": method,
            "auroc": round(roc_auc_score(wrong, -quality), 5),
            "precision": round(wrong[np.argsort(quality, kind="stable")[:n_wrong]].mean(), 5),
            "count": counts[method],
            "wrong": n_wrong,
            "rows": len(y),
        }
        for method, quality in qualities.items()
    ]


Groups = dict[tuple[str, str, str], dict[str, np.ndarray]]


def group(rows: list[dict[str, str]]) -> Groups:
    """Return the values of each setting, noise and method."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["setting"], row["noise"], row["method"]), []).append(row)
    order = list(SETTINGS)
    return {
        key: {m: np.array([float(r[m]) for r in found[key]]) for m in FIELDS[4:]}
        for key in sorted(found, key=lambda key: order.index(key[0]))
    }


def draw(groups: Groups, path: Path) -> None:
    """Draw ranking, precision and count; bars are the spread over the seeds."""
    lines = list(dict.fromkeys(key[:2] for key in groups))
    figure, axes = plt.subplots(
        1, 3, figsize=(11, 1.4 + 0.34 * len(lines)), sharey=True, layout="constrained"
    )
    for method, (label, color, marker) in SHOWN.items():
        values = [groups[(*line, method)] for line in lines]
        shown = [
            [v["auroc"] for v in values],
            [v["precision"] for v in values],
            [v["count"] / v["wrong"] for v in values],
        ]
        for axis, points in zip(axes, shown, strict=True):
            axis.errorbar(
                [p.mean() for p in points], range(len(lines)), xerr=[p.std() for p in points],
                fmt=marker, color=color, alpha=0.8, label=label,
            )  # fmt: skip
    axes[0].set_yticks(range(len(lines)), [", ".join(line) for line in lines])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("AUROC of wrong labels")
    axes[1].set_xlabel("precision among the k lowest, k wrong")
    axes[2].set_xlabel("labels called wrong / labels wrong")
    axes[2].axvline(1, color="k", linewidth=0.8)
    for axis in axes:
        axis.grid(axis="y", alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing from the table; print and draw it."""
    parser = argparse.ArgumentParser(description="Who finds the wrong labels?")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["digits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        (setting, noise, seed)
        for setting in args.settings
        for noise in SETTINGS[setting][1]
        for seed in args.seeds
    ]
    for key in [] if args.summary else wanted:
        done = {tuple(row[k] for k in FIELDS[:3]) for row in finished(args.output)}
        if (*key[:2], str(key[2])) not in done:
            for row in run(*key, args.data):
                print(row, flush=True)
                append(args.output, FIELDS, row)
    groups = group(finished(args.output))
    for key, v in groups.items():
        print(
            f"{key[0]:12} {key[1]:9} {key[2]:16} AUROC {v['auroc'].mean():.4f} +- "
            f"{v['auroc'].std():.4f}  precision {v['precision'].mean():.4f} +- "
            f"{v['precision'].std():.4f}  count {v['count'].mean():6.0f} of "
            f"{v['wrong'].mean():6.0f}  seeds {len(v['auroc'])}"
        )
    draw(groups, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
