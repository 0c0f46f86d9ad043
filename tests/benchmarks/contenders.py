"""Contenders that the classifier is timed against, around the same network and the same data.

Every contender is a function ``fit(problem, n_epochs)`` that trains from scratch. The loop is the
yardstick: the shortest code with torch that does nothing but train.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn

from sknoisy import NoisyLabelClassifier
from sknoisy.noise import corrupt_labels, uniform_transition


class Problem(NamedTuple):
    """Data with 30 % uniform label noise, new rows with true labels, and the network."""

    X: np.ndarray
    y: np.ndarray
    X_new: np.ndarray
    y_new: np.ndarray
    hidden_layer_sizes: tuple[int, ...]
    batch_size: int
    n_epochs: int

    @property
    def n_classes(self) -> int:
        return len(np.unique(self.y))


def make_problem(
    n_samples: int,
    n_features: int,
    hidden_layer_sizes: tuple[int, ...],
    batch_size: int,
    *,
    n_classes: int = 10,
    n_epochs: int = 5,
    seed: int = 0,
) -> Problem:
    """Draw separable classes, a Gaussian each, and corrupt their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n_samples + 2000)
    centre = rng.normal(size=(n_classes, n_features)) * 4.0 / np.sqrt(n_features) ** 0.5
    X = (centre[y] + rng.normal(size=(len(y), n_features))).astype(np.float32)
    X, X_new, y, y_new = X[:n_samples], X[n_samples:], y[:n_samples], y[n_samples:]
    observed = corrupt_labels(y, uniform_transition(n_classes, 0.3), random_state=seed)
    return Problem(X, observed, X_new, y_new, hidden_layer_sizes, batch_size, n_epochs)


#: The settings by name. Many small steps; a network that is all matrix products; few rows.
PROBLEMS: dict[str, dict[str, Any]] = {
    "100k x 20, 64": {
        "n_samples": 100_000,
        "n_features": 20,
        "hidden_layer_sizes": (64,),
        "batch_size": 256,
        "n_epochs": 4,
    },
    "20k x 784, 500-300": {
        "n_samples": 20_000,
        "n_features": 784,
        "hidden_layer_sizes": (500, 300),
        "batch_size": 256,
        "n_epochs": 4,
    },
    "2k x 64, 100": {
        "n_samples": 2_000,
        "n_features": 64,
        "hidden_layer_sizes": (100,),
        "batch_size": 64,
        "n_epochs": 40,
    },
}


class HiddenLayers(nn.Sequential):
    """Those of the network as a module of the user's, which goes through autograd."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers)


def make_network(problem: Problem) -> nn.Sequential:
    """Return the network that all torch contenders train."""
    sizes = (problem.X.shape[1], *problem.hidden_layer_sizes)
    return nn.Sequential(*HiddenLayers(sizes), nn.Linear(sizes[-1], problem.n_classes))


def fit_loop(problem: Problem, n_epochs: float, device: str = "cpu") -> nn.Module:
    """Train with the hand-written loop: shuffled index batches, fused Adam.

    A fraction of an epoch goes over that share of the rows.
    """
    X = torch.from_numpy(problem.X).to(device)
    y = torch.from_numpy(problem.y).to(device)
    network = make_network(problem).to(device)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    n_rows = round(n_epochs * len(X))
    while n_rows > 0:
        order = torch.randperm(len(X))[:n_rows].to(device)
        n_rows -= len(order)
        for index in order.split(problem.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(X[index]), y[index]).backward()
            optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()
    return network


def make_skorch(problem: Problem, n_epochs: float) -> NeuralNetClassifier:
    """Return skorch's classifier as it comes, only silent and without its split."""
    return NeuralNetClassifier(
        make_network(problem),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=problem.batch_size,
        max_epochs=round(n_epochs),
        train_split=None,
        verbose=0,
    )


def fit_skorch(problem: Problem, n_epochs: float) -> NeuralNetClassifier:
    """Train with plain skorch."""
    return make_skorch(problem, n_epochs).fit(problem.X, problem.y)


def fit_sklearn(problem: Problem, n_epochs: float) -> MLPClassifier:
    """Train scikit-learn's network with as many epochs."""
    mlp = MLPClassifier(
        problem.hidden_layer_sizes,
        batch_size=problem.batch_size,
        max_iter=round(n_epochs),
        n_iter_no_change=10_000,
        alpha=0.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mlp.fit(problem.X, problem.y)


def make_classifier(problem: Problem, **params: Any) -> NoisyLabelClassifier:
    """Return our classifier for the problem, without early stopping."""
    defaults = {
        "hidden_layer_sizes": problem.hidden_layer_sizes,
        "batch_size": problem.batch_size,
        "max_epochs": problem.n_epochs,
        "early_stopping": False,
        "random_state": 0,
    }
    return NoisyLabelClassifier(**(defaults | params))


def fit_cleanlab(problem: Problem, around: str = "sknoisy") -> Any:
    """Find label issues by five-fold cross-fitting and train on the rest, with cleanlab.

    The network is trained by ours without a noise model, or by plain skorch.
    """
    from cleanlab.classification import CleanLearning

    if around == "skorch":
        classifier = make_skorch(problem, problem.n_epochs)
    else:
        classifier = make_classifier(problem, noise_model=None)
    return CleanLearning(classifier, seed=0).fit(problem.X, problem.y)


def epochs_of(classifier: NoisyLabelClassifier, problem: Problem) -> float:
    """Return how often a fit has gone over the training rows; a half counts as a half.

    Only the baselines that are trained on one half of the rows and validated on the other
    have a validation loss when nothing is held out.
    """
    halves = sum("valid_loss" in epoch for epoch in classifier.history_)
    return classifier.n_iter_ - 0.5 * halves
