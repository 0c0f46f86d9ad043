"""
A classifier fitted again, once wrong labels are known
======================================================

What the M-step of :class:`sknoisy.NoisyLabelMetaClassifier` should fit to. Five-fold probabilities
give a noise model (as in :func:`sknoisy.inspection.label_quality`), it gives the posterior of the
true label, and the classifier is fitted again:

- ``em-1``: to soft targets, as rows weighted by the posterior (``targets="posterior"``);
- ``em-2``: once more, to the posterior by the classifiers of the first step, out of fold
  (``max_iter=2``);
- ``weighted``: to the observed labels, weighted by their quality (``targets="observed"``);
- ``without``: to the rows that are not listed by ``find_label_issues``.

``bare`` is fitted to the observed labels, ``cleanlearning`` is ``CleanLearning`` of cleanlab 2.9
with the same probabilities, ``clean`` is fitted to the clean labels. The column is the accuracy on
clean test labels. Every finished run is some rows of the CSV file::

    python examples/study/study_refit.py --settings digits usps letter --data FOLDER
    python examples/study/study_refit.py --summary
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import append, finished, observe
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study_issues import SETTINGS

from sknoisy._transition.calibration import recalibrate
from sknoisy._transition.noise_models import fit_noise_model

RESULTS = Path(__file__).with_name("refit.csv")
FIELDS = ["setting", "noise", "classifier", "seed", "method", "accuracy"]
CLASSIFIERS = ("logistic", "forest", "boosting")
METHODS = ("bare", "cleanlearning", "em-1", "em-2", "weighted", "without", "clean")
_SMALLEST = 0.02


def make_classifier(name: str, seed: int) -> Any:
    """Return the classifier, and as what its step takes weights."""
    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    if name == "forest":
        return RandomForestClassifier(random_state=seed)
    return HistGradientBoostingClassifier(max_iter=50, random_state=seed)


def fit(model: Any, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Fit a clone, with weights if there are some."""
    name = f"{model.steps[-1][0]}__sample_weight" if hasattr(model, "steps") else "sample_weight"
    return clone(model).fit(X, y, **({} if weight is None else {name: weight}))


def fit_soft(model: Any, X: np.ndarray, posterior: np.ndarray) -> Any:
    """Fit a clone to soft targets: a row for each class that is in question."""
    posterior = np.where(posterior < _SMALLEST, 0.0, posterior)
    posterior /= posterior.sum(axis=1, keepdims=True)
    row, label = np.nonzero(posterior)
    return fit(model, X[row], label, posterior[row, label])


def run(setting: str, noise: str, classifier: str, seed: int, folder: Path | None) -> list[Any]:
    """Return the rows of the table of one data set, noise and classifier."""
    from cleanlab.classification import CleanLearning

    data = SETTINGS[setting][0](folder, seed)
    y, _ = observe(data, noise, seed)
    X, rows, n_classes = data.X, np.arange(len(y)), int(y.max()) + 1
    model = make_classifier(classifier, seed)
    cv = StratifiedKFold(5, shuffle=True, random_state=seed)
    proba = cross_val_predict(model, X, y, cv=cv, method="predict_proba")
    found = fit_noise_model(np.log(np.maximum(proba, 1e-22)), y).recalibration
    assert found.transition is not None
    posterior = found.posterior
    n_wrong = round(float((np.exp(found.clean_log_proba) @ (1 - np.diag(found.transition))).sum()))
    quality = posterior[rows, y]
    kept = np.sort(np.argsort(quality, kind="stable")[n_wrong:])
    unseen = np.empty((len(y), n_classes))
    for train, test in cv.split(X, y):
        unseen[test] = fit_soft(model, X[train], posterior[train]).predict_proba(X[test])
    again = recalibrate(
        np.log(np.maximum(unseen, 1e-22)), y, found.transition, pseudo_count=20 / n_classes
    )
    models = {
        "bare": fit(model, X, y),
        "cleanlearning": CleanLearning(clone(model), seed=seed).fit(X, y, pred_probs=proba),
        "em-1": fit_soft(model, X, posterior),
        "em-2": fit_soft(model, X, again.posterior),
        "weighted": fit(model, X, y, np.maximum(quality, 1e-3)),
        "without": fit(model, X[kept], y[kept]),
        "clean": fit(model, X, data.y),
    }
    return [
        dict(
            zip(
                FIELDS,
                [setting, noise, classifier, seed, method, m.score(data.X_test, data.y_test)],
                strict=True,
            )
        )
        for method, m in models.items()
    ]


def summarise(rows: list[dict[str, str]]) -> None:
    """Print means over the seeds, and how often each method beats both others."""
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        values = found.setdefault(tuple(row[k] for k in FIELDS[:3]), {})
        values.setdefault(row["method"], []).append(float(row["accuracy"]))
    for key, values in found.items():
        shown = (
            f"{m} {np.mean(values[m]):.3f}±{np.std(values[m]):.3f}" for m in METHODS if m in values
        )
        print(*key, "  ".join(shown))
    for method in ("em-1", "em-2", "weighted", "without"):
        better = [
            np.mean(v[method]) > max(np.mean(v["bare"]), np.mean(v["cleanlearning"]))
            for v in found.values()
        ]
        print(
            f"{method}: above the bare classifier and CleanLearning on {sum(better)} of",
            len(better),
        )


def main() -> None:
    """Run what is missing from the table, and print it."""
    parser = argparse.ArgumentParser(description="Fits after wrong labels are known")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["digits"])
    parser.add_argument("--classifiers", nargs="+", choices=CLASSIFIERS, default=CLASSIFIERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    wanted = [
        (setting, noise, classifier, seed)
        for seed in args.seeds
        for setting in args.settings
        for classifier in args.classifiers
        for noise in SETTINGS[setting][1]
    ]
    for key in [] if args.summary else wanted:
        done = {tuple(row[k] for k in FIELDS[:4]) for row in finished(args.output)}
        if (*key[:3], str(key[3])) not in done:
            for row in run(*key, args.data):
                print(row, flush=True)
                append(args.output, FIELDS, row)
    summarise(finished(args.output))


if __name__ == "__main__":
    main()
