"""
When a noise model helps, and when it does nothing
==================================================

Clean test accuracy of the s-model, the c-model and EM against the same network without a noise
model, over data that are small, hard, unscaled, unbalanced, or labelled by people and rules, each
without noise, with uniform noise and with pair noise::

    python examples/study/study_harm.py --data FOLDER --methods plain s --seeds 0 1 2 3 4
    python examples/study/study_harm.py --data FOLDER --methods plain c em --seeds 0 1
    python examples/study/study_harm.py --methods plain s --seeds 0 1 2 --max-epochs 40 \
        --output examples/study/harm_40_epochs.csv
    python examples/study/study_harm.py --summary
    python examples/study/study_harm.py --draw      # harm.png and doc/user_guide/harm_table.txt

Every finished run is a row of ``harm.csv``; a script that was stopped goes on where it stopped.
``FOLDER`` holds ``usps.npz``, ``letter.npz``, ``mnist.npz`` (OpenML has them: ``fetch_openml``),
``hausa_news.npz``, ``music_genre.npz`` and ``labelme.npz``; without it their settings are left out.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import (
    Data,
    Loader,
    append,
    digits,
    finished,
    letter,
    mnist,
    music_genre,
    observe,
    subset,
    usps,
)
from scipy import sparse
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_moons,
)
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from sknoisy import NoisyLabelClassifier
from sknoisy.exceptions import UnreliableFitWarning

RESULTS = Path(__file__).with_name("harm.csv")
TABLE = Path(__file__).parents[2] / "doc" / "user_guide" / "harm_table.txt"
FIELDS = [
    "setting", "noise", "method", "seed", "n_rows", "accuracy", "chosen", "noise_rate", "true_rate",
    "warnings", "seconds",
]  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"noise_model": None},
    "s": {},
    "c": {"noise_model": "c"},
    "em": {"method": "em"},
}
N_TEST = 4000


def split(X: Any, y: np.ndarray, seed: int, test_size: float | int = 0.4) -> Data:
    """Split rows at random, stratified."""
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=test_size, stratify=y, random_state=seed
    )
    return Data(X, y, X_test, y_test)


def generated(n_rows: int, n_classes: int, class_sep: float, **params: Any) -> Loader:
    """Gaussian classes in 20 features, 6 of which say something; hard if `class_sep` is small."""

    def load(folder: Path | None, seed: int) -> Data:
        X, y = make_classification(
            n_rows + N_TEST,
            **{"n_features": 20, "n_informative": 6, "n_redundant": 0} | params,
            n_classes=n_classes,
            n_clusters_per_class=1,
            class_sep=class_sep,
            flip_y=0,
            random_state=100 + seed,
        )
        X = X.astype(np.float32)
        return Data(X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:])

    return load


def bundled(load: Callable[..., Any], change: Callable[..., Any] = lambda X: X) -> Loader:
    """Take a data set of scikit-learn as it comes, or changed."""

    def loaded(folder: Path | None, seed: int) -> Data:
        X, y = load(return_X_y=True)
        return split(change(X), y, seed)

    return loaded


def quartiles_of_diabetes(folder: Path | None, seed: int) -> Data:
    """Progression of diabetes, cut into four classes that can hardly be told apart."""
    X, target = load_diabetes(return_X_y=True)
    return split(X, np.digitize(target, np.quantile(target, [0.25, 0.5, 0.75])), seed)


def digits_with_nine_nines(folder: Path | None, seed: int) -> Data:
    """Leave nine rows of class 9 in the digits."""
    data = bundled(load_digits)(folder, seed)
    kept = (data.y != 9) | (np.cumsum(data.y == 9) <= 9)
    return data._replace(X=data.X[kept], y=data.y[kept])


def moons(folder: Path | None, seed: int) -> Data:
    """Two crescents that overlap."""
    X, y = make_moons(400 + N_TEST, noise=0.35, random_state=seed)
    return Data(X[:400], y[:400], X[400:], y[400:])


def mixed_scales(folder: Path | None, seed: int) -> Data:
    """Give the digits columns of 1e-3 beside columns of 1e4."""
    data = bundled(load_digits)(folder, seed)
    scale = np.random.RandomState(0).choice([1e-3, 1.0, 1e4], data.X.shape[1])
    return data._replace(X=data.X * scale, X_test=data.X_test * scale)


def hausa_words(folder: Path | None, seed: int) -> Data:
    """Titles of news labelled by a keyword rule, sparse TF-IDF of words."""
    stored = np.load(Path(str(folder)) / "hausa_news.npz")
    vectorise = TfidfVectorizer(min_df=2, sublinear_tf=True)
    X, X_test = (
        sparse.csr_array(m, dtype=np.float32)
        for m in (
            vectorise.fit_transform(stored["text_train"]),
            vectorise.transform(stored["text_test"]),
        )
    )
    labels = [stored[k].astype(int) for k in ("y_train_clean", "y_test", "y_train_noisy")]
    return Data(X, labels[0], X_test, labels[1], labels[2])


def labelme(folder: Path | None, seed: int) -> Data:
    """Scenes labelled by the majority of a crowd, ties drawn."""
    stored = np.load(Path(str(folder)) / "labelme.npz")
    answers = stored["answers"]
    votes = np.stack([(answers == k).sum(axis=1) for k in range(8)], axis=1)
    draw = np.random.RandomState(seed).uniform(0, 0.5, votes.shape)
    X, X_test = (stored[k].astype(np.float32) for k in ("x_train", "x_test"))
    labels = [stored[k].astype(int) for k in ("y_train_clean", "y_test")]
    return Data(X, labels[0], X_test, labels[1], (votes + draw).argmax(axis=1))


SYNTHETIC = ["none", "sym.2", "pair.3"]
#: setting: (loader, noises, whether it is read from the folder)
SETTINGS: dict[str, tuple[Loader, list[str], bool]] = {
    "hard-5-200": (generated(200, 5, 0.5), SYNTHETIC, False),
    "hard-10-500": (generated(500, 10, 0.5), SYNTHETIC, False),
    "hard-10-1500": (generated(1500, 10, 0.5), SYNTHETIC, False),
    "hard-10-1999": (generated(1999, 10, 0.5), ["none"], False),
    "hard-10-2000": (generated(2000, 10, 0.5), SYNTHETIC, False),
    "hard-10-5000": (generated(5000, 10, 0.5), SYNTHETIC, False),
    "easy-4-64": (generated(64, 4, 1.5), SYNTHETIC, False),
    "easy-4-300": (generated(300, 4, 1.5), SYNTHETIC, False),
    "easy-10-1000": (generated(1000, 10, 1.5), SYNTHETIC, False),
    "wide-2-100": (
        generated(100, 2, 2.0, n_features=500, n_informative=20),
        ["none", "sym.2"],
        False,
    ),
    "rare-1000": (generated(1000, 2, 1.5, weights=[0.99]), ["none", "sym.2"], False),
    "rare-3000": (generated(3000, 2, 1.5, weights=[0.99]), ["none", "sym.2"], False),
    "unbalanced-1500": (
        generated(1500, 5, 1.0, weights=[0.6, 0.2, 0.1, 0.07]),
        SYNTHETIC,
        False,
    ),
    "many-250-1999": (generated(1999, 250, 2.0, n_informative=12), ["none"], False),
    "many-250-2000": (generated(2000, 250, 2.0, n_informative=12), ["none"], False),
    "moons-400": (moons, SYNTHETIC, False),
    "iris": (bundled(load_iris), SYNTHETIC, False),
    "wine-raw": (bundled(load_wine), SYNTHETIC, False),
    "cancer-raw": (bundled(load_breast_cancer), ["none", "sym.2", "asym.3"], False),
    "diabetes-quartiles": (quartiles_of_diabetes, SYNTHETIC, False),
    "digits": (digits, SYNTHETIC, False),
    "digits-0-255": (bundled(load_digits, lambda X: (X * 15.9).astype(np.uint8)), SYNTHETIC, False),
    "digits-3-components": (
        bundled(load_digits, lambda X: PCA(3).fit_transform(X)),
        SYNTHETIC,
        False,
    ),
    "digits-mixed-scales": (mixed_scales, SYNTHETIC, False),
    "digits-nine-nines": (digits_with_nine_nines, ["none"], False),
    "usps-1000": (subset(usps, 1000), SYNTHETIC, True),
    "letter-1500": (subset(letter, 1500), SYNTHETIC, True),
    "letter-4000": (subset(letter, 4000), SYNTHETIC, True),
    "mnist-3000": (subset(mnist, 3000), SYNTHETIC, True),
    "music-genre": (music_genre, ["human"], True),
    "labelme-majority": (labelme, ["human"], True),
    "hausa-words": (hausa_words, ["none", "rule"], True),
}


def run(
    setting: str, noise: str, method: str, seed: int, folder: Path | None, **params: Any
) -> dict[str, Any]:
    """Fit one classifier and return its row of the table."""
    data = SETTINGS[setting][0](folder, seed)
    if noise == "none":
        data = data._replace(y_observed=None)
    observed, _ = observe(data, noise, seed)
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = NoisyLabelClassifier(random_state=seed, **METHODS[method], **params)
        classifier.fit(data.X, observed)
    doubts = [w for w in caught if issubclass(w.category, UnreliableFitWarning)]
    return {
        "setting": setting,
        "noise": noise,
        "method": method,
        "seed": seed,
        "n_rows": len(observed),
        "accuracy": round(classifier.score(data.X_test, data.y_test), 5),
        "chosen": classifier.noise_model_ or "none",
        "noise_rate": round(classifier.noise_rate_, 4),
        "true_rate": round(float(np.mean(observed != data.y)), 4),
        "warnings": len(doubts),
        "seconds": round(time.perf_counter() - begin, 2),
    }


def compare(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], list[tuple[float, ...]]]:
    """Return accuracy of plain training, gain, rates and choice of each fit, by kind and method."""
    table = {tuple(row[k] for k in FIELDS[:4]): row for row in rows}
    groups: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    for (setting, noise, method, seed), row in table.items():
        plain = table.get((setting, noise, "plain", seed))
        if method != "plain" and plain is not None:
            accuracy = float(plain["accuracy"])
            values = (
                accuracy,
                float(row["accuracy"]) - accuracy,
                float(row["noise_rate"]),
                float(row["true_rate"]),
                float(row["chosen"] != "none"),
            )
            groups.setdefault((setting, noise, method), []).append(values)
    return groups


def summarise(rows: list[dict[str, str]]) -> None:
    """Print differences to plain training: mean, worst seed, and the estimated rate."""
    groups = compare(rows)
    head = f"{'setting':22} {'noise':8} {'method':6} plain   gain   worst"
    print(f"{head}  rate (true)  kept seeds")
    for key, values in sorted(groups.items()):
        plain, gain, rate, true, kept = np.mean(values, axis=0)
        worst = min(value[1] for value in values)
        print(
            f"{key[0]:22} {key[1]:8} {key[2]:6} {plain:.3f} {gain:+.3f}  {worst:+.3f}  "
            f"{rate:.2f} ({true:.2f})   {kept:.1f} {len(values)}"
        )
    gains = {m: [v[1] for k, g in groups.items() if k[2] == m for v in g] for m in METHODS}
    for method, values in gains.items():
        if values:
            means = [np.mean([v[1] for v in g]) for k, g in groups.items() if k[2] == method]
            print(
                f"{method}: {len(values)} fits of {len(means)} kinds, mean gain "
                f"{np.mean(values):+.4f}, worst mean {min(means):+.4f}, "
                f"worst fit {min(values):+.4f}"
            )


def draw(rows: list[dict[str, str]]) -> None:
    """Write the table of the documentation, and draw the gains of the s-model."""
    import matplotlib.pyplot as plt

    groups = {k[:2]: np.array(v) for k, v in compare(rows).items() if k[2] == "s"}
    head = f"{'data':22} {'noise':8} {'seeds':>5} {'plain':>7} {'gain of s':>14} {'worst':>7} " + (
        f"{'rate':>6} {'true':>6}"
    )
    widths = (22, 8, 5, 7, 14, 7, 6, 6)
    rule = " ".join("=" * width for width in widths)
    lines = [rule, head, rule]
    for (setting, noise), values in sorted(groups.items()):
        plain, gain, rate, true, _ = values.mean(axis=0)
        spread = f"{gain:+.3f} ± {values[:, 1].std():.3f}"
        lines.append(
            f"{setting:22} {noise:8} {len(values):5d} {plain:7.3f} {spread:>14} "
            f"{values[:, 1].min():+7.3f} {rate:6.2f} {true:6.2f}"
        )
    TABLE.write_text("\n".join([*lines, rule]) + "\n", encoding="utf-8")

    colours = {"none": "#0072B2", "sym.2": "#E69F00", "pair.3": "#009E73"}
    names = {"none": "no noise", "sym.2": "uniform, 20 %", "pair.3": "pair, 30 %"}
    settings = [name for name in SETTINGS if any(key[0] == name for key in groups)]
    figure, panel = plt.subplots(figsize=(7, 8), layout="constrained")
    for height, setting in enumerate(settings):
        for (name, noise), values in groups.items():
            if name == setting:
                colour = colours.get(noise, "#CC79A7")
                gains = values[:, 1]
                panel.plot([gains.min(), gains.max()], [height, height], color=colour, lw=1)
                panel.plot(gains.mean(), height, "o", color=colour, ms=5)
    for noise, name in [*names.items(), ("", "people, rules, one-sided")]:
        panel.plot([], [], "o", color=colours.get(noise, "#CC79A7"), label=name)
    panel.axvline(0, color="0.5", lw=0.8)
    panel.set_yticks(range(len(settings)), settings)
    panel.invert_yaxis()
    panel.set_xlabel("clean test accuracy of the default less that of plain training")
    figure.legend(loc="outside upper center", ncols=4)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=150)


def main() -> None:
    """Run what is missing from the table, or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--max-epochs", type=int, help="of each stage; the default of the classifier"
    )
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="print the table and stop")
    parser.add_argument("--draw", action="store_true", help="draw the figure and write the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.draw:
        draw(finished(args.output))
        return
    params = {} if args.max_epochs is None else {"max_epochs": args.max_epochs}
    done = {tuple(row[k] for k in FIELDS[:4]) for row in finished(args.output)}
    for seed in [] if args.summary else args.seeds:
        for setting in args.settings:
            _, noises, from_folder = SETTINGS[setting]
            for noise in [] if from_folder and args.data is None else noises:
                for method in args.methods:
                    if (setting, noise, method, str(seed)) not in done:
                        row = run(setting, noise, method, seed, args.data, **params)
                        print(row, flush=True)
                        append(args.output, FIELDS, row)
    summarise(finished(args.output))


if __name__ == "__main__":
    main()
