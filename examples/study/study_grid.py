"""
How close to the known matrix, over a grid of problems?
=======================================================

Clean test accuracy of the defaults next to the same network trained through the true transition
matrix, with training that early stopping ends, on images, tables, texts and features of two to a
hundred classes, with 40 to 400 rows of each, and nine kinds of label noise::

    python examples/study/study_grid.py --data FOLDER
    python examples/study/study_grid.py --data FOLDER --methods c em --noises pair.45 few.4 random.4
    python examples/study/study_grid.py --summary
    python examples/study/study_grid.py --table s

Every finished run is a row of ``grid.csv``; a script that was stopped goes on where it stopped.
``--part 0 2`` and ``--part 1 2`` run every second problem. ``FOLDER`` holds ``mnist.npz``,
``usps.npz`` and ``letter.npz``, as for ``study_starts.py``, and ``hausa_news.npz`` and
``cifar100n_features.npz``, as for ``study_people.py``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import study_starts
import torch
from data_sets import (
    Loader,
    append,
    cifar100_clean,
    digits,
    finished,
    hausa_texts,
    letter,
    mnist,
    observe,
    subset,
    usps,
)
from study_harm import generated

from sknoisy import NoisyLabelClassifier
from sknoisy.metrics import transition_matrix_error

RESULTS = Path(__file__).with_name("grid.csv")
FIELDS = ["problem", "noise", "method", "seed", "accuracy", "error", "noise_rate", "kept"]
WIDE = {"hidden_layer_sizes": (200,)}
FEATURES = {"hidden_layer_sizes": (256,), "dropout": 0.5}
#: problem: (loader, parameters). The number is that of the rows of each class.
PROBLEMS: dict[str, tuple[Loader, dict[str, Any]]] = {
    "digits 40": (subset(digits, 400), {}),
    "digits 100": (subset(digits, 1_000), {}),
    "usps 40": (subset(usps, 400), {}),
    "usps 200": (subset(usps, 2_000), {}),
    "mnist 40": (subset(mnist, 400), {}),
    "mnist 400": (subset(mnist, 4_000), {}),
    "letter 40": (subset(letter, 1_040), WIDE),
    "letter 100": (subset(letter, 2_600), WIDE),
    "letter 400": (subset(letter, 10_400), WIDE),
    "2 classes 100": (generated(200, 2, 1.0), {}),
    "5 classes 40": (generated(200, 5, 1.5), {}),
    "5 classes 400": (generated(2_000, 5, 1.0), {}),
    "20 classes 100": (generated(2_000, 20, 2.0), {}),
    "texts 150": (hausa_texts, {}),
    "cifar-100 100": (subset(cifar100_clean, 10_000), FEATURES),
}
NOISES = [
    "pair.1", "pair.3", "pair.45", "sym.4", "sym.6", "perm.4", "block.4", "few.4", "random.4",
]  # fmt: skip
METHODS = {name: study_starts.METHODS[name] for name in ("plain", "known", "s", "c", "em")}
USUAL = ["known", "s"]


def run(problem: str, noise: str, method: str, seed: int, folder: Path | None) -> dict[str, Any]:
    """Fit one classifier and return its row of the table."""
    load, params = PROBLEMS[problem]
    data = load(folder, seed)
    observed, true = observe(data, noise, seed)
    options = METHODS[method] | ({"transition_init": true} if method == "known" else {})
    classifier = NoisyLabelClassifier(random_state=seed, **params, **options)
    classifier.fit(data.X, observed)
    return {
        "problem": problem,
        "noise": noise,
        "method": method,
        "seed": seed,
        "accuracy": round(classifier.score(data.X_test, data.y_test), 5),
        "error": round(transition_matrix_error(classifier.transition_matrix_, true), 5),
        "noise_rate": round(classifier.noise_rate_, 5),
        "kept": classifier.noise_model_,
    }


def behind_known(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return accuracy less that of the known matrix, by (method, problem, noise) and then seed."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        key = row["method"], row["problem"], row["noise"]
        found.setdefault(key, {})[row["seed"]] = float(row["accuracy"])
    behind = {}
    for key, accuracy in found.items():
        known = found.get(("known", *key[1:]), {})
        seeds = sorted(set(accuracy) & set(known))
        if key[0] != "known" and seeds:
            behind[key] = {seed: accuracy[seed] - known[seed] for seed in seeds}
    return behind


def summarise(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield how far each method is from the known matrix, the furthest first.

    And then on average: for all problems, for those with 40 rows of a class and with more, and for
    each seed.
    """
    behind = behind_known(rows)
    yield f"{'method':7}{'problem':16}{'noise':10}{'behind known':>16}{'worst':>9} seeds"
    for (method, problem, noise), gaps in sorted(
        behind.items(), key=lambda row: np.mean(list(row[1].values()))
    ):
        values = np.array(list(gaps.values()))
        spread = f"{values.mean():+9.3f} ± {values.std():.3f}{values.min():+9.3f}"
        yield f"{method:7}{problem:16}{noise:10}{spread}{len(values):5}"
    for method in METHODS:
        fits = [
            (problem.endswith(" 40"), seed, gap)
            for (name, problem, _), gaps in behind.items()
            if name == method
            for seed, gap in gaps.items()
        ]
        means = [
            (key[1].endswith(" 40"), np.mean(list(gaps.values())))
            for key, gaps in behind.items()
            if key[0] == method
        ]
        groups = {
            "": [gap for _, gap in means],
            ", 40 rows": [gap for few, gap in means if few],
            ", more": [gap for few, gap in means if not few],
        }
        for seed in sorted({seed for _, seed, _ in fits}):
            groups[f", seed {seed}"] = [gap for _, of, gap in fits if of == seed]
            groups[f", 40 rows, seed {seed}"] = [gap for few, of, gap in fits if few and of == seed]
        yield from (shares(f"{method}{name}", gaps) for name, gaps in groups.items() if gaps)


