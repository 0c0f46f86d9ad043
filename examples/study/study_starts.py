"""
How close does training get to the known noise?
===============================================

Clean test accuracy of the plain network, of the s-model from each start, of the c-model and of
EM, next to the same network trained through the true transition matrix, which nobody knows.

Every finished run is a row of the CSV file; a script that was stopped goes on where it stopped::

    python examples/study/study_starts.py --settings digits --seeds 0 1 2 3 4
    python examples/study/study_starts.py --settings mnist60 --data FOLDER
    python examples/study/study_starts.py --summary

The variants of the prior, the volume penalty and the learning rate of the noise layer are run by
name: ``--methods s-no-prior s-prior-10 s-volume s-volume-no-prior s-fast-noise s-slow-noise``.

The method "cleanlab" is cleanlab's ``CleanLearning`` around the same plain network (``pip
install cleanlab``). ``FOLDER`` holds ``mnist.npz``, ``usps.npz`` and ``letter.npz`` (arrays
x_train, y_train, x_test, y_test) and
``cifar100n_features.npz``. Without it, MNIST, USPS and Letter come from OpenML
(``fetch_openml``); CIFAR-100N has its page at noisylabels.com.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import (
    Data,
    append,
    breast_cancer,
    cifar100_clean,
    cifar100n,
    digits,
    finished,
    letter,
    mnist,
    observe,
    standardised,
    subset,
    usps,
)

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error

RESULTS = Path(__file__).with_name("starts.csv")
FIELDS = [
    "setting", "noise", "method", "seed", "accuracy", "transition_error", "start_error",
    "noise_rate", "epochs", "seconds",
]  # fmt: skip

PAPER_NET = {"hidden_layer_sizes": (500, 300), "dropout": 0.5, "batch_size": 256, "max_epochs": 40}

#: setting: (loader, noises, parameters)
SETTINGS: dict[str, tuple[Callable[..., Data], list[str], dict[str, Any]]] = {
    "digits": (digits, ["none", "sym.2", "sym.5", "pair.2", "pair.45"], {}),
    "digits-scaled": (standardised(digits), ["none", "sym.5", "pair.45"], {}),
    "breast-cancer": (breast_cancer, ["none", "asym.3"], {}),
    "letter": (letter, ["sym.4", "pair.4", "random.5"], {"hidden_layer_sizes": (200,)}),
    "usps": (usps, ["none", "sym.5", "pair.4"], {}),
    "mnist12": (subset(mnist, 12000), ["perm.40", "perm.46"], PAPER_NET),
    "mnist60": (
        mnist,
        ["perm.46", "perm.48", "perm.49", "perm.495", "sym.5", "pair.45", "none"],
        PAPER_NET,
    ),
    "mnist60-paper": (mnist, ["perm.30", "perm.40", "perm.44"], PAPER_NET),
    "cifar100-20k": (
        subset(cifar100_clean, 20_000),
        ["perm.30", "perm.46"],
        {"hidden_layer_sizes": (256,), "dropout": 0.5},
    ),
    "cifar100n": (cifar100n, ["human"], {"hidden_layer_sizes": (512,)}),
}

PUBLISHED = {
    "transition_init": "confusion",
    "transition_prior": 0.0,
    "select_noise_model": False,
}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"noise_model": None},
    "s": {},
    "s-confusion": PUBLISHED,
    "s-cluster": {"transition_init": "cluster"},
    "known": {"learn_transition": False},
    "c": {"noise_model": "c"},
    "c-confusion": {"noise_model": "c", **PUBLISHED},
    "em": {"method": "em"},
    "em-confusion": {"method": "em", **PUBLISHED},
    # What keeps the matrix in place, and how fast the noise layer learns.
    "s-no-prior": {"transition_prior": 0.0},
    "s-prior-10": {"transition_prior": 10.0},
    "s-volume": {"volume_penalty": 0.01},
    "s-volume-no-prior": {"volume_penalty": 0.01, "transition_prior": 0.0},
    "s-fast-noise": {"optimizer__param_groups": [("noise.*", {"lr": 1e-2})]},
    "s-slow-noise": {"optimizer__param_groups": [("noise.*", {"lr": 1e-4})]},
    "cleanlab": {"noise_model": None},
}
#: Run unless others are asked for.
USUAL = [
    name for name in METHODS if not name.startswith("s-") or name in ("s-confusion", "s-cluster")
]


def run(setting: str, noise: str, method: str, seed: int, folder: Path | None) -> dict[str, Any]:
    """Fit one classifier and return its row of the table."""
    load, _, params = SETTINGS[setting]
    data = load(folder, seed)
    observed, true = observe(data, noise, seed)
    options = dict(METHODS[method])
    if method == "known":
        options["transition_init"] = true
    classifier = NoisyLabelClassifier(random_state=seed, **params, **options)
    fitted: Any = classifier
    if method == "cleanlab":
        from cleanlab.classification import CleanLearning

        fitted = CleanLearning(classifier, seed=seed)
    begin = time.perf_counter()
    fitted.fit(data.X, observed)
    seconds = time.perf_counter() - begin
    if method == "cleanlab":
        classifier = fitted.clf
    return {
        "setting": setting,
        "noise": noise,
        "method": method,
        "seed": seed,
        "accuracy": round(classifier.score(data.X_test, data.y_test), 5),
        "transition_error": round(transition_matrix_error(classifier.transition_matrix_, true), 5),
        "start_error": round(
            transition_matrix_error(classifier.initial_transition_matrix_, true), 5
        ),
        "noise_rate": round(classifier.noise_rate_, 5),
        "epochs": classifier.n_iter_,
        "seconds": round(seconds, 2),
    }


def summarise(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield a line per setting, noise and method: mean and spread over the seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["setting"], row["noise"], row["method"]), []).append(row)
    yield f"{'setting':14} {'noise':9} {'method':13} {'accuracy':>15} {'T error':>8} " + (
        f"{'start':>7} {'seconds':>8} seeds"
    )
    for (setting, noise, method), group in sorted(groups.items()):
        value = {k: np.array([float(r[k]) for r in group]) for k in FIELDS[4:]}
        yield (
            f"{setting:14} {noise:9} {method:13} {value['accuracy'].mean():.4f} +- "
            f"{value['accuracy'].std():.4f} {value['transition_error'].mean():8.3f} "
            f"{value['start_error'].mean():7.3f} {value['seconds'].mean():8.1f} {len(group)}"
        )


def main() -> None:
    """Run what is missing from the table, or print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["digits"])
    parser.add_argument("--noises", nargs="+", help="only these, for instance pair.45")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=USUAL[:-1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.summary:
        for setting in args.settings:
            for noise in args.noises or SETTINGS[setting][1]:
                for seed in args.seeds:
                    for method in args.methods:
                        key = (setting, noise, method, str(seed))
                        if key in {tuple(r[k] for k in FIELDS[:4]) for r in finished(args.output)}:
                            continue
                        row = run(setting, noise, method, seed, args.data)
                        print(row, flush=True)
                        append(args.output, FIELDS, row)
    print("\n".join(summarise(finished(args.output))))


if __name__ == "__main__":
    main()
