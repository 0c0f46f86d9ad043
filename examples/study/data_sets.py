"""Data sets of the studies: loaders, and the label noise they are given.

Every loader takes a folder of ``.npz`` files and a seed. MNIST, USPS and Letter come from OpenML
when the folder is None. The sets with human labels, which bring their observed labels along, are
read from the folder only.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import fetch_openml, load_breast_cancer, load_digits
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sknoisy.noise import (
    block_transition,
    corrupt_labels,
    instance_transition,
    pair_transition,
    permutation_transition,
    random_transition,
    uniform_transition,
)

#: The permutation of the digits that the paper flips to.
PAPER_CYCLE = [7, 9, 0, 4, 2, 1, 3, 5, 6, 8]


class Data(NamedTuple):
    """Training and test rows with clean labels, and observed labels where they are real."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    y_observed: np.ndarray | None = None


Loader = Callable[[Path | None, int], Data]


def digits(folder: Path | None, seed: int) -> Data:
    """scikit-learn's digits, 1257 rows to train on."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, stratify=y, random_state=seed)
    return Data(X, y, X_test, y_test)


def breast_cancer(folder: Path | None, seed: int) -> Data:
    """scikit-learn's breast cancer data, two classes."""
    X, y = load_breast_cancer(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    scaler = StandardScaler().fit(X)
    return Data(scaler.transform(X), y, scaler.transform(X_test), y_test)


def _stored(name: str, openml: dict[str, Any], scale: float, n_train: int) -> Loader:
    def load(folder: Path | None, seed: int) -> Data:
        if folder is None:
            X, y = fetch_openml(**openml, return_X_y=True, as_frame=False)
            y = np.unique(y, return_inverse=True)[1]
            X, X_test, y, y_test = X[:n_train], X[n_train:], y[:n_train], y[n_train:]
        else:
            stored = np.load(folder / f"{name}.npz")
            X, y, X_test, y_test = (stored[k] for k in ("x_train", "y_train", "x_test", "y_test"))
        flat = [np.asarray(a, dtype=np.float32).reshape(len(a), -1) / scale for a in (X, X_test)]
        return Data(flat[0], y.astype(int), flat[1], y_test.astype(int))

    return load


def subset(load: Loader, n: int) -> Loader:
    """Keep `n` rows to train on, stratified by the clean label."""

    def loaded(folder: Path | None, seed: int) -> Data:
        data = load(folder, seed)
        rows = np.arange(len(data.X))
        rows, _ = train_test_split(rows, train_size=n, stratify=data.y, random_state=seed)
        observed = None if data.y_observed is None else data.y_observed[rows]
        return data._replace(X=data.X[rows], y=data.y[rows], y_observed=observed)

    return loaded


def standardised(load: Loader) -> Loader:
    """Scale the features by the training rows."""

    def loaded(folder: Path | None, seed: int) -> Data:
        data = load(folder, seed)
        scaler = StandardScaler().fit(data.X)
        return data._replace(X=scaler.transform(data.X), X_test=scaler.transform(data.X_test))

    return loaded


def _from_folder(folder: Path | None, name: str) -> Any:
    if folder is None:
        raise SystemExit(f"this setting needs --data with {name}.npz")
    return np.load(folder / f"{name}.npz")


def cifar100n(folder: Path | None, seed: int) -> Data:
    """Features of CIFAR-100 with one human label an image, 100 classes."""
    stored = _from_folder(folder, "cifar100n_features")
    X, X_test = (stored[k] / np.float32(28) for k in ("x_train", "x_test"))
    return Data(X, stored["y_train_clean"], X_test, stored["y_test"], stored["y_train_noisy"])


def cifar100n_coarse(folder: Path | None, seed: int) -> Data:
    """Features of CIFAR-100 with one human label an image, 20 classes."""
    fine, stored = cifar100n(folder, seed), _from_folder(folder, "cifar100n_labels")
    clean, noisy = (stored[k].astype(int) for k in ("y_clean_coarse", "y_noisy_coarse"))
    to_coarse = _from_folder(folder, "cifar100n_features")["fine_to_coarse"].astype(int)
    return Data(fine.X, clean, fine.X_test, to_coarse[fine.y_test], noisy)


def cifar100_clean(folder: Path | None, seed: int) -> Data:
    """Features of CIFAR-100 with their clean labels, for synthetic noise."""
    return cifar100n(folder, seed)._replace(y_observed=None)


def music_genre(folder: Path | None, seed: int) -> Data:
    """Songs labelled by one crowd worker each, 10 genres, 700 rows."""
    stored = _from_folder(folder, "music_genre")
    X, X_test = (stored[k].astype(np.float32) for k in ("x_train", "x_test"))
    labels = [stored[k].astype(int) for k in ("y_train_clean", "y_test", "y_train_single")]
    return Data(X, labels[0], X_test, labels[1], labels[2])


def music_genre_majority(folder: Path | None, seed: int) -> Data:
    """Songs labelled by the majority of several crowd workers, ties drawn."""
    stored = _from_folder(folder, "music_genre")
    return music_genre(folder, seed)._replace(y_observed=stored["y_train_majority"].astype(int))


def instance_noise(load: Loader, rate: float) -> Loader:
    """Draw observed labels that depend on the features, as in Xia et al. 2020."""

    def loaded(folder: Path | None, seed: int) -> Data:
        data = load(folder, seed)
        noise = instance_transition(data.X, int(data.y.max()) + 1, rate, random_state=seed)
        return data._replace(y_observed=corrupt_labels(data.y, noise, random_state=seed))

    return loaded


def hausa_news(folder: Path | None, seed: int) -> Data:
    """Titles of news labelled by a keyword rule, 5 topics; 100 components of character n-grams."""
    stored = _from_folder(folder, "hausa_news")
    vectorise = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    reduce = TruncatedSVD(100, random_state=seed)
    X = reduce.fit_transform(vectorise.fit_transform(stored["text_train"]))
    X_test = reduce.transform(vectorise.transform(stored["text_test"]))
    labels = [stored[k].astype(int) for k in ("y_train_clean", "y_test", "y_train_noisy")]
    return Data(X.astype(np.float32), labels[0], X_test.astype(np.float32), labels[1], labels[2])


def hausa_texts(folder: Path | None, seed: int) -> Data:
    """Titles of the same news as sparse TF-IDF of words, 150 of each topic to train on."""
    stored = _from_folder(folder, "hausa_news")
    y, y_test = (stored[k].astype(int) for k in ("y_train_clean", "y_test"))
    rng = np.random.RandomState(seed)
    rows = [rng.permutation(np.flatnonzero(y == topic))[:150] for topic in range(5)]
    kept = rng.permutation(np.concatenate(rows))
    vectorise = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    X = vectorise.fit_transform(stored["text_train"][kept])
    return Data(X, y[kept], vectorise.transform(stored["text_test"]), y_test)


mnist = _stored("mnist", {"name": "mnist_784", "version": 1}, 255.0, 60000)
usps = _stored("usps", {"name": "USPS", "version": 2}, 1.0, 7291)
letter = standardised(_stored("letter", {"name": "letter", "version": 1}, 1.0, 16000))


def _cycle(n_classes: int, seed: int) -> np.ndarray:
    """Return a permutation that is one cycle through all classes, in an order that is drawn."""
    order = np.random.RandomState(seed).permutation(n_classes)
    cycle = np.empty(n_classes, dtype=int)
    cycle[order] = np.roll(order, -1)
    return cycle


def transition(noise: str, n_classes: int, seed: int) -> np.ndarray:
    """Return the true matrix of a noise such as "pair.45"."""
    kind, _, fraction = noise.partition(".")
    rate = float(f"0.{fraction or 0}")
    if kind == "none":
        return np.eye(n_classes)
    if kind == "sym":
        return uniform_transition(n_classes, rate)
    if kind == "pair":
        return pair_transition(n_classes, rate)
    if kind == "perm":
        cycle = PAPER_CYCLE if n_classes == len(PAPER_CYCLE) else _cycle(n_classes, seed)
        return permutation_transition(cycle, rate)
    if kind == "random":
        return random_transition(n_classes, rate, random_state=seed)
    if kind == "block":
        return block_transition(np.arange(n_classes) // 3, rate)
    if kind == "few":
        shares = np.zeros((n_classes, n_classes))
        rng = np.random.RandomState(seed)
        for own, row in enumerate(shares):
            others = rng.permutation(np.delete(np.arange(n_classes), own))[:3]
            row[others] = rate * rng.dirichlet(np.ones(len(others)))
            row[own] = 1 - rate
        return shares
    if kind == "asym":
        return np.array([[1 - rate, rate], [rate / 3, 1 - rate / 3]])
    raise ValueError(f"unknown noise {noise!r}")


def observe(data: Data, noise: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the observed labels of the training rows and the true transition matrix."""
    n_classes = int(data.y.max()) + 1
    if data.y_observed is None:
        true = transition(noise, n_classes, seed)
        return corrupt_labels(data.y, true, exact=True, random_state=seed), true
    true = np.zeros((n_classes, n_classes))
    np.add.at(true, (data.y, data.y_observed), 1.0)
    return data.y_observed, true / true.sum(axis=1, keepdims=True)


def finished(path: Path) -> list[dict[str, str]]:
    """Return the rows that are in a file of results."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, fields: list[str], row: dict[str, Any]) -> None:
    """Add a row to a file of results, with the header if it is the first."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields)
        if new:
            writer.writeheader()
        writer.writerow(row)