def shares(name: str, gaps: list[float]) -> str:
    """Return how far some fits are from the known matrix on average, and how many are near it."""
    values = np.array(gaps)
    return (
        f"{name}: mean {values.mean():+.4f}, median {np.median(values):+.4f}, within .01 in "
        f"{np.mean(values >= -0.01):.2f} and within .02 in {np.mean(values >= -0.02):.2f} of "
        f"{len(values)}"
    )


def table(rows: list[dict[str, str]], method: str) -> Iterator[str]:
    """Yield the table of the documentation: hundredths less than through the known matrix."""
    behind = behind_known(rows)
    rule = " ".join(["=" * 16, *["=" * 7] * len(NOISES)])
    yield from (rule, " ".join([f"{'problem':16}", *[f"{noise:>7}" for noise in NOISES]]), rule)
    for problem in PROBLEMS:
        gaps = [behind.get((method, problem, noise)) for noise in NOISES]
        shown = [
            f"{100 * np.mean(list(gap.values())):+7.1f}" if gap else r"     \-" for gap in gaps
        ]
        yield " ".join([f"{problem:16}", *shown])
    yield rule


def main() -> None:
    """Run what is missing from the table, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--noises", nargs="+", default=NOISES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=USUAL)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--part", nargs=2, type=int, default=[0, 1], metavar=("PART", "PARTS"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    parser.add_argument("--table", choices=METHODS, help="print that of the documentation")
    args = parser.parse_args()
    if args.table:
        print("\n".join(table(finished(args.output), args.table)))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # Of two classes with more wrong labels than right ones nobody can say which is which.
    plan = [
        (seed, noise, problem)
        for seed, noise, problem in product(args.seeds, args.noises, args.problems)
        if (noise, problem) != ("sym.6", "2 classes 100")
    ][args.part[0] :: args.part[1]]
    for seed, noise, problem in [] if args.summary else plan:
        for method in args.methods:
            key = (problem, noise, method, str(seed))
            if key in {tuple(row[name] for name in FIELDS[:4]) for row in finished(args.output)}:
                continue
            row = run(problem, noise, method, seed, args.data)
            append(args.output, FIELDS, row)
            print(*row.values(), flush=True)
    print("\n".join(summarise(finished(args.output))))


if __name__ == "__main__":
    main()
