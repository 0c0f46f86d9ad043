"""
Wrong labels from the probabilities of any classifier
=====================================================

Out-of-sample probabilities (five folds) of a logistic regression, of gradient-boosted trees (fifty
iterations) and of our network without a noise model are given to
:func:`sknoisy.inspection.find_label_issues` as ``pred_proba``, and **the same ones** to cleanlab
2.9 (``pip install cleanlab``). Data sets and noise are those of ``study_issues.py``.

Columns: AUROC of low quality for wrong labels, precision among the k rows of lowest quality where k
is the number of wrong labels, and the number of labels that are called wrong. ``--clean`` gives the
classifiers the clean labels, where none is wrong.

Every finished run is some rows of the CSV file; a script that was stopped goes on there.
``--cache`` names a folder where probabilities are kept::

    python examples/study/study_any_classifier.py --settings digits usps letter mnist --data FOLDER
    python examples/study/study_any_classifier.py --settings music_genre hausa_news cifar100n \
        --data FOLDER
    python examples/study/study_any_classifier.py --clean --data FOLDER \
        --settings digits usps letter music_genre hausa_news --classifiers logistic network
    python examples/study/study_any_classifier.py --summary      # print and draw
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
from data_sets import append, finished, observe
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study_issues import SETTINGS

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import find_label_issues

RESULTS = Path(__file__).with_name("any_classifier.csv")
FIELDS = [
    "setting", "noise", "classifier", "seed", "method", "auroc", "precision", "count", "wrong",
    "rows",
]  # fmt: skip
CLASSIFIERS = {
    "logistic": "logistic regression",
    "boosting": "gradient-boosted trees",
    "network": "network",
}
#: Method: (label, colour, marker)
SHOWN = {
    "cleanlab": ("cleanlab, self-confidence", "#CC79A7", "v"),
    "cleanlab-margin": ("cleanlab, normalised margin", "#882255", "^"),
    "sknoisy": ("sknoisy, pred_proba", "#0072B2", "o"),
}


def make_classifier(name: str, setting: str, seed: int) -> Any:
    """Return the classifier whose probabilities are judged."""
    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    if name == "boosting":
        return HistGradientBoostingClassifier(max_iter=50, random_state=seed)
    return NoisyLabelClassifier(noise_model=None, random_state=seed, **SETTINGS[setting][2])


def probabilities(
    setting: str, noise: str, classifier: str, seed: int, folder: Path | None, cache: Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return out-of-sample probabilities, observed labels and clean ones."""
    path = None if cache is None else cache / f"{setting}-{noise}-{seed}-{classifier}.npz"
    if path is not None and path.exists():
        kept = np.load(path)
        return kept["p"].astype(float), kept["y"], kept["clean"]
    data = SETTINGS[setting][0](folder, seed)
    y = data.y if noise == "clean" else observe(data, noise, seed)[0]
    cv = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = make_classifier(classifier, setting, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        proba = cross_val_predict(model, data.X, y, cv=cv, method="predict_proba")
    if path is not None:
        np.savez(path, p=proba.astype(np.float32), y=y, clean=data.y)
    return proba, y, data.y


def run(key: tuple[str, str, str, int], folder: Path | None, cache: Path | None) -> list[Any]:
    """Judge one set of probabilities and return the rows of the table."""
    from cleanlab.filter import find_label_issues as find
    from cleanlab.rank import get_label_quality_scores as score

    proba, y, clean = probabilities(*key, folder, cache)
    proba = np.maximum(proba, 0) / proba.sum(axis=1, keepdims=True)
    wrong = y != clean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        n_cleanlab = int(find(y, proba, n_jobs=1).sum())
    issues = find_label_issues(None, None, y, pred_proba=proba, classes=np.unique(y))
    judged = {
        "cleanlab": (score(y, proba, method="self_confidence"), n_cleanlab),
        "cleanlab-margin": (score(y, proba, method="normalized_margin"), n_cleanlab),
        "sknoisy": (issues.all_quality, issues.count),
    }
    rows, n_wrong = [], int(wrong.sum())
    for method, (quality, count) in judged.items():
        auroc = roc_auc_score(wrong, -quality) if n_wrong else np.nan
        lowest = np.argsort(quality, kind="stable")[:n_wrong]
        precision = wrong[lowest].mean() if n_wrong else np.nan
        values = [*key, method, round(auroc, 5), round(precision, 5), count, n_wrong, len(y)]
        rows.append(dict(zip(FIELDS, values, strict=True)))
    return rows


def group(rows: list[dict[str, str]]) -> dict[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the values of each setting, noise, classifier and method."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        key = (row["setting"], row["noise"], row["classifier"], row["method"])
        found.setdefault(key, []).append(row)
    order = list(SETTINGS)
    return {
        key: {m: np.array([float(r[m]) for r in found[key]]) for m in FIELDS[5:]}
        for key in sorted(found, key=lambda key: (order.index(key[0]), key[1:]))
    }


def draw(groups: dict[tuple[str, ...], dict[str, np.ndarray]], path: Path) -> None:
    """Draw ranking and count of each classifier; bars are the spread over the seeds."""
    lines = [line for line in dict.fromkeys(key[:2] for key in groups) if line[1] != "clean"]
    figure, axes = plt.subplots(
        2, 3, figsize=(11, 2.4 + 0.62 * len(lines)), sharey=True, sharex="row", layout="constrained"
    )
    for column, (classifier, title) in enumerate(CLASSIFIERS.items()):
        axes[0, column].set_title(title)
        for method, (label, color, marker) in SHOWN.items():
            for number, line in enumerate(lines):
                values = groups.get((*line, classifier, method))
                if values is None:
                    continue
                ratio = values["count"] / values["wrong"]
                for axis, v in zip(axes[:, column], (values["auroc"], ratio), strict=True):
                    axis.errorbar(
                        v.mean(), number, xerr=v.std(), fmt=marker, color=color, alpha=0.8,
                        label=label if number == 0 else None,
                    )  # fmt: skip
        axes[0, column].set_xlabel("AUROC of wrong labels")
        axes[1, column].set_xlabel("labels called wrong / labels wrong")
        axes[1, column].axvspan(0.9, 1.1, color="0.9", zorder=0)
        for axis in axes[:, column]:
            axis.grid(axis="y", alpha=0.3)
    axes[0, 0].set_yticks(range(len(lines)), [", ".join(line) for line in lines])
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing from the table; print and draw it."""
    parser = argparse.ArgumentParser(description="Wrong labels from any classifier")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["digits"])
    parser.add_argument("--classifiers", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--clean", action="store_true", help="no label is wrong")
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--cache", type=Path, help="folder for probabilities")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        (setting, noise, classifier, seed)
        for setting in args.settings
        for noise in (["clean"] if args.clean else SETTINGS[setting][1])
        for classifier in args.classifiers
        for seed in args.seeds
    ]
    for key in [] if args.summary else wanted:
        done = {tuple(row[k] for k in FIELDS[:4]) for row in finished(args.output)}
        if (*key[:3], str(key[3])) not in done:
            for row in run(key, args.data, args.cache):
                print(row, flush=True)
                append(args.output, FIELDS, row)
    groups = group(finished(args.output))
    for key, v in groups.items():
        print(
            f"{key[0]:12} {key[1]:9} {key[2]:9} {key[3]:16} AUROC {v['auroc'].mean():.4f} +- "
            f"{v['auroc'].std():.4f}  precision {v['precision'].mean():.4f} +- "
            f"{v['precision'].std():.4f}  count {v['count'].mean():6.0f} of "
            f"{v['wrong'].mean():6.0f}  seeds {len(v['auroc'])}"
        )
    draw(groups, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
