"""
Noise that people and rules make
================================

Labels of people (CIFAR-100N, fine and coarse; music genres, one worker or the majority; LabelMe,
the majority) and of a keyword rule (Hausa news), and noise that depends on the features as in Xia
et al. 2020, :func:`sknoisy.noise.instance_transition`, on Letter, USPS and 10,000 rows of MNIST.

"auto" is ``noise_model="auto"``, "dropout" is ``dropout="auto"``, "networks" is ``n_networks=5``,
and "accurate" all three; "balanced" adds ``class_weight="balanced"``, and "plain-5" is "accurate"
without a noise model. "plain" and "clean" are our network without a noise model, on observed and
on clean labels; "known" is trained through the average matrix, counted with the clean labels;
"cleanlab" is cleanlab's
``CleanLearning`` around the plain network (``pip install cleanlab``, five folds). "forest" and
"boosting" are scikit-learn's, as they come.

Columns: clean accuracy on test rows, and AUROC of low label quality for wrong labels of training
rows. For our networks quality is :func:`sknoisy.inspection.label_quality` of the fitted one; for
cleanlab its own, out of sample; for the forest the out-of-bag probability of the label; for the
others its probability.

Every finished run is a row of the CSV file; a script that was stopped goes on where it stopped::

    python examples/study/study_people.py --data FOLDER
    python examples/study/study_people.py --summary
    python examples/study/study_people.py --table     # for the documentation
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import (
    Data,
    Loader,
    append,
    cifar100n,
    cifar100n_coarse,
    finished,
    hausa_news,
    instance_noise,
    letter,
    mnist,
    music_genre,
    music_genre_majority,
    standardised,
    subset,
    usps,
)
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import roc_auc_score
from study_harm import labelme

from sknoisy import NoisyLabelClassifier
from sknoisy.inspection import label_quality

RESULTS = Path(__file__).with_name("people.csv")
TABLE = Path(__file__).parents[2] / "doc" / "user_guide" / "people_table.txt"
FIELDS = ["setting", "method", "seed", "accuracy", "auroc", "chosen", "noise_rate", "seconds"]
#: setting: (loader, parameters of our network), the cheapest first
SETTINGS: dict[str, tuple[Loader, dict[str, Any]]] = {
    "hausa": (standardised(hausa_news), {}),
    "music-single": (standardised(music_genre), {}),
    "music-majority": (standardised(music_genre_majority), {}),
    "labelme-majority": (labelme, {}),
    "usps-instance.2": (instance_noise(usps, 0.2), {}),
    "usps-instance.4": (instance_noise(usps, 0.4), {}),
    "mnist-instance.2": (instance_noise(subset(mnist, 10_000), 0.2), {}),
    "mnist-instance.4": (instance_noise(subset(mnist, 10_000), 0.4), {}),
    "letter-instance.2": (instance_noise(letter, 0.2), {"hidden_layer_sizes": (200,)}),
    "letter-instance.4": (instance_noise(letter, 0.4), {"hidden_layer_sizes": (200,)}),
    "cifar100n-coarse": (cifar100n_coarse, {"hidden_layer_sizes": (512,)}),
    "cifar100n-fine": (cifar100n, {"hidden_layer_sizes": (512,)}),
}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"noise_model": None},
    "clean": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
    "auto": {"noise_model": "auto"},
    "dropout": {"dropout": "auto"},
    "networks": {"n_networks": 5},
    "accurate": {"noise_model": "auto", "dropout": "auto", "n_networks": 5},
    "balanced": {
        "noise_model": "auto",
        "dropout": "auto",
        "n_networks": 5,
        "class_weight": "balanced",
    },
    "plain-5": {"noise_model": None, "dropout": "auto", "n_networks": 5},
    "em": {"method": "em"},
    "known": {"learn_transition": False},
    "cleanlab": {},
    "forest": {},
    "boosting": {},
}


def average_matrix(data: Data) -> np.ndarray:
    """Return the shares of the observed labels of each true class, of shape (true, observed)."""
    n_classes = int(data.y.max()) + 1
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (data.y, data.y_observed), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def fitted(method: str, data: Data, params: dict[str, Any], seed: int) -> tuple[Any, np.ndarray]:
    """Return a fitted classifier, and the quality of the observed labels."""
    observed, rows = np.asarray(data.y_observed), np.arange(len(data.y))
    if method == "forest":
        forest = RandomForestClassifier(500, oob_score=True, random_state=seed)
        forest.fit(data.X, observed)
        return forest, forest.oob_decision_function_[rows, observed]
    if method == "boosting":
        boosting = HistGradientBoostingClassifier(random_state=seed).fit(data.X, observed)
        return boosting, boosting.predict_proba(data.X)[rows, observed]
    if method == "cleanlab":
        from cleanlab.classification import CleanLearning

        plain = NoisyLabelClassifier(noise_model=None, random_state=seed, **params)
        cleaner = CleanLearning(plain, seed=seed, cv_n_folds=5).fit(data.X, observed)
        return cleaner, cleaner.get_label_issues()["label_quality"].to_numpy()
    options = dict(METHODS[method])
    if method == "known":
        options["transition_init"] = average_matrix(data)
    model = NoisyLabelClassifier(random_state=seed, **params, **options)
    model.fit(data.X, data.y if method == "clean" else observed)
    if model.noise_model is None:
        return model, model.predict_proba(data.X)[rows, observed]
    return model, label_quality(model, data.X, observed)


def run(setting: str, method: str, seed: int, folder: Path | None) -> dict[str, Any]:
    """Fit one classifier and return its row of the table."""
    load, params = SETTINGS[setting]
    data = load(folder, seed)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, quality = fitted(method, data, params, seed)
    wrong = data.y_observed != data.y
    return {
        "setting": setting,
        "method": method,
        "seed": seed,
        "accuracy": round(float(np.mean(model.predict(data.X_test) == data.y_test)), 5),
        "auroc": round(roc_auc_score(wrong, -quality), 5),
        "chosen": getattr(model, "noise_model_", None) or "none",
        "noise_rate": round(float(getattr(model, "noise_rate_", 0.0)), 4),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def write_table(rows: list[dict[str, str]]) -> None:
    """Write mean and spread of the accuracy for the documentation, of the seeds that all have."""
    methods = {row["method"] for row in rows}
    shown = ["plain", "cleanlab", "s", "c", "accurate", "balanced", "known", "clean"]
    shown = [method for method in shown if method in methods]
    table: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        of_seeds = table.setdefault((row["setting"], row["method"]), {})
        of_seeds[row["seed"]] = float(row["accuracy"])
    lines = [
        ["labels", "seeds", *(name if name != "accurate" else "**accurate**" for name in shown)]
    ]
    for setting in SETTINGS:
        runs = [table.get((setting, method), {}) for method in shown]
        compared = [of_seeds for of_seeds in runs if of_seeds]
        if not {"plain", "accurate"} <= {m for m, r in zip(shown, runs, strict=True) if r}:
            continue
        seeds = sorted(set.intersection(*(set(of_seeds) for of_seeds in compared)))
        line = [setting, str(len(seeds))]
        for of_seeds in runs:
            values = np.array([of_seeds[seed] for seed in seeds]) if of_seeds else np.empty(0)
            one = f"{values.mean():.3f}" if len(values) else "\\-"
            one += f" ± {values.std():.3f}" if len(values) > 1 else ""
            line.append(one.replace("0.", "."))
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "  ".join("=" * width for width in widths)
    text = ["  ".join(f"{v:{w}}" for v, w in zip(line, widths, strict=True)) for line in lines]
    text = [rule, text[0], rule, *text[1:], rule]
    TABLE.write_text("\n".join(line.rstrip() for line in text) + "\n", encoding="utf-8")


def summarise(rows: list[dict[str, str]]) -> None:
    """Print mean and spread over the seeds, and the share of the gap to clean labels."""
    table: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        table.setdefault((row["setting"], row["method"]), {})[row["seed"]] = row
    print(
        f"{'setting':20} {'method':9} {'accuracy':>15} {'gap':>6} {'AUROC':>15} {'seconds':>8} "
        "chosen"
    )
    for setting in SETTINGS:
        for method in METHODS:
            group = table.get((setting, method), {})
            if not group:
                continue
            accuracy, auroc, seconds = (
                np.array([float(row[k]) for row in group.values()])
                for k in ("accuracy", "auroc", "seconds")
            )
            plain, clean = (table.get((setting, m), {}) for m in ("plain", "clean"))
            both = [s for s in group if s in plain and s in clean]
            gain, gap = (
                sum(float(one[s]["accuracy"]) - float(plain[s]["accuracy"]) for s in both)
                for one in (group, clean)
            )
            share = f"{gain / gap:6.2f}" if both and gap else f"{'':6}"
            chosen = " ".join(row["chosen"] for row in group.values())
            print(
                f"{setting:20} {method:9} {accuracy.mean():.3f} ± {accuracy.std():.3f}   {share} "
                f"{auroc.mean():.3f} ± {auroc.std():.3f}   {seconds.mean():8.1f} {chosen}"
            )


def main() -> None:
    """Run what is missing from the table, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    parser.add_argument("--table", action="store_true", help="write the table of the documentation")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        write_table(finished(args.output))
        return
    done = {tuple(row[k] for k in FIELDS[:3]) for row in finished(args.output)}
    for seed in [] if args.summary else args.seeds:
        for setting in args.settings:
            for method in args.methods:
                if (setting, method, str(seed)) not in done:
                    row = run(setting, method, seed, args.data)
                    print(row, flush=True)
                    append(args.output, FIELDS, row)
    summarise(finished(args.output))


if __name__ == "__main__":
    main()
