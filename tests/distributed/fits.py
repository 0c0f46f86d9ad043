"""Fits that the processes of the tests run, each with its part of the rows or with all of them."""

import functools
import warnings

import numpy as np
import torch
from scipy import sparse
from sklearn.datasets import load_digits, make_classification
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sknoisy import IndexableDataset, NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, pair_transition

N = 240
TRANSITION = pair_transition(3, 0.3)


@functools.cache
def rows():
    """Return X in float64, true labels, noisy ones, and weights."""
    X, y = make_classification(
        N, 6, n_informative=5, n_redundant=0, n_classes=3, n_clusters_per_class=1, class_sep=2.0,
        random_state=0,
    )  # fmt: skip
    weight = np.random.RandomState(0).uniform(0.2, 2.0, N)
    return X, y, corrupt_labels(y, TRANSITION, random_state=0), weight


class Normalised(nn.Module):
    """A layer with batch normalisation, of one or two dimensions."""

    def __init__(self, units=8):
        super().__init__()
        self.linear = nn.Linear(6, units)
        self.norm = nn.BatchNorm1d(units)
        self.maps = nn.BatchNorm2d(2, affine=False)

    def forward(self, X):
        maps = self.maps(self.norm(self.linear(X)).unflatten(1, (2, 2, -1)))
        return maps.flatten(1).relu()


class Items(Dataset):
    """Items that are fetched one by one."""

    def __init__(self, at):
        X, _, noisy, _ = rows()
        self.X, self.noisy = X[at], noisy[at]

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i]), int(self.noisy[i])


def arguments_of(kind, at):
    """Return what fit is called with, for the rows at a slice."""
    X, y, noisy, weight = rows()
    X, y, noisy, weight = X[at], y[at], noisy[at], weight[at]
    if kind == "weights":
        return (X, noisy, weight), {}
    if kind == "zero weights":
        return (X, noisy, weight * (np.arange(N) % 5 > 0)[at]), {}
    if kind == "trusted":
        trusted = (np.arange(N) % 4 == 0)[at]
        before = np.where(trusted & (np.arange(N) % 8 == 0)[at], noisy, -1)
        return (X, np.where(trusted, y, noisy)), {"trusted": trusted, "noisy_label": before}
    if kind == "answers":
        answers = [corrupt_labels(rows()[1], TRANSITION, random_state=seed) for seed in range(3)]
        answers = np.stack(answers, axis=1)
        answers[np.arange(N) % 3 == 0, 1] = -1
        return (X, answers[at]), {}
    if kind == "data set":
        return (Items(at),), {}
    if kind == "arrays":
        return (IndexableDataset(torch.from_numpy(X)), noisy), {}
    if kind == "few rows of each":
        X, y = load_digits(return_X_y=True)
        X, y = X[:N] / 16, y[:N]
        noisy = corrupt_labels(y, pair_transition(10, 0.3), random_state=0)
        return (X[at], noisy[at]), {}
    if kind == "strings":
        return (X, np.array(["a", "b", "c"])[noisy]), {}
    if kind == "sparse":
        words = sparse.random(N, 1200, 0.02, random_state=0)
        words = sparse.hstack([sparse.csr_array(np.eye(3)[rows()[1]]), words], format="csr")
        return (words[at], noisy), {}
    assert kind == "plain"
    return (X, noisy), {}


def said(classifier, X, **more):
    """Return what a fitted classifier has learned."""
    weights = classifier.net_.network.state_dict()
    return {
        "weights": b"".join(value.cpu().numpy().tobytes() for value in weights.values()),
        "proba": classifier.predict_proba(X),
        "noisy": classifier.predict_noisy_proba(X),
        "matrix": classifier.transition_matrix_,
        "prior": classifier.class_prior_,
        "selection": [candidate["start"] for candidate in classifier.selection_],
        "quality": getattr(classifier, "annotator_quality_", np.zeros(1)),
        "history": list(classifier.history_),
        "n_iter": classifier.n_iter_,
        "classes": classifier.classes_.tolist(),
        **more,
    }


def part_of(rank, bounds):
    return slice(None) if bounds is None else slice(bounds[rank], bounds[rank + 1])


def fit(rank, params, kind="plain", batch_size=16, bounds=None):
    """Fit a classifier, to rows of its own where bounds between the processes are given."""
    args, kwargs = arguments_of(kind, part_of(rank, bounds))
    given = {"hidden_layer_sizes": (6,), "max_epochs": 2, "random_state": 0} | params
    if given.get("module") is not None:
        del given["hidden_layer_sizes"]
    distributed = "auto" if bounds is None else "sharded"
    classifier = NoisyLabelClassifier(batch_size=batch_size, distributed=distributed, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(*args, **kwargs)
    (X, *_), _ = arguments_of(kind, slice(None))
    return said(classifier, X)


def learn_stream(rank, params, kind="plain", batch_size=16, bounds=None, n_chunks=3):
    """Learn from a stream of three chunks."""
    distributed = "auto" if bounds is None else "sharded"
    params = {"hidden_layer_sizes": (6,), "random_state": 0} | params
    classifier = NoisyLabelClassifier(batch_size=batch_size, distributed=distributed, **params)
    classes = ["a", "b", "c"] if kind == "strings" else range(3)
    size = N // n_chunks
    for start in range(0, N, size):
        chunk = range(start, start + size)
        if bounds is not None:
            share = np.array(bounds) * size // N
            chunk = chunk[share[rank] : share[rank + 1]]
        args, kwargs = arguments_of(kind, slice(chunk.start, chunk.stop))
        classifier.partial_fit(*args, classes=classes, **kwargs)
    (X, *_), _ = arguments_of(kind, slice(None))
    return said(classifier, X)


LOADER = {"iterator_train": DataLoader, "iterator_valid": DataLoader}
